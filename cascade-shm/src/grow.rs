//! Growth: pages are made to exist a region at a time, in the background, and never before they are counted on.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering as Local};
use std::thread::JoinHandle;
use std::time::Duration;

use cascade_core::sync::Ordering;

use crate::session::Core;

/// How long a put waits for another that is growing the arena; a region takes a small part of this.
const PATIENCE: Duration = Duration::from_secs(5);

/// Adds one region. `false` when the arena is whole, or the machine has no memory left for it (then it stays smaller).
pub fn step(core: &Core, file: &File) -> bool {
    let control = core.map().control();
    let is_dead = |holder| core.is_dead(holder);
    let before = control.ready_regions.load(Ordering::Acquire);
    let Some(_guard) = control.grow.acquire(core.holder(), &is_dead, PATIENCE) else { return false };
    let ready = control.ready_regions.load(Ordering::Acquire);
    if ready > before {
        return true;
    }
    if ready >= limit(core) {
        return false;
    }
    let geometry = core.map().geometry();
    let (offset, bytes) = (ready * geometry.region_bytes, geometry.region_bytes);
    let place = (geometry.offsets().data + offset) as i64;
    let allocated =
        nix::fcntl::fallocate(file, nix::fcntl::FallocateFlags::empty(), place, bytes as i64).is_ok();
    crate::kill::point("grow.allocated");
    if !allocated || core.map().populate(offset, bytes).is_err() {
        control.limit_regions.store(ready, Ordering::Release);
        return false;
    }
    core.with_regions(|regions| regions.open(ready as usize));
    control.ready_regions.store(ready + 1, Ordering::Release);
    true
}

/// Regions that the arena may grow to.
pub fn limit(core: &Core) -> u64 {
    core.map().control().limit_regions.load(Ordering::Acquire).min(core.map().geometry().regions() as u64)
}

/// A thread that grows the arena until it is whole or its owner goes.
#[derive(Debug)]
pub struct Grower {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Grower {
    /// Starts growing, if there is anything to grow.
    #[must_use]
    pub fn start(core: &Arc<Core>, file: File) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let control = core.map().control();
        if control.ready_regions.load(Ordering::Acquire) >= limit(core) {
            return Self { stop, thread: None };
        }
        let (core, stopped) = (Arc::clone(core), Arc::clone(&stop));
        let work = move || while !stopped.load(Local::Relaxed) && step(&core, &file) {};
        // Without a thread the arena grows when puts need it.
        let thread = std::thread::Builder::new().name("cascade-grow".into()).spawn(work).ok();
        Self { stop, thread }
    }
}

impl Grower {
    /// Grows nothing.
    #[must_use]
    pub fn none() -> Self {
        Self { stop: Arc::default(), thread: None }
    }

    /// Forgets the thread: in a forked child there is none.
    pub fn forget(&mut self) {
        if let Some(thread) = self.thread.take() {
            std::mem::forget(thread);
        }
    }
}

impl Drop for Grower {
    fn drop(&mut self) {
        self.stop.store(true, Local::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It never panics; and if it did, there is nothing to tell anyone here.
            let _ = thread.join();
        }
    }
}
