//! The arena as the tier to measure.

use std::num::NonZero;
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
use cascade_shm::{Arena, ArenaConfig};

use crate::tiers::Wanted;
use crate::units::format_size;

static ARENAS: AtomicU64 = AtomicU64::new(0);
/// Slowest touching of pages that is waited for.
const LEAST_TOUCH_BYTES_PER_SECOND: u64 = 50 << 20;
/// Leases of a handle by default, and what each thread may need at once: a batch, twice.
const LEASES: usize = 4096;
const LEASES_OF_A_THREAD: usize = 2048;

/// A new arena in a folder of its own in `parent`; both go when it is dropped.
///
/// # Errors
/// What opening it gives; `Deadline` when its pages could not be touched in time.
pub fn open(parent: &Path, wanted: &Wanted) -> Result<Arc<dyn Addressable>> {
    let number = ARENAS.fetch_add(1, Ordering::Relaxed);
    let folder = parent.join(format!("arena-{number}"));
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let mut config = ArenaConfig::new(&folder).capacity(wanted.capacity_bytes);
    config.slots = wanted.slots;
    config.leases = u32::try_from((threads * LEASES_OF_A_THREAD).max(LEASES)).ok();
    let arena = Temporary { arena: Arena::open(&config)?, folder };
    let patience = Duration::from_secs(10 + wanted.capacity_bytes / LEAST_TOUCH_BYTES_PER_SECOND);
    if wanted.touched && !arena.arena.wait_ready(Instant::now() + patience) {
        let what = format!(
            "{} of {} of the arena in {} were touched within {} s: the machine is too busy to measure",
            format_size(arena.arena.ready_bytes()),
            format_size(wanted.capacity_bytes),
            parent.display(),
            patience.as_secs()
        );
        return Err(Error::new(ErrorKind::Deadline, what));
    }
    Ok(Arc::new(arena))
}

/// An arena and its folder.
#[derive(Debug)]
struct Temporary {
    arena: Arena,
    folder: PathBuf,
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
