//! The arena against the model of `cascade-core`: random sequences of puts, leases, deletes, pressure, reopening and crashes.
//!
//! What a crash is here: a real process, forked from the test, attaches as an owner of its own, reserves a block, fills half
//! of it, leases what it finds, and ends by SIGKILL. In one test nobody else is attached when it dies, and the next to open
//! finds its remains; in the other the test's own handle lives on and recovers them. Death at the named points inside put,
//! seal and evict is another test's.

// Clippy's exemption for tests reaches `#[test]` functions only, not their helpers.
#![allow(clippy::unwrap_used, clippy::panic)]

mod raw;

use std::sync::Arc;

use cascade_core::testing::oracle::{self, HalfPut, Step, Subject, Survival};
use cascade_core::tier::{Addressable, PutMeta, Tier};
use cascade_shm::{Arena, ArenaConfig};

const MIB: u64 = 1 << 20;

struct Shared {
    // Dropped before its folder is removed.
    arena: Option<Arena>,
    config: ArenaConfig,
    _folder: tempfile::TempDir,
    has_survivor: bool,
}

impl Shared {
    fn new(has_survivor: bool) -> Self {
        let folder = tempfile::Builder::new().prefix("cascade-test-").tempdir_in("/dev/shm").unwrap();
        let config = ArenaConfig::new(folder.path().join("arena")).capacity(4 * MIB);
        let arena = Some(Arena::open(&config).unwrap());
        Self { arena, config, _folder: folder, has_survivor }
    }
}

impl Subject for Shared {
    fn tier(&self) -> Arc<dyn Addressable> {
        Arc::new(self.arena.clone().unwrap())
    }

    fn reopen(&mut self) {
        self.arena = None;
        self.arena = Some(Arena::open(&self.config).unwrap());
    }

    fn crash(&mut self, half: &HalfPut) -> Survival {
        let survivor = self.arena.take().filter(|_| self.has_survivor);
        let evictions = raw::killed(|report| {
            let arena = Arena::open(&self.config).unwrap();
            let leased = arena.lease(&half.id).ok();
            let reserved = arena.reserve(&half.id, half.len as u64, PutMeta::default());
            if let cascade_core::reservation::Reserve::Reserved(mut reservation) = reserved {
                assert!(reservation.write_at(0, &half.written));
                report(arena.stats().evictions);
            }
            // The block was there, or its slot refused: then the lease, if any, is what the dead process leaves.
            report(arena.stats().evictions);
            drop(leased);
        });
        if let Some(arena) = survivor {
            arena.recover();
        }
        self.arena = Some(Arena::open(&self.config).unwrap());
        Survival::Intact { evictions }
    }
}

#[test]
fn the_arena_keeps_to_the_model_when_nobody_survives() {
    oracle::check(1000, || Box::new(Shared::new(false)));
}

#[test]
fn the_arena_keeps_to_the_model_when_others_survive() {
    oracle::check(1000, || Box::new(Shared::new(true)));
}

#[test]
fn a_half_filled_block_of_a_dead_process_is_gone_and_the_others_are_there() {
    let steps = [
        Step::Put { key: 0, len: 100 },
        Step::Put { key: 1, len: 70_000 },
        Step::Crash { key: 2, len: 70_000 },
        Step::Crash { key: 3, len: 300 },
        Step::Put { key: 2, len: 5000 },
        Step::Crash { key: 2, len: 70_000 },
        Step::Delete { key: 2 },
        Step::Get { key: 0 },
    ];
    for has_survivor in [false, true] {
        oracle::run(&steps, &mut Shared::new(has_survivor)).unwrap();
    }
}
