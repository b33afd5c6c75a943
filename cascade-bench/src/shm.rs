//! The arena as the tier to measure.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cascade_core::batch::{Batch, Ticket};
use cascade_core::id::BlockId;
use cascade_core::lease::Lease;
use cascade_core::metrics::TierStats;
use cascade_core::reservation::Reserve;
use cascade_core::tier::{Addressable, Capability, Lookup, MissReason, PutMeta, Tier};
use cascade_core::{Error, ErrorKind, Result};
use cascade_shm::layout::{CHUNK_BYTES, Geometry, STRIPE_ENTRIES, STRIPE_LEASES};
use cascade_shm::{Arena, ArenaConfig};

use crate::prefill;
use crate::tiers::{Opened, Wanted};
use crate::units::format_size;

/// Data that the blocks of an arena share when its index alone counts.
const INDEX_ONLY_BYTES: u64 = 64 << 20;
/// How long huge pages are waited for in all, and how long after the last one.
const HUGE_PATIENCE: Duration = Duration::from_secs(20);
const HUGE_QUIET: Duration = Duration::from_secs(1);
static ARENAS: AtomicU64 = AtomicU64::new(0);
/// Slowest touching of pages that is waited for.
const LEAST_TOUCH_BYTES_PER_SECOND: u64 = 50 << 20;
/// Leases of a handle by default, what each thread may need at once (a batch, twice), and what a handle can have.
const LEASES: usize = 4096;
const LEASES_OF_A_THREAD: usize = 2048;
/// Owner rows of an arena by default.
const MOST_OWNERS: u64 = 256;
const MOST_LEASES: usize = (1 << 20) / STRIPE_ENTRIES * STRIPE_LEASES;

/// A new arena in a folder of its own in `parent`; both go when it is dropped.
///
/// # Errors
/// What opening it gives; `Deadline` when its pages could not be touched in time.
pub fn open(parent: &Path, wanted: &Wanted) -> Result<Opened> {
    let arena = make(parent, wanted)?;
    let geometry = arena.arena.superblock().geometry;
    if let Some(blocks) = wanted.index_only {
        prefill::fill(&arena.arena, blocks)?;
    }
    // What belongs to blocks and data; owners and their ledgers are there for processes.
    let full = Geometry {
        data_bytes: wanted.capacity_bytes / geometry.region_bytes * geometry.region_bytes,
        ..geometry
    };
    let offsets = full.offsets();
    let index_bytes = offsets.digests + full.data_bytes / CHUNK_BYTES * 8 - offsets.tags;
    Ok(Opened { tier: Arc::new(arena), index_bytes: Some(index_bytes) })
}

/// Leases that a handle needs which so many threads use at once.
fn leases(threads: usize) -> usize {
    (threads * LEASES_OF_A_THREAD).clamp(LEASES, MOST_LEASES)
}

/// Bytes that the ledgers of all owners take for so many threads.
pub(crate) fn ledger_bytes(threads: usize) -> u64 {
    let entries = leases(threads).div_ceil(STRIPE_LEASES) * STRIPE_ENTRIES;
    entries as u64 * 8 * MOST_OWNERS
}

/// As [`open`], as an arena.
pub(crate) fn make(parent: &Path, wanted: &Wanted) -> Result<Temporary> {
    let number = ARENAS.fetch_add(1, Ordering::Relaxed);
    let folder = parent.join(format!("arena-{number}"));
    let capacity_bytes = if wanted.index_only.is_some() { INDEX_ONLY_BYTES } else { wanted.capacity_bytes };
    let mut config = ArenaConfig::new(&folder).capacity(capacity_bytes);
    config.slots = wanted.slots;
    config.leases = u32::try_from(leases(wanted.threads)).ok();
    let arena = Temporary { arena: Arena::open(&config)?, folder };
    let patience = Duration::from_secs(10 + capacity_bytes / LEAST_TOUCH_BYTES_PER_SECOND);
    if wanted.touched && !arena.arena.wait_ready(Instant::now() + patience) {
        let what = format!(
            "{} of {} of the arena in {} were touched within {} s: the machine is too busy to measure",
            format_size(arena.arena.ready_bytes()),
            format_size(capacity_bytes),
            parent.display(),
            patience.as_secs()
        );
        return Err(Error::new(ErrorKind::Deadline, what));
    }
    if wanted.touched {
        settle(&arena.arena);
    }
    Ok(arena)
}

/// Waits until the janitor puts no more pages together into huge ones: a warm arena has that behind it.
fn settle(arena: &Arena) {
    let until = Instant::now() + HUGE_PATIENCE;
    let mut seen = arena.growth().huge_pages;
    let mut since = Instant::now();
    while seen.bytes < arena.ready_bytes() && since.elapsed() < HUGE_QUIET && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(20));
        let now = arena.growth().huge_pages;
        if now.bytes != seen.bytes {
            (seen, since) = (now, Instant::now());
        }
    }
}

/// An arena and its folder.
#[derive(Debug)]
pub(crate) struct Temporary {
    pub(crate) arena: Arena,
    /// Where it is; opened by other processes as well.
    pub(crate) folder: PathBuf,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // The run's own folder goes at the end in any case.
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

impl Tier for Temporary {
    fn capability(&self) -> Capability {
        self.arena.capability()
    }

    fn lookup(&self, ids: &[BlockId], out: &mut [Lookup]) {
        self.arena.lookup(ids, out);
    }

    fn submit(&self, batch: Batch) -> Ticket {
        self.arena.submit(batch)
    }

    fn flush(&self, deadline: Instant) -> Result<()> {
        self.arena.flush(deadline)
    }

    fn stats(&self) -> TierStats {
        self.arena.stats()
    }
}

impl Addressable for Temporary {
    fn reserve(&self, id: &BlockId, len: u64, meta: PutMeta) -> Reserve {
        self.arena.reserve(id, len, meta)
    }

    fn lease(&self, id: &BlockId) -> std::result::Result<Lease, MissReason> {
        self.arena.lease(id)
    }

    fn lease_batch(&self, ids: &[BlockId]) -> Vec<std::result::Result<Lease, MissReason>> {
        self.arena.lease_batch(ids)
    }
}
