//! First touch by several threads at once: regions are published in order, each as soon as it and all before it are whole.

use std::fs::File;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering as Local};
use std::time::{Duration, Instant};

use cascade_core::sync::Ordering;
use parking_lot::Mutex;

use crate::collapse;
use crate::hugepage::{Huge, Medium};
use crate::numa::Nodes;
use crate::raw::HUGE_BYTES;
use crate::session::Core;

/// What a thread touches at a time. Small enough that a handle that is closed does not wait long for it.
const PIECE_BYTES: u64 = 4 << 20;
/// What a piece may take to be made huge. Beyond it the system moves other pages about for that: who waits for room gets ordinary
/// pages, and the janitor puts them together later.
const SLOWEST: Duration = Duration::from_millis(12);
/// Threads for each node that touch ordinary pages: more get in each other's way within the one file (on 16 cores, GB/s: 2.8
/// with one, 6.2 with four, 5.0 with sixteen). Huge pages have no such bound (8, 26 and 32).
const THREADS_OF_NODE: usize = 4;
/// Threads at most.
const MOST_THREADS: usize = 16;

/// How far a team came, and whether memory is what it lacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reached {
    pub(super) ready: u64,
    pub(super) is_short: bool,
}

struct Team<'a> {
    core: &'a Core,
    file: &'a File,
    stop: &'a AtomicBool,
    nodes: &'a Nodes,
    regions: Range<u64>,
    pieces: u64,
    /// For each node, the next of its pieces. Regions lie on the nodes in turn.
    next: Vec<AtomicU64>,
    /// For each region, the pieces not touched yet.
    left: Vec<AtomicU64>,
    is_short: AtomicBool,
    /// Whether pages are made huge first: not where the file system gives huge ones, or the system has just refused.
    makes_huge: AtomicBool,
    published: Mutex<u64>,
}

/// Makes the pages of `regions` exist and publishes them. Only under the growth lock.
pub(super) fn touch(
    core: &Core,
    file: &File,
    nodes: &Nodes,
    regions: Range<u64>,
    stop: &AtomicBool,
) -> Reached {
    let count = regions.end.saturating_sub(regions.start);
    let region_bytes = core.map().geometry().region_bytes;
    let pieces = region_bytes.div_ceil(PIECE_BYTES);
    let is_ordinary = Medium::of_file(file).huge == Huge::None;
    // Regions that huge pages do not fit into are few and small: the janitor looks after them.
    let makes_huge =
        is_ordinary && region_bytes.is_multiple_of(HUGE_BYTES as u64) && collapse::is_wanted(file);
    let team = Team {
        core,
        file,
        stop,
        nodes,
        pieces,
        next: (0..nodes.count()).map(|_| AtomicU64::new(0)).collect(),
        left: (0..count).map(|_| AtomicU64::new(pieces)).collect(),
        is_short: AtomicBool::new(false),
        makes_huge: AtomicBool::new(makes_huge),
        published: Mutex::new(regions.start),
        regions,
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let useful = if is_ordinary { THREADS_OF_NODE * nodes.count() } else { MOST_THREADS };
    let threads = cores.min(useful).min(MOST_THREADS).min((count * pieces) as usize);
    // One thread on one node needs no other to be bound.
    if threads > 1 || nodes.count() > 1 {
        std::thread::scope(|scope| {
            let team = &team;
            for number in 0..threads {
                let thread = std::thread::Builder::new().name("cascade-touch".into());
                // With fewer threads it takes longer, and with none the caller does it.
                let _ = thread.spawn_scoped(scope, move || team.work(number, true));
            }
        });
    }
    team.work(0, false);
    Reached { ready: *team.published.lock(), is_short: team.is_short.load(Local::Relaxed) }
}

impl Team<'_> {
    /// Touches what is left, beginning with one node's part.
    fn work(&self, number: usize, may_bind: bool) {
        let nodes = self.nodes.count();
        for node in (0..nodes).map(|step| (number + step) % nodes) {
            if may_bind {
                self.nodes.bind(node);
            }
            while let Some((region, piece)) = self.take(node) {
                if self.stop.load(Local::Relaxed) || self.is_short.load(Local::Relaxed) {
                    return;
                }
                if !self.touch_piece(region, piece) {
                    self.is_short.store(true, Local::Relaxed);
                    return;
                }
                crate::kill::point("grow.allocated");
                self.done(region);
            }
        }
    }

    /// The next piece that belongs on `node`, as (region, piece).
    fn take(&self, node: usize) -> Option<(u64, u64)> {
        let nodes = self.nodes.count() as u64;
        let taken = self.next.get(node)?.fetch_add(1, Local::Relaxed);
        // The first region at or after the start that lies on this node.
        let first = self.regions.start + (node as u64 + nodes - self.regions.start % nodes) % nodes;
        let region = first + taken / self.pieces * nodes;
        (region < self.regions.end).then_some((region, taken % self.pieces))
    }

    fn touch_piece(&self, region: u64, piece: u64) -> bool {
        let region_bytes = self.core.map().geometry().region_bytes;
        let start = region * region_bytes + piece * PIECE_BYTES;
        let bytes = PIECE_BYTES.min(region_bytes - piece * PIECE_BYTES);
        if self.makes_huge.load(Local::Relaxed) {
            let start = self.core.map().data_start() + start;
            let began = Instant::now();
            let done = collapse::attempt(self.core.map(), start, bytes);
            self.makes_huge.fetch_and(done.is_ok() && began.elapsed() <= SLOWEST, Local::Relaxed);
        }
        // What is missing still, or all of it.
        self.core.map().populate(self.file, start, bytes).is_ok()
    }

    fn done(&self, region: u64) {
        let left = &self.left[(region - self.regions.start) as usize];
        if left.fetch_sub(1, Local::AcqRel) > 1 {
            return;
        }
        let mut published = self.published.lock();
        let is_whole = |region: u64| {
            let left = self.left.get((region - self.regions.start) as usize);
            left.is_some_and(|left| left.load(Local::Acquire) == 0)
        };
        while is_whole(*published) {
            self.core.with_regions(|regions| regions.open(*published as usize));
            crate::kill::point("grow.opened");
            *published += 1;
            self.core.map().control().ready_regions.store(*published, Ordering::Release);
            crate::kill::point("grow.counted");
        }
    }
}
