//! Pages put together into huge ones, on file systems that hand out ordinary ones: where the arena is made and grows at once, what
//! was there already in the background. A lookup in an index of gigabytes then misses the cache, and not the page table as well.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering as Local};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cascade_core::sync::Ordering;

use crate::config;
use crate::grow;
use crate::hugepage::Medium;
use crate::raw::{HUGE_BYTES, Map};
use crate::session::Core;

/// Arenas that are smaller gain nothing: the addresses of so many ordinary pages stay in the processor.
const LEAST_BYTES: u64 = 16 << 20;
/// What is asked for at once. Who touches it meanwhile waits for one huge page; the system's own work for a call is shared by all.
const STEP_BYTES: u64 = 8 << 20;
/// Huge pages that the system refuses one after the other before it is left alone for a while.
const PATIENCE: u32 = 4;
/// Pauses after that, doubled each time.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// What is known of an arena's huge pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HugePages {
    /// Bytes of the file, tables included, that are in huge pages as far as this program has seen to it.
    pub bytes: u64,
    /// Huge pages that the system refused to make, each attempt counted.
    pub refusals: u64,
    /// The system's last reason, as its error number; `None` when it never refused.
    pub error: Option<i32>,
}

impl HugePages {
    /// As the control area has it; `most` bytes are in the file.
    #[must_use]
    pub fn new(words: [u64; 3], most: u64) -> Self {
        let error = i32::try_from(words[2]).ok().filter(|error| *error != 0);
        Self { bytes: words[0].min(most), refusals: words[1], error }
    }

    /// The system's last reason, in its words.
    #[must_use]
    pub fn reason(&self) -> Option<String> {
        self.error.map(|error| io::Error::from_raw_os_error(error).to_string())
    }
}

/// Whether the pages of `file` are to be put together: those of a pool are huge already, and a model has none.
#[must_use]
pub fn is_wanted(file: &File) -> bool {
    let is_large = file.metadata().is_ok_and(|metadata| metadata.len() >= LEAST_BYTES);
    !cfg!(any(loom, shuttle)) && is_large && !Medium::of_file(file).is_pool()
}

/// Puts a part of the file together and counts what came of it.
pub fn attempt(map: &Map, start: u64, bytes: u64) -> io::Result<()> {
    let done = map.make_huge(start, bytes);
    count(map, bytes, &done);
    done
}

/// Counts what became of an attempt at `bytes` bytes: for people.
pub fn count(map: &Map, bytes: u64, done: &io::Result<()>) {
    let control = map.control();
    match done {
        Ok(()) => {
            control.huge_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        Err(error) => {
            control.huge_refusals.fetch_add(bytes.div_ceil(HUGE_BYTES as u64), Ordering::Relaxed);
            control.huge_error.store(error.raw_os_error().unwrap_or(0) as u64, Ordering::Relaxed);
        }
    }
}

/// Goes over the arena, in a thread of its own, once it has grown: what is huge already is only looked at.
#[derive(Debug)]
pub struct Sweeper<'a> {
    core: &'a Arc<Core>,
    file: &'a File,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Swept>>,
    /// Regions there were when all of it was huge.
    whole: Option<u64>,
    due: Instant,
    pause: Duration,
}

/// What a sweep came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Swept {
    bytes: u64,
    refused: u32,
    regions: u64,
    is_whole: bool,
}

impl<'a> Sweeper<'a> {
    /// Does nothing yet.
    #[must_use]
    pub fn new(core: &'a Arc<Core>, file: &'a File) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        Self { core, file, stop, thread: None, whole: None, due: Instant::now(), pause: FIRST_PAUSE }
    }

    /// Starts the thread when there is something to look at.
    pub fn tend(&mut self) {
        if self.thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
            return;
        }
        if let Some(swept) = self.join() {
            self.settle(swept);
        }
        let now = Instant::now();
        if self.whole == Some(grow::ready(self.core)) || now < self.due || !is_wanted(self.file) {
            return;
        }
        let Ok(file) = self.file.try_clone() else { return };
        let (core, stop) = (Arc::clone(self.core), Arc::clone(&self.stop));
        let work = move || sweep(&core, &file, &stop);
        // Without a thread pages stay as they are.
        self.thread = std::thread::Builder::new().name("cascade-huge".into()).spawn(work).ok();
    }

    fn settle(&mut self, swept: Swept) {
        if swept.is_whole && swept.refused == 0 {
            self.whole = Some(swept.regions);
            self.pause = FIRST_PAUSE;
        } else {
            self.due = Instant::now() + self.pause;
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn join(&mut self) -> Option<Swept> {
        // It never panics; and if it did, there is nothing to tell anyone here.
        self.thread.take()?.join().ok()
    }
}

impl Drop for Sweeper<'_> {
    fn drop(&mut self) {
        self.stop.store(true, Local::Relaxed);
        self.join();
    }
}

/// One pass over tables and regions that are ready.
fn sweep(core: &Core, file: &File, stop: &AtomicBool) -> Swept {
    let (map, regions) = (core.map(), grow::ready(core));
    let end = map.data_start() + regions * map.geometry().region_bytes;
    let end = end / HUGE_BYTES as u64 * HUGE_BYTES as u64;
    let mut swept = Swept { regions, ..Swept::default() };
    let (mut start, mut patience) = (0, PATIENCE);
    while start < end {
        let bytes = STEP_BYTES.min(end - start);
        if stop.load(Local::Relaxed) || patience == 0 || config::room(file).is_some_and(|room| room < bytes) {
            return swept;
        }
        let began = Instant::now();
        match step(map, start, bytes) {
            Ok(()) => swept.bytes += bytes,
            Err((made, refused)) => {
                swept.bytes += made;
                swept.refused += refused;
                patience = if made > 0 { PATIENCE } else { patience - 1 };
            }
        }
        start += bytes;
        // Half of the time belongs to those whose pages these are.
        std::thread::sleep(began.elapsed().min(Duration::from_millis(100)));
    }
    swept.is_whole = true;
    map.control().huge_bytes.store(swept.bytes, Ordering::Relaxed);
    swept
}

/// All of it, else one huge page after the other: gives bytes made and pages refused.
fn step(map: &Map, start: u64, bytes: u64) -> Result<(), (u64, u32)> {
    if map.make_huge(start, bytes).is_ok() {
        return Ok(());
    }
    let (mut made, mut refused) = (0, 0);
    for page in (start..start + bytes).step_by(HUGE_BYTES) {
        match attempt(map, page, HUGE_BYTES as u64) {
            Ok(()) => made += HUGE_BYTES as u64,
            Err(_) => refused += 1,
        }
    }
    if refused == 0 { Ok(()) } else { Err((made, refused)) }
}
