//! What the arena records of the tier below it: stores that differ are told of both.

use cascade_core::batch::Outcome;
use cascade_core::{Error, ErrorKind};
use cascade_shm::inspect::Inspection;
use cascade_store::{Store, StoreConfigBuilder};

use crate::rig::{Rig, expect, put, soon};

fn open(builder: &StoreConfigBuilder) -> Result<Store, Error> {
    Store::open(&builder.resolve().unwrap())
}

fn refused(builder: &StoreConfigBuilder, words: &[&str]) {
    let error = open(builder).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    for word in words {
        assert!(error.to_string().contains(word), "{word:?} in {error}");
    }
}

/// The same arena, without files.
fn alone(rig: &Rig) -> StoreConfigBuilder {
    cascade_store::StoreConfig::builder().without_environment().shm_path(rig.arena.path().join("arena"))
}

#[test]
fn other_files_or_another_policy_are_refused_with_both_while_the_arena_is_used() {
    let rig = Rig::new();
    let store = rig.open("16MiB", &[]);
    let (here, there) = (rig.pfs_path(), rig.files.path().join("other"));
    let [here, there] = [&here, &there].map(|path| path.to_str().unwrap());
    refused(&rig.settings("16MiB", &[]).pfs_path(there), &[here, there, "end the processes", "cascade stat"]);
    refused(&rig.settings("16MiB", &[("demote", "back")]), &["\"through\"", "\"back\"", here]);
    refused(&alone(&rig), &[here, "no files (pfs_path is not set)"]);
    // The same files by another way to them, and the same policy.
    let link = rig.files.path().join("link");
    std::os::unix::fs::symlink(rig.files.path(), &link).unwrap();
    assert_eq!(put(&store, 1, 1000), Outcome::Stored);
    expect(&open(&rig.settings("16MiB", &[]).pfs_path(link.join("tier"))).unwrap(), 1, 1000);
}

#[test]
fn files_are_not_added_under_stores_that_do_not_know_of_them() {
    let rig = Rig::new();
    let builder = alone(&rig).shm_capacity("16MiB").unwrap();
    let store = open(&builder).unwrap();
    refused(&rig.settings("16MiB", &[]), &["is used with no files", "end the processes"]);
    assert_eq!(put(&store, 1, 1000), Outcome::Stored);
    drop(store);
    let store = rig.open("16MiB", &[]);
    store.flush(soon()).unwrap();
    drop(store);
    rig.lose_the_arena();
    expect(&rig.open("16MiB", &[]), 1, 1000);
}

#[test]
fn who_is_alone_changes_the_policy_and_the_files_of_an_empty_arena() {
    let rig = Rig::new();
    let store = rig.open("16MiB", &[]);
    assert_eq!(put(&store, 1, 1000), Outcome::Stored);
    drop(store);
    let store = rig.open("16MiB", &[("demote", "off")]);
    expect(&store, 1, 1000);
    drop(store);
    let other = rig.settings("16MiB", &[]).pfs_path(rig.files.path().join("other"));
    refused(&other, &["cascade gc", "other"]);
    refused(&alone(&rig), &["cascade gc", "no files"]);
    rig.open("16MiB", &[]).clear().unwrap();
    open(&other).unwrap();
    open(&alone(&rig)).unwrap();
}

#[test]
fn the_record_is_seen_from_outside_and_a_damaged_one_is_none() {
    let rig = Rig::new();
    let store = rig.open("16MiB", &[("demote", "back")]);
    let path = store.arena().path().to_owned();
    let note = || Inspection::open(&path).unwrap().unwrap().snapshot().unwrap().note;
    let before = note().unwrap();
    assert!(before.contains(rig.pfs_path().to_str().unwrap()) && before.contains("\"back\""), "{before}");
    let control = store.arena().superblock().geometry.offsets().control;
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    for (at, bytes) in [(1032, &[0xff; 8][..]), (1048, b"what nobody wrote")] {
        std::os::unix::fs::FileExt::write_all_at(&file, bytes, control + at).unwrap();
        assert_eq!(note(), None);
        drop(rig.open("16MiB", &[("demote", "back")]));
        assert_eq!(note().as_deref(), Some(&before[..]), "whoever comes next records it again");
    }
}
