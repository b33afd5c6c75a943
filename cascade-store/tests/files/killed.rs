//! A process that is killed in the middle of deleting a block of a fixed id, at every call to the file system that it makes.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cascade_core::batch::Outcome;
use cascade_core::tier::MissReason;
use cascade_pfs::fs::RealFs;
use cascade_pfs::testing::{Call, Fault, FaultFs, Rule};
use cascade_store::{Put, Reach, Store};

use crate::rig::{Rig, block, eventually, level, soon};

const LEN: usize = 70_000;
/// What stands in the way of a deletion where something waits for the dead longer than for its lock.
const AT_MOST: Duration = Duration::from_secs(20);
/// How long the index of the files of the store that stays is kept from following.
const LATE: Duration = Duration::from_millis(300);
/// Calls of one kind that are tried: more than a deletion makes while the directory has few writers. Every process that is killed leaves one
/// more, whose log is asked for its length from then on: so "until no further call is made" would never end.
const MOST_CALLS: u64 = 8;

fn settings() -> [(&'static str, &'static str); 1] {
    [("pfs_durability", "block")]
}

fn say(folder: &Path, what: &str) {
    // Two threads may have something to say.
    let part = folder.join(format!("part.{what}"));
    std::fs::write(&part, what).unwrap();
    std::fs::rename(part, folder.join("said")).unwrap();
}

fn said(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("said")).unwrap_or_default()
}

/// The body of the process that is killed; in a normal run of the tests there is nothing to do.
#[test]
fn deleting_process() {
    let Some(folder) = std::env::var_os("CASCADE_KILLED_FOLDER").map(PathBuf::from) else { return };
    let at: Vec<u64> =
        std::env::var("CASCADE_KILLED_AT").unwrap().split(' ').map(|word| word.parse().unwrap()).collect();
    let rig = Rig::at(&folder);
    let fs = FaultFs::new(Arc::new(RealFs));
    let config = rig.settings("32MiB", &settings()).resolve().unwrap();
    let store = Store::open_on(&config, Arc::new(fs.clone())).unwrap();
    let (id, bytes) = block(at[2], LEN);
    let put = store.put(&id, &bytes, Put::default().until(Reach::Files));
    assert!(matches!(put, Outcome::Stored | Outcome::Exists), "{put:?}");
    say(&folder, "put");
    eventually("it is to delete", || folder.join("go").exists());
    let call = Call::ALL[usize::try_from(at[0]).unwrap()];
    fs.set(&[Rule {
        call,
        suffix: "",
        first: at[1],
        times: 1,
        fault: Fault::Stall(Duration::from_secs(600)),
    }]);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let is_deleted = store.delete(&id);
            say(&folder, if is_deleted { "deleted" } else { "not deleted" });
        });
        eventually("it is held up or done", || fs.injected() == 1 || said(&folder) != "put");
        if said(&folder) == "put" {
            say(&folder, "held");
        }
        std::thread::sleep(Duration::from_secs(600));
    });
}

fn start(folder: &Path, call: usize, nth: u64, number: u64) -> Child {
    for name in ["said", "go"] {
        let _ = std::fs::remove_file(folder.join(name));
    }
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "killed::deleting_process", "--nocapture", "--test-threads=1"])
        .env("CASCADE_KILLED_FOLDER", folder)
        .env("CASCADE_KILLED_AT", format!("{call} {nth} {number}"))
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// Kills a process at the call with this number of this kind; whether it was held up there. Meanwhile `fs`, of a store that is open, is slow
/// to say that a log has grown: its index of the files is older than the deletion.
fn kill_at(rig: &Rig, fs: &FaultFs, call: usize, nth: u64, number: u64) -> bool {
    let folder = rig.files.path();
    let mut child = start(folder, call, nth, number);
    eventually("the other process has put", || said(folder) == "put");
    fs.set(&[Rule { call: Call::Len, suffix: ".log", first: 0, times: 1, fault: Fault::Stall(LATE) }]);
    std::fs::write(folder.join("go"), "").unwrap();
    eventually("the other process is held up or done", || !["", "put"].contains(&said(folder).as_str()));
    child.kill().unwrap();
    child.wait().unwrap();
    assert_ne!(said(folder), "not deleted");
    said(folder) == "held"
}

fn got(store: &Store, number: u64) -> Result<(), MissReason> {
    let ((id, bytes), mut out) = (block(number, LEN), vec![0; LEN]);
    store.get(&id, &mut out)?;
    assert!(out == bytes, "block {number} has other bytes");
    Ok(())
}

/// What must hold of a block whose deletion was cut off, by a store that was open meanwhile.
fn check(rig: &Rig, store: &Store, number: u64) {
    let (id, bytes) = block(number, LEN);
    // Whatever is answered, the files have it then: the arena goes, and another store finds it.
    let put = store.put(&id, &bytes, Put::default().until(Reach::Durable));
    assert!(matches!(put, Outcome::Stored | Outcome::Exists), "{put:?}");
    store.arena().clear();
    assert_eq!((level(store, &id).is_some(), got(store, number)), (true, Ok(())), "after {put:?}");
    let other = rig.open("32MiB", &settings());
    other.arena().clear();
    assert_eq!(got(&other, number), Ok(()), "another store, after {put:?}");
    drop(other);
    assert!(store.delete(&id));
    assert_eq!(got(store, number), Err(MissReason::Absent));
}

#[test]
fn a_deletion_that_is_killed_leaves_the_block_or_nothing_and_a_put_is_believed() {
    let (mut number, mut held) = (0, Vec::new());
    for (at, call) in Call::ALL.into_iter().enumerate() {
        let rig = Rig::new();
        rig.link_arena();
        let (fs, config) = (FaultFs::new(Arc::new(RealFs)), rig.settings("32MiB", &settings()));
        let store = Store::open_on(&config.resolve().unwrap(), Arc::new(fs.clone())).unwrap();
        for nth in 0..MOST_CALLS {
            number += 1;
            let started = Instant::now();
            if !kill_at(&rig, &fs, at, nth, number) {
                check(&rig, &store, number);
                break;
            }
            let killed = Instant::now();
            check(&rig, &store, number);
            assert!(killed.elapsed() < AT_MOST, "{call:?} {nth}: {:?} after the death", killed.elapsed());
            println!("{call:?} {nth}: {:?}, {:?} after the death", started.elapsed(), killed.elapsed());
            held.push(call);
        }
        store.flush(soon()).unwrap();
    }
    // At least the write that records it, and what makes that durable.
    assert!(held.contains(&Call::Write) && held.contains(&Call::Sync), "{held:?}");
}
