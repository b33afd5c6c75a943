//! Where the time of a store's gets goes.

use std::ops::Sub;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cascade_core::clock::Clock;

/// Time that gets have spent, summed over all of them, by what it was spent on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GetTime {
    /// Waiting for a thread of the store, of batches that were submitted.
    pub queue: Duration,
    /// Finding out which tier has what.
    pub lookup: Duration,
    /// Waiting for reads from files while nothing else was left to do. The files verify what they read in it.
    pub transfer: Duration,
    /// Copying from the arena's memory, with the digests that are made in the same pass.
    pub copy: Duration,
}

impl Sub for GetTime {
    type Output = Self;

    /// What was spent since `earlier`.
    fn sub(self, earlier: Self) -> Self {
        Self {
            queue: self.queue.saturating_sub(earlier.queue),
            lookup: self.lookup.saturating_sub(earlier.lookup),
            transfer: self.transfer.saturating_sub(earlier.transfer),
            copy: self.copy.saturating_sub(earlier.copy),
        }
    }
}

/// Nanoseconds of each.
#[derive(Debug, Default)]
pub(crate) struct Phases {
    queue: AtomicU64,
    lookup: AtomicU64,
    transfer: AtomicU64,
    copy: AtomicU64,
}

impl Phases {
    pub(crate) fn queued(&self, took: Duration) {
        add(&self.queue, took);
    }

    pub(crate) fn lookup<T>(&self, clock: &dyn Clock, work: impl FnOnce() -> T) -> T {
        timed(&self.lookup, clock, work)
    }

    pub(crate) fn transfer<T>(&self, clock: &dyn Clock, work: impl FnOnce() -> T) -> T {
        timed(&self.transfer, clock, work)
    }

    pub(crate) fn copy<T>(&self, clock: &dyn Clock, work: impl FnOnce() -> T) -> T {
        timed(&self.copy, clock, work)
    }

    pub(crate) fn snapshot(&self) -> GetTime {
        let of = |counter: &AtomicU64| Duration::from_nanos(counter.load(Ordering::Relaxed));
        GetTime {
            queue: of(&self.queue),
            lookup: of(&self.lookup),
            transfer: of(&self.transfer),
            copy: of(&self.copy),
        }
    }
}

fn timed<T>(counter: &AtomicU64, clock: &dyn Clock, work: impl FnOnce() -> T) -> T {
    let start = clock.now();
    let given = work();
    add(counter, clock.now().saturating_sub(start));
    given
}

fn add(counter: &AtomicU64, took: Duration) {
    counter.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
}
