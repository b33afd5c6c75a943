//! The memory of one block where it lives in a tier, reached by bounded copies only.

mod raw;

use std::fmt::Debug;

pub use raw::BlockMemory;

use crate::copy::Direction;
use crate::memory::{Piece, SgList};

/// Number of 64 KiB chunks, and so of chunk digests, of a block of `len` bytes.
#[must_use]
pub fn chunks(len: u64) -> usize {
    usize::try_from(len.div_ceil(crate::digest::CHUNK_BYTES as u64)).unwrap_or(usize::MAX)
}

/// How blocks that the CPU cannot reach by their address are copied: a tier in device memory gives one with its blocks.
/// Each call returns when the bytes have arrived.
pub trait Access: Send + Sync + Debug {
    /// Copies the whole of `part`, a part of one of the tier's blocks, from (`Put`) or to (`Get`) the first bytes of
    /// `list`, which is at least as long; `false` when the device failed.
    fn copy(&self, part: &Piece, list: &SgList, direction: Direction) -> bool;

    /// The digest of each 64 KiB chunk of `block`; `None` when the device failed.
    fn digests(&self, block: &Piece) -> Option<Vec<u64>>;
}

/// A device and the way to its blocks.
#[derive(Debug)]
pub struct DeviceAccess {
    /// Number of the CUDA device.
    pub ordinal: u32,
    /// How its blocks are copied.
    pub access: Box<dyn Access>,
}
