//! Atomics and fences, from `std` or, under `--cfg loom` or `--cfg shuttle`, from those, so that the shipped code is what the
//! models check.

#[cfg(loom)]
pub use loom::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
#[cfg(shuttle)]
pub use shuttle::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
#[cfg(not(any(loom, shuttle)))]
pub use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};

/// Spins before the first yield.
#[cfg(not(any(loom, shuttle)))]
const SPINS: u32 = 64;
/// Steps, spins included, before the first sleep. Few, because on a busy machine a yield may cost a scheduling turn.
#[cfg(not(any(loom, shuttle)))]
const AWAKE: u32 = 68;
/// Length of a sleep.
#[cfg(not(any(loom, shuttle)))]
const NAP: std::time::Duration = std::time::Duration::from_micros(50);
/// Steps of any wait in a model, where time does not pass.
#[cfg(loom)]
const MODEL_STEPS: u32 = 2;
/// As above, where schedules are random: enough that whoever is waited for gets on, unless it is dead.
#[cfg(shuttle)]
const MODEL_STEPS: u32 = 5000;

/// A wait on another thread or process, bounded in time: it spins, yields, then sleeps.
#[derive(Debug)]
pub struct Wait {
    step: u32,
    #[cfg(not(any(loom, shuttle)))]
    limit: std::time::Duration,
    #[cfg(not(any(loom, shuttle)))]
    since: Option<std::time::Instant>,
}

impl Wait {
    /// A wait of at most about `limit`, counted from its first yield.
    #[must_use]
    pub fn new(limit: std::time::Duration) -> Self {
        #[cfg(any(loom, shuttle))]
        {
            let _ = limit;
            Self { step: 0 }
        }
        #[cfg(not(any(loom, shuttle)))]
        Self { step: 0, limit, since: None }
    }

    /// Waits one step; `false` once the time is over.
    #[inline]
    pub fn again(&mut self) -> bool {
        self.step = self.step.saturating_add(1);
        #[cfg(any(loom, shuttle))]
        {
            #[cfg(loom)]
            loom::thread::yield_now();
            #[cfg(shuttle)]
            shuttle::thread::yield_now();
            self.step <= MODEL_STEPS
        }
        #[cfg(not(any(loom, shuttle)))]
        {
            if self.step <= SPINS {
                std::hint::spin_loop();
                return true;
            }
            self.pause()
        }
    }

    #[cfg(not(any(loom, shuttle)))]
    fn pause(&mut self) -> bool {
        let since = *self.since.get_or_insert_with(std::time::Instant::now);
        if self.step <= AWAKE {
            std::thread::yield_now()
        } else {
            std::thread::sleep(NAP)
        }
        since.elapsed() < self.limit
    }

    /// Whether this is a step at which to ask, at some cost, if the other still lives: not before the wait has become long,
    /// and then every 16th.
    #[inline]
    #[must_use]
    pub fn is_long(&self) -> bool {
        #[cfg(loom)]
        {
            true
        }
        #[cfg(shuttle)]
        {
            self.step.is_multiple_of(16)
        }
        #[cfg(not(any(loom, shuttle)))]
        {
            self.step >= AWAKE && (self.step - AWAKE).is_multiple_of(16)
        }
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_wait_ends_after_its_time_and_not_before() {
        let (started, mut wait, mut asked) = (Instant::now(), Wait::new(Duration::from_millis(100)), 0);
        while wait.again() {
            asked += u32::from(wait.is_long());
        }
        assert!(started.elapsed() >= Duration::from_millis(100));
        assert!(asked > 0, "a long wait asks whether the other lives");
    }
}
