//! One side of a copy by pages, looked at as it is handed over: a list may have a hundred thousand pages.

use cascade_core::memory::{Piece, SgList};

use super::cursor::Bounds;
use crate::device::Side;

/// The kernel moves vectors of so many bytes.
pub(super) const VECTOR: usize = 16;
/// Shortest pages whose addresses fit into a thread block's table: so many to a 64 KiB chunk.
const SHORTEST_PAGE: usize = 512;
/// Longest pages, of several: the kernel counts within a page and a chunk in 32 bits.
const LONGEST_PAGE: usize = 1 << 30;

/// A list of which the kernel can walk at least the beginning.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    pieces: &'a [Piece],
    len: usize,
    /// Bytes of a page; 0: all lies in the first piece.
    page_bytes: usize,
    /// Pages that were taken.
    next: usize,
    /// Where this side's addresses begin in the table, in words.
    table_at: usize,
}

impl<'a> Walk<'a> {
    /// The first `len` bytes of `list`, its addresses from word `table_at` on; `None` when the kernel cannot walk it.
    pub(super) fn new(list: &'a SgList, len: usize, table_at: usize, bounds: &Bounds<'_>) -> Option<Self> {
        let pieces = list.pieces();
        let first = pieces.first()?;
        let is_one = first.len() >= len;
        if is_one && (!is_aligned(first) || !bounds.reaches(&first.part(0, len)?)) {
            return None;
        }
        let page_bytes = if is_one { 0 } else { first.len() };
        let is_page = (SHORTEST_PAGE..=LONGEST_PAGE).contains(&page_bytes) && page_bytes % VECTOR == 0;
        (is_one || is_page).then_some(Self { pieces, len, page_bytes, next: 0, table_at })
    }

    /// Whether all lies in one piece.
    pub(super) fn is_one(&self) -> bool {
        self.page_bytes == 0
    }

    /// Adds the addresses of the pages up to byte `to` to `out`, and gives the word of the table where they belong; `None`
    /// when the kernel cannot walk one of them.
    pub(super) fn take(&mut self, to: usize, bounds: &Bounds<'_>, out: &mut Vec<u64>) -> Option<usize> {
        let at = self.table_at + self.next;
        while self.page_bytes > 0 && self.next * self.page_bytes < to {
            let piece = self.pieces.get(self.next)?;
            let left = self.len - self.next * self.page_bytes;
            // The last page may be shorter, or longer than what is asked of it.
            let fits = piece.len() == self.page_bytes || (left <= self.page_bytes && piece.len() >= left);
            if !fits || !is_aligned(piece) || !bounds.reaches(piece) {
                return None;
            }
            out.push(piece.as_ptr() as u64);
            self.next += 1;
        }
        Some(at)
    }

    /// The side as the kernel reads it, with its table at the address `table`.
    pub(super) fn side(&self, table: u64) -> Side {
        match (self.page_bytes, self.pieces.first()) {
            (0, Some(first)) => Side { base: first.as_ptr() as u64, pages: 0, page_bytes: 0 },
            (bytes, _) => Side { base: 0, pages: table + 8 * self.table_at as u64, page_bytes: bytes as u64 },
        }
    }
}

fn is_aligned(piece: &Piece) -> bool {
    (piece.as_ptr() as usize).is_multiple_of(VECTOR)
}
