//! Two at once at one name: moves against changes, in one process and between two of a node, one of which is killed.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cascade_core::batch::Outcome;
use cascade_core::id::BlockId;
use cascade_core::tier::{Lookup, MissReason, Tier};
use cascade_pfs::fs::RealFs;
use cascade_pfs::testing::{Call, Fault, FaultFs, Rule};
use cascade_store::{Put, Reach, Store};

use crate::rig::{Rig, block, eventually, put, soon};

/// Leases of the smallest handle.
const LEASES: u64 = 56;
/// How long the copying process's log is stuck.
const STUCK: Duration = Duration::from_millis(1500);

fn name() -> BlockId {
    BlockId::named("the same name")
}

fn got(store: &Store) -> Result<Vec<u8>, MissReason> {
    let mut out = vec![0; 4096];
    store.get(&name(), &mut out).map(|meta| out[..usize::try_from(meta.len).unwrap()].to_vec())
}

#[test]
fn a_name_that_is_replaced_while_it_is_demoted_is_not_lost() {
    let rig = Rig::new();
    let store = rig.open("32MiB", &[("demote", "off")]);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                let _ = store.demote(&[name()]);
            }
        });
        for round in 0..300_u32 {
            let bytes = round.to_le_bytes().to_vec();
            assert_eq!(store.put(&name(), &bytes, Put::default()), Outcome::Stored);
            std::thread::sleep(Duration::from_micros(u64::from(round % 7) * 100));
            let found = got(&store);
            if found.as_ref() != Ok(&bytes) {
                is_over.store(true, Ordering::Relaxed);
            }
            assert_eq!(found, Ok(bytes), "round {round}");
        }
        is_over.store(true, Ordering::Relaxed);
    });
}

fn settings() -> [(&'static str, &'static str); 2] {
    [("demote", "off"), ("shm_leases", "56")]
}

fn say(folder: &Path, what: &str) {
    std::fs::write(folder.join(what), "").unwrap();
}

/// The body of the process that is killed; in a normal run of the tests there is nothing to do.
///
/// It copies the name's first block, begun before another process replaces it and written after; and it has no lease left to
/// look afterwards whether the block is still the same.
#[test]
fn copying_process() {
    let Some(folder) = std::env::var_os("CASCADE_RACING_FOLDER").map(PathBuf::from) else { return };
    let rig = Rig::at(&folder);
    let fs = FaultFs::new(Arc::new(RealFs));
    let config = rig.settings("32MiB", &settings()).resolve().unwrap();
    let store = Store::open_on(&config, Arc::new(fs.clone())).unwrap();
    let (other, bytes) = block(1000, 100);
    assert_eq!(store.put(&other, &bytes, Put::default().until(Reach::Files)), Outcome::Stored);
    let lease = |number| {
        assert_eq!(put(&store, number, 100), Outcome::Stored);
        store.lease(&block(number, 1).0).unwrap()
    };
    let held: Vec<_> = (1..LEASES).map(lease).collect();
    fs.set(&[Rule { call: Call::Write, suffix: ".log", first: 0, times: 1, fault: Fault::Stall(STUCK) }]);
    std::thread::scope(|scope| {
        scope.spawn(|| store.delete(&other));
        eventually("the log is stuck", || fs.injected() == 1);
        scope.spawn(|| store.put(&name(), b"first", Put::default().until(Reach::Files)));
        eventually("the copy is begun", || {
            let mut below = [Lookup::Miss(MissReason::Absent)];
            store.files().unwrap().lookup(&[name()], &mut below);
            below[0] == Lookup::Pending
        });
        say(&folder, "begun");
    });
    drop(held);
    say(&folder, "copied");
    std::thread::sleep(Duration::from_secs(600));
}

fn start(folder: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "racing::copying_process", "--nocapture", "--test-threads=1"])
        .env("CASCADE_RACING_FOLDER", folder)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// A store, and another process that has begun to copy a name of it.
fn while_another_copies(rig: &Rig) -> (Store, Child) {
    let store = rig.open("32MiB", &settings());
    rig.link_arena();
    let folder = rig.files.path();
    let child = start(folder);
    eventually("the other process has begun", || folder.join("begun").exists());
    (store, child)
}

#[test]
fn a_block_that_was_being_copied_does_not_outlive_its_replacement() {
    let rig = Rig::new();
    let (store, mut child) = while_another_copies(&rig);
    // It waits for the copy, or for the death of who makes it.
    assert_eq!(store.put(&name(), b"second", Put::default()), Outcome::Stored);
    let folder = rig.files.path();
    eventually("the other process has copied it", || folder.join("copied").exists());
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(got(&store), Ok(b"second".to_vec()));
    // What was not copied is evicted.
    store.arena().clear();
    let until = Instant::now() + Duration::from_millis(1200);
    while Instant::now() < until {
        assert_eq!(got(&store), Err(MissReason::Absent), "the older block is no answer");
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(store);
    let store = Store::open(&rig.settings("32MiB", &settings()).resolve().unwrap()).unwrap();
    store.flush(soon()).unwrap();
    assert_eq!(got(&store), Err(MissReason::Absent));
}

#[test]
fn a_name_whose_copier_is_killed_is_free_at_once() {
    let rig = Rig::new();
    let (store, mut child) = while_another_copies(&rig);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(store.put(&name(), b"second", Put::default()), Outcome::Stored);
    assert_eq!(got(&store), Ok(b"second".to_vec()));
    store.arena().clear();
    assert_eq!(got(&store), Err(MissReason::Absent));
}
