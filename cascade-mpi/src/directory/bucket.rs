//! The bytes of a bucket. Table in docs/format.md. Always parsed from a private copy: others write while we read.

use cascade_core::digest::crc64;
use cascade_core::id::BlockId;
use cascade_core::tier::{BlockMeta, Class};

use crate::route::BucketAt;

/// Bytes of a bucket.
pub const BUCKET_BYTES: usize = 512;
/// Blocks that a bucket tells of; more than these are misses.
pub const ENTRIES: usize = 4;
/// Owners that an entry names.
pub const OWNERS: usize = 3;

const HEAD_BYTES: usize = 32;
const ENTRY_BYTES: usize = 120;
pub(crate) const ID_BYTES: usize = 32;
pub(crate) const OWNER_BYTES: usize = 24;
const MAGIC: u32 = u32::from_le_bytes(*b"CDIR");
const VERSION: u16 = 1;
/// Unit of offsets, in bytes.
const OFFSET_UNIT: u64 = 4096;
const LOW_40: u64 = (1 << 40) - 1;
const LOW_24: u64 = (1 << 24) - 1;

/// One place where a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    /// Rank whose window it is in, less than 2^24.
    pub rank: u32,
    /// Number of its slot in that rank's index.
    pub slot: u32,
    /// How many blocks that slot has held, 40 bits: another block there has another.
    pub generation: u64,
    /// Lower half of the incarnation of that rank's arena.
    pub incarnation: u32,
    /// Where the payload begins, in bytes from the start of the window: a multiple of 4 KiB, less than 2^52.
    pub offset: u64,
}

/// What is known of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its id.
    pub id: BlockId,
    /// Length, digest, class and tenant; the length is less than 2^40.
    pub meta: BlockMeta,
    /// Where it is: one to [`OWNERS`].
    pub owners: Vec<Owner>,
}

/// A bucket, whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    /// Counts the changes of this bucket.
    pub changes: u64,
    /// What it tells of: at most [`ENTRIES`].
    pub entries: Vec<Entry>,
}

/// Why bytes are no bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// The digest is wrong: read while it was written, or damaged. Worth reading again.
    Torn,
    /// A bucket, but another one.
    Misdirected,
    /// No bucket of this version.
    Foreign,
    /// Its digest is right, and what it says cannot be.
    Impossible,
}

impl Bucket {
    /// Reads a private copy of the bucket at `at`.
    ///
    /// # Errors
    /// What is wrong with it. Memory that was never written is an empty bucket.
    pub fn parse(bytes: &[u8; BUCKET_BYTES], at: BucketAt) -> Result<Self, Damage> {
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(Self::default());
        }
        let sum = number(bytes, 0);
        if crc64(&bytes[8..]) != sum {
            return Err(Damage::Torn);
        }
        let kind = number(bytes, 24);
        if kind as u32 != MAGIC || (kind >> 32) as u16 != VERSION {
            return Err(Damage::Foreign);
        }
        if number(bytes, 8) != place_word(at) {
            return Err(Damage::Misdirected);
        }
        let count = (kind >> 48) as usize;
        if count > ENTRIES {
            return Err(Damage::Impossible);
        }
        let entries = bytes[HEAD_BYTES..].chunks_exact(ENTRY_BYTES).take(count);
        let entries = entries.map(parse_entry).collect::<Option<Vec<_>>>().ok_or(Damage::Impossible)?;
        Ok(Self { changes: number(bytes, 16), entries })
    }

    /// The bytes of this bucket at `at`. What is beyond [`ENTRIES`] or [`OWNERS`] is left out.
    #[must_use]
    pub fn encode(&self, at: BucketAt) -> [u8; BUCKET_BYTES] {
        let mut bytes = [0; BUCKET_BYTES];
        let count = self.entries.len().min(ENTRIES);
        set(&mut bytes, 8, place_word(at));
        set(&mut bytes, 16, self.changes);
        set(&mut bytes, 24, u64::from(MAGIC) | u64::from(VERSION) << 32 | (count as u64) << 48);
        for (entry, place) in self.entries.iter().zip(bytes[HEAD_BYTES..].chunks_exact_mut(ENTRY_BYTES)) {
            encode_entry(entry, place);
        }
        let sum = crc64(&bytes[8..]);
        set(&mut bytes, 0, sum);
        bytes
    }

    /// What is known of `id`.
    #[must_use]
    pub fn find(&self, id: &BlockId) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.id == *id)
    }
}

fn place_word(at: BucketAt) -> u64 {
    at.bucket & LOW_40 | u64::from(at.rank) << 40
}

fn parse_entry(bytes: &[u8]) -> Option<Entry> {
    let id = BlockId::from_bytes(bytes.get(..ID_BYTES)?.try_into().ok()?);
    let (meta, count) = get_what(bytes.get(ID_BYTES..ID_BYTES + 16)?)?;
    if !(1..=OWNERS).contains(&count) {
        return None;
    }
    let owners = bytes.get(ID_BYTES + 16..)?.chunks_exact(OWNER_BYTES).take(count).map(get_owner);
    Some(Entry { id, meta, owners: owners.collect::<Option<_>>()? })
}

fn encode_entry(entry: &Entry, bytes: &mut [u8]) {
    let count = entry.owners.len().min(OWNERS);
    bytes[..ID_BYTES].copy_from_slice(entry.id.as_bytes());
    put_what(&entry.meta, count, &mut bytes[ID_BYTES..ID_BYTES + 16]);
    for (owner, place) in entry.owners.iter().zip(bytes[ID_BYTES + 16..].chunks_exact_mut(OWNER_BYTES)) {
        put_owner(owner, place);
    }
}

/// Length, class, tenant and digest in 16 bytes, with a count of at most 15 beside them.
pub(crate) fn put_what(meta: &BlockMeta, count: usize, bytes: &mut [u8]) {
    let class = u64::from(meta.class.to_bits() & 15) << 44;
    set(bytes, 0, meta.len & LOW_40 | (count as u64 & 15) << 40 | class | u64::from(meta.tenant) << 48);
    set(bytes, 8, meta.digest);
}

/// What [`put_what`] wrote; `None` for a block without a byte.
pub(crate) fn get_what(bytes: &[u8]) -> Option<(BlockMeta, usize)> {
    let word = number(bytes, 0);
    let class = Class::from_bits((word >> 44 & 15) as u8);
    let meta = BlockMeta { len: word & LOW_40, digest: number(bytes, 8), class, tenant: (word >> 48) as u16 };
    (meta.len > 0).then_some((meta, (word >> 40 & 15) as usize))
}

pub(crate) fn put_owner(owner: &Owner, bytes: &mut [u8]) {
    set(bytes, 0, owner.generation & LOW_40 | u64::from(owner.rank) << 40);
    set(bytes, 8, u64::from(owner.slot) | u64::from(owner.incarnation) << 32);
    set(bytes, 16, owner.offset / OFFSET_UNIT & LOW_40);
}

/// What [`put_owner`] wrote; `None` when a bit is set that has no meaning.
pub(crate) fn get_owner(bytes: &[u8]) -> Option<Owner> {
    let (first, second, units) = (number(bytes, 0), number(bytes, 8), number(bytes, 16));
    (units <= LOW_40).then(|| Owner {
        rank: (first >> 40 & LOW_24) as u32,
        slot: second as u32,
        generation: first & LOW_40,
        incarnation: (second >> 32) as u32,
        offset: units * OFFSET_UNIT,
    })
}

fn number(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    if let Some(found) = bytes.get(at..at + 8) {
        word.copy_from_slice(found);
    }
    u64::from_le_bytes(word)
}

fn set(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}
