//! The quarantine of a session, which every put asks after and which is mostly empty.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cascade_core::quarantine::Quarantine;
use parking_lot::Mutex;

/// Ledger entries, by stripe and number, whose extents hardware may still write to.
#[derive(Debug)]
pub struct Kept {
    list: Mutex<Quarantine<(usize, u32)>>,
    /// Bytes of them, so that nobody takes the lock to hear that there are none.
    bytes: AtomicU64,
}

impl Kept {
    pub(super) fn new(grace: Duration, limit_bytes: u64) -> Self {
        Self { list: Mutex::new(Quarantine::new(grace, limit_bytes)), bytes: AtomicU64::new(0) }
    }

    /// Adds an extent of `bytes` at time `now`.
    pub fn push(&self, now: Duration, bytes: u64, entry: (usize, u32)) {
        let mut list = self.list.lock();
        // An entry counts, whatever its slot says by now.
        list.push(now, bytes.max(1), entry);
        self.bytes.store(list.bytes(), Ordering::Relaxed);
    }

    /// The next whose grace period is over at `now()`.
    pub fn pop_expired(&self, now: impl FnOnce() -> Duration) -> Option<(usize, u32)> {
        if self.bytes() == 0 {
            return None;
        }
        let mut list = self.list.lock();
        let expired = list.pop_expired(now());
        self.bytes.store(list.bytes(), Ordering::Relaxed);
        expired
    }

    /// Whether no further transfer may start until something is released.
    pub fn is_full(&self) -> bool {
        self.bytes() > 0 && self.list.lock().is_full()
    }

    /// Bytes kept out of use.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}
