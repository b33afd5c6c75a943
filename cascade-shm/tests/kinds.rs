//! Regions change hands as a whole: large blocks after small ones and the other way round, without dropping what is in use,
//! and without two sides taking them from each other for ever.

// Clippy's exemption for tests reaches `#[test]` functions only, not their helpers.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cascade_core::batch::{Batch, Op, Outcome};
use cascade_core::id::BlockId;
use cascade_core::memory::Piece;
use cascade_core::tier::{Addressable, Class, Lookup, PutMeta, Tier};
use cascade_shm::{Arena, ArenaConfig};

const MIB: u64 = 1 << 20;

/// Tells the others to stop, also when the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// 48 regions of 1 MiB.
fn open() -> (tempfile::TempDir, Arena) {
    let folder = tempfile::Builder::new().prefix("cascade-test-").tempdir_in("/dev/shm").unwrap();
    let config = ArenaConfig::new(folder.path().join("arena")).capacity(48 * MIB);
    let arena = Arena::open(&ArenaConfig { region_bytes: Some(MIB), ..config }).unwrap();
    assert!(arena.wait_ready(Instant::now() + Duration::from_secs(30)));
    (folder, arena)
}

fn put_as(arena: &Arena, name: &str, len: u64, class: Class) -> Outcome {
    let from = Piece::shared(Arc::from(vec![len as u8; len as usize])).into();
    let op = Op::Store { id: BlockId::named(name), from, meta: PutMeta { class, ..PutMeta::default() } };
    arena.submit(Batch::new(vec![op])).wait(Instant::now()).unwrap()[0]
}

fn put(arena: &Arena, name: &str, len: u64) -> Outcome {
    put_as(arena, name, len, Class::Ordinary)
}

fn has(arena: &Arena, name: &str) -> bool {
    let mut out = [Lookup::Pending];
    arena.lookup(&[BlockId::named(name)], &mut out);
    matches!(out[0], Lookup::Hit(_))
}

/// Small blocks of many lengths, until the arena has turned over a few times.
fn live_long(arena: &Arena) {
    let life = arena.stats().puts;
    for number in 0..6000_u64 {
        let name = format!("small {life} {number}");
        assert_eq!(put(arena, &name, 4096 + number * 7919 % 60_000), Outcome::Stored);
    }
}

#[test]
fn a_block_of_many_regions_fits_after_a_long_life_of_small_ones() {
    let (_folder, arena) = open();
    live_long(&arena);
    assert!(put_as(&arena, "prompt", 20_000, Class::Prefix) == Outcome::Stored);
    let leased = arena.lease(&BlockId::named("prompt")).unwrap();
    // Not a whole number of regions: at its ends, too, small blocks are in the way.
    for len in [5 * MIB + 70_000, 20 * MIB + 1] {
        let before = arena.stats();
        assert_eq!(put(&arena, &len.to_string(), len), Outcome::Stored, "{before:?}");
        assert!(has(&arena, &len.to_string()) && has(&arena, "prompt"));
        live_long(&arena);
    }
    drop(leased);
    // Where the prompt lies may be in the middle.
    assert_eq!(put(&arena, "largest", 45 * MIB - 1), Outcome::Stored);
    let audit = arena.audit().unwrap();
    assert_eq!((audit.disagreements, audit.leaving_slots, audit.filling_slots), (0, 0, 0), "{audit:?}");
}

#[test]
fn a_block_of_many_regions_fits_while_others_store_small_ones() {
    let (_folder, arena) = open();
    live_long(&arena);
    let (stop, stored, refused) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let (arena, stop, stored, refused) = (&arena, &stop, &stored, &refused);
            scope.spawn(move || {
                for number in 0_u64.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let outcome = put(arena, &format!("{thread} {number}"), 4096 + number * 7919 % 60_000);
                    let count = if outcome == Outcome::Stored { stored } else { refused };
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let _stop = Stop(&stop);
        for number in 0..20 {
            let (before, since) = (stored.load(Ordering::Relaxed), Instant::now());
            let outcome = put(&arena, &format!("large {number}"), 18 * MIB + 12_345);
            assert_eq!(outcome, Outcome::Stored, "large block {number}");
            while stored.load(Ordering::Relaxed) < before + 100 {
                assert!(since.elapsed() < Duration::from_secs(20), "the others get on");
                std::thread::yield_now();
            }
        }
    });
    let (stored, refused) = (stored.into_inner(), refused.into_inner());
    println!("beside 20 large blocks: {stored} small ones stored, {refused} refused");
    assert!(refused * 10 < stored, "{refused} of {stored}");
    assert_eq!(arena.audit().unwrap().disagreements, 0);
}

#[test]
fn what_is_in_use_stays_when_the_other_kind_grows() {
    for (old, new) in [(900_000, 20_000), (20_000, 900_000)] {
        let (_folder, arena) = open();
        let fits = 40 * MIB / old;
        for number in 0..fits {
            put(&arena, &format!("cold {number}"), old);
        }
        // What is used lies together, as what comes together does.
        for number in 0..fits / 10 {
            put(&arena, &format!("hot {number}"), old);
            (0..3).for_each(|_| drop(arena.lease(&BlockId::named(&format!("hot {number}"))).unwrap()));
        }
        let before = arena.stats();
        for number in 0..16 * MIB / new {
            assert_eq!(put(&arena, &format!("new {number}"), new), Outcome::Stored);
        }
        let kept = (0..fits / 10).filter(|number| has(&arena, &format!("hot {number}"))).count() as u64;
        let lost = (arena.stats().evictions - before.evictions) * old.min(new);
        println!(
            "from {old} to {new} bytes: {kept} of {} in use are kept, about {lost} bytes lost",
            fits / 10
        );
        assert!(kept * 10 >= fits / 10 * 9, "{kept} of {}", fits / 10);
        assert!(put(&arena, "last", new) == Outcome::Stored && has(&arena, "last"));
    }
}

#[test]
fn two_kinds_share_the_arena_without_taking_it_from_each_other_for_ever() {
    let (_folder, arena) = open();
    let (mut put_bytes, mut window) = (0, Vec::new());
    for number in 0..3000_u64 {
        let (small, large) = (4096 + number * 7919 % 60_000, 70_000 + number * 104_729 % 800_000);
        assert_eq!(put(&arena, &format!("small {number}"), small), Outcome::Stored);
        assert_eq!(put(&arena, &format!("large {number}"), large), Outcome::Stored);
        put_bytes += small + large;
        if number % 500 == 499 {
            window.push(arena.stats().used_bytes * 100 / arena.stats().capacity_bytes);
        }
    }
    let stats = arena.stats();
    println!(
        "{put_bytes} bytes put, {} blocks evicted, in use in percent over time: {window:?}",
        stats.evictions
    );
    assert_eq!(stats.evictions + stats.blocks, 6000, "nothing is lost uncounted");
    assert!(window.iter().all(|percent| *percent >= 60), "regions are not emptied for nothing: {window:?}");
}
