//! Bytes that may be under way at once: beyond them there is `Throttled`, and no queue that grows.

use std::sync::Arc;

use crate::planted::{self, Bug};
use crate::sync::{AtomicU64, Ordering};

/// A bound on bytes under way. A single operation is always let in, however long it is.
#[derive(Debug)]
pub struct Budget {
    used: AtomicU64,
    most: u64,
}

/// Bytes that were let in; given back when dropped.
#[derive(Debug)]
pub struct Pass {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Budget {
    /// A budget of `most_bytes`.
    #[must_use]
    pub fn new(most_bytes: u64) -> Self {
        Self { used: AtomicU64::new(0), most: most_bytes }
    }

    /// Bytes under way now.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Lets `bytes` in, if there is room for them or nothing else is under way. Who was let in calls [`Budget::give`].
    #[must_use]
    pub fn take(&self, bytes: u64) -> bool {
        let mut used = self.used.load(Ordering::Relaxed);
        loop {
            let then = used.saturating_add(bytes);
            if used > 0 && then > self.most && !planted::is(Bug::NoBudget) {
                return false;
            }
            // The count orders nothing but itself.
            match self.used.compare_exchange_weak(used, then, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => used = now,
            }
        }
    }

    /// Gives back what [`Budget::take`] let in.
    pub fn give(&self, bytes: u64) {
        if !planted::is(Bug::SpentBudget) {
            self.used.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    /// A pass for no byte yet, which [`Pass::add`] makes larger.
    #[must_use]
    pub fn pass(self: &Arc<Self>) -> Pass {
        Pass { budget: Arc::clone(self), bytes: 0 }
    }
}

impl Pass {
    /// Lets `bytes` more in on this pass; `false`, and nothing changed, when there is no room.
    #[must_use]
    pub fn add(&mut self, bytes: u64) -> bool {
        let is_in = self.budget.take(bytes);
        self.bytes += if is_in { bytes } else { 0 };
        is_in
    }

    /// Bytes on this pass.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.budget.give(self.bytes);
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn a_single_one_is_always_let_in_and_all_is_given_back() {
        let budget = Arc::new(Budget::new(100));
        let mut large = budget.pass();
        assert!(large.add(1000) && !large.add(1));
        let mut other = budget.pass();
        assert!(!other.add(1));
        drop(large);
        assert!(other.add(60) && other.add(40) && !other.add(1));
        assert_eq!((other.bytes(), budget.used()), (100, 100));
        drop(other);
        assert_eq!(budget.used(), 0);
    }
}
