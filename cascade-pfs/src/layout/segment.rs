//! The first page of a segment.

use super::{
    Damage, PAGE_BYTES, Page, WriterId, begin_page, check_page, end_page, get, get_u64, put, put_u64,
};
use cascade_core::digest::CHUNK_BYTES;

pub(super) const MAGIC: [u8; 8] = *b"CASCSEGM";

/// Whose segment this is, and the units that it was written with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Who wrote it.
    pub writer: WriterId,
    /// Its number among the writer's segments, counted from 0.
    pub number: u64,
    /// Sequence when it was begun: every record in it has a larger one.
    pub sequence: u64,
    /// Bytes at which the writer closes it; a larger block has a longer segment for itself.
    pub target_bytes: u64,
}

impl SegmentHeader {
    /// The page.
    #[must_use]
    pub fn to_page(&self) -> Page {
        let mut page = begin_page(MAGIC);
        put(&mut page, 24, &self.writer.0);
        put_u64(&mut page, 40, self.number);
        put_u64(&mut page, 48, self.sequence);
        put_u64(&mut page, 56, self.target_bytes);
        put_u64(&mut page, 64, PAGE_BYTES as u64);
        put_u64(&mut page, 72, CHUNK_BYTES as u64);
        end_page(&mut page);
        page
    }

    /// Reads the page of the segment that should be number `number` of `writer`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(bytes: &[u8], writer: WriterId, number: u64) -> Result<Self, Damage> {
        let page = check_page(bytes, MAGIC)?;
        let header = Self {
            writer: WriterId(get(page, 24)),
            number: get_u64(page, 40),
            sequence: get_u64(page, 48),
            target_bytes: get_u64(page, 56),
        };
        if (header.writer, header.number) != (writer, number) {
            return Err(Damage::Misplaced);
        }
        if (get_u64(page, 64), get_u64(page, 72)) != (PAGE_BYTES as u64, CHUNK_BYTES as u64) {
            return Err(Damage::Field("geometry"));
        }
        Ok(header)
    }
}
