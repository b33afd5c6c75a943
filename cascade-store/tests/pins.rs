//! Pins that a store holds for its user.

// Clippy's exemption for tests reaches `#[test]` functions only, not their helpers.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::{Duration, Instant};

use cascade_core::batch::{Outcome, Refusal};
use cascade_core::id::BlockId;
use cascade_core::tier::MissReason;
use cascade_store::{Level, Pin, Pinned, Put, Store, StoreConfig};

const MIB: usize = 1 << 20;

struct Rig {
    arena: tempfile::TempDir,
    files: tempfile::TempDir,
}

impl Rig {
    fn new() -> Self {
        let arena = tempfile::Builder::new().prefix("cascade-test-").tempdir_in("/dev/shm").unwrap();
        Self { arena, files: tempfile::tempdir().unwrap() }
    }

    fn open(&self, with_files: bool) -> Store {
        let builder = StoreConfig::builder().without_environment().shm_path(self.arena.path().join("arena"));
        let builder = builder.shm_capacity("64MiB").unwrap();
        let builder = if with_files {
            builder.pfs_path(self.files.path().join("tier")).set("pfs_capacity", "1GiB").unwrap()
        } else {
            builder
        };
        Store::open(&builder.resolve().unwrap()).unwrap()
    }
}

fn id(number: u64) -> BlockId {
    BlockId::content(&number.to_le_bytes())
}

fn put(store: &Store, numbers: std::ops::Range<u64>, len: usize) -> Vec<BlockId> {
    let bytes = vec![7; len];
    let ids: Vec<BlockId> = numbers.map(id).collect();
    let outcomes: Vec<_> = ids.iter().map(|id| store.put(id, &bytes, Put::default())).collect();
    assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Stored), "{outcomes:?}");
    ids
}

#[test]
fn hard_pins_outlive_pressure_and_cannot_fill_the_arena() {
    let rig = Rig::new();
    let store = rig.open(false);
    let ids = put(&store, 0..50, MIB);
    let pinned = store.pin(&ids, Pin::hard());
    let held = pinned.iter().filter(|pinned| **pinned == Pinned::Pinned).count();
    assert!((28..=32).contains(&held), "half of the arena: {held}");
    assert!(pinned[held..].iter().all(|pinned| *pinned == Pinned::Full), "{pinned:?}");
    // Another process, as it were, is bounded by the same.
    let other = rig.open(false);
    assert_eq!(other.pin(&ids[40..41], Pin::soft()), [Pinned::Full]);
    put(&store, 100..300, MIB);
    assert!(ids[..held].iter().all(|id| store.contains(id)), "pinned blocks stay");
    assert!(!ids[held..].iter().any(|id| store.contains(id)), "others went");
    let stats = store.stats().pins;
    assert_eq!(
        (stats.hard, stats.bytes, stats.refused),
        (held as u64, (held * MIB) as u64, (50 - held) as u64)
    );
    assert_eq!(store.pin(&ids[..1], Pin::soft()), [Pinned::Renewed]);
    assert_eq!(store.stats().pins.soft, 1);
    assert_eq!(store.unpin(&ids[..held + 1]), [vec![true; held], vec![false]].concat());
    put(&store, 300..500, MIB);
    let gone = ids[..held].iter().find(|id| !store.contains(id)).expect("what is not pinned any more goes");
    assert_eq!(store.pin(&[*gone], Pin::hard()), [Pinned::Miss(MissReason::Absent)]);
}

#[test]
fn soft_pins_give_way_before_a_block_is_refused_and_hard_ones_do_not() {
    for is_soft in [true, false] {
        let rig = Rig::new();
        let store = rig.open(false);
        let ids = put(&store, 0..28, MIB);
        let pinned = store.pin(&ids, Pin { is_soft, lasts: None });
        assert!(pinned.iter().all(|pinned| *pinned == Pinned::Pinned), "{pinned:?}");
        put(&store, 100..200, MIB);
        assert_eq!(store.stats().pins.gave_way, 0, "there are others to go");
        assert!(ids.iter().all(|id| store.contains(id)));
        let outcome = store.put(&id(1000), &vec![1; 50 * MIB], Put::default());
        let stats = store.stats().pins;
        if is_soft {
            assert_eq!((outcome, stats.soft + stats.gave_way), (Outcome::Stored, 28));
            assert!(stats.gave_way >= 14, "{stats:?}");
        } else {
            assert!(matches!(outcome, Outcome::Refused(Refusal::Full | Refusal::Throttled)), "{outcome:?}");
            assert_eq!((stats.hard, stats.gave_way), (28, 0));
        }
    }
}

#[test]
fn a_pin_ends_with_its_time_its_block_or_its_store() {
    let rig = Rig::new();
    let store = rig.open(false);
    let ids = put(&store, 0..4, MIB);
    let name = BlockId::named("n");
    assert_eq!(store.put(&name, b"one", Put::default()), Outcome::Stored);
    let short = Pin::soft().lasting(Duration::from_millis(50));
    assert_eq!(store.pin(&ids[..1], short), [Pinned::Pinned]);
    assert_eq!(
        store.pin(&[ids[1], ids[2], name], Pin::hard().lasting(Duration::from_secs(3600))),
        [Pinned::Pinned; 3]
    );
    let until = Instant::now() + Duration::from_secs(60);
    while store.stats().pins.expired == 0 {
        assert!(Instant::now() < until, "nobody ends a pin whose time is over");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(store.stats().pins.hard, 3);
    assert!(store.delete(&ids[1]));
    assert_eq!(store.put(&name, b"other", Put::default()), Outcome::Stored);
    assert_eq!(
        (store.stats().pins.hard, store.arena().pinned_bytes()),
        (1, MIB as u64),
        "gone with their blocks"
    );
    let other = rig.open(false);
    drop(store);
    assert_eq!(other.arena().pinned_bytes(), 0, "a store takes its pins with it");
    assert_eq!(other.arena().audit().unwrap().retired_slots, 0);
}

#[test]
fn a_pin_brings_up_what_only_files_have() {
    let rig = Rig::new();
    let store = rig.open(true);
    let ids = put(&store, 0..8, MIB);
    assert_eq!(store.demote(&ids), [Outcome::Stored; 8]);
    assert_eq!(store.pin(&ids, Pin::hard()), [Pinned::Pinned; 8]);
    assert!(store.locate(&ids).iter().all(|found| found.level == Some(Level::Arena)));
    store.clear().unwrap();
    assert_eq!((store.stats().pins.hard, store.arena().pinned_bytes()), (0, 0));
}
