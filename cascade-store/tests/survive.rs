//! Processes killed by SIGKILL while they put, replace, delete and read through arena and files; and arenas that are lost.
//!
//! Each worker owns some names, notes what it is about to do and what was acknowledged, and is killed at a random time. Its
//! successor finds, for every name, what was acknowledged last, or what was under way, or where something was under way
//! nothing. When the arena was lost, it may find nothing where the files were not promised to have it, and never an older
//! block. `CASCADE_KILLS` sets the number of kills,
//! `CASCADE_SEED` the seed.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use cascade_core::batch::Outcome;
use cascade_core::id::BlockId;
use cascade_core::testing::bytes::{content, id, version_of};
use cascade_pfs::testing::Random;
use cascade_store::{Put, Reach, Store, StoreConfig};

const WORKERS: u64 = 2;
const KEYS: u64 = 12;
const ROOM: usize = 300_000;
/// Kills of one arena.
const KILLS_OF_ROUND: u64 = 10;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |value| value.parse().unwrap())
}

fn open(folder: &Path, arena: &Path) -> Store {
    let builder = StoreConfig::builder().without_environment().shm_path(arena).pfs_path(folder.join("tier"));
    let settings = [("shm_capacity", "64MiB"), ("pfs_capacity", "4GiB"), ("pfs_segment", "8MiB")];
    let builder = settings.iter().fold(builder, |builder, (name, value)| builder.set(name, *value).unwrap());
    Store::open(&builder.resolve().unwrap()).unwrap()
}

/// What is known of a name: the version acknowledged last, 0 for deleted, and whether the files were promised to have it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Acknowledged {
    version: u64,
    in_files: bool,
}

/// What a worker notes.
#[derive(Default)]
struct Notes {
    acknowledged: BTreeMap<u64, Acknowledged>,
    under_way: Option<(u64, u64)>,
    version: u64,
    /// The arena, by number, in which everything was last looked at.
    round: u64,
}

impl Notes {
    fn read(path: &Path) -> Self {
        let mut notes = Self::default();
        for record in std::fs::read(path).unwrap_or_default().as_chunks::<32>().0 {
            let [kind, key, version, in_files] =
                [0, 8, 16, 24].map(|at| u64::from_le_bytes(record[at..at + 8].try_into().unwrap()));
            if kind == 2 {
                notes.round = version;
                continue;
            }
            notes.version = notes.version.max(version);
            if kind == 0 {
                notes.under_way = Some((key, version));
            } else {
                // A worker that was killed while it settled its names has settled some.
                notes.under_way = notes.under_way.filter(|(at, _)| *at != key);
                notes.acknowledged.insert(key, Acknowledged { version, in_files: in_files == 1 });
            }
        }
        notes
    }

    /// Every name holds what it may hold; gives what each has.
    fn check(&self, store: &Store, keys: std::ops::Range<u64>, is_lost: bool) -> BTreeMap<u64, u64> {
        let mut found = BTreeMap::new();
        for key in keys {
            let has = version(store, key);
            let known = self.acknowledged.get(&key).copied().unwrap_or_default();
            let begun = self.under_way.filter(|(at, _)| *at == key).map(|(_, version)| version);
            // What is being replaced is forgotten before what replaces it can be seen: between the two there is neither.
            let is_forgiven = has == 0 && (begun.is_some() || is_lost && !known.in_files);
            assert!(
                has == known.version || begun == Some(has) || is_forgiven,
                "name {key}: found {has}, acknowledged {known:?}, under way {begun:?}, arena lost: {is_lost}"
            );
            found.insert(key, has);
        }
        found
    }
}

/// The version that a name holds, by a get or a lease; 0 for none.
fn version(store: &Store, key: u64) -> u64 {
    let mut out = vec![0; ROOM];
    let bytes = if key.is_multiple_of(2) {
        store.get(&id(key), &mut out).ok().map(|meta| usize::try_from(meta.len).unwrap())
    } else {
        store.lease(&id(key)).ok().map(|lease| {
            let read = lease.read_at(0, &mut out[..lease.len()]);
            assert!(read);
            lease.len()
        })
    };
    bytes.map_or(0, |len| version_of(key, &out[..len]).unwrap_or_else(|| panic!("name {key}: wrong bytes")))
}

fn note(file: &mut File, kind: u64, key: u64, known: Acknowledged) {
    let words = [kind, key, known.version, u64::from(known.in_files)].map(u64::to_le_bytes);
    file.write_all(words.as_flattened()).unwrap();
}

/// The body of a worker process; in a normal run of the tests there is nothing to do.
#[test]
fn worker_process() {
    let Some(folder) = std::env::var_os("CASCADE_SURVIVE_FOLDER").map(PathBuf::from) else { return };
    let arena = PathBuf::from(std::env::var_os("CASCADE_SURVIVE_ARENA").unwrap());
    let (slot, mut random) = (number("CASCADE_SURVIVE_SLOT", 0), Random::new(number("CASCADE_SEED", 1)));
    let path = folder.join(format!("notes.{slot}"));
    let mut notes = Notes::read(&path);
    let keys = slot * KEYS..(slot + 1) * KEYS;
    let store = open(&folder, &arena);
    let round = number("CASCADE_SURVIVE_ROUND", 0);
    let found = notes.check(&store, keys.clone(), round > notes.round);
    let mut file = OpenOptions::new().create(true).append(true).open(&path).unwrap();
    // What was under way, or lost, is settled now, one way or the other. What the files have, they keep.
    for (key, version) in found {
        let known = notes.acknowledged.get(&key).copied().unwrap_or_default();
        // A replacement that was under way may have had the files forget it already.
        let is_begun = notes.under_way.is_some_and(|(at, _)| at == key);
        let in_files = known.in_files && known.version == version && !is_begun;
        note(&mut file, 1, key, Acknowledged { version, in_files });
    }
    note(&mut file, 2, 0, Acknowledged { version: round, in_files: false });
    loop {
        let key = keys.start + random.below(KEYS);
        step(&store, &mut random, &mut notes.version, key, &mut file);
    }
}

fn step(store: &Store, random: &mut Random, next: &mut u64, key: u64, file: &mut File) {
    if random.once_in(4) {
        let other = BlockId::content(&key.to_le_bytes());
        drop(store.prefetch(&[id(key), other]));
        return;
    }
    *next += 1;
    let is_delete = random.once_in(6);
    let version = if is_delete { 0 } else { *next };
    note(file, 0, key, Acknowledged { version, in_files: false });
    if is_delete {
        let _ = store.delete(&id(key));
        return note(file, 1, key, Acknowledged { version, in_files: true });
    }
    let reach = if random.once_in(3) { Reach::Files } else { Reach::Found };
    let len = usize::try_from(100 + random.below(ROOM as u64 - 100)).unwrap();
    let outcome = store.put(&id(key), &content(key, version, len), Put::default().until(reach));
    assert_eq!(outcome, Outcome::Stored, "there is room for all, and each version is new");
    note(file, 1, key, Acknowledged { version, in_files: reach == Reach::Files });
    if random.once_in(10) {
        // Found in files alone from now on, until somebody reads it.
        let _ = store.demote(&[id(key)]);
    }
}

fn start(folder: &Path, arena: &Path, slot: u64, seed: u64, round: u64) -> Worker {
    let worker = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "worker_process", "--nocapture", "--test-threads=1"])
        .env("CASCADE_SURVIVE_FOLDER", folder)
        .env("CASCADE_SURVIVE_ARENA", arena)
        .env("CASCADE_SURVIVE_SLOT", slot.to_string())
        .env("CASCADE_SURVIVE_ROUND", round.to_string())
        .env("CASCADE_SEED", seed.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn();
    Worker(worker.unwrap())
}

/// A worker, which does not outlive a test that fails.
struct Worker(Child);

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn kill(mut worker: Worker) {
    worker.0.kill().unwrap();
    let status = worker.0.wait().unwrap();
    assert_eq!(status.signal(), Some(9), "a worker ended by itself, with {status}: its message is above");
}

#[test]
fn killed_processes_and_lost_arenas_leave_no_wrong_block() {
    if std::env::var_os("CASCADE_SURVIVE_FOLDER").is_some() {
        return;
    }
    let (kills, seed) = (number("CASCADE_KILLS", 40), number("CASCADE_SEED", 1));
    let memory = tempfile::Builder::new().prefix("cascade-test-").tempdir_in("/dev/shm").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let arena = memory.path().join("arena");
    let mut random = Random::new(seed);
    let (mut killed, mut round) = (0, 0);
    while killed < kills {
        let mut workers: Vec<Worker> = (0..WORKERS)
            .map(|slot| start(folder.path(), &arena, slot, seed + killed * 31 + slot, round))
            .collect();
        for _ in 0..KILLS_OF_ROUND {
            std::thread::sleep(Duration::from_millis(100 + random.below(300)));
            let slot = random.below(WORKERS);
            let slot = usize::try_from(slot).unwrap();
            kill(workers.remove(slot));
            killed += 1;
            let next = start(folder.path(), &arena, slot as u64, seed + killed * 31, round);
            workers.insert(slot, next);
        }
        workers.into_iter().for_each(kill);
        // On a busy machine none of the workers may have come so far as to make it.
        let gone = std::fs::remove_dir_all(&arena);
        assert!(gone.as_ref().is_ok() || !arena.exists(), "after {killed} kills: {gone:?}");
        round += 1;
    }
    let store = open(folder.path(), &arena);
    let all: Vec<u64> = (0..WORKERS)
        .flat_map(|slot| {
            let notes = Notes::read(&folder.path().join(format!("notes.{slot}")));
            notes.check(&store, slot * KEYS..(slot + 1) * KEYS, true).into_values()
        })
        .collect();
    let there = all.iter().filter(|version| **version > 0).count();
    println!("{killed} kills, {} names at the end of which {there} were in files", all.len());
    assert!(there > 0);
}
