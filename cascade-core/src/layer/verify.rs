//! Every block that is fetched is held against its digest once more, where it was delivered.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Layer, as_inner, root_of};
use crate::batch::{Batch, Op, Outcome, Ticket};
use crate::id::BlockId;
use crate::memory::SgList;
use crate::tier::{MissReason, Tier};

#[derive(Debug, Default)]
struct Counts {
    verified: AtomicU64,
    corrupt: AtomicU64,
    unverified: AtomicU64,
}

/// Makes of a damaged delivery a miss, `Corrupt`, and drops the block. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct VerifyLayer {
    counts: Arc<Counts>,
}

impl VerifyLayer {
    /// Deliveries that were right.
    #[must_use]
    pub fn verified(&self) -> u64 {
        self.counts.verified.load(Ordering::Relaxed)
    }

    /// Deliveries that were not, and became misses.
    #[must_use]
    pub fn corrupt(&self) -> u64 {
        self.counts.corrupt.load(Ordering::Relaxed)
    }

    /// Deliveries into memory that the CPU cannot reach: passed on as they came.
    #[must_use]
    pub fn unverified(&self) -> u64 {
        self.counts.unverified.load(Ordering::Relaxed)
    }
}

impl Layer for VerifyLayer {
    fn wrap(&self, inner: Arc<dyn Tier>) -> Arc<dyn Tier> {
        Arc::new(Verify { inner, counts: Arc::clone(&self.counts) })
    }
}

#[derive(Debug)]
struct Verify {
    inner: Arc<dyn Tier>,
    counts: Arc<Counts>,
}

impl Counts {
    fn check(&self, id: &BlockId, into: &SgList, outcome: Outcome) -> Outcome {
        let Outcome::Fetched(meta) = outcome else { return outcome };
        let count = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
        let len = usize::try_from(meta.len).unwrap_or(usize::MAX);
        match root_of(id, into, len) {
            None => {
                count(&self.unverified);
                outcome
            }
            Some(root) if root == meta.digest => {
                count(&self.verified);
                outcome
            }
            Some(_) => {
                count(&self.corrupt);
                Outcome::Miss(MissReason::Corrupt)
            }
        }
    }
}

impl Tier for Verify {
    as_inner!();
    as_inner!(lookup);

    fn submit(&self, batch: Batch) -> Ticket {
        let destination = |op: &Op| match op {
            Op::Fetch { id, into } => Some((*id, into.clone())),
            Op::Store { .. } | Op::Delete { .. } => None,
        };
        let wanted: Vec<_> = batch.ops.iter().map(destination).collect();
        if wanted.iter().all(Option::is_none) {
            return self.inner.submit(batch);
        }
        let (counts, inner, count) = (Arc::clone(&self.counts), Arc::clone(&self.inner), wanted.len());
        Ticket::relay(self.inner.submit(batch), count, move |outcomes| {
            let check = |(outcome, wanted): (Outcome, &Option<(BlockId, SgList)>)| match wanted {
                Some((id, into)) => counts.check(id, into, outcome),
                None => outcome,
            };
            let checked: Vec<Outcome> = outcomes.into_iter().zip(&wanted).map(check).collect();
            let is_damaged = |outcome: &Outcome| *outcome == Outcome::Miss(MissReason::Corrupt);
            let damaged = wanted.iter().zip(&checked).filter(|(_, outcome)| is_damaged(outcome));
            let drops: Vec<Op> = damaged
                .filter_map(|(wanted, _)| wanted.as_ref().map(|(id, _)| Op::Delete { id: *id }))
                .collect();
            if !drops.is_empty() {
                drop(inner.submit(Batch::new(drops)));
            }
            checked
        })
    }
}
