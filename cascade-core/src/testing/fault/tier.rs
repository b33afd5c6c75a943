//! The wrapped tier.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use super::{Fault, FaultLayer, raw};
use crate::Result;
use crate::batch::{Batch, Completer, Op, Outcome, Ticket, ticket};
use crate::id::BlockId;
use crate::memory::SgList;
use crate::metrics::TierStats;
use crate::tier::{Capability, Lookup, Tier};

/// How often a batch under way looks whether its client has cancelled.
const CANCEL_POLL: Duration = Duration::from_millis(5);

#[derive(Debug)]
pub(super) struct FaultTier {
    inner: Arc<dyn Tier>,
    layer: FaultLayer,
}

/// A batch of which some operations were kept back and some will be damaged.
#[derive(Default)]
struct Split {
    passed: Vec<Op>,
    /// For each operation: the outcome that was decided here, or nothing if it is the next of those passed on.
    decided: Vec<Option<Outcome>>,
    flips: Vec<(usize, SgList, u64)>,
    delay: Duration,
}

impl FaultTier {
    pub(super) fn new(inner: Arc<dyn Tier>, layer: FaultLayer) -> Self {
        Self { inner, layer }
    }

    fn split(&self, ops: Vec<Op>) -> Split {
        let first = self.layer.counts.ops.fetch_add(ops.len() as u64, Ordering::Relaxed);
        let mut split = Split::default();
        for (n, op) in (first..).zip(ops) {
            let fault = self.layer.plan.fault(n, &op);
            if fault.is_some() {
                self.layer.counts.injected.fetch_add(1, Ordering::Relaxed);
            }
            let decided = match fault {
                Some(Fault::Miss(reason)) => Some(Outcome::Miss(reason)),
                Some(Fault::Refuse(why)) => Some(Outcome::Refused(why)),
                Some(Fault::Delay(delay)) => {
                    split.delay = split.delay.max(delay);
                    None
                }
                Some(Fault::FlipBit) => {
                    if let Op::Fetch { into, .. } = &op {
                        split.flips.push((split.decided.len(), into.clone(), self.layer.plan.dice(n, 0)));
                    }
                    None
                }
                None => None,
            };
            if decided.is_none() {
                split.passed.push(op);
            }
            split.decided.push(decided);
        }
        split
    }
}

impl Split {
    /// Puts the outcomes of what was passed on between those decided here, and damages what was to be damaged.
    fn merge(self, passed: Vec<Outcome>) -> Vec<Outcome> {
        let mut passed = passed.into_iter();
        let next = |decided: Option<Outcome>| decided.or_else(|| passed.next());
        let outcomes: Vec<Outcome> = self.decided.into_iter().filter_map(next).collect();
        for (index, list, dice) in self.flips {
            if let Some(Outcome::Fetched(meta)) = outcomes.get(index) {
                raw::flip(&list, dice % (meta.len * 8));
            }
        }
        outcomes
    }
}

/// Waits for the wrapped tier and for the delay, then answers the client.
fn finish(split: Split, inner: &Ticket, completer: &Completer, due: Instant) {
    let passed = loop {
        if completer.is_cancelled() {
            inner.cancel();
        }
        if let Some(outcomes) = inner.wait(Instant::now() + CANCEL_POLL) {
            break outcomes;
        }
    };
    thread::sleep(due.saturating_duration_since(Instant::now()));
    for (index, outcome) in split.merge(passed).into_iter().enumerate() {
        completer.complete(index, outcome);
    }
}

impl Tier for FaultTier {
    fn capability(&self) -> Capability {
        self.inner.capability()
    }

    fn lookup(&self, ids: &[BlockId], out: &mut [Lookup]) {
        self.inner.lookup(ids, out);
    }

    fn submit(&self, batch: Batch) -> Ticket {
        if !self.layer.plan.has_rules() {
            return self.inner.submit(batch);
        }
        let asked = batch.ops.len();
        let mut split = self.split(batch.ops);
        let ops = std::mem::take(&mut split.passed);
        let due = Instant::now() + split.delay;
        let inner = self.inner.submit(Batch { ops, deadline: batch.deadline });
        if split.delay.is_zero() && inner.poll() {
            let outcomes = inner.wait(due).unwrap_or_default();
            return Ticket::ready(split.merge(outcomes));
        }
        let (outer, completer) = ticket(asked);
        thread::spawn(move || finish(split, &inner, &completer, due));
        outer
    }

    fn flush(&self, deadline: Instant) -> Result<()> {
        self.inner.flush(deadline)
    }

    fn stats(&self) -> TierStats {
        self.inner.stats()
    }
}
