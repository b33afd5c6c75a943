//! A lock in shared memory whose holder may die: the next one is told, and repairs what the lock guards.

use std::time::Duration;

use cascade_core::planted::{self, Bug};
use cascade_core::sync::{AtomicU64, Ordering, Wait};

/// Who holds a lock: an owner row and how many owners it has had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Holder {
    /// Owner row.
    pub row: u16,
    /// Which of the owners that this row has had.
    pub generation: u32,
}

impl Holder {
    fn to_word(self) -> u64 {
        1 | u64::from(self.row) << 8 | u64::from(self.generation) << 32
    }

    fn from_word(word: u64) -> Self {
        Self { row: (word >> 8) as u16, generation: (word >> 32) as u32 }
    }

    /// Whether somebody could have written `word` into a lock. Nobody holds it if not: it was damaged.
    fn is_word(word: u64) -> bool {
        word & 0xff00_00ff == 1
    }

    /// Who holds a lock whose word is `word`.
    #[must_use]
    pub fn of_lock(word: u64) -> Option<Self> {
        (word != 0).then(|| Self::from_word(word))
    }
}

/// The lock word: 0, or its holder.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Lock {
    word: AtomicU64,
}

/// A held lock.
#[derive(Debug)]
pub struct Guard<'a> {
    lock: &'a Lock,
    word: u64,
    recovered: bool,
}

impl Lock {
    /// Takes the lock if it is free.
    pub fn try_acquire(&self, me: Holder) -> Option<Guard<'_>> {
        self.exchange(0, me, false)
    }

    /// Takes the lock at once if nobody living holds it; else says who does.
    ///
    /// # Errors
    /// Its holder, or who was faster than we.
    pub fn try_take(&self, me: Holder, is_dead: &dyn Fn(Holder) -> bool) -> Result<Guard<'_>, Holder> {
        let word = self.word.load(Ordering::Relaxed);
        if Holder::is_word(word) && !is_dead(Holder::from_word(word)) {
            return Err(Holder::from_word(word));
        }
        self.exchange(word, me, word != 0).ok_or_else(|| self.holder().unwrap_or(me))
    }

    /// Takes the lock, from a dead holder if need be; `None` when a living one keeps it for `limit`.
    pub fn acquire(
        &self,
        me: Holder,
        is_dead: &dyn Fn(Holder) -> bool,
        limit: Duration,
    ) -> Option<Guard<'_>> {
        let mut wait = Wait::new(limit);
        loop {
            let word = self.word.load(Ordering::Relaxed);
            let free = word == 0;
            let is_dead = |holder| planted::is(Bug::LockFromTheLiving) || is_dead(holder);
            if (free || wait.is_long() && (!Holder::is_word(word) || is_dead(Holder::from_word(word))))
                && let Some(guard) = self.exchange(word, me, !free)
            {
                return Some(guard);
            }
            if !wait.again() {
                // On a busy machine the time may be over before the wait has become long enough to ask.
                return self.try_take(me, &is_dead).ok();
            }
        }
    }

    /// Who holds it now.
    pub fn holder(&self) -> Option<Holder> {
        Holder::of_lock(self.word.load(Ordering::Relaxed))
    }

    /// Whether its word is that of a holder, dead or alive.
    pub fn is_held(&self) -> bool {
        Holder::is_word(self.word.load(Ordering::Relaxed))
    }

    fn exchange(&self, from: u64, me: Holder, recovered: bool) -> Option<Guard<'_>> {
        let word = me.to_word();
        let taken = self.word.compare_exchange(from, word, Ordering::Acquire, Ordering::Relaxed).is_ok();
        if planted::is(Bug::LateRelease) && !taken {
            drop(Guard { lock: self, word, recovered });
        }
        // Lazily: a guard that is made and not given would, when dropped, release what another thread of this owner holds.
        taken.then(|| Guard { lock: self, word, recovered })
    }
}

impl Guard<'_> {
    /// Whether the holder before died with the lock: what it guards must be rebuilt.
    #[must_use]
    pub fn recovered(&self) -> bool {
        self.recovered
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        // Fails only if the lock was taken from us, which happens to the dead alone.
        let _ = self.lock.word.compare_exchange(self.word, 0, Ordering::Release, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    const ME: Holder = Holder { row: 2, generation: 9 };

    #[test]
    fn a_free_lock_is_taken_once() {
        let lock = Lock::default();
        let guard = lock.try_acquire(ME).unwrap();
        assert!(!guard.recovered());
        assert!(lock.try_acquire(ME).is_none());
        drop(guard);
        assert!(lock.try_acquire(ME).is_some());
    }

    #[test]
    fn a_word_that_nobody_wrote_holds_nothing() {
        for damage in [1 << 40, 2, 1 << 8 | 1 << 24 | 1, u64::MAX] {
            let lock = Lock { word: AtomicU64::new(damage) };
            let guard = lock.acquire(ME, &|_| false, Duration::from_millis(50)).unwrap();
            assert!(guard.recovered());
        }
    }

    #[test]
    fn a_dead_holder_is_noticed_and_a_living_one_is_not_disturbed() {
        let lock = Lock::default();
        let dead = Holder { row: 1, generation: u32::MAX };
        std::mem::forget(lock.try_acquire(dead));
        assert!(lock.acquire(ME, &|_| false, Duration::from_millis(50)).is_none());
        let guard = lock.acquire(ME, &|holder| holder == dead, Duration::from_millis(50)).unwrap();
        assert!(guard.recovered());
        drop(guard);
        std::mem::forget(lock.try_acquire(dead));
        assert!(lock.acquire(ME, &|holder| holder == dead, Duration::ZERO).is_some(), "asked in the end");
    }
}
