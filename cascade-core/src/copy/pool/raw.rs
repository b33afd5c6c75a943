//! A job: work on the caller's stack that helpers may call while, and only while, the caller waits for it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::SPINS;

type Work<'a> = dyn Fn(usize) + Sync + 'a;

/// Units to do, claimed one by one.
pub(super) struct Job {
    /// Valid while a claimed unit is not done.
    work: *const Work<'static>,
    units: usize,
    /// The next unit to claim; beyond `units` when all are claimed.
    next: AtomicUsize,
    /// Units that nobody works on any more.
    done: AtomicUsize,
    /// Helpers that may still join.
    places: AtomicUsize,
    /// Units whose call panicked.
    failed: Mutex<Vec<usize>>,
}

// SAFETY: `work` points to a `Sync` closure and is only called between the claim of a unit and the count of that unit
// as done, while `run_shared` keeps the closure alive; everything else is `Sync` by itself.
unsafe impl Send for Job {}
// SAFETY: as above.
unsafe impl Sync for Job {}

/// Calls `work` for each unit, with up to `helpers` threads that get the job by `offer`. Returns how long the caller
/// had to wait for them when it had nothing left to do.
pub(super) fn run_shared(
    units: usize,
    helpers: usize,
    work: &Work<'_>,
    offer: impl FnOnce(&Arc<Job>),
) -> Duration {
    // SAFETY: only the lifetime changes. This function does not return, also not by a panic, before `done` has
    // reached `units`; from then on no claim succeeds, so nobody calls `work` any more. `offer` does not unwind.
    let work_erased = unsafe { std::mem::transmute::<&Work<'_>, &'static Work<'static>>(work) };
    let job = Arc::new(Job {
        work: work_erased,
        units,
        next: AtomicUsize::new(0),
        done: AtomicUsize::new(0),
        places: AtomicUsize::new(helpers),
        failed: Mutex::new(Vec::new()),
    });
    offer(&job);
    job.help();
    let waited = job.wait();
    let failed = std::mem::take(&mut *job.failed.lock().unwrap_or_else(PoisonError::into_inner));
    failed.into_iter().for_each(work);
    waited
}

impl Job {
    /// Whether there are units to claim.
    pub(super) fn is_open(&self) -> bool {
        self.next.load(Ordering::Relaxed) < self.units
    }

    /// Takes a helper's place; false if all are taken.
    pub(super) fn join(&self) -> bool {
        self.places.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }

    /// Works until all units are claimed.
    pub(super) fn help(&self) {
        while self.is_open() {
            let unit = self.next.fetch_add(1, Ordering::Relaxed);
            if unit >= self.units {
                return;
            }
            // SAFETY: the unit is claimed and not done, so the caller still waits and the closure is alive.
            let call = || unsafe { (*self.work)(unit) };
            if catch_unwind(AssertUnwindSafe(call)).is_err() {
                self.failed.lock().unwrap_or_else(PoisonError::into_inner).push(unit);
            }
            // Release: the caller that sees the count sees the unit's bytes.
            self.done.fetch_add(1, Ordering::Release);
        }
    }

    /// Waits until no unit is in work; returns how long.
    fn wait(&self) -> Duration {
        let start = Instant::now();
        let mut turns = 0;
        while self.done.load(Ordering::Acquire) < self.units {
            turns += 1;
            if turns < SPINS {
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
        start.elapsed()
    }
}
