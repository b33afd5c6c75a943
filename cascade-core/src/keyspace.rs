//! Key spaces: everything besides the tokens that decides the bytes of a KV block.
//!
//! Two engines may share a block only when all of this agrees. What is left out of the key is served to
//! the wrong reader one day, so nothing here has a default that stands for "unknown". `docs/identity.md`
//! says for each field why it is there.

use std::fmt;
use std::ops::Range;

use crate::chain::ChainRoot;

mod builder;
mod encode;
mod error;

pub use builder::KeySpaceBuilder;
pub use error::KeySpaceError;

/// BLAKE3's key derivation wants a context that no other use of the same bytes has.
const ROOT_CONTEXT: &str = "cascade-kv 2026 key space root";

/// Longest text or secret in a key space, in bytes.
pub const MAX_FIELD_BYTES: usize = 4096;
/// Shortest secret of a tenant, in bytes. A shorter one could be found by trying.
pub const MIN_SECRET_BYTES: usize = 16;

/// What fixes a model's weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Weights {
    /// A revision that never moves, such as a commit hash; not a branch.
    Revision(String),
    /// A digest of the weights themselves.
    Fingerprint(String),
}

/// A tenant's secret: random bytes that go into all of its ids, never into any output.
#[derive(Clone, PartialEq, Eq)]
pub struct TenantSecret(Vec<u8>);

impl fmt::Debug for TenantSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

/// A validated set of what decides the bytes of a block. Made by [`KeySpace::builder`].
///
/// ```
/// use cascade_core::keyspace::KeySpace;
/// let space = KeySpace::builder("smollm2").fingerprint("9f86d081").dtype("float32").layout("hf:L2HTD");
/// let space = space.block_tokens(64).layers(30).kv_heads(3).build()?;
/// assert_eq!(space.root().chain(&[1; 200]).len(), 3);
/// # Ok::<(), cascade_core::keyspace::KeySpaceError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySpace {
    model: String,
    weights: Weights,
    quantisation: String,
    dtype: String,
    layout: String,
    block_tokens: u32,
    layers: u32,
    layer_range: Range<u32>,
    kv_group: u32,
    kv_heads: u32,
    head_range: Range<u32>,
    adapter: Option<String>,
    tenant_secret: Option<TenantSecret>,
}

impl KeySpace {
    /// Starts a key space for `model`. `revision` or `fingerprint`, `dtype`, `layout`, `block_tokens`,
    /// `layers` and `kv_heads` must follow.
    pub fn builder(model: impl Into<String>) -> KeySpaceBuilder {
        KeySpaceBuilder::new(model.into())
    }

    /// The key of all ids in this key space. Equal key spaces have equal roots, in every process and language.
    #[must_use]
    pub fn root(&self) -> ChainRoot {
        ChainRoot::new(blake3::derive_key(ROOT_CONTEXT, &self.encode()), self.block_tokens)
    }

    /// The model's name.
    #[must_use]
    pub fn model(&self) -> &str {
        &self.model
    }

    /// What fixes the weights.
    #[must_use]
    pub const fn weights(&self) -> &Weights {
        &self.weights
    }

    /// The quantisation of the weights; empty when there is none.
    #[must_use]
    pub fn quantisation(&self) -> &str {
        &self.quantisation
    }

    /// The type of one stored KV number.
    #[must_use]
    pub fn dtype(&self) -> &str {
        &self.dtype
    }

    /// The order of a block's bytes.
    #[must_use]
    pub fn layout(&self) -> &str {
        &self.layout
    }

    /// Tokens in a block.
    #[must_use]
    pub const fn block_tokens(&self) -> u32 {
        self.block_tokens
    }

    /// Layers of the whole model.
    #[must_use]
    pub const fn layers(&self) -> u32 {
        self.layers
    }

    /// The layers that a block holds.
    #[must_use]
    pub fn layer_range(&self) -> Range<u32> {
        self.layer_range.clone()
    }

    /// The group of layers that share one block table, in models with several.
    #[must_use]
    pub const fn kv_group(&self) -> u32 {
        self.kv_group
    }

    /// KV heads of the whole model.
    #[must_use]
    pub const fn kv_heads(&self) -> u32 {
        self.kv_heads
    }

    /// The KV heads that a block holds.
    #[must_use]
    pub fn head_range(&self) -> Range<u32> {
        self.head_range.clone()
    }

    /// The adapter (LoRA) that the KV was computed with.
    #[must_use]
    pub fn adapter(&self) -> Option<&str> {
        self.adapter.as_deref()
    }

    /// Whether a tenant's secret is part of the key.
    #[must_use]
    pub const fn has_tenant(&self) -> bool {
        self.tenant_secret.is_some()
    }
}

#[cfg(test)]
mod tests;
