//! Lists and slices over the rows of exported arrays, for the time of one call.

use cascade_core::batch::{Batch, Op, Outcome};
use cascade_core::memory::{Piece, SgList};
use cascade_store::Reach;

use super::{Pages, Part};
use crate::lease::Lease;

impl Part {
    fn address(&self, row: usize) -> *mut u8 {
        debug_assert!(row < self.rows, "rows are checked before");
        // SAFETY: `Part::new` took rows and stride from the buffer's own shape, and `Pages::check_rows` checked the row, so the
        // address is within the exported memory.
        unsafe { self.buffer.buf_ptr().cast::<u8>().add(row * self.stride) }
    }

    /// The bytes of a row, to be read during this borrow.
    pub(super) fn row(&self, row: usize) -> &[u8] {
        // SAFETY: exported as long as `self` lives, `len` contiguous bytes (`Part::new`). The engine does not write to a page that
        // it has handed over; one that does breaks the rule of every API that releases the GIL.
        unsafe { std::slice::from_raw_parts(self.address(row), self.len) }
    }
}

impl Pages {
    /// The pieces of a block's row. Used within [`run`] alone, which ends before `self` does.
    pub(super) fn list(&self, row: usize, writable: bool) -> SgList {
        let mut list = SgList::new();
        for part in &self.parts {
            let (address, len) = (part.address(row), part.len);
            list.push(if writable {
                // SAFETY: `len` bytes of a writable export that `self` holds (`Part::new`); rows are distinct
                // (`Pages::check_rows`), and the engine leaves a page alone that it has handed over to be loaded.
                unsafe { Piece::host_write(address, len) }
            } else {
                // SAFETY: as above, to be read; see `Part::row`.
                unsafe { Piece::host_read(address, len) }
            });
        }
        list
    }

    /// Copies a leased block's part into a row; `false` when the block is of another length or the pin is gone.
    pub(super) fn copy_part(&self, lease: &Lease, row: usize, part: &Part) -> bool {
        lease.with(|block| {
            // SAFETY: as in `list`: exported, writable, and one copy into a row at a time.
            let out = unsafe { std::slice::from_raw_parts_mut(part.address(row), part.len) };
            block.len() == self.block_bytes && block.read_at(part.offset, out)
        })
    }
}

/// Runs operations on lists over `pages` and waits for all of them, so that no list outlives the borrow.
pub(super) fn run(
    _pages: &Pages,
    store: &cascade_store::Store,
    ops: impl FnOnce() -> Vec<Op>,
) -> Vec<Outcome> {
    store.run_batch(Batch::new(ops()), Reach::Found)
}
