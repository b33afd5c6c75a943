//! A layer that makes chosen operations miss, be refused, come late or arrive damaged, the same ones for the same seed.
//!
//! Operations are numbered from 0 in the order in which batches are submitted through the layer, lookups left out.
//! Without a rule the layer changes nothing, and passes the conformance suite of the tier that it wraps.

mod plan;
mod raw;
mod tier;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::batch::Refusal;
use crate::layer::Layer;
use crate::tier::{MissReason, Tier};
use plan::Plan;

/// What befalls an operation.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A fetch or delete is not done and misses for this reason.
    Miss(MissReason),
    /// A store is not done and is refused for this reason.
    Refuse(Refusal),
    /// The operation is done, and its batch completes this much later.
    Delay(Duration),
    /// One bit of what a fetch delivers is flipped on the way. The outcome is still `Fetched` with the true digest, so a
    /// caller that verifies its destination sees the damage.
    FlipBit,
}

/// Makes tiers that fail by plan. Clones share the numbering of operations and the count of faults.
#[derive(Clone, Debug)]
pub struct FaultLayer {
    plan: Plan,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    ops: AtomicU64,
    injected: AtomicU64,
}

impl FaultLayer {
    /// A layer without faults. `seed` decides which operations the rates hit and which bits flip.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { plan: Plan::new(seed), counts: Arc::default() }
    }

    /// Lets `fault` befall operation number `n`, if it is of a kind that the fault applies to.
    #[must_use]
    pub fn nth(mut self, n: u64, fault: Fault) -> Self {
        self.plan.at(n, fault);
        self
    }

    /// Lets `fault` befall `per_mille` of a thousand operations of the kinds that it applies to.
    #[must_use]
    pub fn rate(mut self, per_mille: u32, fault: Fault) -> Self {
        self.plan.often(per_mille, fault);
        self
    }

    /// Faults injected until now.
    #[must_use]
    pub fn injected(&self) -> u64 {
        self.counts.injected.load(Ordering::Relaxed)
    }
}

impl Layer for FaultLayer {
    fn wrap(&self, inner: Arc<dyn Tier>) -> Arc<dyn Tier> {
        Arc::new(tier::FaultTier::new(inner, self.clone()))
    }
}

#[cfg(test)]
mod tests;
