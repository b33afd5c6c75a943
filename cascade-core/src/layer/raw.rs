//! Digests of bytes where they lie.

use crate::copy;
use crate::digest::{self, CHUNK_BYTES};
use crate::id::BlockId;
use crate::memory::SgList;

/// The root digest of a block of the first `len` bytes of `list`; `None` where the CPU cannot reach them, or the list is shorter.
/// Nobody may write there meanwhile.
#[must_use]
pub fn root_of(id: &BlockId, list: &SgList, len: usize) -> Option<u64> {
    if !list.is_host() || list.len() < len {
        return None;
    }
    let mut digests = vec![0; digest::chunk_count(len)];
    let mut at = 0;
    for piece in list.pieces() {
        let (mut done, most) = (0, piece.len().min(len - at));
        while done < most {
            let part = (CHUNK_BYTES - at % CHUNK_BYTES).min(most - done);
            let mut found = [0];
            // SAFETY: `done + part` is within the piece, which is readable host memory by its constructor's contract.
            unsafe { copy::digest_chunks(piece.as_ptr().add(done), part, &mut found) };
            let chunk = &mut digests[at / CHUNK_BYTES];
            let is_first = at.is_multiple_of(CHUNK_BYTES);
            *chunk = if is_first { found[0] } else { digest::combine(*chunk, found[0], part as u64) };
            (at, done) = (at + part, done + part);
        }
    }
    Some(digest::root(id.as_bytes(), len as u64, digests.into_iter()))
}
