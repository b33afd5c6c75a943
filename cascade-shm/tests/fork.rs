//! Engines fork: a child that uses its parent's handle is an owner of its own, and leaves nothing behind.

// Clippy's exemption for tests reaches `#[test]` functions only, not their helpers.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "fork/raw.rs"]
mod raw;

use std::sync::Arc;
use std::time::{Duration, Instant};

use cascade_core::batch::{Batch, Op, Outcome};
use cascade_core::id::BlockId;
use cascade_core::lease::Lease;
use cascade_core::memory::Piece;
use cascade_core::tier::{Addressable, PutMeta, Tier};
use cascade_shm::{Arena, ArenaConfig, Audit};

const LEN: usize = 300_000;

/// Where tests make their folders. A planted bug may end the process without destructors: who plants it gives a folder, and removes it.
fn memory() -> std::path::PathBuf {
    std::env::var_os("CASCADE_TEST_MEMORY").map_or_else(|| "/dev/shm".into(), Into::into)
}

fn open() -> (tempfile::TempDir, Arena) {
    let folder = tempfile::Builder::new().prefix("cascade-test-").tempdir_in(memory()).unwrap();
    let arena = Arena::open(&ArenaConfig::new(folder.path().join("arena")).capacity(16 << 20)).unwrap();
    (folder, arena)
}

fn put(arena: &Arena, name: &str, byte: u8) -> Outcome {
    let from = Piece::shared(Arc::from(vec![byte; LEN])).into();
    let op = Op::Store { id: BlockId::named(name), from, meta: PutMeta::default() };
    arena.submit(Batch::new(vec![op])).wait(Instant::now()).unwrap()[0]
}

fn delete(arena: &Arena, name: &str) -> Outcome {
    let op = Op::Delete { id: BlockId::named(name) };
    arena.submit(Batch::new(vec![op])).wait(Instant::now()).unwrap()[0]
}

fn holds(lease: &Lease, byte: u8) -> bool {
    let mut found = vec![0; lease.len()];
    lease.read_at(0, &mut found) && found == vec![byte; LEN]
}

/// Recovers until one owner is left; what the arena then holds.
fn recovered(arena: &Arena) -> Audit {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        arena.recover();
        let audit = arena.audit().unwrap();
        if audit.live_owners == 1 {
            return audit;
        }
        assert!(Instant::now() < deadline, "the child's row stays: {audit:?}");
    }
}

#[test]
fn a_child_joins_anew_and_its_parents_lease_stays() {
    let (_folder, arena) = open();
    assert_eq!(put(&arena, "parent", 1), Outcome::Stored);
    let lease = arena.lease(&BlockId::named("parent")).unwrap();
    let child = raw::child(|| {
        let inherited_is_void = !lease.is_valid();
        let stored = put(&arena, "child", 2) == Outcome::Stored;
        let own =
            arena.lease(&BlockId::named("parent")).is_ok_and(|lease| lease.is_valid() && holds(&lease, 1));
        let deleted = delete(&arena, "parent") == Outcome::Deleted;
        inherited_is_void && stored && own && deleted && arena.audit().unwrap().live_owners == 2
    });
    assert_eq!(raw::end_of(child), 0);
    assert!(lease.is_valid() && holds(&lease, 1), "deleted by the child, kept by the lease");
    let audit = recovered(&arena);
    assert_eq!((audit.ledger_entries, audit.sealed_slots, audit.retired_slots), (1, 1, 1), "{audit:?}");
    assert!(arena.lease(&BlockId::named("child")).is_ok_and(|lease| holds(&lease, 2)));
    drop(lease);
    arena.clear();
    let audit = arena.audit().unwrap();
    assert_eq!((audit.retired_slots, audit.disagreements, arena.stats().used_bytes), (0, 0, 0), "{audit:?}");
}

#[test]
fn what_a_child_held_when_it_was_killed_is_given_back() {
    let (_folder, arena) = open();
    for number in 0..8_u8 {
        assert_eq!(put(&arena, &number.to_string(), number), Outcome::Stored);
    }
    let mine = arena.lease(&BlockId::named("7")).unwrap();
    let child = raw::child(|| {
        let leases: Vec<_> =
            (0..8).map(|number: u8| arena.lease(&BlockId::named(&number.to_string())).unwrap()).collect();
        // Retired under its own leases, and one under ours.
        (0..8).for_each(|number: u8| assert_eq!(delete(&arena, &number.to_string()), Outcome::Deleted));
        let half = arena.reserve(&BlockId::named("half"), 1 << 20, PutMeta::default());
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL).unwrap();
        drop((leases, half));
        false
    });
    assert_eq!(raw::end_of(child), -9);
    let audit = recovered(&arena);
    assert_eq!(
        (audit.ledger_entries, audit.retired_slots, audit.sealed_slots, audit.filling_slots),
        (1, 1, 0, 0),
        "only our own lease is left: {audit:?}"
    );
    assert!(holds(&mine, 7));
    drop(mine);
    let audit = arena.audit().unwrap();
    assert_eq!((audit.retired_slots, audit.disagreements, arena.stats().used_bytes), (0, 0, 0), "{audit:?}");
}

#[test]
fn a_childs_child_joins_as_well() {
    let (_folder, arena) = open();
    assert_eq!(put(&arena, "a", 3), Outcome::Stored);
    let child = raw::child(|| {
        let grandchild = raw::child(|| {
            let found = arena.lease(&BlockId::named("a")).is_ok_and(|lease| holds(&lease, 3));
            found && put(&arena, "b", 4) == Outcome::Stored
        });
        raw::end_of(grandchild) == 0 && arena.lease(&BlockId::named("b")).is_ok_and(|lease| holds(&lease, 4))
    });
    assert_eq!(raw::end_of(child), 0);
    assert_eq!(recovered(&arena).ledger_entries, 0);
    assert!(arena.lease(&BlockId::named("b")).is_ok_and(|lease| holds(&lease, 4)));
}
