//! Building and validating a key space.

use std::ops::Range;

use super::{KeySpace, KeySpaceError, MAX_FIELD_BYTES, MIN_SECRET_BYTES, TenantSecret, Weights};

/// Collects the fields of a [`KeySpace`]; nothing is checked before [`build`](Self::build).
#[derive(Clone, Debug)]
#[must_use]
pub struct KeySpaceBuilder {
    pub(super) model: String,
    pub(super) weights: Option<Weights>,
    pub(super) quantisation: String,
    pub(super) dtype: String,
    pub(super) layout: String,
    pub(super) block_tokens: u32,
    pub(super) layers: u32,
    pub(super) layer_range: Option<Range<u32>>,
    pub(super) kv_group: u32,
    pub(super) kv_heads: u32,
    pub(super) head_range: Option<Range<u32>>,
    pub(super) adapter: Option<String>,
    pub(super) tenant_secret: Option<TenantSecret>,
}

impl KeySpaceBuilder {
    pub(super) const fn new(model: String) -> Self {
        Self {
            model,
            weights: None,
            quantisation: String::new(),
            dtype: String::new(),
            layout: String::new(),
            block_tokens: 0,
            layers: 0,
            layer_range: None,
            kv_group: 0,
            kv_heads: 0,
            head_range: None,
            adapter: None,
            tenant_secret: None,
        }
    }

    /// Fixes the weights by a revision that never moves, such as a commit hash. Replaces a fingerprint.
    pub fn revision(mut self, revision: impl Into<String>) -> Self {
        self.weights = Some(Weights::Revision(revision.into()));
        self
    }

    /// Fixes the weights by a digest of them. Replaces a revision.
    pub fn fingerprint(mut self, fingerprint: impl Into<String>) -> Self {
        self.weights = Some(Weights::Fingerprint(fingerprint.into()));
        self
    }

    /// The quantisation of the weights, such as `Q4_1` or `awq-int4`. Not given or empty: none.
    pub fn quantisation(mut self, quantisation: impl Into<String>) -> Self {
        self.quantisation = quantisation.into();
        self
    }

    /// The type of one stored KV number, such as `bfloat16` or `float8_e4m3`.
    pub fn dtype(mut self, dtype: impl Into<String>) -> Self {
        self.dtype = dtype.into();
        self
    }

    /// The order of a block's bytes, such as `hf:L2HTD` (layer, K and V, head, token, dimension).
    pub fn layout(mut self, layout: impl Into<String>) -> Self {
        self.layout = layout.into();
        self
    }

    /// Tokens in a block, at least 1.
    pub const fn block_tokens(mut self, block_tokens: u32) -> Self {
        self.block_tokens = block_tokens;
        self
    }

    /// Layers of the whole model, at least 1.
    pub const fn layers(mut self, layers: u32) -> Self {
        self.layers = layers;
        self
    }

    /// The layers that a block holds, for pipeline parallelism. Not given: all.
    pub fn layer_range(mut self, layer_range: Range<u32>) -> Self {
        self.layer_range = Some(layer_range);
        self
    }

    /// The group of layers that share one block table, in models that have several. Not given: 0.
    pub const fn kv_group(mut self, kv_group: u32) -> Self {
        self.kv_group = kv_group;
        self
    }

    /// KV heads of the whole model, at least 1; models with one latent head (MLA) have 1.
    pub const fn kv_heads(mut self, kv_heads: u32) -> Self {
        self.kv_heads = kv_heads;
        self
    }

    /// The KV heads that a block holds, for tensor parallelism. Not given: all.
    pub fn head_range(mut self, head_range: Range<u32>) -> Self {
        self.head_range = Some(head_range);
        self
    }

    /// The adapter (LoRA) in use: a name with its version or digest. Not given: none.
    pub fn adapter(mut self, adapter: impl Into<String>) -> Self {
        self.adapter = Some(adapter.into());
        self
    }

    /// The tenant's secret, at least [`MIN_SECRET_BYTES`] random bytes. Not given: the
    /// blocks are shared by all who know the other fields.
    pub fn tenant_secret(mut self, secret: impl Into<Vec<u8>>) -> Self {
        self.tenant_secret = Some(TenantSecret(secret.into()));
        self
    }

    /// Checks the fields and makes the key space.
    ///
    /// # Errors
    /// [`KeySpaceError`] for the first field that is missing, too long, out of range or too weak.
    pub fn build(self) -> Result<KeySpace, KeySpaceError> {
        self.check()?;
        let weights = self.weights.ok_or(KeySpaceError::Missing { field: "revision or fingerprint" })?;
        Ok(KeySpace {
            model: self.model,
            weights,
            quantisation: self.quantisation,
            dtype: self.dtype,
            layout: self.layout,
            block_tokens: self.block_tokens,
            layers: self.layers,
            layer_range: within("layer_range", self.layer_range, self.layers)?,
            kv_group: self.kv_group,
            kv_heads: self.kv_heads,
            head_range: within("head_range", self.head_range, self.kv_heads)?,
            adapter: self.adapter,
            tenant_secret: self.tenant_secret,
        })
    }

    fn check(&self) -> Result<(), KeySpaceError> {
        if let Some(Weights::Revision(text) | Weights::Fingerprint(text)) = &self.weights {
            required("revision or fingerprint", text)?;
        }
        required("model", &self.model)?;
        required("dtype", &self.dtype)?;
        required("layout", &self.layout)?;
        short("quantisation", self.quantisation.len())?;
        positive("block_tokens", self.block_tokens)?;
        positive("layers", self.layers)?;
        positive("kv_heads", self.kv_heads)?;
        if let Some(adapter) = &self.adapter {
            required("adapter", adapter)?;
        }
        let Some(TenantSecret(secret)) = &self.tenant_secret else { return Ok(()) };
        if secret.len() < MIN_SECRET_BYTES {
            return Err(KeySpaceError::WeakSecret { length_bytes: secret.len() });
        }
        short("tenant_secret", secret.len())
    }
}

const fn required(field: &'static str, text: &str) -> Result<(), KeySpaceError> {
    if text.is_empty() { Err(KeySpaceError::Missing { field }) } else { short(field, text.len()) }
}

const fn short(field: &'static str, length_bytes: usize) -> Result<(), KeySpaceError> {
    if length_bytes > MAX_FIELD_BYTES {
        return Err(KeySpaceError::TooLong { field, length_bytes });
    }
    Ok(())
}

const fn positive(field: &'static str, number: u32) -> Result<(), KeySpaceError> {
    if number == 0 { Err(KeySpaceError::Missing { field }) } else { Ok(()) }
}

fn within(field: &'static str, range: Option<Range<u32>>, limit: u32) -> Result<Range<u32>, KeySpaceError> {
    let range = range.unwrap_or(0..limit);
    if range.is_empty() || range.end > limit {
        return Err(KeySpaceError::OutOfRange { field, range, limit });
    }
    Ok(range)
}
