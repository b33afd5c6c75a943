//! Directories that cannot be the tier of files: what is wrong is said, with what to do.

use std::path::PathBuf;
use std::sync::Arc;

use cascade_core::batch::Outcome;
use cascade_core::{Error, ErrorKind};
use cascade_pfs::fs::RealFs;
use cascade_pfs::testing::{Call, Fault, FaultFs, Rule};
use cascade_store::Store;

use crate::rig::{Rig, expect, put, soon};

fn open(rig: &Rig, path: PathBuf, capacity: &str) -> Result<Store, Error> {
    let builder = rig.settings("16MiB", &[("pfs_capacity", capacity)]).pfs_path(path);
    builder.resolve().and_then(|config| Store::open(&config))
}

fn refused(found: Result<Store, Error>, kind: ErrorKind, words: &[&str]) {
    let error = found.unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    for word in words {
        assert!(error.to_string().contains(word), "{word:?} in: {error}");
    }
}

#[test]
fn a_place_that_cannot_be_used_is_named_with_the_cure() {
    let rig = Rig::new();
    let root = rig.files.path();
    std::fs::write(root.join("file"), "x").unwrap();
    let missing = ErrorKind::NotFound;
    refused(open(&rig, root.join("no/tier"), "1GiB"), missing, &["no/tier", "parent directory must exist"]);
    refused(open(&rig, root.join("file/tier"), "1GiB"), missing, &["file/tier", "parent directory"]);
    refused(open(&rig, root.join("file"), "1GiB"), ErrorKind::System, &["no directory", "move it away"]);
    refused(open(&rig, "/dev/null".into(), "1GiB"), ErrorKind::System, &["/dev/null", "no directory"]);
    refused(open(&rig, root.join("tier"), "0"), ErrorKind::Config, &["pfs_capacity = \"0\"", "above 0"]);
    refused(open(&rig, root.join("tier"), "1"), ErrorKind::Config, &["at least"]);
    assert!(!rig.arena.path().join("arena").exists(), "no arena is made for a store that cannot be opened");
}

#[test]
fn a_file_system_that_cannot_be_written_is_named_with_the_cure() {
    for (call, errno, kind, word) in [
        (Call::MakeDir, libc::EROFS, ErrorKind::Permission, "may write"),
        (Call::Create, libc::EACCES, ErrorKind::Permission, "may write"),
        (Call::Create, libc::ENOSPC, ErrorKind::NoSpace, "df -h"),
        (Call::Create, libc::EDQUOT, ErrorKind::NoSpace, "quota"),
    ] {
        let (rig, fs) = (Rig::new(), FaultFs::new(Arc::new(RealFs)));
        fs.set(&[Rule { call, suffix: "", first: 0, times: u64::MAX, fault: Fault::Errno(errno) }]);
        let config = rig.settings("16MiB", &[]).resolve().unwrap();
        refused(Store::open_on(&config, Arc::new(fs)), kind, &[word, "tier"]);
    }
}

#[test]
fn foreign_files_stay_and_more_capacity_than_room_is_a_smaller_tier() {
    let rig = Rig::new();
    let place = rig.pfs_path();
    std::fs::create_dir(&place).unwrap();
    std::fs::write(place.join("notes.txt"), "mine").unwrap();
    std::fs::write(place.join("0123456789abcdef0123456789abcdef.log"), "no log").unwrap();
    let store = open(&rig, place.clone(), "100000TiB").unwrap();
    assert_eq!(put(&store, 1, 100_000), Outcome::Stored);
    store.flush(soon()).unwrap();
    drop(store);
    rig.lose_the_arena();
    expect(&open(&rig, place.clone(), "64MiB").unwrap(), 1, 100_000);
    assert_eq!(std::fs::read_to_string(place.join("notes.txt")).unwrap(), "mine");
}

#[test]
fn files_in_memory_are_files_too() {
    let rig = Rig::new();
    let place = rig.arena.path().join("files");
    let store = open(&rig, place, "64MiB").unwrap();
    assert_eq!(put(&store, 1, 100_000), Outcome::Stored);
    store.flush(soon()).unwrap();
    store.arena().clear();
    expect(&store, 1, 100_000);
}
