//! What is counted.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::config::IoEngine;

/// One counter.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// Adds one; whether it was the first.
    pub(crate) fn add_first(&self) -> bool {
        self.0.fetch_add(1, Ordering::Relaxed) == 0
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counters of one handle.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) puts: Counter,
    pub(crate) exists: Counter,
    pub(crate) refused: Counter,
    pub(crate) hits: Counter,
    pub(crate) misses: Counter,
    pub(crate) evictions: Counter,
    pub(crate) corrupt: Counter,
    pub(crate) bytes_in: Counter,
    pub(crate) bytes_out: Counter,
    pub(crate) creates: Counter,
    pub(crate) metadata: Counter,
    pub(crate) removes: Counter,
    pub(crate) syncs: Counter,
    pub(crate) writes: Counter,
    pub(crate) reads: Counter,
    pub(crate) poisoned: Counter,
    pub(crate) no_space: Counter,
    pub(crate) io_errors: Counter,
    pub(crate) lost_files: Counter,
    pub(crate) kept: Counter,
    pub(crate) adopted: Counter,
    pub(crate) deadlines: Counter,
    pub(crate) calls: Counter,
    pub(crate) merged: Counter,
    pub(crate) buffered: Counter,
}

/// What a tier of files counts beyond [`TierStats`](cascade_core::metrics::TierStats).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PfsStats {
    /// Whether data goes past the page cache.
    pub direct: bool,
    /// Whether the directory can only be read: nothing is written, and puts are refused.
    pub read_only: bool,
    /// Segment files that were opened through the page cache although direct I/O was asked for: the file system refused it.
    pub buffered_files: u64,
    /// What moves the bytes: `Uring` or `Pool`.
    pub engine: IoEngine,
    /// Why.
    pub engine_reason: &'static str,
    /// Bytes of memory that are registered with io_uring.
    pub registered_bytes: u64,
    /// Storage targets that a segment is spread over: 0 where the file system decides, 65535 all.
    pub stripe_count: u16,
    /// Bytes of a stripe; 0 where the file system decides.
    pub stripe_bytes: u32,
    /// Bytes of the segment files that this writer owns, the rest of the open segment included.
    pub file_bytes: u64,
    /// Segment files that this writer owns.
    pub segments: u64,
    /// Files made.
    pub creates: u64,
    /// Calls that ask a metadata server: opening, making, listing, removing, lengths and times, locks, syncs of names.
    pub metadata: u64,
    /// Bytes of memory for the index of blocks, those of other writers too.
    pub index_bytes: u64,
    /// Files removed.
    pub removes: u64,
    /// Calls of fdatasync.
    pub syncs: u64,
    /// Writes to segments.
    pub writes: u64,
    /// Reads of blocks.
    pub reads: u64,
    /// Transfers that those reads took; fewer where neighbours are read together, more for long blocks.
    pub read_transfers: u64,
    /// Blocks that were read together with others.
    pub merged: u64,
    /// Operations that were answered because their deadline had passed.
    pub deadlines: u64,
    /// Files given up after a failed fdatasync.
    pub poisoned: u64,
    /// Puts refused because the file system or a quota was full.
    pub no_space: u64,
    /// Calls that failed for another reason.
    pub io_errors: u64,
    /// Segments that were not there when they were to be read.
    pub lost_files: u64,
    /// Blocks that were written again when their segment was reclaimed.
    pub kept: u64,
    /// Dead writers whose segments were adopted.
    pub adopted: u64,
    /// Files in the directory of a version of the format that this program does not read: they are left alone.
    pub other_version: u64,
}
