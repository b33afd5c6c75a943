//! Helper threads that share large copies: they spin a short while for the next one, then park.
//!
//! The caller always takes part and can finish alone: it never waits for a thread to start, to wake or to get a lock,
//! only for units that a helper is working on; if that takes long, the CPUs are overcommitted, and further copies go
//! without helpers for a while. After `fork` the child has no helpers; it notices by its process id and
//! starts its own.

mod raw;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use crate::copy::published::Published;
use raw::Job;

/// Most helpers of a process.
pub(crate) const MAX_HELPERS: usize = 16;
/// Turns before a helper parks, and before a waiting caller yields: some 50 to 150 microseconds.
const SPINS: usize = 4000;
/// Turns that a caller spends on the queue's lock before it works alone.
const LOCK_TRIES: usize = 1000;
/// A caller's wait for its helpers that is no longer the end of a unit of work, which takes some 100 microseconds.
const STALL: Duration = Duration::from_micros(500);
/// Most copies that go without helpers after a stall.
const MAX_REST: usize = 64;

static POOL: Published<Pool> = Published::new();

/// Calls `work` once for each unit in `0..units`, on up to `threads` threads in all. A unit whose call panics on a
/// helper is called again here, where the panic goes to the caller.
pub(crate) fn run(threads: usize, units: usize, work: &(dyn Fn(usize) + Sync)) {
    let helpers = threads.saturating_sub(1).min(units.saturating_sub(1)).min(MAX_HELPERS);
    if helpers == 0 {
        (0..units).for_each(work);
        return;
    }
    current(threads - 1).run(helpers, units, work);
}

/// The same for units that wait for others than this pool: how long they take says nothing of overcommitted CPUs.
pub(crate) fn run_patient(threads: usize, units: usize, work: &(dyn Fn(usize) + Sync)) {
    let helpers = threads.saturating_sub(1).min(units.saturating_sub(1)).min(MAX_HELPERS);
    if helpers == 0 {
        (0..units).for_each(work);
        return;
    }
    let pool = current(threads - 1);
    raw::run_shared(units, helpers, work, |job| pool.offer(job));
}

/// This process's pool, started now if need be with `helpers` threads.
fn current(helpers: usize) -> &'static Pool {
    let process = std::process::id();
    let (pool, is_new) = POOL.get(|pool| pool.process == process, || Pool::new(process));
    if is_new {
        pool.start(helpers);
    }
    pool
}

struct Pool {
    process: u32,
    jobs: Mutex<VecDeque<Arc<Job>>>,
    /// Number of jobs ever offered; changes under the lock, watched without it.
    offered: AtomicUsize,
    arrived: Condvar,
    /// Copies that still go without helpers.
    rest: AtomicUsize,
    /// Length of the last rest, in copies; 0 after a copy without a stall.
    last_rest: AtomicUsize,
}

impl Pool {
    fn new(process: u32) -> Self {
        Self {
            process,
            jobs: Mutex::new(VecDeque::new()),
            offered: AtomicUsize::new(0),
            arrived: Condvar::new(),
            rest: AtomicUsize::new(0),
            last_rest: AtomicUsize::new(0),
        }
    }

    fn start(&'static self, helpers: usize) {
        for n in 0..helpers.min(MAX_HELPERS) {
            // A thread that cannot be had is one helper fewer, no error: the caller does the work.
            let builder = std::thread::Builder::new().name(format!("cascade-copy-{n}")).stack_size(256 << 10);
            drop(builder.spawn(|| self.serve()));
        }
    }

    fn run(&self, helpers: usize, units: usize, work: &(dyn Fn(usize) + Sync)) {
        if self.rests() {
            (0..units).for_each(work);
            return;
        }
        let waited = raw::run_shared(units, helpers, work, |job| self.offer(job));
        self.judge(waited);
    }

    /// Whether this copy is to go without helpers.
    fn rests(&self) -> bool {
        self.rest.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }

    /// A helper that keeps the caller waiting was taken off its CPU: there are more threads than CPUs, and one thread
    /// is the faster. Further copies go alone, twice as many after each further stall.
    fn judge(&self, waited: Duration) {
        let rest = match waited > STALL {
            true => (2 * self.last_rest.load(Ordering::Relaxed)).clamp(1, MAX_REST),
            false => 0,
        };
        self.last_rest.store(rest, Ordering::Relaxed);
        self.rest.store(rest, Ordering::Relaxed);
    }

    /// Queues a job, unless the lock cannot be had soon.
    fn offer(&self, job: &Arc<Job>) {
        let Some(mut jobs) = self.lock_soon() else { return };
        jobs.retain(|queued| queued.is_open());
        jobs.push_back(Arc::clone(job));
        self.offered.fetch_add(1, Ordering::Release);
        drop(jobs);
        self.arrived.notify_all();
    }

    fn lock_soon(&self) -> Option<MutexGuard<'_, VecDeque<Arc<Job>>>> {
        for _ in 0..LOCK_TRIES {
            match self.jobs.try_lock() {
                Ok(jobs) => return Some(jobs),
                Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) => std::hint::spin_loop(),
            }
        }
        None
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<Job>>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The life of a helper.
    fn serve(&self) {
        loop {
            // Read before the queue is looked at, so that a job offered after the look is not slept through.
            let seen = self.offered.load(Ordering::Acquire);
            if let Some(job) = self.open_job() {
                job.help();
            } else if !self.spin(seen) {
                let parked = self.arrived.wait_while(self.lock(), |_| self.is_quiet(seen));
                drop(parked);
            }
        }
    }

    /// The first job with work and a place left.
    fn open_job(&self) -> Option<Arc<Job>> {
        let mut jobs = self.lock();
        jobs.retain(|job| job.is_open());
        jobs.iter().find(|job| job.join()).cloned()
    }

    fn is_quiet(&self, seen: usize) -> bool {
        self.offered.load(Ordering::Acquire) == seen
    }

    /// True as soon as a job was offered, false after some turns without one.
    fn spin(&self, seen: usize) -> bool {
        (0..SPINS).any(|_| {
            std::hint::spin_loop();
            !self.is_quiet(seen)
        })
    }
}
