//! How many blocks, buffers and bytes one measurement of a block size takes.

use crate::tiers::Wanted;

/// Pages that were never touched are some ten times slower, so their laps are this much shorter.
const FIRST_TOUCH_SHARE: u64 = 4;
/// Least bytes of private buffers that small blocks take turns in: far beyond the caches of one core complex.
const PRIVATE_BYTES: u64 = 128 << 20;
/// Least capacity of an arena to measure with.
const LEAST_CAPACITY_BYTES: u64 = 1 << 30;
/// An arena holds this many laps, so that what was just put is still there to be got.
const LAPS_IN_ARENA: u64 = 3;

/// One block size, driven by `callers` threads at once, each with blocks and buffers of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Bytes of a block.
    pub(crate) block: usize,
    /// Threads that call.
    pub(crate) callers: usize,
    /// Blocks that each caller moves in a lap.
    pub(crate) blocks: usize,
    /// Private buffers that each caller takes turns in.
    pub(crate) places: usize,
}

impl Shape {
    /// For warm measurements, with laps of at least `lap_bytes`.
    pub(crate) fn hot(block: u64, callers: usize, lap_bytes: u64) -> Self {
        Self::of(block, callers, lap_bytes)
    }

    /// For pages that were never touched, beside warm measurements with laps of at least `lap_bytes`.
    pub(crate) fn first_touch(block: u64, callers: usize, lap_bytes: u64) -> Self {
        Self::of(block, callers, lap_bytes / FIRST_TOUCH_SHARE)
    }

    fn of(block: u64, callers: usize, lap_bytes: u64) -> Self {
        let each = |bytes: u64| bytes.div_ceil(block * callers.max(1) as u64).max(1) as usize;
        let blocks = each(lap_bytes);
        Self { block: block as usize, callers, blocks, places: each(PRIVATE_BYTES).min(blocks) }
    }

    /// Bytes that a lap moves.
    pub(crate) fn lap_bytes(&self) -> u64 {
        (self.block * self.callers * self.blocks) as u64
    }

    /// Bytes of a shared mapping as large as a lap.
    pub(crate) fn shared_bytes(&self) -> u64 {
        (self.callers * (self.block * self.blocks).next_multiple_of(64)) as u64
    }

    /// Bytes of private buffers, on each side.
    pub(crate) fn private_bytes(&self) -> usize {
        // Callers start on cache lines, as they do in `Region::split`.
        self.callers * (self.block * self.places).next_multiple_of(64)
    }

    /// The tier to measure with.
    pub(crate) fn wanted(&self, touched: bool) -> Wanted {
        let capacity_bytes = (self.lap_bytes() * LAPS_IN_ARENA).max(LEAST_CAPACITY_BYTES);
        Wanted { capacity_bytes, slots: None, touched, threads: self.callers, index_only: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_blocks_are_many_and_large_ones_few() {
        let small = Shape::hot(64 << 10, 2, 256 << 20);
        assert_eq!((small.blocks, small.places), (2048, 1024));
        assert_eq!((small.lap_bytes(), small.private_bytes()), (256 << 20, 128 << 20));
        let large = Shape::hot(512 << 20, 2, 256 << 20);
        assert_eq!((large.blocks, large.places, large.lap_bytes()), (1, 1, 1 << 30));
        assert_eq!(large.wanted(true).capacity_bytes, 3 << 30);
        assert_eq!(Shape::first_touch(64 << 20, 1, 256 << 20).blocks, 1);
    }
}
