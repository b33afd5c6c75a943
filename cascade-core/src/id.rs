//! Block ids: 32 bytes that name one KV block everywhere, in memory, over the network and on disk.
//!
//! There are three ways to derive one (a name, the content, a place in a prefix chain) and a fourth that
//! takes over an engine's own hash. A **domain byte** keeps them apart. It goes in front of what is hashed,
//! and it also replaces the last byte of the result, so that any tier and any process can tell from the id
//! alone how a second put under it has to behave ([`IdKind::replaceable`]). 248 bits of hash remain: a
//! collision takes about 2^124 blocks. The byte tables are in `docs/identity.md`.

use std::error::Error;
use std::fmt;
use std::str::FromStr;

use crate::chain::ChainRoot;

/// How an id was derived, read from its last byte.
///
/// The domain bytes are far from the small numbers that tests and counters use as raw ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IdKind {
    /// From any string, [`BlockId::named`].
    Name,
    /// From the bytes of the block, [`BlockId::content`].
    Content,
    /// A place in a prefix chain, [`ChainRoot::chain`].
    Chain,
    /// An engine's own hash inside a key space, [`BlockId::foreign`].
    Foreign,
    /// Bytes that none of the derivations above made.
    Raw,
}

impl IdKind {
    /// Whether a put of different bytes under such an id replaces what is stored.
    ///
    /// Only a name may mean other bytes tomorrow. All the other ids are fixed by what they stand for, so
    /// there the first put wins and a second one finds the block in place.
    #[must_use]
    pub const fn replaceable(self) -> bool {
        matches!(self, Self::Name)
    }
}

pub(crate) const DOMAIN_NAME: u8 = 0xE1;
pub(crate) const DOMAIN_CONTENT: u8 = 0xE2;
pub(crate) const DOMAIN_CHAIN: u8 = 0xE3;
pub(crate) const DOMAIN_FOREIGN: u8 = 0xE4;

/// The name of one KV block: 32 bytes.
///
/// ```
/// use cascade_core::id::{BlockId, IdKind};
/// let id = BlockId::named("system prompt, block 0");
/// assert_eq!(id.kind(), IdKind::Name);
/// assert_eq!(id.to_hex().parse::<BlockId>()?, id);
/// # Ok::<(), cascade_core::id::ParseBlockIdError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockId([u8; 32]);

impl BlockId {
    /// The id with exactly these bytes, such as [`as_bytes`](Self::as_bytes) gave them elsewhere.
    ///
    /// Nothing is hashed and nothing is checked; the kind is whatever the last byte says. For a hash that
    /// an engine made, use [`foreign`](Self::foreign), which keeps models and tenants apart.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// 64 lower-case hexadecimal digits.
    #[must_use]
    pub fn to_hex(&self) -> String {
        self.to_string()
    }

    /// The four 64-bit words of the id, little-endian, the form in which a slot stores it.
    ///
    /// The first three are uniform over all ids; the top byte of the last holds the domain, so hash tables
    /// and routing take their bits from the first three.
    #[must_use]
    pub fn words(&self) -> [u64; 4] {
        let mut words = [0; 4];
        for (word, bytes) in words.iter_mut().zip(self.0.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        words
    }

    /// The id whose [`words`](Self::words) these are.
    #[must_use]
    pub fn from_words(words: [u64; 4]) -> Self {
        let mut bytes = [0; 32];
        for (place, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(words) {
            *place = word.to_le_bytes();
        }
        Self(bytes)
    }

    /// The id of a name: any string, the empty one too. The bytes count as they are, without Unicode
    /// normalisation.
    ///
    /// Names are global: they hold no key space and no tenant, so whoever knows a name can name its block.
    /// For a name that belongs to one tenant, give its bytes to [`foreign`](Self::foreign).
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self::hashed(DOMAIN_NAME, name.as_bytes())
    }

    /// The id of a block by its bytes. Equal bytes have the same id whoever stores them, in every tenant.
    #[must_use]
    pub fn content(bytes: &[u8]) -> Self {
        Self::hashed(DOMAIN_CONTENT, bytes)
    }

    /// The id of a block that an engine names by a hash of its own, inside the key space of `root`.
    ///
    /// An engine hashes what it must tell apart within one process: tokens, salts, adapters. Its hash is
    /// taken as it is, which saves hashing the tokens again; but two engines with another dtype, layout,
    /// head range or tenant can hold the same hash for bytes that differ. So the id is the hash **keyed by
    /// the root**: the same hash in two key spaces gives two unrelated ids, and without the tenant's
    /// secret nobody can compute one. The raw hash is never stored.
    ///
    /// `hash` may have any length; one that is not unique among the engine's blocks names several blocks.
    #[must_use]
    pub fn foreign(root: &ChainRoot, hash: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new_keyed(root.as_bytes());
        hasher.update(&[DOMAIN_FOREIGN]).update(hash);
        Self::tagged(DOMAIN_FOREIGN, *hasher.finalize().as_bytes())
    }

    /// How this id was derived.
    #[must_use]
    pub const fn kind(&self) -> IdKind {
        match self.0[31] {
            DOMAIN_NAME => IdKind::Name,
            DOMAIN_CONTENT => IdKind::Content,
            DOMAIN_CHAIN => IdKind::Chain,
            DOMAIN_FOREIGN => IdKind::Foreign,
            _ => IdKind::Raw,
        }
    }

    fn hashed(domain: u8, message: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&[domain]).update(message);
        Self::tagged(domain, *hasher.finalize().as_bytes())
    }

    pub(crate) const fn tagged(domain: u8, mut digest: [u8; 32]) -> Self {
        digest[31] = domain;
        Self(digest)
    }
}

impl fmt::Display for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is not 64 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseBlockIdError {
    length_bytes: usize,
}

impl fmt::Display for ParseBlockIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a block id is 64 hexadecimal digits, this is a text of {} bytes{}; for an id from any string use a name",
            self.length_bytes,
            if self.length_bytes == 64 { " with other characters in it" } else { "" },
        )
    }
}

impl Error for ParseBlockIdError {}

impl From<ParseBlockIdError> for crate::Error {
    fn from(error: ParseBlockIdError) -> Self {
        Self::new(crate::ErrorKind::InvalidArgument, error.to_string())
    }
}

impl FromStr for BlockId {
    type Err = ParseBlockIdError;

    /// Reads 64 hexadecimal digits of either case, nothing before and nothing after.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ParseBlockIdError { length_bytes: text.len() };
        let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return Err(wrong()) };
        let pairs: &[[u8; 2]; 32] = pairs.try_into().map_err(|_| wrong())?;
        let mut bytes = [0; 32];
        for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
            *byte = (digit(*high).ok_or_else(wrong)? << 4) | digit(*low).ok_or_else(wrong)?;
        }
        Ok(Self(bytes))
    }
}

const fn digit(character: u8) -> Option<u8> {
    match character {
        b'0'..=b'9' => Some(character - b'0'),
        b'a'..=b'f' => Some(character - b'a' + 10),
        b'A'..=b'F' => Some(character - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
