//! A file system that fails while the store is open: it goes on with the arena, says what it counts, and recovers.

use std::sync::Arc;

use cascade_core::ErrorKind;
use cascade_core::batch::{Outcome, Refusal};
use cascade_core::id::BlockId;
use cascade_pfs::testing::MemFs;
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
    eventually("it is forgotten", || {
        store.files().is_some_and(|files| cascade_core::tier::Tier::stats(files).blocks == 0)
    });
}
