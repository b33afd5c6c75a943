//! The one write that a fault makes: a bit in a caller's destination.

use crate::memory::SgList;

/// Flips bit `bit` of `list`, counted from its first byte; `false`, and nothing written, outside of writable host memory.
pub(super) fn flip(list: &SgList, bit: u64) -> bool {
    if !list.is_host() || !list.is_writable() {
        return false;
    }
    let mut at = bit / 8;
    for piece in list.pieces() {
        let len = piece.len() as u64;
        if at < len {
            let offset = usize::try_from(at).unwrap_or(0);
            // SAFETY: `offset < piece.len()`, the piece is writable host memory by its constructor, and the operation that
            // it was given to has completed, so nobody else writes there before the ticket is answered.
            unsafe { *piece.as_ptr().add(offset) ^= 1 << (bit % 8) };
            return true;
        }
        at -= len;
    }
    false
}
