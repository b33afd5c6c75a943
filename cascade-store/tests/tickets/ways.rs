//! Which blocks go down, how much of a chain is there, and what two writers of one block do.

use std::time::Instant;

use cascade_core::batch::{Outcome, Refusal};
use cascade_core::id::BlockId;
use cascade_core::reservation::{Reserve, Sealed};
use cascade_core::tier::{Addressable, Lookup, MissReason, PutMeta};
use cascade_store::{Level, Put, Reach, Store};

use crate::raw::Child;
use crate::rig::{Rig, block, eventually, expect, level, put, soon};

const LEN: usize = 100_000;

fn ids(numbers: std::ops::Range<u64>) -> Vec<BlockId> {
    numbers.map(|number| block(number, 1).0).collect()
}

fn in_files(store: &Store) -> u64 {
    store.stats().moves.demoted
}

#[test]
fn selective_copies_prefixes_and_what_is_seen_twice() {
    let rig = Rig::new();
    let store = rig.open("64MiB", &[("demote", "selective")]);
    assert!(store.in_force().contains("demote = \"selective\""));
    (0..20).for_each(|number| assert_eq!(put(&store, number, LEN), Outcome::Stored));
    let (prefix, bytes) = block(30, LEN);
    assert_eq!(store.put(&prefix, &bytes, Put::prefix()), Outcome::Stored);
    eventually("the prefix block is in files", || in_files(&store) == 1);
    // Put again, read, leased: each is the second time.
    assert_eq!(put(&store, 0, LEN), Outcome::Exists);
    expect(&store, 1, LEN);
    drop(store.lease(&block(2, 1).0).unwrap());
    eventually("they are too", || in_files(&store) == 4);
    (0..3).for_each(|number| expect(&store, number, LEN));
    store.flush(soon()).unwrap();
    assert_eq!(in_files(&store), 4, "a flush is for what is selected");
    drop(store);
    rig.lose_the_arena();
    let store = rig.open("64MiB", &[("demote", "selective")]);
    (0..3).for_each(|number| expect(&store, number, LEN));
    expect(&store, 30, LEN);
    assert_eq!(store.longest_prefix(&ids(3..20)), 0);
}

#[test]
fn a_put_is_acknowledged_as_far_as_asked_and_as_set() {
    let rig = Rig::new();
    let store = rig.open("64MiB", &[("demote", "off")]);
    let (id, bytes) = block(1, LEN);
    assert_eq!(store.put(&id, &bytes, Put::default()), Outcome::Stored);
    assert_eq!(store.put(&id, &bytes, Put::default().until(Reach::Queued)), Outcome::Exists);
    eventually("it went down although nothing does by itself", || in_files(&store) == 1);
    drop(store);
    let store = rig.open("64MiB", &[("demote", "off"), ("acknowledge", "files")]);
    assert!(store.in_force().contains("acknowledge = \"files\""));
    assert_eq!(put(&store, 2, LEN), Outcome::Stored);
    assert_eq!(in_files(&store), 1, "it is there when the put returns");
}

#[test]
fn a_reservation_is_sealed_once_it_has_come_as_far_as_asked_and_as_set() {
    let rig = Rig::new();
    let fill = |store: &Store, id: &BlockId, put: Put| {
        let bytes = block(7, LEN).1;
        match store.reserve(id, LEN as u64, put) {
            Reserve::Reserved(mut reservation) => {
                assert!(reservation.write_at(0, &bytes));
                matches!(reservation.seal(), Sealed::Stored(_))
            }
            other => panic!("{other:?}"),
        }
    };
    let store = rig.open("64MiB", &[("demote", "off")]);
    assert!(fill(&store, &block(1, 1).0, Put::default().until(Reach::Durable)));
    assert_eq!(in_files(&store), 1, "it is there when the reservation is sealed");
    assert!(fill(&store, &BlockId::named("a name"), Put::default().until(Reach::Files)));
    assert_eq!(in_files(&store), 2, "a name too");
    // What the arena has already must have come as far.
    let there = block(2, 1).0;
    assert!(fill(&store, &there, Put::default()));
    assert_eq!(in_files(&store), 2);
    let again = store.reserve(&there, LEN as u64, Put::default().until(Reach::Files));
    assert!(matches!(again, Reserve::Exists(_)), "{again:?}");
    assert_eq!(in_files(&store), 3);
    drop(store);
    let store = rig.open("64MiB", &[("demote", "off"), ("acknowledge", "files")]);
    assert!(fill(&store, &block(3, 1).0, Put::default()));
    assert_eq!(in_files(&store), 1);
    assert!(fill(&store, &BlockId::named("another"), Put::default()));
    assert_eq!(in_files(&store), 2);
}

#[test]
fn a_prefix_is_the_least_of_all_shards_with_the_slowest_tier() {
    let rig = Rig::new();
    let store = rig.open("64MiB", &[("demote", "off")]);
    (0..16).for_each(|number| assert_eq!(put(&store, number, LEN), Outcome::Stored));
    let shards = [ids(0..8), ids(8..16)];
    let ask = |store: &Store| store.prefix(&[&shards[0], &shards[1]]);
    let whole = ask(&store);
    assert_eq!((whole.blocks(), whole.end), (8, None));
    assert_eq!(store.demote(&shards[1][2..4]), [Outcome::Stored; 2]);
    let (a, f) = (Level::Arena, Level::Files);
    assert_eq!(ask(&store).levels, [a, a, f, f, a, a, a, a]);
    assert!(store.delete(&shards[0][6]));
    let cut = ask(&store);
    assert_eq!((cut.blocks(), cut.end), (6, Some(Lookup::Miss(MissReason::Absent))));
    // Somebody writes it: worth asking again, unless another shard lacks it for good.
    let Reserve::Reserved(reservation) = store.reserve(&shards[0][6], 8, Put::default()) else {
        panic!("there is room")
    };
    assert_eq!(ask(&store).end, Some(Lookup::Pending));
    assert!(store.delete(&shards[1][6]));
    assert_eq!(ask(&store).end, Some(Lookup::Miss(MissReason::Absent)));
    drop(reservation);
    assert_eq!(store.prefix(&[&shards[0], &[]]).blocks(), 0);
    assert_eq!(store.prefix(&[]), cascade_store::Prefix::default());
}

#[test]
fn of_two_writers_one_copies_and_the_other_is_told() {
    let rig = Rig::new();
    let store = rig.open("32MiB", &[]);
    let (id, bytes) = block(1, LEN);
    let Reserve::Reserved(mut first) = store.reserve(&id, LEN as u64, Put::default()) else {
        panic!("there is room")
    };
    assert_eq!(store.lookup(&[id]), [Lookup::Pending]);
    let before = store.stats().arena();
    assert_eq!(store.put(&id, &bytes, Put::default()), Outcome::Refused(Refusal::Pending));
    // Another process of the node.
    let child = Child::fork(|| {
        let stored = store.stats().arena().bytes_in;
        store.lookup(&[id]) == [Lookup::Pending]
            && store.put(&id, &bytes, Put::default()) == Outcome::Refused(Refusal::Pending)
            && store.stats().arena().bytes_in == stored
    });
    assert_eq!(child.status_before(soon()), Some(0));
    let after = store.stats();
    assert_eq!(
        (after.arena().bytes_in, after.moves.put_elsewhere),
        (before.bytes_in, 1),
        "nothing was copied"
    );
    assert!(first.write_at(0, &bytes));
    let _ = first.seal();
    assert_eq!(store.put(&id, &bytes, Put::default()), Outcome::Exists);
    expect(&store, 1, LEN);
}

#[test]
fn a_prefetch_that_is_late_or_cancelled_brings_nothing_up() {
    let rig = Rig::new();
    let store = rig.open("64MiB", &[]);
    (0..10).for_each(|number| assert_eq!(put(&store, number, LEN), Outcome::Stored));
    let ids = ids(0..10);
    assert_eq!(store.demote(&ids), [Outcome::Stored; 10]);
    let late = store.prefetch_until(&ids, Some(Instant::now())).wait(soon()).unwrap();
    assert_eq!(late, [Outcome::Miss(MissReason::Deadline); 10]);
    assert!(ids.iter().all(|id| level(&store, id) == Some(Level::Files)));
    assert_eq!(store.prefetch(&ids).wait(soon()).unwrap(), [Outcome::Stored; 10]);
}

#[test]
fn blocks_that_the_arena_has_no_room_for_go_to_files_together() {
    let rig = Rig::new();
    let store = rig.open("32MiB", &[("demote", "off")]);
    // Too large for the arena, which takes at most what it has.
    let blocks: Vec<_> =
        (0..4).map(|number| block(number, if number == 2 { LEN } else { 40 << 20 })).collect();
    let puts: Vec<(BlockId, &[u8])> = blocks.iter().map(|(id, bytes)| (*id, &bytes[..])).collect();
    assert_eq!(store.put_batch(&puts, Put::default()), [Outcome::Stored; 4]);
    assert_eq!(store.stats().moves.spilled, 3);
    let levels: Vec<_> = puts.iter().map(|(id, _)| level(&store, id)).collect();
    let (a, f) = (Some(Level::Arena), Some(Level::Files));
    assert_eq!(levels, [f, f, a, f]);
    for (id, bytes) in &blocks {
        let mut out = vec![0; bytes.len()];
        assert!(store.get(id, &mut out).is_ok() && out == *bytes);
    }
}

#[test]
fn a_block_of_files_that_somebody_has_in_hand_above_is_a_hit_and_said_to_rise() {
    let rig = Rig::new();
    let store = rig.open("32MiB", &[]);
    assert_eq!(put(&store, 1, LEN), Outcome::Stored);
    let (id, bytes) = block(1, LEN);
    let seen = |store: &Store| store.locate(&[id])[0];
    assert_eq!((seen(&store).level, seen(&store).is_rising), (Some(Level::Arena), false));
    assert_eq!(store.demote(&[id]), [Outcome::Stored]);
    assert_eq!((seen(&store).level, seen(&store).is_rising), (Some(Level::Files), false));
    // As a rise does, and anybody else's process.
    let Reserve::Reserved(mut above) = store.arena().reserve(&id, LEN as u64, PutMeta::default()) else {
        panic!("there is room")
    };
    assert_eq!((seen(&store).level, seen(&store).is_rising), (Some(Level::Files), true));
    let reads = store.stats().files.unwrap().reads;
    std::thread::scope(|scope| {
        let lease = scope.spawn(|| store.lease(&id).map(|lease| lease.len()));
        assert!(above.write_at(0, &bytes));
        let _ = above.seal();
        assert_eq!(lease.join().unwrap(), Ok(LEN));
    });
    assert_eq!(store.stats().files.unwrap().reads, reads, "who asks waits for what is under way");
    assert_eq!((seen(&store).level, seen(&store).is_rising), (Some(Level::Arena), false));
}
