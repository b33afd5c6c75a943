//! What tests on simulated devices and on real ones share.

use std::sync::Arc;

use cascade_core::digest::crc64;
use cascade_core::memory::{HostBuffer, Piece, SgList};
use cascade_gpu::device::Hbm;
use cascade_gpu::engine::CopyEngine;

/// A list of pages of `hbm`, in an order of its own.
pub(crate) fn pages(hbm: &Arc<Hbm>, page_bytes: usize, count: usize) -> SgList {
    let mut list = SgList::new();
    for index in 0..count {
        list.push(hbm.piece(index * 7 % count * page_bytes, page_bytes).unwrap());
    }
    list
}

pub(crate) fn digests(bytes: &[u8]) -> Vec<u64> {
    bytes.chunks(65_536).map(crc64).collect()
}

/// Registered host memory with these bytes, and the piece of it.
pub(crate) fn registered(engine: &CopyEngine, bytes: &[u8]) -> (HostBuffer, Piece) {
    let mut buffer = HostBuffer::zeroed(bytes.len());
    buffer.bytes_mut().unwrap().copy_from_slice(bytes);
    let piece = buffer.piece();
    assert!(engine.registry().add_in_background(&piece, Arc::new(buffer.clone())));
    engine.registry().finish().unwrap();
    (buffer, piece)
}
