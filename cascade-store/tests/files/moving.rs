//! Blocks between arena and files.

use std::time::Instant;

use cascade_core::batch::Outcome;
use cascade_core::tier::{Lookup, MissReason, Tier};
use cascade_store::{Level, Put, Reach};

use crate::rig::{Rig, block, eventually, expect, level, put, soon};

const LEN: usize = 100_000;

#[test]
fn what_was_put_survives_the_loss_of_the_arena() {
    let rig = Rig::new();
    let store = rig.open("64MiB", &[]);
    for number in 0..50 {
        assert_eq!(put(&store, number, LEN + number as usize), Outcome::Stored);
    }
    store.flush(soon()).unwrap();
    let stats = store.stats();
    assert_eq!((stats.moves.demoted, stats.tier(Level::Files).puts), (50, 50));
    drop(store);
    rig.lose_the_arena();

    // Another job, with another writer identity, and an arena of its own.
    let store = rig.open("64MiB", &[]);
    let ids: Vec<_> = (0..50).map(|number| block(number, 1).0).collect();
    assert_eq!(store.longest_prefix(&ids), 50);
    assert!(store.locate(&ids).iter().all(|found| found.level == Some(Level::Files)));
    for number in 0..50 {
        expect(&store, number, LEN + number as usize);
    }
    let stats = store.stats();
    assert_eq!((stats.hits(Level::Files), stats.hits(Level::Arena)), (50, 0));
    assert_eq!(stats.moves.promoted, 50, "there is room, so a fetch brings them up");
    expect(&store, 0, LEN);
    let stats = store.stats();
    assert_eq!((stats.hits(Level::Arena), stats.moves.risen_hits), (1, 1));
}

#[test]
fn closing_a_store_copies_what_was_put() {
    let rig = Rig::new();
    let store = rig.open("64MiB", &[]);
    for number in 0..100 {
        assert_eq!(put(&store, number, LEN), Outcome::Stored);
    }
    drop(store);
    rig.lose_the_arena();
    let store = rig.open("64MiB", &[]);
    (0..100).for_each(|number| expect(&store, number, LEN));
}

#[test]
fn a_lease_brings_a_block_up_and_a_batch_brings_up_many() {
    let rig = Rig::new();
    drop({
        let store = rig.open("64MiB", &[]);
        (0..40).for_each(|number| assert_eq!(put(&store, number, LEN), Outcome::Stored));
        store
    });
    rig.lose_the_arena();
    let store = rig.open("64MiB", &[]);
    let ids: Vec<_> = (0..41).map(|number| block(number, 1).0).collect();
    let leases = store.lease_batch(&ids);
    for (number, lease) in leases.iter().take(40).enumerate() {
        let (lease, mut out) = (lease.as_ref().unwrap(), vec![0; LEN]);
        assert!(lease.read_at(0, &mut out) && out == block(number as u64, LEN).1);
    }
    assert_eq!(leases[40].as_ref().err(), Some(&MissReason::Absent));
    assert!(ids[..40].iter().all(|id| level(&store, id) == Some(Level::Arena)));
    let stats = store.stats();
    assert_eq!((stats.moves.promoted, stats.hits(Level::Files), stats.tier(Level::Files).hits), (40, 40, 40));
    assert!(stats.misses.contains(&(MissReason::Absent, 1)));
}

#[test]
fn many_readers_read_the_file_once() {
    let rig = Rig::new();
    drop({
        let store = rig.open("64MiB", &[]);
        assert_eq!(put(&store, 7, 8 << 20), Outcome::Stored);
        store
    });
    rig.lose_the_arena();
    let store = rig.open("64MiB", &[]);
    let id = block(7, 1).0;
    std::thread::scope(|scope| {
        for reader in 0..8 {
            let store = &store;
            scope.spawn(move || {
                if reader % 2 == 0 {
                    expect(store, 7, 8 << 20);
                } else {
                    assert_eq!(store.lease(&id).unwrap().len(), 8 << 20);
                }
            });
        }
    });
    assert_eq!(store.stats().tier(Level::Files).hits, 1, "{:?}", store.stats().moves);
}

#[test]
fn a_full_arena_lets_a_first_fetch_pass_and_keeps_the_second() {
    let rig = Rig::new();
    let store = rig.open("16MiB", &[]);
    for number in 0..200 {
        assert_eq!(put(&store, number, LEN), Outcome::Stored);
        store.flush(soon()).unwrap();
    }
    let id = block(0, 1).0;
    assert_eq!(level(&store, &id), Some(Level::Files), "twenty megabytes went through sixteen");
    assert_eq!(store.stats().moves.evicted_undemoted, 0);
    expect(&store, 0, LEN);
    assert_eq!(level(&store, &id), Some(Level::Files));
    expect(&store, 0, LEN);
    assert_eq!(level(&store, &id), Some(Level::Arena));
}

#[test]
fn prefetch_brings_blocks_up_in_the_background() {
    let rig = Rig::new();
    drop({
        let store = rig.open("64MiB", &[]);
        (0..20).for_each(|number| assert_eq!(put(&store, number, LEN), Outcome::Stored));
        store
    });
    rig.lose_the_arena();
    let store = rig.open("64MiB", &[]);
    let ids: Vec<_> = (0..21).map(|number| block(number, 1).0).collect();
    assert_eq!(put(&store, 19, LEN), Outcome::Exists, "the files have it");
    store.lease(&ids[0]).unwrap();
    let outcomes = store.prefetch(&ids).wait(soon()).unwrap();
    assert_eq!(outcomes[0], Outcome::Exists);
    assert!(outcomes[1..20].iter().all(|outcome| *outcome == Outcome::Stored), "{outcomes:?}");
    assert_eq!(outcomes[20], Outcome::Miss(MissReason::Absent));
    assert_eq!(store.stats().moves.prefetched, 19);
    assert!(ids[..20].iter().all(|id| level(&store, id) == Some(Level::Arena)));
}

#[test]
fn a_put_waits_as_far_as_it_is_asked_to() {
    let rig = Rig::new();
    let store = rig.open("64MiB", &[("demote", "off"), ("pfs_durability", "none")]);
    for (number, reach) in [(1, Reach::Found), (2, Reach::Files), (3, Reach::Durable)] {
        let (id, bytes) = block(number, LEN);
        assert_eq!(store.put(&id, &bytes, Put::prefix().until(reach)), Outcome::Stored);
        let mut below = [Lookup::Pending];
        store.files().unwrap().lookup(&[id], &mut below);
        assert_eq!(below[0].is_hit(), reach > Reach::Found, "{reach:?}");
    }
    let (id, bytes) = block(1, LEN);
    assert_eq!(store.put(&id, &bytes, Put::default().until(Reach::Files)), Outcome::Exists);
    assert_eq!(store.stats().moves.demoted, 3, "also a block that was there goes as far as is asked");
}

#[test]
fn what_the_arena_has_no_room_for_goes_to_files() {
    let rig = Rig::new();
    let store = rig.open("16MiB", &[("demote", "off")]);
    assert_eq!(put(&store, 1, 40 << 20), Outcome::Stored, "larger than the arena");
    expect(&store, 1, 40 << 20);
    // A lease needs a place in the arena.
    assert_eq!(store.lease(&block(1, 1).0).unwrap_err(), MissReason::Throttled);
    let (pins, mut number) = (std::cell::RefCell::new(Vec::new()), 100);
    while pins.borrow().len() < 16 {
        assert_eq!(put(&store, number, 1 << 20), Outcome::Stored);
        pins.borrow_mut().extend(store.lease(&block(number, 1).0).ok());
        number += 1;
    }
    for number in 200..220 {
        assert_eq!(put(&store, number, 1 << 20), Outcome::Stored, "the arena is full of pins");
    }
    let spilled = store.stats().moves.spilled;
    assert_eq!(spilled, 21);
    (200..220).for_each(|number| expect(&store, number, 1 << 20));
    drop(pins);
}

#[test]
fn back_copies_nothing_before_the_arena_fills_and_then_the_coldest() {
    let rig = Rig::new();
    let store = rig.open("32MiB", &[("demote", "back")]);
    for number in 0..10 {
        assert_eq!(put(&store, number, 1 << 20), Outcome::Stored);
    }
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert_eq!(store.stats().moves.demoted, 0);
    let mut number = 10;
    while number < 26 {
        assert_eq!(put(&store, number, 1 << 20), Outcome::Stored);
        // Used: it is not what goes first.
        let hot = store.lease(&block(9, 1).0);
        assert!(hot.is_ok());
        number += 1;
    }
    eventually("half of the arena can be evicted", || store.stats().moves.demoted_bytes >= 9 << 20);
    let ids: Vec<_> = (0..26).map(|number| block(number, 1).0).collect();
    let mut below = vec![Lookup::Pending; ids.len()];
    store.files().unwrap().lookup(&ids, &mut below);
    assert!(below[0].is_hit() && !below[9].is_hit(), "{below:?}");
    // What is in files goes first, so that nothing is lost while the demoter keeps up.
    for number in 26..60 {
        assert_eq!(put(&store, number, 1 << 20), Outcome::Stored);
        let wanted = store.stats().moves.demoted + 1;
        eventually("a block has gone down", || {
            store.stats().moves.demoted >= wanted || store.arena().fill().used_bytes < 24 << 20
        });
    }
    let lost = (0..60).filter(|number| !store.contains(&block(*number, 1).0)).count() as u64;
    assert!(lost <= store.stats().lost(), "{lost} lost, {:?}", store.stats().moves);
}

#[test]
fn off_copies_nothing_unless_asked_and_counts_what_it_loses() {
    let rig = Rig::new();
    let store = rig.open("16MiB", &[("demote", "off")]);
    for number in 0..200 {
        assert_eq!(put(&store, number, LEN), Outcome::Stored);
    }
    store.flush(soon()).unwrap();
    let (stats, here) = (store.stats(), (0..200).filter(|n| store.contains(&block(*n, 1).0)).count() as u64);
    assert_eq!((stats.moves.demoted, stats.moves.evicted_undemoted), (0, 200 - here));
    assert!(here < 200 && stats.lost() == 200 - here);
}

#[test]
fn the_next_sweep_finds_what_a_dead_process_left_in_the_arena_alone() {
    let rig = Rig::new();
    drop({
        let store = rig.open("32MiB", &[("demote", "off")]);
        (0..10).for_each(|number| assert_eq!(put(&store, number, LEN), Outcome::Stored));
        store
    });
    let store = rig.open("32MiB", &[]);
    let begun = Instant::now();
    eventually("a sweep has copied them", || store.stats().moves.demoted == 10);
    assert!(
        begun.elapsed().as_secs() >= 5,
        "the first sweep leaves them to whoever may be about to copy them"
    );
}

#[test]
fn notes_of_copies_are_taken_back_when_the_files_are_others() {
    let rig = Rig::new();
    drop({
        let store = rig.open("32MiB", &[]);
        (0..10).for_each(|number| assert_eq!(put(&store, number, LEN), Outcome::Stored));
        store
    });
    std::fs::remove_dir_all(rig.pfs_path()).unwrap();
    let store = rig.open("32MiB", &[]);
    store.flush(soon()).unwrap();
    assert_eq!(store.stats().moves.demoted, 10);
    drop(store);
    rig.lose_the_arena();
    let store = rig.open("32MiB", &[]);
    (0..10).for_each(|number| expect(&store, number, LEN));
}
