//! The conformance suite of `cascade-core` over the store: a small arena above files.

// Clippy's exemption for tests reaches `#[test]` functions only, not their helpers.
#![allow(clippy::unwrap_used)]

use std::cell::Cell;
use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cascade_core::Result;
use cascade_core::batch::{Batch, Op, Outcome, Ticket};
use cascade_core::id::BlockId;
use cascade_core::metrics::TierStats;
use cascade_core::testing::conformance;
use cascade_core::tier::{Capability, Lookup, Tier};
use cascade_store::{Level, Store, StoreConfig};
use tempfile::TempDir;

/// A small arena.
const ARENA: u64 = 4 << 20;

/// Makes an empty store for each check; the folders of the one before go when the next is asked for.
struct Stores {
    arenas: TempDir,
    files: TempDir,
    next: Cell<u64>,
}

impl Stores {
    fn new() -> Self {
        let arenas = tempfile::Builder::new().prefix("cascade-test-").tempdir_in("/dev/shm").unwrap();
        Self { arenas, files: tempfile::tempdir().unwrap(), next: Cell::new(0) }
    }

    fn open(&self, file_bytes: u64) -> Store {
        self.open_with(file_bytes, "off")
    }

    fn open_with(&self, file_bytes: u64, device_bytes: &str) -> Store {
        let number = self.next.replace(self.next.get() + 1);
        let place = |root: &TempDir, number: u64| root.path().join(number.to_string());
        for root in [&self.arenas, &self.files] {
            let _ = std::fs::remove_dir_all(place(root, number.wrapping_sub(1)));
        }
        let builder = StoreConfig::builder()
            .without_environment()
            .shm_path(place(&self.arenas, number))
            .pfs_path(place(&self.files, number));
        let builder = builder.set("shm_capacity", ARENA.to_string()).unwrap();
        let builder = builder.set("pfs_capacity", file_bytes.to_string()).unwrap();
        let builder = builder.set("pfs_durability", "none").unwrap();
        let builder = builder.set("gpu_capacity", device_bytes).unwrap();
        let builder = builder.set("gpu_devices", "simulated").unwrap();
        Store::open(&builder.resolve().unwrap()).unwrap()
    }
}

/// The store, as a tier that can be held against the rules of one: who puts waits until what was put before is mostly in files, so
/// that nothing is evicted that is not, and a block that both tiers have counts once. The second field is every id that was put.
#[derive(Debug)]
struct WithoutHaste(Store, Mutex<HashSet<BlockId>>);

impl WithoutHaste {
    fn new(store: Store) -> Self {
        Self(store, Mutex::default())
    }

    /// Number and payload bytes of the blocks that the arena has and the files lack.
    fn alone(&self) -> (u64, u64) {
        let arena = self.0.arena();
        // Not what the arena says of copies: the files may have given one up that a slot still notes.
        let ids: Vec<BlockId> = self.1.lock().unwrap().iter().copied().collect();
        let (mut above, mut below) = (vec![Lookup::Pending; ids.len()], vec![Lookup::Pending; ids.len()]);
        arena.lookup(&ids, &mut above);
        self.0.files().unwrap().lookup(&ids, &mut below);
        let metas = above.into_iter().zip(below).filter_map(|found| match found {
            (Lookup::Hit(meta), Lookup::Miss(_) | Lookup::Pending) => Some(meta.len),
            _ => None,
        });
        metas.fold((0, 0), |(blocks, bytes), len| (blocks + 1, bytes + len))
    }
}

impl Tier for WithoutHaste {
    fn capability(&self) -> Capability {
        self.0.capability()
    }

    fn lookup(&self, ids: &[BlockId], out: &mut [Lookup]) {
        Tier::lookup(&self.0, ids, out);
    }

    fn submit(&self, batch: Batch) -> Ticket {
        let stored = batch.ops.iter().filter_map(|op| match op {
            Op::Store { id, .. } => Some(*id),
            _ => None,
        });
        self.1.lock().unwrap().extend(stored);
        let until = Instant::now() + Duration::from_secs(60);
        while self.0.arena().survey(u64::MAX).alone_bytes > ARENA / 8 {
            assert!(Instant::now() < until, "the demoter does not keep up: {:?}", self.0.stats());
            std::thread::sleep(Duration::from_micros(200));
        }
        self.0.submit(batch)
    }

    fn flush(&self, deadline: Instant) -> Result<()> {
        Tier::flush(&self.0, deadline)
    }

    fn stats(&self) -> TierStats {
        Tier::flush(&self.0, Instant::now() + Duration::from_secs(60)).unwrap();
        let (files, (blocks, bytes)) = (self.0.stats().tier(Level::Files), self.alone());
        let (blocks, used_bytes) = (files.blocks + blocks, files.used_bytes + bytes);
        TierStats { blocks, used_bytes, ..Tier::stats(&self.0) }
    }
}

#[test]
fn a_store_with_a_small_arena_above_files_conforms() {
    let stores = Stores::new();
    conformance::tier(&|bytes| Arc::new(WithoutHaste::new(stores.open(bytes))));
}

/// The same with a device above both: every block that was stored or fetched comes up there, as it does for an engine, and what is
/// asked next finds it in three places. The second field counts the leases that brought blocks up, which are hits too.
#[derive(Debug)]
struct OnDevice(WithoutHaste, AtomicU64);

impl Tier for OnDevice {
    fn capability(&self) -> Capability {
        self.0.capability()
    }

    fn lookup(&self, ids: &[BlockId], out: &mut [Lookup]) {
        self.0.lookup(ids, out);
    }

    fn submit(&self, batch: Batch) -> Ticket {
        let ids: Vec<BlockId> = batch
            .ops
            .iter()
            .map(|op| match op {
                Op::Fetch { id, .. } | Op::Store { id, .. } | Op::Delete { id } => *id,
            })
            .collect();
        let ticket = self.0.submit(batch);
        let outcomes = ticket.wait(Instant::now() + Duration::from_secs(60)).unwrap();
        let store = &self.0.0;
        for (id, outcome) in ids.iter().zip(&outcomes) {
            let is_there = matches!(outcome, Outcome::Stored | Outcome::Fetched(_));
            // Too large for the device, or evicted again: the tiers below have it, or nobody.
            if is_there && store.contains(id) && store.get_gpu_ptr(id).is_ok() {
                self.1.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ticket::ready(outcomes)
    }

    fn flush(&self, deadline: Instant) -> Result<()> {
        self.0.flush(deadline)
    }

    fn stats(&self) -> TierStats {
        let stats = self.0.stats();
        TierStats { hits: stats.hits - self.1.load(Ordering::Relaxed), ..stats }
    }
}

#[test]
fn a_store_with_a_device_above_arena_and_files_conforms() {
    let stores = Stores::new();
    conformance::tier(&|bytes| {
        let store = stores.open_with(bytes, "1MiB");
        Arc::new(OnDevice(WithoutHaste::new(store), AtomicU64::new(0)))
    });
}
