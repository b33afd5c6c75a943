//! Lists over borrowed memory: what uses them must be done with it before the borrow ends.

use std::mem::ManuallyDrop;
use std::time::{Duration, Instant};

use cascade_core::batch::{Batch, Op, Outcome, Ticket};
use cascade_core::block::BlockMemory;
use cascade_core::copy;
use cascade_core::digest::{self, CHUNK_BYTES};
use cascade_core::id::BlockId;
use cascade_core::lease::Lease;
use cascade_core::memory::{Piece, SgList};
use cascade_core::tier::{MissReason, PutMeta, Tier};
use cascade_gpu::tier::GpuTier;
use cascade_shm::Arena;

/// Waits for all of a ticket, however long the tier takes: its pieces are borrowed. The tiers bound their own work.
pub(crate) fn complete(ticket: &Ticket) -> Vec<Outcome> {
    loop {
        if let Some(outcomes) = ticket.wait(Instant::now() + Duration::from_secs(1)) {
            return outcomes;
        }
    }
}

/// Runs a batch and waits for all of it.
pub(crate) fn run(tier: &dyn Tier, ops: Vec<Op>) -> Vec<Outcome> {
    complete(&tier.submit(Batch::new(ops)))
}

/// Hands lists over the buffers to `fetch`, which returns when every operation on them has ended.
pub(crate) fn fetch<T>(
    wanted: &mut [(BlockId, &mut [u8])],
    fetch: impl FnOnce(Vec<(BlockId, SgList)>) -> T,
) -> T {
    let lists = wanted.iter_mut().map(|(id, out)| {
        // SAFETY: `out` is borrowed mutably until this function returns, which is after the tiers have answered for it.
        let piece = unsafe { Piece::host_write(out.as_mut_ptr(), out.len()) };
        (*id, piece.into())
    });
    fetch(lists.collect())
}

/// Hands a list over `out` to `read`, which returns when every operation on it has ended.
pub(crate) fn into_slice<T>(out: &mut [u8], read: impl FnOnce(&SgList) -> T) -> T {
    // SAFETY: `out` is borrowed mutably until this function returns, which is after the tier has answered for it.
    let piece = unsafe { Piece::host_write(out.as_mut_ptr(), out.len()) };
    read(&piece.into())
}

/// Hands lists over the buffers to `store`, which returns when every operation on them has ended.
pub(crate) fn store<T>(
    blocks: &[(BlockId, &[u8], PutMeta)],
    store: impl FnOnce(Vec<(BlockId, SgList, PutMeta)>) -> T,
) -> T {
    let lists = blocks.iter().map(|(id, from, meta)| {
        // SAFETY: `from` is borrowed until this function returns, which is after the tiers have answered for it.
        let piece = unsafe { Piece::host_read(from.as_ptr(), from.len()) };
        (*id, piece.into(), *meta)
    });
    store(lists.collect())
}

/// A leased block to be read from, by operations that end before the lease does.
pub(crate) fn leased(lease: &Lease) -> SgList {
    let memory = lease.memory();
    // SAFETY: sealed and pinned: nobody writes there while the lease lives, and who holds it waits for the operation.
    unsafe { Piece::host_read(memory.as_ptr(), memory.len()) }.into()
}

/// Memory of a reservation that is in flight, to be filled by an operation that ends before it is completed.
pub(crate) fn in_flight(memory: BlockMemory) -> SgList {
    // SAFETY: nobody else sees a reservation, and who holds it waits for the operation.
    unsafe { Piece::host_write(memory.as_ptr(), memory.len()) }.into()
}

/// The bytes `from..to` of an arena's data area, to be registered with a device. Both lie within what exists of it.
pub(crate) fn data_of(arena: &Arena, from: u64, to: u64) -> Option<Piece> {
    // SAFETY: it is registered and nothing else: nobody reads or writes by this piece.
    unsafe { arena.data_piece(from, to) }
}

/// Ends a tier that is not used any more, in the process that opened it.
pub(crate) fn drop_tier(tier: &mut ManuallyDrop<GpuTier>) {
    // SAFETY: called once, by the drop of the only owner.
    unsafe { ManuallyDrop::drop(tier) };
}

/// The outcome of a batch of one.
pub(crate) fn single(outcomes: Vec<Outcome>) -> Outcome {
    outcomes.first().copied().unwrap_or(Outcome::Miss(MissReason::Unavailable))
}

/// The root digest that a block of these bytes has; `None` where the CPU cannot reach them.
pub(crate) fn root_of(id: &BlockId, list: &SgList) -> Option<u64> {
    if !list.is_host() {
        return None;
    }
    let mut digests = vec![0; digest::chunk_count(list.len())];
    let mut at = 0;
    for piece in list.pieces() {
        let mut done = 0;
        while done < piece.len() {
            let part = (CHUNK_BYTES - at % CHUNK_BYTES).min(piece.len() - done);
            let mut found = [0];
            // SAFETY: `done + part` is within the piece, which is readable host memory by its constructor's contract.
            unsafe { copy::digest_chunks(piece.as_ptr().add(done), part, &mut found) };
            let chunk = &mut digests[at / CHUNK_BYTES];
            let is_first = at.is_multiple_of(CHUNK_BYTES);
            *chunk = if is_first { found[0] } else { digest::combine(*chunk, found[0], part as u64) };
            (at, done) = (at + part, done + part);
        }
    }
    Some(digest::root(id.as_bytes(), list.len() as u64, digests.into_iter()))
}

/// The arena's whole mapping, as what other ranks read.
#[cfg(feature = "mpi")]
pub(crate) fn window(arena: &Arena) -> cascade_mpi::Window {
    let (start, len, keep) = arena.mapping();
    // SAFETY: mapped for `len` bytes as long as `keep` lives, and its pages are there: whoever starts a fabric has waited for them. What
    // is read out of it is believed only under digests.
    unsafe { cascade_mpi::Window::new(start, len, keep) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_of_scattered_pieces_is_that_of_the_whole() {
        let bytes: Vec<u8> = (0..200_000_u32).map(|i| (i * 7 >> 3) as u8).collect();
        let (id, whole) = (BlockId::named("a"), Piece::shared(bytes.clone().into()));
        let chunks = bytes.chunks(CHUNK_BYTES).map(digest::crc64);
        let expected = digest::root(id.as_bytes(), bytes.len() as u64, chunks);
        for cuts in [vec![200_000], vec![1, 65_534, 2, 70_000, 64_463], vec![65_536, 131_072, 3392]] {
            let (mut list, mut at) = (SgList::new(), 0);
            for len in cuts {
                list.push(whole.part(at, len).unwrap());
                at += len;
            }
            assert_eq!(root_of(&id, &list), Some(expected));
        }
    }
}
