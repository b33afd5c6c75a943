//! The pass over all slots, by some threads, with a progress bar.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cascade_shm::{Arena, Scrub, Scrubbed};
use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::interrupt::Interrupts;

/// Slots that a thread takes at once.
const STEP: usize = 1024;
/// Damaged blocks that are kept by name.
const KEPT: usize = 1000;

/// What a pass found.
#[derive(Debug, Default)]
pub(super) struct Swept {
    /// Blocks by what was found, in the order of [`place`].
    pub(super) count: [u64; 4],
    pub(super) bytes: u64,
    pub(super) damaged: Vec<Scrubbed>,
    pub(super) took: Duration,
    pub(super) is_complete: bool,
}

fn place(found: Scrub) -> usize {
    match found {
        Scrub::Sound => 0,
        Scrub::Damaged => 1,
        Scrub::Dropped => 2,
        Scrub::Skipped => 3,
    }
}

impl Swept {
    pub(super) fn of(&self, found: Scrub) -> u64 {
        self.count[place(found)]
    }
}

struct Shared<'a> {
    arena: &'a Arena,
    repair: bool,
    interrupts: &'a Interrupts,
    next_slot: AtomicUsize,
    count: [AtomicU64; 4],
    bytes: AtomicU64,
    damaged: Mutex<Vec<Scrubbed>>,
    is_cut: AtomicBool,
}

/// Looks at every block of `arena`; `expected_bytes` is the length of the bar.
pub(super) fn run(
    arena: &Arena,
    threads: usize,
    repair: bool,
    expected_bytes: u64,
    interrupts: &Interrupts,
) -> Swept {
    let shared = Shared {
        arena,
        repair,
        interrupts,
        next_slot: AtomicUsize::new(0),
        count: Default::default(),
        bytes: AtomicU64::new(0),
        damaged: Mutex::default(),
        is_cut: AtomicBool::new(false),
    };
    let bar = bar(expected_bytes);
    let start = Instant::now();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(|| work(&shared))).collect();
        while !workers.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            bar.set_position(shared.bytes.load(Ordering::Relaxed));
            std::thread::sleep(Duration::from_millis(if bar.is_hidden() { 1 } else { 50 }));
        }
    });
    let took = start.elapsed();
    bar.finish_and_clear();
    let mut damaged = shared.damaged.into_inner().unwrap_or_default();
    damaged.sort_by_key(|one| one.slot);
    Swept {
        count: shared.count.map(AtomicU64::into_inner),
        bytes: shared.bytes.into_inner(),
        damaged,
        took,
        is_complete: !shared.is_cut.into_inner(),
    }
}

fn work(shared: &Shared<'_>) {
    let slots = shared.arena.slot_count();
    loop {
        let first = shared.next_slot.fetch_add(STEP, Ordering::Relaxed);
        if first >= slots {
            return;
        }
        let done = shared.arena.scrub(first..(first + STEP).min(slots), shared.repair, &mut |one| {
            shared.count[place(one.found)].fetch_add(1, Ordering::Relaxed);
            if one.found != Scrub::Skipped {
                shared.bytes.fetch_add(one.bytes, Ordering::Relaxed);
            }
            if matches!(one.found, Scrub::Damaged | Scrub::Dropped)
                && let Ok(mut damaged) = shared.damaged.lock()
                && damaged.len() < KEPT
            {
                damaged.push(*one);
            }
            !shared.interrupts.came()
        });
        if !done {
            shared.is_cut.store(true, Ordering::Relaxed);
            return;
        }
    }
}

/// On the standard error, and only where a person sees it.
fn bar(bytes: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let template = "{bar:30} {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}, {eta} left";
    match ProgressStyle::with_template(template) {
        Ok(style) => ProgressBar::new(bytes).with_style(style),
        Err(_) => ProgressBar::new(bytes),
    }
}

#[cfg(test)]
mod tests {
    use cascade_core::id::BlockId;

    use super::*;
    use crate::{Put, Store, StoreConfig};

    #[test]
    fn an_interrupted_pass_ends_early_and_says_so() {
        let place = tempfile::Builder::new().prefix("cascade-test-").tempdir_in("/dev/shm").unwrap();
        let config = StoreConfig::builder().without_environment().shm_path(place.path().join("arena"));
        let config = config.shm_capacity("16MiB").unwrap().resolve().unwrap();
        let store = Store::open(&config).unwrap();
        for number in 0..50_u8 {
            let _ = store.put(&BlockId::content(&[number]), &[number; 4096], Put::default());
        }
        let interrupts = Interrupts::watch();
        let pass = || run(store.arena(), 2, false, 0, &interrupts);
        let whole = pass();
        assert_eq!((whole.is_complete, whole.of(Scrub::Sound), whole.bytes), (true, 50, 50 * 4096));
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGINT).unwrap();
        assert!(!interrupts.sleep(Duration::from_secs(60)), "a sleep ends with it");
        let cut = pass();
        // Each thread looks up after a block.
        assert!(!cut.is_complete && cut.of(Scrub::Sound) <= 2, "{cut:?}");
    }
}
