//! Operations on borrowed memory, which must not return before the tier is done with it.

use std::time::{Duration, Instant};

use cascade_core::batch::{Batch, Op, Outcome};
use cascade_core::memory::Piece;
use cascade_core::tier::{MissReason, Tier};

use cascade_core::id::BlockId;

/// Waits for all of `batch`, however long the tier takes: its pieces are borrowed. The tiers bound their own work.
fn complete(tier: &dyn Tier, batch: Batch) -> Vec<Outcome> {
    let ticket = tier.submit(batch);
    loop {
        if let Some(outcomes) = ticket.wait(Instant::now() + Duration::from_secs(1)) {
            return outcomes;
        }
    }
}

/// Fetches each block into its buffer.
pub(crate) fn fetch(tier: &dyn Tier, wanted: &mut [(BlockId, &mut [u8])]) -> Vec<Outcome> {
    let ops = wanted.iter_mut().map(|(id, out)| {
        // SAFETY: `out` is borrowed mutably until this function returns, which is after the tier has answered for it.
        let piece = unsafe { Piece::host_write(out.as_mut_ptr(), out.len()) };
        Op::Fetch { id: *id, into: piece.into() }
    });
    complete(tier, Batch::new(ops.collect()))
}

/// Stores each buffer as a block.
pub(crate) fn store(
    tier: &dyn Tier,
    blocks: &[(BlockId, &[u8], cascade_core::tier::PutMeta)],
) -> Vec<Outcome> {
    let ops = blocks.iter().map(|(id, from, meta)| {
        // SAFETY: `from` is borrowed until this function returns, which is after the tier has answered for it.
        let piece = unsafe { Piece::host_read(from.as_ptr(), from.len()) };
        Op::Store { id: *id, from: piece.into(), meta: *meta }
    });
    complete(tier, Batch::new(ops.collect()))
}

/// Forgets each block.
pub(crate) fn delete(tier: &dyn Tier, ids: &[BlockId]) -> Vec<Outcome> {
    complete(tier, Batch::new(ids.iter().map(|id| Op::Delete { id: *id }).collect()))
}

/// The outcome of a batch of one.
pub(crate) fn single(outcomes: Vec<Outcome>) -> Outcome {
    outcomes.first().copied().unwrap_or(Outcome::Miss(MissReason::Unavailable))
}
