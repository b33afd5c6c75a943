//! A lease by device address.

use std::sync::Arc;

use cascade_core::memory::Piece;
use cascade_core::tier::BlockMeta;

use crate::device::Stream;
use crate::pool::{Placed, Pool};

/// Pins a block in device memory. Dropped, the pin goes at once: work on the block must be over then. Work that is only
/// queued keeps the block by [`DeviceLease::release_after`].
#[derive(Debug)]
pub struct DeviceLease {
    pool: Arc<Pool>,
    placed: Placed,
    /// Whether somebody else gives the pin back.
    handed_over: bool,
}

impl DeviceLease {
    pub(crate) fn new(pool: Arc<Pool>, placed: Placed) -> Self {
        Self { pool, placed, handed_over: false }
    }

    /// Device address of the first byte, a multiple of 512.
    #[must_use]
    pub fn address(&self) -> u64 {
        self.placed.piece.as_ptr() as u64
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.placed.piece.len()
    }

    /// Whether the block holds no byte (it never does).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of the device, as CUDA calls it in this process.
    #[must_use]
    pub fn device(&self) -> u32 {
        self.pool.engine.device().info().ordinal
    }

    /// Changes when the slot of this block is used for another.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.placed.token.generation()
    }

    /// What the tier knows of the block.
    #[must_use]
    pub fn meta(&self) -> BlockMeta {
        self.placed.meta
    }

    /// Whether the pin still holds: false once the device failed.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.pool.is_leased(self.placed.token)
    }

    /// Gives the lease back when all that `stream` has queued by now is over; returns at once.
    pub fn release_after(mut self, stream: Stream) {
        self.handed_over = true;
        self.pool.release_after(self.placed.token, stream);
    }

    /// The block's memory, for operations that end before the lease does: without the pin another block may come to lie there.
    #[must_use]
    pub fn piece(&self) -> &Piece {
        &self.placed.piece
    }

    pub(crate) fn count_out(&self) {
        self.pool.count_out(self.placed.meta.len);
    }

    pub(crate) fn drop_corrupt(&self) {
        self.pool.drop_corrupt(self.placed.token);
    }
}

impl Drop for DeviceLease {
    fn drop(&mut self) {
        if !self.handed_over {
            self.pool.release(self.placed.token);
        }
    }
}
