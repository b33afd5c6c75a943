//! The superblock: what the first 4 KiB of an arena say, and which versions of it are read. Table in docs/format.md.

use cascade_core::digest;
use cascade_core::{Error, ErrorKind, Result};

use super::{Geometry, SUPERBLOCK_BYTES};

/// First bytes of every arena.
pub const MAGIC: [u8; 8] = *b"CASCARNA";
/// Version of the format that this code writes.
pub const VERSION: u32 = 2;
/// Oldest version whose readers understand what this code writes.
pub const MIN_READER: u32 = 2;
/// Oldest version that this code reads: such an arena is used as it is, next to processes that know only that version.
pub const OLDEST_READABLE: u32 = 1;
/// Slots say of a block's past what `cascade_core::policy::Heat` is, and there may be a table of worth.
pub const HEAT: u64 = 1;
/// The end of the control page holds a note of the store that uses the arena.
pub const NOTE: u64 = 1 << 1;
/// Feature bits that this code understands, required or not, each with its name in messages.
pub const KNOWN_FEATURES: [(u64, &str); 2] = [(HEAT, "heat"), (NOTE, "note")];

const NODE_MOST: usize = 64;
const WRITER_MOST: usize = 32;
/// This program, as superblocks name who made them.
const WRITER: &str = concat!("cascade ", env!("CARGO_PKG_VERSION"));

/// What the first 4 KiB of an arena say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// Version of the format that the arena has: what it may hold follows from this, not from what the reader could do.
    pub version: u32,
    /// Features without whose knowledge a reader would go wrong.
    pub required_features: u64,
    /// Features that a reader may ignore. 0 in version 1.
    pub optional_features: u64,
    /// The numbers it was made with.
    pub geometry: Geometry,
    /// Random; part of every handle and, later, of every directory entry.
    pub incarnation: u64,
    /// Identity of the node that made it, at most 64 bytes.
    pub node: String,
    /// The program that made it, at most 32 bytes. Empty in version 1.
    pub writer: String,
}

impl Superblock {
    /// The superblock of an arena that this code makes.
    #[must_use]
    pub fn new(geometry: Geometry, incarnation: u64, node: String) -> Self {
        Self {
            version: VERSION,
            required_features: 0,
            optional_features: HEAT | NOTE,
            geometry,
            incarnation,
            node,
            writer: WRITER.into(),
        }
    }

    /// The bytes of a superblock of the current version, digest included.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(SUPERBLOCK_BYTES);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&MIN_READER.to_le_bytes());
        let g = &self.geometry;
        let numbers = [g.data_bytes, g.region_bytes, g.buckets, g.owners, g.ledger_entries, self.incarnation];
        for number in std::iter::once(self.required_features).chain(numbers) {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        put_text(&mut bytes, &self.node, NODE_MOST);
        bytes.extend_from_slice(&self.optional_features.to_le_bytes());
        put_text(&mut bytes, &self.writer, WRITER_MOST);
        bytes.resize(SUPERBLOCK_BYTES - 8, 0);
        let sum = digest::crc64(&bytes);
        bytes.extend_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Reads a superblock of any readable version from private memory.
    ///
    /// # Errors
    /// `Format`: not an arena, damaged, or of a version that this code does not read; the message says what was found and
    /// what to do, as what follows "the arena PATH".
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        if bytes.len() != SUPERBLOCK_BYTES || !bytes.starts_with(&MAGIC) {
            return refuse("is not a Cascade arena (its first bytes are others): move that file away".into());
        }
        // Magic, versions, required features and digest stand at these places in every version: a version that is named
        // in a message was written, not flipped.
        if number(bytes, SUPERBLOCK_BYTES - 8) != digest::crc64(&bytes[..SUPERBLOCK_BYTES - 8]) {
            return refuse(
                "is damaged (the digest of its superblock does not match): remove it when no process uses it"
                    .into(),
            );
        }
        let versions = number(bytes, 8);
        let (version, min_reader) = (versions as u32, (versions >> 32) as u32);
        let required_features = number(bytes, 16);
        let is_first = version == 1;
        let writer = if is_first { String::new() } else { text(bytes, 152, WRITER_MOST) };
        let unknown = required_features & !known_features();
        if min_reader > VERSION || version < OLDEST_READABLE || unknown != 0 {
            return refuse(refusal(version, min_reader, required_features, &writer));
        }
        let geometry = Geometry {
            data_bytes: number(bytes, 24),
            region_bytes: number(bytes, 32),
            buckets: number(bytes, 40),
            owners: number(bytes, 48),
            ledger_entries: number(bytes, 56),
        };
        let geometry =
            geometry.check().or_else(|error| refuse(format!("is damaged: {}", error.context())))?;
        Ok(Self {
            version,
            required_features,
            optional_features: if is_first { 0 } else { number(bytes, 144) },
            geometry,
            incarnation: number(bytes, 64),
            node: text(bytes, 72, NODE_MOST),
            writer,
        })
    }
}

fn refuse<T>(what: String) -> Result<T> {
    Err(Error::new(ErrorKind::Format, what))
}

fn refusal(version: u32, min_reader: u32, required_features: u64, writer: &str) -> String {
    let by = if writer.is_empty() { String::new() } else { format!(" made by {writer:?}") };
    format!(
        "has format {version} (features: {}; readable from format {min_reader} on){by}, and this Cascade ({WRITER}) reads \
         formats {OLDEST_READABLE} to {VERSION} (features: {}): use a Cascade that knows it, or remove it when no process \
         uses it (`cascade gc`)",
        feature_names(required_features),
        feature_names(known_features()),
    )
}

fn known_features() -> u64 {
    KNOWN_FEATURES.iter().fold(0, |all, (bit, _)| all | bit)
}

/// The names of feature bits; those without a name by their number.
fn feature_names(bits: u64) -> String {
    let name = |bit: u32| {
        let known = KNOWN_FEATURES.iter().find(|(known, _)| *known == 1 << bit);
        known.map_or_else(|| format!("bit {bit}"), |(_, name)| (*name).to_owned())
    };
    let names: Vec<String> = (0..64).filter(|bit| bits >> bit & 1 == 1).map(name).collect();
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

fn number(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|part| part.try_into().ok()).map_or(0, u64::from_le_bytes)
}

/// A length in eight bytes, and a field of `most` bytes that begins with the text.
fn put_text(bytes: &mut Vec<u8>, text: &str, most: usize) {
    let text = &text.as_bytes()[..text.len().min(most)];
    bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
    bytes.extend_from_slice(text);
    bytes.resize(bytes.len() + most - text.len(), 0);
}

fn text(bytes: &[u8], at: usize, most: usize) -> String {
    let len = usize::try_from(number(bytes, at)).unwrap_or(usize::MAX).min(most);
    String::from_utf8_lossy(bytes.get(at + 8..at + 8 + len).unwrap_or_default()).into_owned()
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    fn superblock() -> Superblock {
        let geometry = Geometry {
            data_bytes: 64 << 20,
            region_bytes: 4 << 20,
            buckets: 128,
            owners: 16,
            ledger_entries: 128,
        };
        Superblock::new(geometry, 0x0123_4567_89ab_cdef, "nid001".into())
    }

    /// The bytes with `change` applied and the digest made right again: what another program would have written.
    fn rewritten(change: impl Fn(&mut [u8])) -> Vec<u8> {
        let mut bytes = superblock().encode();
        change(&mut bytes);
        let sum = digest::crc64(&bytes[..SUPERBLOCK_BYTES - 8]);
        bytes[SUPERBLOCK_BYTES - 8..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    fn versions(version: u32, min_reader: u32) -> impl Fn(&mut [u8]) {
        move |bytes| {
            bytes[8..12].copy_from_slice(&version.to_le_bytes());
            bytes[12..16].copy_from_slice(&min_reader.to_le_bytes());
        }
    }

    #[test]
    fn a_superblock_reads_back() {
        let bytes = superblock().encode();
        assert_eq!(bytes.len(), SUPERBLOCK_BYTES);
        assert_eq!(Superblock::parse(&bytes).unwrap(), superblock());
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        let bytes = superblock().encode();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let error = Superblock::parse(&damaged).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Format, "bit {bit}");
        }
    }

    #[test]
    fn a_version_that_cannot_be_read_is_named_with_what_can() {
        let newer =
            Superblock::parse(&rewritten(versions(VERSION + 1, VERSION + 1))).unwrap_err().to_string();
        assert!(newer.contains("format 3") && newer.contains("formats 1 to 2"), "{newer}");
        assert!(newer.contains(WRITER) && newer.contains("cascade gc"), "{newer}");
        let older = Superblock::parse(&rewritten(versions(0, 0))).unwrap_err().to_string();
        assert!(older.contains("format 0") && older.contains("formats 1 to 2"), "{older}");
    }

    #[test]
    fn a_newer_version_that_says_it_is_readable_is_read() {
        let read = Superblock::parse(&rewritten(versions(VERSION + 7, VERSION))).unwrap();
        assert_eq!((read.version, read.geometry), (VERSION + 7, superblock().geometry));
    }

    #[test]
    fn an_unknown_feature_is_refused_if_required_and_ignored_if_not() {
        let required =
            Superblock::parse(&rewritten(|bytes| bytes[16] = 0b1010_0000)).unwrap_err().to_string();
        assert!(required.contains("features: bit 5, bit 7"), "{required}");
        let optional = Superblock::parse(&rewritten(|bytes| bytes[144] = 0b1000)).unwrap();
        assert_eq!(optional.optional_features, 8);
    }

    #[test]
    fn lengths_and_texts_that_cannot_be_are_bounded() {
        let parsed = Superblock::parse(&rewritten(|bytes| bytes[72..88].fill(0xff))).unwrap();
        assert!(parsed.node.chars().count() <= NODE_MOST);
        for at in [24, 32, 40, 48, 56] {
            let error = Superblock::parse(&rewritten(|bytes| bytes[at..at + 8].fill(0xff))).unwrap_err();
            assert!(error.to_string().contains("is impossible"), "{error}");
        }
    }
}
