//! What the store asks of its tiers beyond the traits of every tier: the seam at which a simulation puts tiers of its own below the
//! very code that ships.

use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use cascade_core::Result;
use cascade_core::batch::{Batch, Outcome, Ticket};
use cascade_core::id::BlockId;
use cascade_core::layer::{Breaker, BreakerState};
use cascade_core::lease::Lease;
use cascade_core::memory::SgList;
use cascade_core::metrics::TierStats;
use cascade_core::reservation::Reserve;
use cascade_core::tier::{Addressable, Capability, Lookup, MissReason, PutMeta, Tier};
use cascade_pfs::{PfsStats, PfsTier};
use cascade_shm::{Arena, Below, BelowStats, Fill, Noted, Survey};

/// The tier at the top: what [`Arena`] says of each of these.
pub(crate) trait Top: Addressable {
    fn path(&self) -> &Path;
    fn data_bytes(&self) -> u64;
    fn fill(&self) -> Fill;
    fn survey(&self, most_bytes: u64) -> Survey;
    fn kept(&self) -> Vec<(BlockId, u64)>;
    fn lease_to_copy(&self, id: &BlockId) -> std::result::Result<Lease, MissReason>;
    fn note_below(&self, id: &BlockId, digest: u64, below: Below) -> Noted;
    fn below_stats(&self) -> BelowStats;
    /// Bytes that leases of any process pin.
    fn pinned_bytes(&self) -> u64 {
        0
    }
    fn clear(&self);
}

impl Top for Arena {
    fn path(&self) -> &Path {
        Self::path(self)
    }

    fn data_bytes(&self) -> u64 {
        self.superblock().geometry.data_bytes
    }

    fn fill(&self) -> Fill {
        Self::fill(self)
    }

    fn survey(&self, most_bytes: u64) -> Survey {
        Self::survey(self, most_bytes)
    }

    fn kept(&self) -> Vec<(BlockId, u64)> {
        Self::kept(self)
    }

    fn lease_to_copy(&self, id: &BlockId) -> std::result::Result<Lease, MissReason> {
        Self::lease_to_copy(self, id)
    }

    fn note_below(&self, id: &BlockId, digest: u64, below: Below) -> Noted {
        Self::note_below(self, id, digest, below)
    }

    fn below_stats(&self) -> BelowStats {
        Self::below_stats(self)
    }

    fn pinned_bytes(&self) -> u64 {
        Self::pinned_bytes(self)
    }

    fn clear(&self) {
        Self::clear(self);
    }
}

/// The tier at the bottom: what [`PfsTier`] says of each of these.
pub(crate) trait Bottom: Tier {
    fn ids(&self) -> Vec<BlockId>;
    fn file_stats(&self) -> PfsStats;
    /// A part of a block, by this thread; `Unavailable` where the tier has whole blocks only.
    fn fetch_part(&self, _id: &BlockId, _offset: u64, _into: &SgList, _deadline: Instant) -> Outcome {
        Outcome::Miss(MissReason::Unavailable)
    }
    /// Takes note of what other processes have changed; whether that could be done now.
    fn catch_up(&self) -> bool;
}

impl Bottom for PfsTier {
    fn ids(&self) -> Vec<BlockId> {
        Self::ids(self)
    }

    fn file_stats(&self) -> PfsStats {
        Self::file_stats(self)
    }

    fn fetch_part(&self, id: &BlockId, offset: u64, into: &SgList, deadline: Instant) -> Outcome {
        self.fetch_part_until(id, offset, into, Some(deadline))
    }

    fn catch_up(&self) -> bool {
        Self::catch_up(self)
    }
}

/// A tier at the top, whichever it is.
#[derive(Clone, Debug)]
pub(crate) struct TopTier(Arc<dyn Top>);

/// A tier at the bottom, whichever it is.
#[derive(Clone, Debug)]
pub(crate) struct BottomTier(Arc<dyn Bottom>, Option<Breaker>);

impl TopTier {
    pub(crate) fn new(tier: impl Top + 'static) -> Self {
        Self(Arc::new(tier))
    }
}

impl BottomTier {
    pub(crate) fn new(tier: impl Bottom + 'static) -> Self {
        Self(Arc::new(tier), None)
    }

    /// The same behind a breaker: while it is open, nothing is asked of the tier but what it knows.
    pub(crate) fn guarded(self, breaker: Breaker) -> Self {
        Self(Arc::new(Guarded { inner: self.0, breaker: breaker.clone() }), Some(breaker))
    }

    pub(crate) fn breaker(&self) -> Option<&Breaker> {
        self.1.as_ref()
    }
}

/// A tier at the bottom behind a breaker. Lookups pass: they ask the tier's index, and who replaces a block must know of an older
/// one also while it cannot be forgotten.
#[derive(Debug)]
struct Guarded {
    inner: Arc<dyn Bottom>,
    breaker: Breaker,
}

impl Tier for Guarded {
    fn capability(&self) -> Capability {
        self.inner.capability()
    }

    fn lookup(&self, ids: &[BlockId], out: &mut [Lookup]) {
        self.inner.lookup(ids, out);
    }

    fn submit(&self, batch: Batch) -> Ticket {
        self.breaker.submit(&*self.inner, batch)
    }

    fn flush(&self, deadline: Instant) -> Result<()> {
        self.inner.flush(deadline)
    }

    fn stats(&self) -> TierStats {
        self.inner.stats()
    }
}

impl Bottom for Guarded {
    fn ids(&self) -> Vec<BlockId> {
        self.inner.ids()
    }

    fn file_stats(&self) -> PfsStats {
        self.inner.file_stats()
    }

    // What is asked to see whether the tier is well again is a batch.
    fn fetch_part(&self, id: &BlockId, offset: u64, into: &SgList, deadline: Instant) -> Outcome {
        match self.breaker.state() {
            BreakerState::Closed => self.inner.fetch_part(id, offset, into, deadline),
            _ => Outcome::Miss(MissReason::Unavailable),
        }
    }

    fn catch_up(&self) -> bool {
        self.breaker.state() != BreakerState::Open && self.inner.catch_up()
    }
}

impl Deref for TopTier {
    type Target = dyn Top;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

impl Deref for BottomTier {
    type Target = dyn Bottom;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

macro_rules! pass_on {
    ($tier:ident) => {
        impl Tier for $tier {
            fn capability(&self) -> Capability {
                self.0.capability()
            }

            fn lookup(&self, ids: &[BlockId], out: &mut [Lookup]) {
                self.0.lookup(ids, out);
            }

            fn submit(&self, batch: Batch) -> Ticket {
                self.0.submit(batch)
            }

            fn flush(&self, deadline: Instant) -> Result<()> {
                self.0.flush(deadline)
            }

            fn stats(&self) -> TierStats {
                self.0.stats()
            }
        }
    };
}

pass_on!(TopTier);
pass_on!(BottomTier);

impl Addressable for TopTier {
    fn reserve(&self, id: &BlockId, len: u64, meta: PutMeta) -> Reserve {
        self.0.reserve(id, len, meta)
    }

    fn lease(&self, id: &BlockId) -> std::result::Result<Lease, MissReason> {
        self.0.lease(id)
    }

    fn lease_batch(&self, ids: &[BlockId]) -> Vec<std::result::Result<Lease, MissReason>> {
        self.0.lease_batch(ids)
    }
}
