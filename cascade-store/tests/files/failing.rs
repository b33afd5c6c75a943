//! A file system that fails while the store is open: it goes on with the arena, says what it counts, and recovers.

use std::sync::Arc;
use std::time::Duration;

use cascade_core::ErrorKind;
use cascade_core::batch::{Outcome, Refusal};
use cascade_core::id::BlockId;
use cascade_core::reservation::Reserve;
use cascade_core::tier::{Lookup, MissReason, Tier};
use cascade_pfs::testing::{Call, Fault, FaultFs, MemFs, Rule};
use cascade_store::{Level, Put, Reach, Store};

use crate::rig::{Rig, block, eventually, expect, put, soon};

const LEN: usize = 100_000;

fn open(rig: &Rig, fs: &MemFs, more: &[(&str, &str)]) -> Store {
    let config = rig.settings("32MiB", more).pfs_path("/tier").resolve().unwrap();
    Store::open_on(&config, Arc::new(fs.clone())).unwrap()
}

#[test]
fn a_full_file_system_is_counted_and_filled_when_space_returns() {
    let (rig, fs) = (Rig::new(), MemFs::new());
    let store = open(&rig, &fs, &[]);
    assert_eq!(put(&store, 0, LEN), Outcome::Stored);
    store.flush(soon()).unwrap();
    fs.set_limit(Some(fs.used_bytes()));
    for number in 1..20 {
        assert_eq!(put(&store, number, LEN), Outcome::Stored, "the arena has room");
    }
    assert_eq!(store.flush(soon()).unwrap_err().kind(), ErrorKind::NoSpace);
    let (id, bytes) = block(30, LEN);
    assert_eq!(store.put(&id, &bytes, Put::default().until(Reach::Files)), Outcome::Refused(Refusal::Full));
    let stats = store.stats();
    assert!(stats.moves.demote_refused >= 1 && stats.files.unwrap().no_space >= 1, "{stats:?}");
    (0..20).for_each(|number| expect(&store, number, LEN));

    fs.set_limit(None);
    store.flush(soon()).unwrap();
    drop(store);
    rig.lose_the_arena();
    let store = open(&rig, &fs, &[]);
    (0..20).for_each(|number| expect(&store, number, LEN));
    assert_eq!(store.stats().hits(Level::Files), 20);
}

#[test]
fn a_sweep_writes_again_when_space_returns() {
    let (rig, fs) = (Rig::new(), MemFs::new());
    let store = open(&rig, &fs, &[]);
    fs.set_limit(Some(fs.used_bytes()));
    assert_eq!(put(&store, 1, LEN), Outcome::Stored);
    eventually("the files have refused it", || store.stats().moves.demote_refused >= 1);
    fs.set_limit(None);
    eventually("a sweep has copied it", || store.stats().moves.demoted == 1);
}

#[test]
fn a_name_that_cannot_be_forgotten_is_hidden_until_it_is() {
    let (rig, fs) = (Rig::new(), MemFs::new());
    let store = open(&rig, &fs, &[("demote", "off")]);
    let name = BlockId::named("n");
    assert_eq!(store.put(&name, &[1; 1000], Put::default().until(Reach::Files)), Outcome::Stored);
    fs.set_limit(Some(fs.used_bytes()));
    // The log can take no more either, once its pages are full.
    let mut number = 0;
    while store.stats().moves.hidden == 0 && number < 2000 {
        assert_eq!(store.put(&name, &u64::to_le_bytes(number), Put::default()), Outcome::Stored);
        number += 1;
    }
    store.arena().clear();
    let mut out = [0; 1000];
    assert!(store.get(&name, &mut out).is_err(), "never the older block");
    fs.set_limit(None);
    eventually("it is forgotten", || store.files().is_some_and(|files| files.stats().blocks == 0));
}

#[test]
fn what_is_forgotten_late_is_not_taken_for_a_copy() {
    let (rig, fs) = (Rig::new(), FaultFs::new(Arc::new(MemFs::new())));
    let config = rig.settings("32MiB", &[("demote", "off")]).pfs_path("/tier").resolve().unwrap();
    let open = || Store::open_on(&config, Arc::new(fs.clone())).unwrap();
    let (store, other) = (open(), open());
    let (id, bytes) = block(1, LEN);
    let below = Put::default().until(Reach::Files);
    assert_eq!(store.put(&id, &bytes, below), Outcome::Stored);
    let is_seen = || {
        let mut seen = [Lookup::Pending];
        other.files().unwrap().lookup(&[id], &mut seen);
        seen[0].is_hit()
    };
    eventually("the other sees it", is_seen);
    fs.set(&[Rule {
        call: Call::Write,
        suffix: "",
        first: 0,
        times: u64::MAX,
        fault: Fault::Errno(libc::EIO),
    }]);
    assert!(!store.delete(&id), "others still have it");
    assert!(!store.contains(&id) && other.contains(&id));
    assert_eq!(store.stats().moves.hidden, 1);
    // Put anew, and looked for below by who does not know that this is to go.
    assert_eq!(put(&store, 1, LEN), Outcome::Stored);
    assert_eq!(other.put(&id, &bytes, below), Outcome::Exists);
    assert_eq!(store.arena().kept().len(), 1);
    fs.set(&[]);
    eventually("it is forgotten, and known to be in the arena alone", || {
        let blocks = store.files().map(|files| files.stats().blocks);
        blocks == Some(0) && store.arena().kept().is_empty()
    });
    expect(&store, 1, LEN);
}

#[test]
fn what_was_cleared_stays_away_though_the_files_could_not_forget_it() {
    let (rig, fs) = (Rig::new(), FaultFs::new(Arc::new(MemFs::new())));
    let config = rig.settings("16MiB", &[("demote", "off")]).pfs_path("/tier").resolve().unwrap();
    let store = Store::open_on(&config, Arc::new(fs.clone())).unwrap();
    let blocks: Vec<_> = (0..8).map(|number| block(number, LEN)).collect();
    let stored: Vec<_> = blocks.iter().map(|(id, bytes)| (*id, &bytes[..])).collect();
    let outcomes = store.put_batch(&stored, Put::default().until(Reach::Files));
    assert_eq!(outcomes, vec![Outcome::Stored; 8]);
    let fault = Fault::Errno(libc::EIO);
    fs.set(&[Rule { call: Call::Write, suffix: ".log", first: 0, times: u64::MAX, fault }]);
    store.clear().unwrap();
    assert!(fs.injected() > 0, "the log could not be written to");
    for (id, _) in &blocks {
        assert!(!store.contains(id), "{id}");
    }
    fs.set(&[]);
    eventually("they are forgotten", || {
        store.files().is_some_and(|files| cascade_core::tier::Tier::stats(files).blocks == 0)
    });
}

#[test]
fn files_that_are_slow_pin_a_small_part_of_a_small_arena() {
    let (rig, fs) = (Rig::new(), FaultFs::new(Arc::new(MemFs::new())));
    let config = rig.settings("16MiB", &[("demote", "off")]).pfs_path("/tier").resolve().unwrap();
    let store = Store::open_on(&config, Arc::new(fs.clone())).unwrap();
    let stall = Fault::Stall(Duration::from_secs(2));
    fs.set(&[Rule { call: Call::Write, suffix: ".seg", first: 0, times: 1, fault: stall }]);
    let blocks: Vec<_> = (0..15).map(|number| block(number, 1 << 20)).collect();
    let blocks: Vec<_> = blocks.iter().map(|(id, bytes)| (*id, &bytes[..])).collect();
    std::thread::scope(|scope| {
        let putting = scope.spawn(|| store.put_batch(&blocks, Put::default().until(Reach::Files)));
        eventually("a write is stuck", || fs.injected() > 0);
        let reserve = |number: u64| store.reserve(&block(100 + number, 1).0, 1 << 20, Put::default());
        let held: Vec<Reserve> = (0..12).map(reserve).collect();
        assert!(held.iter().all(|reserve| matches!(reserve, Reserve::Reserved(_))), "{held:?}");
        // What was evicted for them is gone before it could be copied.
        assert!(putting.join().unwrap().contains(&Outcome::Stored));
    });
}

/// A prefix cache that others filled, on a mount that is read-only here.
#[test]
fn files_that_can_only_be_read_are_read() {
    let (rig, fs) = (Rig::new(), MemFs::new());
    let store = open(&rig, &fs, &[]);
    (0..5).for_each(|number| assert_eq!(put(&store, number, LEN), Outcome::Stored));
    store.flush(soon()).unwrap();
    drop(store);
    rig.lose_the_arena();
    let faults = FaultFs::new(Arc::new(fs.clone()));
    let rule = |call| Rule { call, suffix: "", first: 0, times: u64::MAX, fault: Fault::Errno(libc::EROFS) };
    faults.set(&[Call::Create, Call::Remove, Call::Write, Call::SetAside].map(rule));
    let config = rig.settings("32MiB", &[]).pfs_path("/tier").resolve().unwrap();
    let store = Store::open_on(&config, Arc::new(faults.clone())).unwrap();
    (0..5).for_each(|number| expect(&store, number, LEN));
    assert_eq!(store.stats().hits(Level::Files), 5);
    // What is new stays in the arena, and nobody tries to copy it down.
    (5..20).for_each(|number| assert_eq!(put(&store, number, LEN), Outcome::Stored));
    store.flush(soon()).unwrap();
    let (id, bytes) = block(30, LEN);
    let refused = Outcome::Refused(Refusal::ReadOnly);
    assert_eq!(store.put(&id, &bytes, Put::default().until(Reach::Files)), refused);
    // What cannot be deleted in files is not to be seen here any more.
    let _ = store.delete(&block(0, LEN).0);
    assert_eq!(store.lookup(&[block(0, LEN).0]), [Lookup::Miss(MissReason::Absent)]);
    (1..20).for_each(|number| expect(&store, number, LEN));
    let stats = store.stats();
    assert_eq!((stats.moves.demoted, stats.files.unwrap().read_only), (0, true), "{stats:?}");
    // The reads go on: a breaker that took refusals for failures would have opened.
    (0..200).for_each(|_| assert_eq!(store.put(&id, &bytes, Put::default().until(Reach::Files)), refused));
    assert_eq!(put(&store, 40, LEN), Outcome::Stored);
    expect(&store, 4, LEN);
    drop(store);
    rig.lose_the_arena();
    let store = Store::open_on(&config, Arc::new(faults)).unwrap();
    (1..5).for_each(|number| expect(&store, number, LEN));
}
