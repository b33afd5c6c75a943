//! Metrics of one tier: what was asked, what came of it, how long it took.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::{Layer, as_inner};
use crate::batch::{Batch, Op, Outcome, Ticket};
use crate::id::BlockId;
use crate::metrics::{Distribution, Histogram};
use crate::tier::{Lookup, Tier};

#[derive(Debug, Default)]
struct Counts {
    outcomes: Mutex<Outcomes>,
    fetch: Histogram,
    store: Histogram,
    delete: Histogram,
    lookup: Histogram,
}

#[derive(Clone, Debug, Default)]
struct Outcomes {
    by_name: BTreeMap<&'static str, u64>,
    bytes_in: u64,
    bytes_out: u64,
}

/// What was measured until now.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Metered {
    /// Operations by what became of them: `fetched`, `stored`, `exists`, `deleted`, `cancelled`, `miss_` and `refused_` with the
    /// reason; and answers of lookups: `found`, `pending`, `not_found`.
    pub outcomes: BTreeMap<&'static str, u64>,
    /// Payload bytes stored.
    pub bytes_in: u64,
    /// Payload bytes fetched.
    pub bytes_out: u64,
    /// From a fetch's submission to the end of its batch.
    pub fetch: Distribution,
    /// The same of stores.
    pub store: Distribution,
    /// The same of deletes.
    pub delete: Distribution,
    /// Of one id of a lookup.
    pub lookup: Distribution,
}

impl Metered {
    /// How often an operation or lookup ended so.
    #[must_use]
    pub fn count(&self, name: &str) -> u64 {
        self.outcomes.get(name).copied().unwrap_or(0)
    }
}

/// Counts what goes through a tier. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct MeterLayer {
    counts: Arc<Counts>,
}

impl MeterLayer {
    /// What was measured until now, through every tier that this layer wraps.
    #[must_use]
    pub fn metered(&self) -> Metered {
        let counts = &self.counts;
        let outcomes = counts.outcomes.lock().clone();
        Metered {
            outcomes: outcomes.by_name,
            bytes_in: outcomes.bytes_in,
            bytes_out: outcomes.bytes_out,
            fetch: counts.fetch.snapshot(),
            store: counts.store.snapshot(),
            delete: counts.delete.snapshot(),
            lookup: counts.lookup.snapshot(),
        }
    }
}

impl Layer for MeterLayer {
    fn wrap(&self, inner: Arc<dyn Tier>) -> Arc<dyn Tier> {
        Arc::new(Meter { inner, counts: Arc::clone(&self.counts) })
    }
}

#[derive(Debug)]
struct Meter {
    inner: Arc<dyn Tier>,
    counts: Arc<Counts>,
}

#[derive(Clone, Copy)]
enum Kind {
    Fetch,
    Store(u64),
    Delete,
}

/// The name under which an outcome is counted.
fn name(outcome: Outcome) -> &'static str {
    use crate::batch::Refusal as R;
    use crate::tier::MissReason as M;
    match outcome {
        Outcome::Fetched(_) => "fetched",
        Outcome::Stored => "stored",
        Outcome::Exists => "exists",
        Outcome::Deleted => "deleted",
        Outcome::Cancelled => "cancelled",
        Outcome::Miss(M::Absent) => "miss_absent",
        Outcome::Miss(M::Evicting) => "miss_evicting",
        Outcome::Miss(M::Corrupt) => "miss_corrupt",
        Outcome::Miss(M::Destination) => "miss_destination",
        Outcome::Miss(M::Throttled) => "miss_throttled",
        Outcome::Miss(M::Deadline) => "miss_deadline",
        Outcome::Miss(M::Unavailable) => "miss_unavailable",
        Outcome::Refused(R::Full) => "refused_full",
        Outcome::Refused(R::TooLarge) => "refused_too_large",
        Outcome::Refused(R::Empty) => "refused_empty",
        Outcome::Refused(R::Pending) => "refused_pending",
        Outcome::Refused(R::Throttled) => "refused_throttled",
        Outcome::Refused(R::Deadline) => "refused_deadline",
        Outcome::Refused(R::Memory) => "refused_memory",
        Outcome::Refused(R::Unavailable) => "refused_unavailable",
        Outcome::Refused(R::ReadOnly) => "refused_read_only",
    }
}

impl Counts {
    fn count(&self, kinds: &[Kind], outcomes: &[Outcome], took: Duration) {
        let mut counted = self.outcomes.lock();
        for (kind, outcome) in kinds.iter().zip(outcomes) {
            *counted.by_name.entry(name(*outcome)).or_default() += 1;
            let histogram = match (kind, outcome) {
                (Kind::Fetch, Outcome::Fetched(meta)) => {
                    counted.bytes_out += meta.len;
                    &self.fetch
                }
                (Kind::Store(bytes), Outcome::Stored) => {
                    counted.bytes_in += bytes;
                    &self.store
                }
                (Kind::Fetch, _) => &self.fetch,
                (Kind::Store(_), _) => &self.store,
                (Kind::Delete, _) => &self.delete,
            };
            histogram.record(took);
        }
    }
}

impl Tier for Meter {
    as_inner!();

    fn lookup(&self, ids: &[BlockId], out: &mut [Lookup]) {
        let start = Instant::now();
        self.inner.lookup(ids, out);
        let Ok(count) = u32::try_from(ids.len().max(1)) else { return };
        self.counts.lookup.record_many(start.elapsed() / count, ids.len() as u64);
        let mut counted = self.counts.outcomes.lock();
        for answer in out {
            let name = match answer {
                Lookup::Hit(_) => "found",
                Lookup::Pending => "pending",
                Lookup::Miss(_) => "not_found",
            };
            *counted.by_name.entry(name).or_default() += 1;
        }
    }

    fn submit(&self, batch: Batch) -> Ticket {
        let kind = |op: &Op| match op {
            Op::Fetch { .. } => Kind::Fetch,
            Op::Store { from, .. } => Kind::Store(from.len() as u64),
            Op::Delete { .. } => Kind::Delete,
        };
        let kinds: Vec<Kind> = batch.ops.iter().map(kind).collect();
        let (start, counts) = (Instant::now(), Arc::clone(&self.counts));
        let count = kinds.len();
        Ticket::relay(self.inner.submit(batch), count, move |outcomes| {
            counts.count(&kinds, &outcomes, start.elapsed());
            outcomes
        })
    }
}
