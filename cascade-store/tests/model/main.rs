//! The store, with files, against the model of `cascade-core`: random sequences of puts, batches with tickets that are waited for or
//! cancelled, leases, deletes, damage, pressure, reopening and crashes, with small blocks going up and down all the time. (The conformance suite is about the space of one tier.)
//!
//! What a crash is here: a real process, forked from the test, opens the store as another owner of the arena and another
//! writer of files, reserves a block, fills half of it, and ends by SIGKILL; the next to open finds its remains in both tiers.

// Clippy's exemption for tests reaches `#[test]` functions only, not their helpers.
#![allow(clippy::unwrap_used, clippy::panic)]

mod raw;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use cascade_core::Result;
use cascade_core::batch::{Batch, Ticket};
use cascade_core::id::BlockId;
use cascade_core::lease::Lease;
use cascade_core::metrics::TierStats;
use cascade_core::reservation::Reserve;
use cascade_core::testing::oracle::{self, HalfPut, Step, Subject, Survival};
use cascade_core::tier::{Addressable, Capability, Lookup, MissReason, PutMeta, Tier};
use cascade_store::{Store, StoreConfig};

const MIB: u64 = 1 << 20;

/// One test at a time: a process that is forked while another thread opens a store can open none.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An arena in memory, smaller than what is put, over files that hold all of it.
fn config(arena: &std::path::Path, files: &std::path::Path, capacity: u64, demote: &str) -> StoreConfig {
    let builder = StoreConfig::builder().without_environment().shm_path(arena).pfs_path(files);
    let settings = [
        ("shm_capacity", capacity.to_string()),
        ("pfs_capacity", "1GiB".to_owned()),
        ("pfs_segment", "1MiB".to_owned()),
        ("demote", demote.to_owned()),
    ];
    let set = |builder: cascade_store::StoreConfigBuilder, (name, value): (&str, String)| {
        builder.set(name, value).unwrap()
    };
    settings.into_iter().fold(builder, set).resolve().unwrap()
}

/// The store, said to be as large as its arena: the model's pressure is on that, and the files hold all.
#[derive(Debug)]
struct AsLargeAsItsArena(Store);

impl Tier for AsLargeAsItsArena {
    fn capability(&self) -> Capability {
        Capability { capacity_bytes: self.0.arena().capability().capacity_bytes, ..self.0.capability() }
    }

    fn lookup(&self, ids: &[BlockId], out: &mut [Lookup]) {
        Tier::lookup(&self.0, ids, out);
    }

    fn submit(&self, batch: Batch) -> Ticket {
        self.0.submit(batch)
    }

    fn flush(&self, deadline: Instant) -> Result<()> {
        Tier::flush(&self.0, deadline)
    }

    fn stats(&self) -> TierStats {
        Tier::stats(&self.0)
    }
}

impl Addressable for AsLargeAsItsArena {
    fn reserve(&self, id: &BlockId, len: u64, meta: PutMeta) -> Reserve {
        Addressable::reserve(&self.0, id, len, meta)
    }

    fn lease(&self, id: &BlockId) -> std::result::Result<Lease, MissReason> {
        Addressable::lease(&self.0, id)
    }
}

struct Chained {
    // Dropped before its folders are removed.
    store: Option<Store>,
    config: StoreConfig,
    _arena: tempfile::TempDir,
    _files: tempfile::TempDir,
}

impl Chained {
    fn new(demote: &str) -> Self {
        let arena = tempfile::Builder::new().prefix("cascade-test-").tempdir_in("/dev/shm").unwrap();
        let files = tempfile::tempdir().unwrap();
        let config = config(&arena.path().join("arena"), &files.path().join("tier"), 4 * MIB, demote);
        let store = Some(Store::open(&config).unwrap());
        Self { store, config, _arena: arena, _files: files }
    }
}

impl Subject for Chained {
    fn tier(&self) -> Arc<dyn Addressable> {
        Arc::new(AsLargeAsItsArena(self.store.clone().unwrap()))
    }

    fn reopen(&mut self) {
        self.store = None;
        self.store = Some(Store::open(&self.config).unwrap());
    }

    fn damage(&mut self, id: &BlockId) -> bool {
        // What the demoter reads now it compares with the digest; what it has read is right.
        let Some(lease) = self.store.as_ref().and_then(|store| store.arena().lease(id).ok()) else {
            return false;
        };
        let mut byte = [0];
        lease.memory().read_at(lease.len() / 2, &mut byte)
            && lease.memory().write_at(lease.len() / 2, &[!byte[0]])
    }

    fn crash(&mut self, half: &HalfPut) -> Survival {
        // Nobody else is at work when the process forks: its threads would not be there in the child.
        self.store = None;
        let evictions = raw::killed(|report| {
            let store = Store::open(&self.config).unwrap();
            let reserved = Addressable::reserve(&store, &half.id, half.len as u64, PutMeta::default());
            if let Reserve::Reserved(mut reservation) = reserved {
                assert!(reservation.write_at(0, &half.written));
                report(Tier::stats(&store).evictions);
            }
            report(Tier::stats(&store).evictions);
        });
        self.store = Some(Store::open(&self.config).unwrap());
        Survival::Intact { evictions }
    }
}

#[test]
fn the_store_keeps_to_the_model_when_all_goes_through() {
    let _alone = alone();
    oracle::check(40, || Box::new(Chained::new("through")));
}

#[test]
fn the_store_keeps_to_the_model_when_the_coldest_go_back() {
    let _alone = alone();
    oracle::check(40, || Box::new(Chained::new("back")));
}

#[test]
fn the_store_keeps_to_the_model_when_nothing_goes_down() {
    let _alone = alone();
    oracle::check(40, || Box::new(Chained::new("off")));
}

#[test]
fn replaced_and_deleted_blocks_stay_so_through_pressure_crashes_and_reopening() {
    let _alone = alone();
    let steps = [
        Step::Put { key: 0, len: 70_000 },
        Step::Put { key: 1, len: 100 },
        Step::Pressure { blocks: 6 },
        Step::PutReplace { key: 0, len: 300 },
        Step::Pressure { blocks: 6 },
        Step::Get { key: 0 },
        Step::Crash { key: 2, len: 70_000 },
        Step::Delete { key: 1 },
        Step::Reopen,
        Step::Get { key: 1 },
        Step::PutReplace { key: 0, len: 5000 },
        Step::Lease { key: 0 },
        Step::Pressure { blocks: 12 },
        Step::Crash { key: 0, len: 300 },
        Step::Get { key: 0 },
    ];
    for demote in ["through", "back", "off"] {
        oracle::run(&steps, &mut Chained::new(demote)).unwrap();
    }
}
