//! Storing and reading by name.

use std::sync::Arc;
use std::time::Instant;

use cascade_core::batch::{Batch, Op, Outcome};
use cascade_core::id::BlockId;
use cascade_core::memory::{HostBuffer, Piece};
use cascade_core::tier::{MissReason, PutMeta, Tier};
use cascade_shm::Arena;

/// Bytes that follow from `seed`.
pub(crate) fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x
    };
    let mut out: Vec<u8> = (0..len.div_ceil(8)).flat_map(|_| next().to_le_bytes()).collect();
    out.truncate(len);
    out
}

pub(crate) fn put(arena: &Arena, name: &str, data: &[u8]) -> Outcome {
    let from = Piece::shared(Arc::from(data)).into();
    let op = Op::Store { id: BlockId::named(name), from, meta: PutMeta::default() };
    arena.submit(Batch::new(vec![op])).wait(Instant::now()).unwrap()[0]
}

pub(crate) fn get(arena: &Arena, name: &str, room: usize) -> Result<Vec<u8>, MissReason> {
    let mut buffer = HostBuffer::zeroed(room);
    let op = Op::Fetch { id: BlockId::named(name), into: buffer.piece().into() };
    match arena.submit(Batch::new(vec![op])).wait(Instant::now()).unwrap()[0] {
        Outcome::Fetched(meta) => Ok(buffer.bytes_mut().unwrap()[..meta.len as usize].to_vec()),
        Outcome::Miss(why) => Err(why),
        other => panic!("a fetch answers {other:?}"),
    }
}
