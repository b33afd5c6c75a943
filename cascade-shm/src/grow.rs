//! Growth: pages are made to exist before they are counted on, in the background where there is a janitor. Memory that runs out
//! makes a smaller arena; when there is some again, the janitor goes on.

mod team;

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering as Local};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cascade_core::sync::Ordering;
use nix::fcntl::{FallocateFlags, fallocate};

use crate::config;
use crate::numa::Nodes;
use crate::session::Core;

/// How long a put waits for a region that another touches; it takes a small part of this.
const PATIENCE: Duration = Duration::from_secs(5);
/// Sleep between two looks at it.
const NAP: Duration = Duration::from_micros(200);
/// One look in so many asks whether the other still lives.
const ASK: u32 = 16;
/// What the janitor grows at a time.
const STEP_BYTES: u64 = 256 << 20;
/// Pauses of the janitor after memory ran out, doubled each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Sees to it that there are more than `seen` regions. `false` when the arena is whole, or the machine has no memory left for
/// it (then it stays smaller).
pub fn step(core: &Core, file: &File, seen: u64) -> bool {
    let started = Instant::now();
    for look in 1_u32.. {
        if ready(core) > seen {
            return true;
        }
        if seen >= limit(core) {
            return false;
        }
        let is_dead = |holder| look.is_multiple_of(ASK) && core.is_dead(holder);
        match core.map().control().grow.try_take(core.holder(), &is_dead) {
            Ok(_guard) => {
                let end = limit(core).min(seen + 1);
                return ready(core) > seen || extend(core, file, end, &AtomicBool::new(false));
            }
            Err(_) if started.elapsed() > PATIENCE => return false,
            Err(_) => std::thread::sleep(NAP),
        }
    }
    false
}

/// Touches regions up to `end`; `false` when there is not even one more. Only under the growth lock.
fn extend(core: &Core, file: &File, end: u64, stop: &AtomicBool) -> bool {
    crate::kill::point("grow.locked");
    let (start, region_bytes) = (ready(core), core.map().geometry().region_bytes);
    let room = config::room(file).unwrap_or(u64::MAX) / region_bytes;
    let possible = end.min(start + room);
    let reached = team::touch(core, file, &Nodes::of_machine(), start..possible, stop);
    if reached.is_short || possible < end && reached.ready == possible {
        run_short(core, file, reached.ready..possible);
    }
    reached.ready > start
}

/// The arena stays as it is. What was touched of `unpublished` goes back to those who have nothing left either.
fn run_short(core: &Core, file: &File, unpublished: std::ops::Range<u64>) {
    let control = core.map().control();
    control.limit_regions.store(unpublished.start, Ordering::Release);
    control.shortfalls.fetch_add(1, Ordering::Relaxed);
    let geometry = core.map().geometry();
    let bytes = unpublished.end.saturating_sub(unpublished.start) * geometry.region_bytes;
    if bytes > 0 {
        let start = geometry.offsets().data + unpublished.start * geometry.region_bytes;
        let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        // If it fails, the pages are there for the next attempt.
        let _ = fallocate(file, hole, start as i64, bytes as i64);
    }
}

/// Regions whose pages exist.
pub fn ready(core: &Core) -> u64 {
    core.map().control().ready_regions.load(Ordering::Acquire).min(core.map().geometry().regions() as u64)
}

/// Regions that the arena may grow to.
pub fn limit(core: &Core) -> u64 {
    core.map().control().limit_regions.load(Ordering::Acquire).min(core.map().geometry().regions() as u64)
}

/// Grows the arena in a thread of its own, so that who dies meanwhile is noticed.
#[derive(Debug)]
pub struct Grower<'a> {
    core: &'a Arc<Core>,
    file: &'a File,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    /// Regions there were when memory ran out, when to try again, and the pause before that.
    short: Option<(u64, Instant)>,
    pause: Duration,
}

impl<'a> Grower<'a> {
    /// Does nothing yet.
    #[must_use]
    pub fn new(core: &'a Arc<Core>, file: &'a File) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        Self { core, file, stop, thread: None, short: None, pause: FIRST_PAUSE }
    }

    /// Starts the thread when there is something to grow; whether it is at work.
    pub fn tend(&mut self) -> bool {
        if self.thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
            return true;
        }
        self.join();
        if ready(self.core) >= limit(self.core) && !self.may_try_again() {
            return false;
        }
        let Ok(file) = self.file.try_clone() else { return false };
        let (core, stop) = (Arc::clone(self.core), Arc::clone(&self.stop));
        let work = move || while !stop.load(Local::Relaxed) && grow(&core, &file, &stop) {};
        // Without a thread the arena grows when puts need it.
        self.thread = std::thread::Builder::new().name("cascade-grow".into()).spawn(work).ok();
        self.thread.is_some()
    }

    /// Whether there is anything to grow, and memory for it again after it had run out. Then the limit is lifted.
    fn may_try_again(&mut self) -> bool {
        let (ready, now) = (ready(self.core), Instant::now());
        let geometry = self.core.map().geometry();
        if ready >= geometry.regions() as u64 {
            return false;
        }
        match self.short {
            Some((at, due)) if at == ready && now < due => return false,
            Some((at, _)) if at == ready => self.pause = (self.pause * 2).min(LONGEST_PAUSE),
            _ => {
                self.pause = FIRST_PAUSE;
                self.short = Some((ready, now + FIRST_PAUSE));
                return false;
            }
        }
        self.short = Some((ready, now + self.pause));
        // One region to grow by, and another so that it is not the last that the system has.
        if config::room(self.file).unwrap_or(0) < 2 * geometry.region_bytes {
            return false;
        }
        self.core.map().control().limit_regions.store(geometry.regions() as u64, Ordering::Release);
        true
    }

    fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            // It never panics; and if it did, there is nothing to tell anyone here.
            let _ = thread.join();
        }
    }
}

/// One step of the janitor's; `false` when there is no more to do for now.
fn grow(core: &Core, file: &File, stop: &AtomicBool) -> bool {
    let is_dead = |holder| core.is_dead(holder);
    let Some(_guard) = core.map().control().grow.acquire(core.holder(), &is_dead, PATIENCE) else {
        return true;
    };
    let step = (STEP_BYTES / core.map().geometry().region_bytes).max(1);
    let end = limit(core).min(ready(core) + step);
    end > ready(core) && extend(core, file, end, stop)
}

impl Drop for Grower<'_> {
    fn drop(&mut self) {
        self.stop.store(true, Local::Relaxed);
        self.join();
    }
}
