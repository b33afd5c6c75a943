//! The canonical bytes of a key space, version 1. `docs/identity.md` has the table.
//!
//! Every text is preceded by its length and every optional field by a byte that says whether it is there,
//! so the bytes can be read back in one way only and two key spaces never encode alike.

use super::{KeySpace, TenantSecret, Weights};

/// Changes whenever a field is added or its form changes, which makes all older ids unknown.
const VERSION: u8 = 1;

impl KeySpace {
    /// The canonical encoding. It holds the tenant's secret, so it never leaves this crate.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        text(&mut out, &self.model);
        let (tag, weights) = match &self.weights {
            Weights::Revision(revision) => (0, revision),
            Weights::Fingerprint(fingerprint) => (1, fingerprint),
        };
        out.push(tag);
        text(&mut out, weights);
        text(&mut out, &self.quantisation);
        text(&mut out, &self.dtype);
        text(&mut out, &self.layout);
        let numbers = [
            self.block_tokens,
            self.layers,
            self.layer_range.start,
            self.layer_range.end,
            self.kv_group,
            self.kv_heads,
            self.head_range.start,
            self.head_range.end,
        ];
        out.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
        optional(&mut out, self.adapter.as_deref().map(str::as_bytes));
        optional(&mut out, self.tenant_secret.as_ref().map(|TenantSecret(secret)| secret.as_slice()));
        out
    }
}

fn text(out: &mut Vec<u8>, text: &str) {
    bytes(out, text.as_bytes());
}

fn bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    // Validation keeps every field within MAX_FIELD_BYTES, far below 2^64.
    out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    out.extend_from_slice(bytes);
}

fn optional(out: &mut Vec<u8>, value: Option<&[u8]>) {
    out.push(u8::from(value.is_some()));
    if let Some(value) = value {
        bytes(out, value);
    }
}
