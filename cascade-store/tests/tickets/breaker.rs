//! A file system that fails costs a bounded number of calls, then none until it recovers.

use std::sync::Arc;
use std::time::Duration;

use cascade_core::batch::{Outcome, Refusal};
use cascade_core::layer::BreakerConfig;
use cascade_core::reservation::Reserve;
use cascade_core::tier::{Lookup, MissReason};
use cascade_pfs::testing::{Call, Fault, FaultFs, MemFs, Rule};
use cascade_store::{Level, Put, Reach, Store};

use crate::rig::{Rig, block, eventually, expect, put, soon};

const LEN: usize = 100_000;

fn open(rig: &Rig, fs: &FaultFs, rest: Duration) -> Store {
    let config = rig.settings("32MiB", &[("demote", "off")]).pfs_path("/tier").resolve().unwrap();
    let guard = BreakerConfig { failures: 4, rest, ..BreakerConfig::default() };
    Store::open_guarded(&config, Arc::new(fs.clone()), guard).unwrap()
}

fn failing(call: Call) -> [Rule; 1] {
    [Rule { call, suffix: "", first: 0, times: u64::MAX, fault: Fault::Errno(libc::EIO) }]
}

fn put_below(store: &Store, number: u64) -> Outcome {
    let (id, bytes) = block(number, LEN);
    store.put(&id, &bytes, Put::default().until(Reach::Files))
}

#[test]
fn a_failing_file_system_is_left_alone() {
    let (rig, fs) = (Rig::new(), FaultFs::new(Arc::new(MemFs::new())));
    let store = open(&rig, &fs, Duration::from_secs(3600));
    for number in 0..10 {
        assert_eq!(put_below(&store, number), Outcome::Stored);
    }
    let ids: Vec<_> = (0..10).map(|number| block(number, 1).0).collect();
    assert_eq!(store.demote(&ids), [Outcome::Stored; 10]);

    fs.set(&failing(Call::Read));
    let mut out = vec![0; LEN];
    let is_open = || store.stats().breaker.unwrap().open;
    for id in ids.iter().cycle().take(40) {
        assert!(is_open() || store.get(id, &mut out).is_err());
    }
    let (opened, injected) = (store.stats().breaker.unwrap(), fs.injected());
    assert!(opened.opened == 1 && opened.failures < 10, "{opened:?}");
    // Nothing is asked of it now, and everybody is told.
    let unavailable = Lookup::Miss(MissReason::Unavailable);
    assert!(store.lookup(&ids).iter().all(|answer| *answer == unavailable));
    assert_eq!(store.get(&ids[0], &mut out).unwrap_err(), MissReason::Unavailable);
    assert_eq!(store.lease(&ids[0]).unwrap_err(), MissReason::Unavailable);
    assert_eq!(put(&store, 20, LEN), Outcome::Stored, "the arena works");
    expect(&store, 20, LEN);
    assert_eq!(put_below(&store, 20), Outcome::Refused(Refusal::Unavailable));
    assert_eq!(put(&store, 0, LEN), Outcome::Stored, "what cannot be read is stored anew");
    expect(&store, 0, LEN);
    let anew = store.reserve(&ids[1], LEN as u64, Put::default());
    assert!(matches!(anew, Reserve::Reserved(_)), "and so is what is reserved: {anew:?}");
    assert_eq!((fs.injected(), is_open()), (injected, true));
    let kept_out = store.stats().breaker.unwrap().kept_out;
    assert!(kept_out >= 3, "they are counted: {kept_out}");
}

#[test]
fn a_file_system_that_recovers_is_used_again() {
    let (rig, fs) = (Rig::new(), FaultFs::new(Arc::new(MemFs::new())));
    let store = open(&rig, &fs, Duration::from_millis(20));
    (0..10).for_each(|number| assert_eq!(put_below(&store, number), Outcome::Stored));
    let ids: Vec<_> = (0..10).map(|number| block(number, 1).0).collect();
    assert_eq!(store.demote(&ids), [Outcome::Stored; 10]);
    fs.set(&failing(Call::Read));
    let get = || store.get(&ids[1], &mut vec![0; LEN]);
    eventually("it is given a rest", || get().is_err() && store.stats().breaker.unwrap().opened >= 2);
    fs.set(&[]);
    eventually("it is asked again", || get().is_ok());
    eventually("it is trusted again", || get().is_ok() && !store.stats().breaker.unwrap().open);
    (0..10).for_each(|number| expect(&store, number, LEN));
}

#[test]
fn writes_that_fail_open_it_too_and_nothing_is_lost() {
    let (rig, fs) = (Rig::new(), FaultFs::new(Arc::new(MemFs::new())));
    let store = open(&rig, &fs, Duration::from_millis(20));
    fs.set(&failing(Call::Write));
    for number in 0..12 {
        assert_eq!(put_below(&store, number), Outcome::Refused(Refusal::Unavailable), "block {number}");
        expect(&store, number, LEN);
    }
    assert!(store.stats().breaker.unwrap().opened >= 1);
    fs.set(&[]);
    for number in 0..12 {
        let is_there = || matches!(put_below(&store, number), Outcome::Stored | Outcome::Exists);
        eventually("the files have it", is_there);
    }
    store.flush(soon()).unwrap();
    drop(store);
    rig.lose_the_arena();
    let store = open(&rig, &fs, Duration::from_millis(20));
    (0..12).for_each(|number| expect(&store, number, LEN));
    assert_eq!(store.stats().hits(Level::Files), 12);
}
