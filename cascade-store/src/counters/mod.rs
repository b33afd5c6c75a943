//! What the stores of a node count together: a file beside the arena, which outlives them all. `cascade stat` and `doctor` read it;
//! nothing else depends on it. Byte table in docs/format.md.
//!
//! A store adds to its own numbers and to one stripe of the file, which it may share with others. Nobody owns a stripe and nothing is
//! handed back, so a process that is killed takes nothing with it.

mod file;
mod layout;
mod raw;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cascade_core::metrics::{Distribution, Histogram, TierStats, bucket_of};
use cascade_shm::BelowStats;

pub use file::look;
pub(crate) use layout::Timed;
pub use layout::{Totals, parse};
use raw::Stripe;

pub(crate) use file::open;
#[cfg(feature = "cli")]
pub(crate) use file::path_of;

/// Whether a counter of this name has a place in the file.
#[cfg(test)]
pub(crate) fn is_known(name: &str) -> bool {
    layout::place(name).is_some()
}

/// The words that a store adds to; none where there is no such file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Board(Option<Arc<Stripe>>);

impl Board {
    fn word(&self, at: usize) -> Option<&AtomicU64> {
        self.0.as_ref().and_then(|stripe| stripe.words().get(at))
    }

    /// A counter of this store that adds to the word of this name too.
    pub(crate) fn counter(&self, name: &str) -> Counter {
        let at = layout::place(name).unwrap_or(usize::MAX);
        Counter { own: AtomicU64::new(0), board: self.clone(), at }
    }

    pub(crate) fn timing(&self, of: Timed) -> Timing {
        Timing { own: Histogram::default(), board: self.clone(), start: of.start() }
    }

    /// Notes that something was put, where nobody did before.
    pub(crate) fn first_put(&self) {
        let Some(word) = layout::place("first_put_s").and_then(|at| self.word(at)) else { return };
        if word.load(Ordering::Relaxed) == 0 {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
            let _ = word.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
        }
    }
}

/// A number that a store keeps for itself and adds to the node's.
#[derive(Debug)]
pub(crate) struct Counter {
    own: AtomicU64,
    board: Board,
    at: usize,
}

impl Counter {
    #[inline]
    pub(crate) fn add(&self, more: u64) {
        if more == 0 {
            return;
        }
        self.own.fetch_add(more, Ordering::Relaxed);
        if let Some(word) = self.board.word(self.at) {
            word.fetch_add(more, Ordering::Relaxed);
        }
    }

    /// Takes over a number that somebody else counts, and that never falls.
    fn follow(&self, now: u64) {
        let before = self.own.fetch_max(now, Ordering::Relaxed);
        if let Some(word) = self.board.word(self.at) {
            word.fetch_add(now.saturating_sub(before), Ordering::Relaxed);
        }
    }

    pub(crate) fn get(&self) -> u64 {
        self.own.load(Ordering::Relaxed)
    }
}

/// Durations that a store keeps for itself and adds to the node's.
#[derive(Debug)]
pub(crate) struct Timing {
    own: Histogram,
    board: Board,
    start: usize,
}

impl Timing {
    pub(crate) fn record(&self, took: Duration) {
        self.own.record(took);
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        for (at, more) in [(bucket_of(took), 1), (cascade_core::metrics::BUCKETS, ns)] {
            if let Some(word) = self.board.word(self.start + at) {
                word.fetch_add(more, Ordering::Relaxed);
            }
        }
    }

    pub(crate) fn snapshot(&self) -> Distribution {
        self.own.snapshot()
    }
}

/// What the tiers count by themselves, as the node hears of it: when a store looks, every second or so, and when it is closed.
#[derive(Debug)]
pub(crate) struct Followed {
    kept_evictions: Counter,
    risen_hits: Counter,
    files: [Counter; 7],
}

impl Followed {
    pub(crate) fn on(board: &Board) -> Self {
        let names = [
            "files_puts",
            "files_exists",
            "files_refused",
            "files_evictions",
            "files_corrupt",
            "files_bytes_in",
            "files_bytes_out",
        ];
        Self {
            kept_evictions: board.counter("kept_evictions"),
            risen_hits: board.counter("risen_hits"),
            files: names.map(|name| board.counter(name)),
        }
    }

    pub(crate) fn follow(&self, below: BelowStats, files: &TierStats) {
        self.kept_evictions.follow(below.kept_evictions);
        self.risen_hits.follow(below.risen_hits);
        let values = [
            files.puts,
            files.exists,
            files.refused,
            files.evictions,
            files.corrupt,
            files.bytes_in,
            files.bytes_out,
        ];
        self.files.iter().zip(values).for_each(|(counter, now)| counter.follow(now));
    }
}
