//! Device memory that the digest kernel can walk: one piece, or pages of one length.

use cascade_core::digest::CHUNK_BYTES;
use cascade_core::memory::{SgList, Space};

use super::walk::VECTOR;
use crate::device::{DIGEST_WORDS, DigestJob, MoveJob, Side};

/// Shortest pages whose addresses fit into a thread block's table: so many to a 64 KiB chunk.
const SHORTEST_PAGE: usize = 512;
/// Longest pages, of several: the kernel counts within a page and a chunk in 32 bits.
const LONGEST_PAGE: usize = 1 << 30;

/// Device memory to digest, `len` bytes in all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pages {
    pub(super) addresses: Vec<u64>,
    pub(super) page_bytes: usize,
    pub(super) len: usize,
}

impl Pages {
    /// The first `len` bytes of `list`; `None` when the kernel cannot walk it: host memory, pages of several lengths, or
    /// none of them aligned to 8.
    pub(super) fn of(list: &SgList, len: usize) -> Option<Self> {
        let first = list.pieces().first()?;
        let is_one = first.len() >= len;
        let page_bytes = if is_one { len.next_multiple_of(8) } else { first.len() };
        if page_bytes == 0
            || (!is_one
                && (!(SHORTEST_PAGE..=LONGEST_PAGE).contains(&page_bytes) || !page_bytes.is_multiple_of(8)))
        {
            return None;
        }
        let mut addresses = Vec::with_capacity(len.div_ceil(page_bytes));
        let mut left = len;
        for piece in list.pieces() {
            if left == 0 {
                break;
            }
            let address = piece.as_ptr() as u64;
            let whole = piece.len() >= left || piece.len() == page_bytes;
            if piece.space() == Space::Host || !address.is_multiple_of(8) || !whole {
                return None;
            }
            addresses.push(address);
            left -= piece.len().min(left);
            // The last page may be shorter, none may be longer.
            if left == 0 && addresses.len() > 1 && len - (addresses.len() - 1) * page_bytes > page_bytes {
                return None;
            }
        }
        (left == 0).then_some(Self { addresses, page_bytes, len })
    }

    /// Steps of this many bytes begin with a page and with a chunk; the length where there is no such step.
    pub(super) fn step(&self) -> usize {
        if self.addresses.len() == 1 {
            return CHUNK_BYTES;
        }
        let chunk = CHUNK_BYTES;
        let mut gcd = (chunk, self.page_bytes);
        while gcd.1 > 0 {
            gcd = (gcd.1, gcd.0 % gcd.1);
        }
        (chunk / gcd.0).saturating_mul(self.page_bytes).min(self.len)
    }

    /// The digests of the bytes `from..to`, where `from` is a multiple of [`Pages::step`]. `table` and `out` are the
    /// addresses of all page addresses and of all digests.
    pub(super) fn job(&self, from: usize, to: usize, table: u64, out: u64, ctas: u32) -> DigestJob {
        let out = out + (8 * DIGEST_WORDS * (from / CHUNK_BYTES)) as u64;
        let (page_bytes, len) = (self.page_bytes as u64, (to - from) as u64);
        match self.addresses[..] {
            [only] => DigestJob {
                base: only + from as u64,
                pages: 0,
                page_bytes: len.next_multiple_of(8),
                len,
                out,
                ctas,
            },
            _ => {
                let pages = table + 8 * (from / self.page_bytes) as u64;
                DigestJob { base: 0, pages, page_bytes, len, out, ctas }
            }
        }
    }

    /// The same for the kernel that copies by pages, which is faster; `None` when something is no multiple of its vectors.
    pub(super) fn fast(&self, job: &DigestJob) -> Option<MoveJob> {
        let is_vector = |value: u64| value.is_multiple_of(VECTOR as u64);
        let has_pages = job.pages != 0;
        let aligned = self.addresses.iter().all(|address| is_vector(*address));
        let fits = aligned && is_vector(job.len) && (!has_pages || is_vector(job.page_bytes));
        fits.then(|| MoveJob {
            dst: Side::default(),
            src: Side {
                base: job.base,
                pages: job.pages,
                page_bytes: if has_pages { job.page_bytes } else { 0 },
            },
            len: job.len,
            chunk: 0,
            chunks: job.len.div_ceil(CHUNK_BYTES as u64),
            out: job.out,
            ctas: job.ctas,
        })
    }
}
