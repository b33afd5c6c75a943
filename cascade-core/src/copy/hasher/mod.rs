//! Digests of a block that is copied in pieces.

mod raw;

use crate::copy::kernel::{Direction, Kernel};
use crate::copy::op::{DIGEST, STREAM};
use crate::copy::raw::{Routine, routine};
use crate::copy::{plan, scalar};
use crate::digest::CHUNK_BYTES;
use crate::digest::tables::INVERT;

/// Copies a block in pieces of any length, from or to any places, and hands out the digest of each 64 KiB chunk of the
/// block as a whole, in order.
///
/// `emit(chunk index, digest)` is called when a chunk is complete; [`ChunkHasher::finish`] emits the last, shorter one.
/// Stores are ordered before later ones of this thread when the hasher is finished or dropped.
pub struct ChunkHasher<F: FnMut(usize, u64)> {
    emit: F,
    copy: Routine,
    op: u8,
    state: u64,
    /// Bytes of the block so far.
    len: u64,
}

impl<F: FnMut(usize, u64)> ChunkHasher<F> {
    /// A hasher for a block of about `block_bytes` bytes; the length decides about the kind of stores, no more.
    pub fn new(direction: Direction, block_bytes: usize, emit: F) -> Self {
        let plan = plan::plan();
        Self::with(plan.kernel, plan.store_kind(direction, block_bytes).op(), emit)
    }

    pub(crate) fn with(kernel: Kernel, store: u8, emit: F) -> Self {
        let op = DIGEST | store;
        Self { emit, copy: routine(kernel, op), op, state: INVERT, len: 0 }
    }

    /// Bytes still missing to the end of the chunk.
    fn chunk_rest(&self) -> usize {
        CHUNK_BYTES - (self.len % CHUNK_BYTES as u64) as usize
    }

    /// Counts bytes that went into `state`, none beyond the chunk.
    fn count(&mut self, len: usize, state: u64) {
        self.state = state;
        self.len += len as u64;
        if len > 0 && self.len.is_multiple_of(CHUNK_BYTES as u64) {
            self.emit_chunk();
        }
    }

    fn emit_chunk(&mut self) {
        let chunk = (self.len - 1) / CHUNK_BYTES as u64;
        (self.emit)(chunk as usize, self.state ^ INVERT);
        self.state = INVERT;
    }

    /// Emits the digest of the last chunk, if it is shorter than the others; returns the length of the block in bytes.
    pub fn finish(mut self) -> u64 {
        if !self.len.is_multiple_of(CHUNK_BYTES as u64) {
            self.emit_chunk();
        }
        self.len
    }
}

impl<F: FnMut(usize, u64)> Drop for ChunkHasher<F> {
    fn drop(&mut self) {
        if self.op & STREAM != 0 {
            scalar::raw::stream_fence();
        }
    }
}
