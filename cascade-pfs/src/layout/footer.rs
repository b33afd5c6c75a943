//! The index at the end of a closed segment: entries, then one page that says where they are.

use cascade_core::digest;
use cascade_core::id::BlockId;
use cascade_core::tier::{BlockMeta, Class};

use super::record::record_bytes;
use super::{
    Damage, PAGE_BYTES, Page, Record, WriterId, begin_page, check_page, end_page, get, get_u64, put, put_u64,
};

const MAGIC: [u8; 8] = *b"CASCFOOT";
/// Bytes of one entry.
pub const FOOTER_ENTRY_BYTES: usize = 80;
/// A record without its segment, which all entries of a footer share.
pub type FooterEntry = Record;

/// Bytes of a whole footer with so many entries: whole pages.
#[must_use]
pub fn footer_bytes(entries: usize) -> u64 {
    ((entries * FOOTER_ENTRY_BYTES).next_multiple_of(PAGE_BYTES) + PAGE_BYTES) as u64
}

/// The last page of a closed segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trailer {
    /// Where the entries begin, which is where the records end; in bytes from the start of the file.
    pub index_at: u64,
    /// Number of entries.
    pub entries: u64,
    /// CRC-64/NVME of the entries' pages.
    pub index_digest: u64,
}

impl Trailer {
    /// Bytes from the first entry to the trailer.
    #[must_use]
    pub fn index_bytes(&self) -> u64 {
        // `parse` has bounded the number of entries by the length of the file.
        (self.entries * FOOTER_ENTRY_BYTES as u64).next_multiple_of(PAGE_BYTES as u64)
    }

    /// Reads the last page of a segment file of `file_bytes` bytes.
    ///
    /// # Errors
    /// What is wrong with it; an open segment has none.
    pub fn parse(bytes: &[u8], writer: WriterId, segment: u64, file_bytes: u64) -> Result<Self, Damage> {
        let page = check_page(bytes, MAGIC)?;
        if (WriterId(get(page, 24)), get_u64(page, 40)) != (writer, segment) {
            return Err(Damage::Misplaced);
        }
        let trailer =
            Self { index_at: get_u64(page, 48), entries: get_u64(page, 56), index_digest: get_u64(page, 64) };
        if trailer.entries > file_bytes / FOOTER_ENTRY_BYTES as u64 {
            return Err(Damage::Field("entries"));
        }
        let end = trailer.index_at.checked_add(trailer.index_bytes() + PAGE_BYTES as u64);
        if end != Some(file_bytes) || !trailer.index_at.is_multiple_of(PAGE_BYTES as u64) {
            return Err(Damage::Field("index"));
        }
        Ok(trailer)
    }

    fn to_page(self, writer: WriterId, segment: u64) -> Page {
        let mut page = begin_page(MAGIC);
        put(&mut page, 24, &writer.0);
        put_u64(&mut page, 40, segment);
        put_u64(&mut page, 48, self.index_at);
        put_u64(&mut page, 56, self.entries);
        put_u64(&mut page, 64, self.index_digest);
        end_page(&mut page);
        page
    }
}

/// Writes the footer of a segment whose records end at `index_at` into `bytes`, as long as [`footer_bytes`] says.
///
/// # Panics
/// When `bytes` has another length.
pub fn write_footer(
    writer: WriterId,
    segment: u64,
    index_at: u64,
    entries: &[FooterEntry],
    bytes: &mut [u8],
) {
    assert_eq!(bytes.len() as u64, footer_bytes(entries.len()), "the footer of these entries");
    bytes.fill(0);
    let index_len = bytes.len() - PAGE_BYTES;
    let (index, trailer) = bytes.split_at_mut(index_len);
    for (place, entry) in index.chunks_exact_mut(FOOTER_ENTRY_BYTES).zip(entries) {
        put(place, 0, entry.id.as_bytes());
        put_u64(place, 32, entry.offset);
        put_u64(place, 40, entry.meta.len);
        put_u64(place, 48, entry.meta.digest);
        put_u64(place, 56, entry.sequence);
        put(place, 64, &entry.meta.tenant.to_le_bytes());
        place[66] = entry.meta.class.to_bits();
    }
    let summary = Trailer { index_at, entries: entries.len() as u64, index_digest: index_digest(index) };
    trailer.copy_from_slice(&summary.to_page(writer, segment));
}

/// Digest of the entries' pages.
#[must_use]
pub fn index_digest(index: &[u8]) -> u64 {
    digest::crc64(index)
}

/// Reads the entries of a footer. They stand in order and do not overlap, or they are not believed. Between them may be
/// records that were refused.
///
/// # Errors
/// What is wrong with them.
pub fn parse_index(
    index: &[u8],
    trailer: &Trailer,
    writer: WriterId,
    segment: u64,
) -> Result<Vec<FooterEntry>, Damage> {
    if index.len() as u64 != trailer.index_bytes() {
        return Err(Damage::Short);
    }
    if index_digest(index) != trailer.index_digest {
        return Err(Damage::Digest);
    }
    let count = usize::try_from(trailer.entries).map_err(|_| Damage::Field("entries"))?;
    let mut entries = Vec::with_capacity(count);
    let mut expected_at = PAGE_BYTES as u64;
    for place in index.chunks_exact(FOOTER_ENTRY_BYTES).take(count) {
        let entry = parse_entry(place, writer, segment);
        let bytes = record_bytes(entry.meta.len).ok_or(Damage::Field("length"))?;
        if entry.offset < expected_at || !entry.offset.is_multiple_of(PAGE_BYTES as u64) {
            return Err(Damage::Field("offset"));
        }
        expected_at = entry.offset.checked_add(bytes).ok_or(Damage::Field("length"))?;
        entries.push(entry);
    }
    if expected_at > trailer.index_at {
        return Err(Damage::Field("index"));
    }
    Ok(entries)
}

fn parse_entry(place: &[u8], writer: WriterId, segment: u64) -> FooterEntry {
    Record {
        writer,
        segment,
        offset: get_u64(place, 32),
        sequence: get_u64(place, 56),
        id: BlockId::from_bytes(get(place, 0)),
        meta: BlockMeta {
            len: get_u64(place, 40),
            digest: get_u64(place, 48),
            class: Class::from_bits(place[66]),
            tenant: u16::from_le_bytes(get(place, 64)),
        },
    }
}
