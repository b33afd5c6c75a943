//! A tier with one planted bug, to prove that the suite and the oracle would notice.

use std::time::Instant;

use cascade_core::Result;
use cascade_core::batch::{Batch, Op, Outcome, Ticket};
use cascade_core::block::BlockMemory;
use cascade_core::id::BlockId;
use cascade_core::lease::Lease;
use cascade_core::memory_tier::MemoryTier;
use cascade_core::metrics::TierStats;
use cascade_core::reservation::Reserve;
use cascade_core::tier::{Addressable, Capability, Lookup, MissReason, OnExisting, PutMeta, Tier};
use parking_lot::Mutex;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    /// Acknowledges a replacement and goes on serving the old bytes.
    KeepsOldBytes,
    /// Reuses the memory of a deleted block although it is leased.
    FreesUnderLease,
    /// Loses the acknowledged blocks of one id in 8 and counts nothing.
    LosesUncounted,
    /// Holds twice its capacity, and says otherwise.
    ExceedsCapacity,
    /// Does not take pins back.
    LeaksLeases,
    /// Writes what fits into a destination that is too short.
    WritesTruncated,
    /// Answers a batch in another order.
    ShufflesOutcomes,
    /// Ignores deadlines.
    NeverLate,
    /// Evicts prefix blocks like any others.
    ForgetsClasses,
    /// Keeps some space of every reservation.
    LeaksReservations,
    /// Answers that a block is absent while someone fills it.
    HidesPending,
    /// Replaces whatever is there, asked or not.
    LastSealWins,
}

impl Bug {
    pub(crate) const ALL: [Self; 12] = [
        Self::KeepsOldBytes,
        Self::FreesUnderLease,
        Self::LosesUncounted,
        Self::ExceedsCapacity,
        Self::LeaksLeases,
        Self::WritesTruncated,
        Self::ShufflesOutcomes,
        Self::NeverLate,
        Self::ForgetsClasses,
        Self::LeaksReservations,
        Self::HidesPending,
        Self::LastSealWins,
    ];

    /// The check that must fail, others may too.
    pub(crate) fn caught_by(self) -> &'static str {
        match self {
            Self::KeepsOldBytes => "replace",
            Self::FreesUnderLease => "a lease outlives delete",
            Self::LosesUncounted => "eviction under pressure",
            Self::ExceedsCapacity => "eviction under pressure",
            Self::LeaksLeases => "released leases give everything back",
            Self::WritesTruncated => "a destination that is too short",
            Self::ShufflesOutcomes => "outcomes in order",
            Self::NeverLate => "a deadline in the past",
            Self::ForgetsClasses => "prefix blocks outlive ordinary ones",
            Self::LeaksReservations => "a dropped reservation gives its space back",
            Self::HidesPending => "pending while reserved",
            Self::LastSealWins => "the first seal wins",
        }
    }
}

#[derive(Debug)]
pub(crate) struct Broken {
    inner: MemoryTier,
    bug: Option<Bug>,
    capacity_bytes: u64,
    leaked: Mutex<Vec<Lease>>,
    kept: Mutex<Vec<Reserve>>,
}

impl Broken {
    pub(crate) fn new(capacity_bytes: u64, bug: Bug) -> Self {
        let inner_bytes = if bug == Bug::ExceedsCapacity { 2 * capacity_bytes } else { capacity_bytes };
        Self { bug: Some(bug), ..Self::over(MemoryTier::new(inner_bytes), capacity_bytes) }
    }

    pub(crate) fn without_bug(capacity_bytes: u64) -> Self {
        Self::over(MemoryTier::new(capacity_bytes), capacity_bytes)
    }

    fn over(inner: MemoryTier, capacity_bytes: u64) -> Self {
        Self { inner, bug: None, capacity_bytes, leaked: Mutex::default(), kept: Mutex::default() }
    }

    fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    fn is_hit(&self, id: &BlockId) -> bool {
        let mut out = [Lookup::Pending];
        self.inner.lookup(&[*id], &mut out);
        out[0].is_hit()
    }

    fn forward(&self, op: Op, deadline: Option<Instant>) -> Outcome {
        let ticket = self.inner.submit(Batch { ops: vec![op], deadline });
        let outcomes = ticket.wait(Instant::now()).unwrap_or_default();
        outcomes.first().copied().unwrap_or(Outcome::Cancelled)
    }

    fn store(&self, op: Op, id: BlockId, meta: PutMeta, deadline: Option<Instant>) -> Outcome {
        if self.has(Bug::KeepsOldBytes) && meta.on_existing == OnExisting::Replace && self.is_hit(&id) {
            return Outcome::Stored;
        }
        let outcome = self.forward(op, deadline);
        if self.has(Bug::LosesUncounted) && outcome == Outcome::Stored && id.words()[0].is_multiple_of(8) {
            self.forward(Op::Delete { id }, None);
        }
        outcome
    }

    fn run(&self, op: Op, deadline: Option<Instant>) -> Outcome {
        match op {
            Op::Store { id, from, mut meta } => {
                if self.has(Bug::ForgetsClasses) {
                    meta.class = cascade_core::tier::Class::Ordinary;
                }
                if self.has(Bug::LastSealWins) {
                    meta.on_existing = OnExisting::Replace;
                }
                self.store(Op::Store { id, from, meta }, id, meta, deadline)
            }
            Op::Delete { id } => {
                if self.has(Bug::FreesUnderLease)
                    && let Ok(lease) = self.inner.lease(&id)
                {
                    // What the next owner of the memory would do, while this lease keeps it valid.
                    assert!(lease.memory().write_at(0, &[0xDD]), "a block has a byte");
                }
                self.forward(Op::Delete { id }, deadline)
            }
            Op::Fetch { id, into } => {
                if self.has(Bug::WritesTruncated)
                    && let Ok(lease) = self.inner.lease(&id)
                    && into.len() < lease.len()
                    && into.is_writable()
                {
                    let _ = truncated(&lease, into.len()).map(|short| short.scatter(&into));
                }
                self.forward(Op::Fetch { id, into }, deadline)
            }
        }
    }
}

/// The first `len` bytes of a leased block, as a block.
fn truncated(lease: &Lease, len: usize) -> Option<BlockMemory> {
    let first = std::ptr::NonNull::new(lease.memory().as_ptr())?;
    // SAFETY: shorter than the leased block, and used only while the caller holds the lease.
    Some(unsafe { BlockMemory::new(first, len) })
}

impl Tier for Broken {
    fn capability(&self) -> Capability {
        let capacity_bytes = self.capacity_bytes;
        Capability { capacity_bytes, max_block_bytes: capacity_bytes, ..self.inner.capability() }
    }

    fn lookup(&self, ids: &[BlockId], out: &mut [Lookup]) {
        self.inner.lookup(ids, out);
        for answer in
            out.iter_mut().filter(|answer| self.has(Bug::HidesPending) && **answer == Lookup::Pending)
        {
            *answer = Lookup::Miss(MissReason::Absent);
        }
    }

    fn submit(&self, batch: Batch) -> Ticket {
        let deadline = if self.has(Bug::NeverLate) { None } else { batch.deadline };
        let mut outcomes: Vec<Outcome> = batch.ops.into_iter().map(|op| self.run(op, deadline)).collect();
        if self.has(Bug::ShufflesOutcomes) {
            outcomes.reverse();
        }
        Ticket::ready(outcomes)
    }

    fn flush(&self, deadline: Instant) -> Result<()> {
        self.inner.flush(deadline)
    }

    fn stats(&self) -> TierStats {
        let stats = self.inner.stats();
        let used_bytes = stats.used_bytes.min(self.capacity_bytes);
        TierStats { capacity_bytes: self.capacity_bytes, used_bytes, ..stats }
    }
}

impl Addressable for Broken {
    fn reserve(&self, id: &BlockId, len: u64, meta: PutMeta) -> Reserve {
        if self.has(Bug::LeaksReservations) {
            let name = BlockId::named(&format!("kept beside {id}"));
            self.kept.lock().push(self.inner.reserve(&name, 1, meta));
        }
        self.inner.reserve(id, len, meta)
    }

    fn lease(&self, id: &BlockId) -> std::result::Result<Lease, MissReason> {
        let lease = self.inner.lease(id)?;
        if self.has(Bug::LeaksLeases) {
            self.leaked.lock().push(self.inner.lease(id)?);
        }
        Ok(lease)
    }
}
