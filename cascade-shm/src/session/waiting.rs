//! What waits for a region that a stopped process keeps locked.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// A region that could not be locked is not waited for again before this time has passed.
const SHUN: Duration = Duration::from_secs(1);

/// Ledger entries, by stripe and number, whose slot is to be freed and could not be; and regions that were the reason.
#[derive(Debug)]
pub struct Waiting {
    frees: Mutex<VecDeque<(usize, u32)>>,
    /// How many they are: every put asks, and there are none.
    count: AtomicUsize,
    origin: Instant,
    /// For each region, microseconds from `origin` to the end of the time in which nobody waits for it.
    shunned: Box<[AtomicU64]>,
}

impl Waiting {
    pub(super) fn new(regions: usize) -> Self {
        let shunned = (0..regions).map(|_| AtomicU64::new(0)).collect();
        Self { frees: Mutex::default(), count: AtomicUsize::new(0), origin: Instant::now(), shunned }
    }

    /// Notes an entry whose slot is to be freed later.
    pub fn push(&self, stripe: usize, entry: u32) {
        let mut frees = self.frees.lock();
        frees.push_back((stripe, entry));
        self.count.store(frees.len(), Ordering::Relaxed);
    }

    /// The entry that has waited for longest.
    pub fn pop(&self) -> Option<(usize, u32)> {
        if self.len() == 0 {
            return None;
        }
        let mut frees = self.frees.lock();
        let popped = frees.pop_front();
        self.count.store(frees.len(), Ordering::Relaxed);
        popped
    }

    /// Entries that wait.
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    fn now(&self) -> u64 {
        // In a model no time passes: its schedules must not depend on how fast they are explored.
        if cfg!(any(loom, shuttle)) {
            return 0;
        }
        u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Whether `region` could not be locked a moment ago.
    pub fn is_shunned(&self, region: usize) -> bool {
        let until = self.shunned.get(region).map_or(0, |until| until.load(Ordering::Relaxed));
        until != 0 && self.now() < until
    }

    /// Notes that `region` could not be locked.
    pub fn shun(&self, region: usize) {
        if let Some(until) = self.shunned.get(region) {
            until.store(self.now() + SHUN.as_micros() as u64, Ordering::Relaxed);
        }
    }
}
