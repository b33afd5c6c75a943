//! Bytes of segment files, index logs and identity files, parsed in safe code. Tables in docs/format.md.
//!
//! Everything is parsed from a private copy, and only what its own digest vouches for is believed. A length or an offset that
//! was read is never used before it was checked against what the file really holds.

mod footer;
mod identity;
mod log;
mod record;
mod segment;
#[cfg(test)]
mod tests;

pub use footer::{
    FOOTER_ENTRY_BYTES, FooterEntry, Trailer, footer_bytes, index_digest, parse_index, write_footer,
};
pub use identity::{Identity, WriterId};
pub use log::{LOG_RECORD_BYTES, LogEvent, LogHeader, LogRecord};
pub use record::{MAX_CHUNKS, PREFIX_BYTES, Record, header_bytes, padded, record_bytes};
pub use segment::SegmentHeader;

use cascade_core::digest;

/// Unit of everything in a segment: headers, payloads and the footer begin at its multiples, as direct I/O wants it.
pub const PAGE_BYTES: usize = 4096;
/// Version of the format that this code writes.
pub const VERSION: u32 = 1;
/// Oldest reader that understands what this code writes.
pub const MIN_READER: u32 = 1;
/// One page, which most structures fill.
pub type Page = [u8; PAGE_BYTES];

/// Why bytes are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// Too few bytes for what should stand here.
    Short,
    /// Other first bytes: something else stands here, or nothing.
    Magic,
    /// Written by a version that this code does not understand.
    Version,
    /// The digest does not match.
    Digest,
    /// A field has a value that cannot be; its name.
    Field(&'static str),
    /// Whole, but of another writer, segment or place: replayed or misdirected.
    Misplaced,
}

/// Place of the page's own digest.
const PAGE_DIGEST_AT: usize = PAGE_BYTES - 8;

pub(crate) fn get<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut field = [0; N];
    if let Some(found) = bytes.get(at..at + N) {
        field.copy_from_slice(found);
    }
    field
}

pub(crate) fn get_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(get(bytes, at))
}

pub(crate) fn get_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(get(bytes, at))
}

pub(crate) fn put(bytes: &mut [u8], at: usize, field: &[u8]) {
    bytes[at..at + field.len()].copy_from_slice(field);
}

pub(crate) fn put_u64(bytes: &mut [u8], at: usize, value: u64) {
    put(bytes, at, &value.to_le_bytes());
}

pub(crate) fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    put(bytes, at, &value.to_le_bytes());
}

/// Magic, version, oldest reader and feature bits: the same first 24 bytes in every page.
fn begin_page(magic: [u8; 8]) -> Page {
    let mut page = [0; PAGE_BYTES];
    put(&mut page, 0, &magic);
    put_u32(&mut page, 8, VERSION);
    put_u32(&mut page, 12, MIN_READER);
    page
}

fn end_page(page: &mut Page) {
    let digest = digest::crc64(&page[..PAGE_DIGEST_AT]);
    put_u64(page, PAGE_DIGEST_AT, digest);
}

/// Checks what [`begin_page`] and [`end_page`] wrote.
fn check_page(bytes: &[u8], magic: [u8; 8]) -> Result<&Page, Damage> {
    let page: &Page = bytes.get(..PAGE_BYTES).and_then(|page| page.try_into().ok()).ok_or(Damage::Short)?;
    if page[..8] != magic {
        return Err(Damage::Magic);
    }
    // Every version keeps the digest of a page where it is: damage is told from another version.
    if digest::crc64(&page[..PAGE_DIGEST_AT]) != get_u64(page, PAGE_DIGEST_AT) {
        return Err(Damage::Digest);
    }
    // Feature bits say what a reader must know; none is defined.
    if get_u32(page, 12) > VERSION || get_u32(page, 8) < MIN_READER || get_u64(page, 16) != 0 {
        return Err(Damage::Version);
    }
    Ok(page)
}

/// What the first page of a file says that this code does not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OtherVersion {
    /// Version that it was written in.
    pub version: u32,
    /// Oldest reader that understands it.
    pub oldest_reader: u32,
    /// Features that a reader must know.
    pub features: u64,
}

impl OtherVersion {
    /// Of the file that begins with `page`; `None` where this code reads it, and where it is damaged or none of the tier's.
    #[must_use]
    pub fn of(page: &[u8]) -> Option<Self> {
        let is_other = |magic| check_page(page, magic) == Err(Damage::Version);
        [segment::MAGIC, log::MAGIC, identity::MAGIC].into_iter().any(is_other).then(|| Self {
            version: get_u32(page, 8),
            oldest_reader: get_u32(page, 12),
            features: get_u64(page, 16),
        })
    }
}

impl std::fmt::Display for OtherVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "of format version {} (for readers from {} on", self.version, self.oldest_reader)?;
        if self.features != 0 {
            write!(f, ", features {:#x}", self.features)?;
        }
        write!(f, "); this program reads version {VERSION}")
    }
}
