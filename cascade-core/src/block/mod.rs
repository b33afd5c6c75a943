//! The memory of one block where it lives in a tier, reached by bounded copies only.

mod raw;

pub use raw::BlockMemory;

/// Number of 64 KiB chunks, and so of chunk digests, of a block of `len` bytes.
#[must_use]
pub fn chunks(len: u64) -> usize {
    usize::try_from(len.div_ceil(crate::digest::CHUNK_BYTES as u64)).unwrap_or(usize::MAX)
}
