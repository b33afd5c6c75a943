//! Behaviour added round a tier: metrics, verification, throttles, breakers; faults for tests in `testing::fault`.

mod breaker;
mod meter;
mod raw;
mod throttle;
mod verify;

use std::sync::Arc;

use crate::batch::{Batch, Op, Outcome, Refusal, Ticket};
use crate::tier::{MissReason, Tier};

pub use breaker::{Breaker, BreakerConfig, BreakerLayer, BreakerState, BreakerStats};
pub use meter::{MeterLayer, Metered};
pub use raw::root_of;
pub use throttle::ThrottleLayer;
pub use verify::VerifyLayer;

/// Wraps a tier into another with the same contract. A layer may lose a block; it may never change one.
pub trait Layer {
    /// The wrapped tier.
    fn wrap(&self, inner: Arc<dyn Tier>) -> Arc<dyn Tier>;
}

/// Applies `layers` from the inside out.
#[must_use]
pub fn stack(tier: Arc<dyn Tier>, layers: &[&dyn Layer]) -> Arc<dyn Tier> {
    layers.iter().fold(tier, |inner, layer| layer.wrap(inner))
}

/// What an operation moves, in bytes.
fn bytes_of(op: &Op) -> u64 {
    match op {
        Op::Store { from: list, .. } | Op::Fetch { into: list, .. } => list.len() as u64,
        Op::Delete { .. } => 0,
    }
}

/// The answer to an operation that is not done, as its kind says it.
fn not_done(op: &Op, miss: MissReason, refusal: Refusal) -> Outcome {
    match op {
        Op::Store { .. } => Outcome::Refused(refusal),
        Op::Fetch { .. } | Op::Delete { .. } => Outcome::Miss(miss),
    }
}

/// Passes on the operations of a batch that `decide` has no outcome for.
fn pass_on(inner: &dyn Tier, batch: Batch, mut decide: impl FnMut(&Op) -> Option<Outcome>) -> Ticket {
    let Batch { ops, deadline } = batch;
    let (mut decided, mut passed) = (Vec::with_capacity(ops.len()), Vec::new());
    for op in ops {
        let outcome = decide(&op);
        if outcome.is_none() {
            passed.push(op);
        }
        decided.push(outcome);
    }
    let count = decided.len();
    if passed.len() == count {
        return inner.submit(Batch { ops: passed, deadline });
    }
    let merge = move |outcomes: Vec<Outcome>| {
        let mut outcomes = outcomes.into_iter();
        decided.into_iter().filter_map(|outcome| outcome.or_else(|| outcomes.next())).collect()
    };
    Ticket::relay(inner.submit(Batch { ops: passed, deadline }), count, merge)
}

/// The parts of [`Tier`] that a layer leaves as they are.
macro_rules! as_inner {
    (lookup) => {
        fn lookup(&self, ids: &[crate::id::BlockId], out: &mut [crate::tier::Lookup]) {
            self.inner.lookup(ids, out);
        }
    };
    () => {
        fn capability(&self) -> crate::tier::Capability {
            self.inner.capability()
        }

        fn flush(&self, deadline: std::time::Instant) -> crate::Result<()> {
            self.inner.flush(deadline)
        }

        fn stats(&self) -> crate::metrics::TierStats {
            self.inner.stats()
        }
    };
}
use as_inner;
