//! Prefix chains: the ids of a prompt's blocks, known from its tokens alone, before any prefill.
//!
//! `id(i) = BLAKE3_keyed(root, 0xE3 || id(i-1) || count || tokens of block i || length || extra of block i)`
//! with its last byte replaced by the domain byte `0xE3`. So an id covers everything before it: two prompts
//! share exactly the ids of their common prefix, and only whole blocks have one. The block before the first
//! is 32 zero bytes, which no chain id can be, because its last byte is zero. The root needs no second
//! place in the message, since it is the key.

use std::error::Error;
use std::fmt;

use crate::id::{BlockId, DOMAIN_CHAIN};

/// What stands for the id before the first block.
const BEFORE_THE_FIRST: [u8; 32] = [0; 32];

/// The key under which one key space makes its ids, from [`KeySpace::root`](crate::keyspace::KeySpace::root).
///
/// It is derived from the tenant's secret and is as secret: whoever holds it can name that tenant's
/// blocks. Its debug output is a fingerprint that only tells two roots apart.
#[derive(Clone, PartialEq, Eq)]
pub struct ChainRoot {
    key: [u8; 32],
    block_tokens: u32,
}

impl ChainRoot {
    /// `block_tokens` is positive: key spaces with 0 are refused when they are built.
    pub(crate) const fn new(key: [u8; 32], block_tokens: u32) -> Self {
        Self { key, block_tokens }
    }

    /// The key itself. Treat it like the tenant's secret.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.key
    }

    /// Tokens in one block.
    #[must_use]
    pub const fn block_tokens(&self) -> u32 {
        self.block_tokens
    }

    /// 16 hexadecimal digits that tell roots apart in logs and do not give the key away.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let digest = blake3::keyed_hash(&self.key, b"fingerprint");
        digest.as_bytes()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The ids of the whole blocks of `tokens`; a last, partial block has none.
    #[must_use]
    pub fn chain(&self, tokens: &[u32]) -> Vec<BlockId> {
        let mut chain = PrefixChain::new(self.clone());
        chain.extend(tokens);
        chain.ids
    }

    /// The same with extra bytes for each block, such as multimodal hashes and cache salts. Empty is none.
    ///
    /// # Errors
    /// When there is not exactly one extra for each block. One more is allowed for a partial last block,
    /// which has no id yet.
    pub fn chain_with(&self, tokens: &[u32], extras: &[&[u8]]) -> Result<Vec<BlockId>, ExtraCountError> {
        let size = self.block_tokens as usize;
        let (whole, all) = (tokens.len() / size, tokens.len().div_ceil(size));
        if extras.len() != whole && extras.len() != all {
            return Err(ExtraCountError { extras: extras.len(), blocks: whole });
        }
        let mut chain = PrefixChain::new(self.clone());
        for (block, extra) in tokens.chunks_exact(size).zip(extras) {
            chain.set_extra(extra);
            chain.extend(block);
        }
        Ok(chain.ids)
    }
}

impl fmt::Debug for ChainRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChainRoot")
            .field("fingerprint", &self.fingerprint())
            .field("block_tokens", &self.block_tokens)
            .finish()
    }
}

/// The number of extras does not match the number of whole blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtraCountError {
    extras: usize,
    blocks: usize,
}

impl fmt::Display for ExtraCountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { extras, blocks } = self;
        write!(
            f,
            "{extras} extras for {blocks} whole blocks; give one for each block, empty where there is none"
        )
    }
}

impl Error for ExtraCountError {}

impl From<ExtraCountError> for crate::Error {
    fn from(error: ExtraCountError) -> Self {
        Self::new(crate::ErrorKind::InvalidArgument, error.to_string())
    }
}

/// A chain that grows token by token, as a decode does.
///
/// ```
/// use cascade_core::chain::PrefixChain;
/// use cascade_core::keyspace::KeySpace;
/// let space = KeySpace::builder("smollm2").fingerprint("9f86d081").dtype("float32").layout("hf:L2HTD");
/// let root = space.block_tokens(2).layers(30).kv_heads(3).build()?.root();
/// let mut chain = PrefixChain::new(root.clone());
/// assert_eq!(chain.push(7), None);
/// assert_eq!(chain.push(8), Some(root.chain(&[7, 8])[0]));
/// # Ok::<(), cascade_core::keyspace::KeySpaceError>(())
/// ```
#[derive(Clone, Debug)]
pub struct PrefixChain {
    root: ChainRoot,
    ids: Vec<BlockId>,
    /// Tokens of the block that is not whole yet: always fewer than `block_tokens`.
    pending: Vec<u32>,
    extra: Vec<u8>,
    /// Reused, so that a long chain allocates nothing for each block.
    message: Vec<u8>,
}

impl PrefixChain {
    /// An empty chain under `root`.
    #[must_use]
    pub const fn new(root: ChainRoot) -> Self {
        Self { root, ids: Vec::new(), pending: Vec::new(), extra: Vec::new(), message: Vec::new() }
    }

    /// Adds a token. Gives the id of its block when the token completes it.
    pub fn push(&mut self, token: u32) -> Option<BlockId> {
        self.pending.push(token);
        if self.pending.len() < self.root.block_tokens as usize {
            return None;
        }
        let tokens = std::mem::take(&mut self.pending);
        let id = self.seal(&tokens);
        self.pending = tokens;
        self.pending.clear();
        Some(id)
    }

    /// Adds many tokens and gives the ids of the blocks that they completed.
    pub fn extend(&mut self, tokens: &[u32]) -> &[BlockId] {
        let before = self.ids.len();
        let size = self.root.block_tokens as usize;
        let to_the_edge = (size - self.pending.len()) % size;
        let (head, rest) = tokens.split_at(to_the_edge.min(tokens.len()));
        for token in head {
            self.push(*token);
        }
        let blocks = rest.chunks_exact(size);
        let tail = blocks.remainder();
        self.ids.reserve(blocks.len());
        for block in blocks {
            self.seal(block);
        }
        self.pending.extend_from_slice(tail);
        &self.ids[before..]
    }

    /// Sets the extra bytes of the block that the next token belongs to. Blocks after it have none again.
    pub fn set_extra(&mut self, extra: &[u8]) {
        self.extra.clear();
        self.extra.extend_from_slice(extra);
    }

    /// The ids of the whole blocks so far.
    #[must_use]
    pub fn ids(&self) -> &[BlockId] {
        &self.ids
    }

    /// The tokens of the block that is not whole yet.
    #[must_use]
    pub fn pending(&self) -> &[u32] {
        &self.pending
    }

    /// Gives `tokens`, one whole block, its id and uses up the extra.
    fn seal(&mut self, tokens: &[u32]) -> BlockId {
        let parent = self.ids.last().map_or(&BEFORE_THE_FIRST, BlockId::as_bytes);
        self.message.clear();
        self.message.push(DOMAIN_CHAIN);
        self.message.extend_from_slice(parent);
        self.message.extend_from_slice(&self.root.block_tokens.to_le_bytes());
        self.message.extend(tokens.iter().flat_map(|token| token.to_le_bytes()));
        self.message.extend_from_slice(&(self.extra.len() as u64).to_le_bytes());
        self.message.extend_from_slice(&self.extra);
        self.extra.clear();
        let digest = blake3::keyed_hash(&self.root.key, &self.message);
        let id = BlockId::tagged(DOMAIN_CHAIN, *digest.as_bytes());
        self.ids.push(id);
        id
    }
}

#[cfg(test)]
mod tests;
