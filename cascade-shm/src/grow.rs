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
}

impl<'a> Grower<'a> {
    /// Does nothing yet.
    #[must_use]
    pub fn new(core: &'a Arc<Core>, file: &'a File) -> Self {
        Self { core, file, stop: Arc::new(AtomicBool::new(false)), thread: None }
    }

    /// Starts the thread when there is something to grow.
    pub fn tend(&mut self) {
        if self.thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
            return;
        }
        self.join();
        if ready(self.core) >= limit(self.core) {
            return;
        }
        let Ok(file) = self.file.try_clone() else { return };
        let (core, stop) = (Arc::clone(self.core), Arc::clone(&self.stop));
        let work = move || while !stop.load(Local::Relaxed) && step(&core, &file) {};
        // Without a thread the arena grows when puts need it.
        self.thread = std::thread::Builder::new().name("cascade-grow".into()).spawn(work).ok();
    }

    fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            // It never panics; and if it did, there is nothing to tell anyone here.
            let _ = thread.join();
        }
    }
}

impl Drop for Grower<'_> {
    fn drop(&mut self) {
        self.stop.store(true, Local::Relaxed);
        self.join();
    }
}
