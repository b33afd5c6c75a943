//! Processes killed by SIGKILL while they write, at durability *block*, on a real file system.
//!
//! Each worker owns some keys, notes what it is about to do and what was acknowledged, and is killed at a random time. Its
//! successor finds, for every key, what was acknowledged last, or what was under way. `CASCADE_KILLS` sets the number of
//! kills, `CASCADE_KILL_ROOT` the folder of the file system to use, `CASCADE_SEED` the seed.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cascade_core::batch::Outcome;
use cascade_core::testing::bytes::version_of;
use cascade_pfs::testing::Random;
use cascade_pfs::{Durability, IoEngine, PfsConfig, PfsTier};
use common::*;

const WORKERS: u64 = 2;
const KEYS: u64 = 20;
const ROOM: usize = 300_000;
const KILLS_OF_ROUND: u64 = 20;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |value| value.parse().unwrap())
}

/// Every second worker leaves the choice of what moves the bytes to the tier: io_uring, on a local disk.
fn settings(dir: &Path, slot: u64) -> PfsConfig {
    PfsConfig {
        io_engine: if slot.is_multiple_of(2) { IoEngine::Auto } else { IoEngine::Pool },
        durability: Durability::Block,
        segment_bytes: Some(8 << 20),
        io_bytes: 64 << 10,
        write_threads: 2,
        read_threads: 1,
        ..PfsConfig::new(dir, 4 << 30)
    }
}

/// What a worker notes: version 0 is a deletion.
#[derive(Default)]
struct Notes {
    acknowledged: BTreeMap<u64, u64>,
    under_way: Option<(u64, u64)>,
    version: u64,
    /// What is acknowledged or not, key and version, for whom a check fails.
    history: Vec<(bool, u64, u64)>,
}

impl Notes {
    fn read(path: &Path) -> Self {
        let mut notes = Self::default();
        let bytes = std::fs::read(path).unwrap_or_default();
        for record in bytes.as_chunks::<24>().0 {
            let [kind, key, version] =
                [0, 8, 16].map(|at| u64::from_le_bytes(record[at..at + 8].try_into().unwrap()));
            notes.version = notes.version.max(version);
            notes.history.push((kind == 1, key, version));
            if kind == 0 {
                notes.under_way = Some((key, version));
            } else {
                notes.under_way = None;
                notes.acknowledged.insert(key, version);
            }
        }
        notes
    }

    /// Every key holds what was acknowledged last, or what was under way.
    fn check(&self, tier: &PfsTier, keys: std::ops::Range<u64>) -> u64 {
        let mut hits = 0;
        for key in keys {
            let found = match get(tier, key, ROOM) {
                Ok(bytes) => {
                    Some(version_of(key, &bytes).unwrap_or_else(|| panic!("key {key}: wrong bytes")))
                }
                Err(Outcome::Miss(_)) => None,
                Err(other) => panic!("key {key}: {other:?}"),
            };
            let acknowledged = self.acknowledged.get(&key).copied().filter(|version| *version > 0);
            let under_way = self.under_way.filter(|(at, _)| *at == key).map(|(_, version)| version);
            let pending =
                under_way.is_some_and(|version| found == Some(version).filter(|version| *version > 0));
            assert!(
                found == acknowledged || pending,
                "key {key}: found {found:?}, acknowledged {acknowledged:?}; {:?}",
                self.history.iter().filter(|(_, at, _)| *at == key).rev().take(8).collect::<Vec<_>>()
            );
            hits += u64::from(found.is_some());
        }
        hits
    }
}

fn note(file: &mut File, kind: u64, key: u64, version: u64) {
    let words = [kind, key, version].map(u64::to_le_bytes);
    file.write_all(words.as_flattened()).unwrap();
}

/// The body of a worker process; in a normal run of the tests there is nothing to do.
#[test]
fn worker_process() {
    let Some(folder) = std::env::var_os("CASCADE_PFS_KILL_FOLDER").map(PathBuf::from) else { return };
    let (slot, mut random) = (number("CASCADE_PFS_KILL_SLOT", 0), Random::new(number("CASCADE_SEED", 1)));
    let path = folder.join(format!("notes.{slot}"));
    let mut notes = Notes::read(&path);
    let keys = slot * KEYS..(slot + 1) * KEYS;
    let tier = PfsTier::open(settings(&folder.join("tier"), slot)).unwrap();
    notes.check(&tier, keys.clone());
    let mut file = OpenOptions::new().create(true).append(true).open(&path).unwrap();
    // What was under way is settled now, one way or the other: found out, and noted.
    if let Some((key, _)) = notes.under_way {
        let found = get(&tier, key, ROOM).ok().and_then(|bytes| version_of(key, &bytes)).unwrap_or(0);
        note(&mut file, 1, key, found);
    }
    loop {
        let key = keys.start + random.below(KEYS);
        notes.version += 1;
        let delete_it = random.once_in(5);
        let version = if delete_it { 0 } else { notes.version };
        note(&mut file, 0, key, version);
        let outcome = if delete_it {
            delete(&tier, key)
        } else {
            let most = if random.once_in(3) { ROOM as u64 } else { 8000 };
            put(&tier, key, version, usize::try_from(16 + random.below(most - 16)).unwrap())
        };
        assert!(matches!(outcome, Outcome::Stored | Outcome::Deleted | Outcome::Miss(_)), "{outcome:?}");
        note(&mut file, 1, key, version);
    }
}

fn spawn(folder: &Path, slot: u64, seed: u64) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "worker_process", "--nocapture", "--test-threads=1"]).stdout(Stdio::null());
    command.env("CASCADE_PFS_KILL_FOLDER", folder).env("CASCADE_PFS_KILL_SLOT", slot.to_string());
    command.env("CASCADE_SEED", seed.to_string()).spawn().unwrap()
}

fn kill(child: &mut Child) {
    child.kill().unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.signal(), Some(9), "a worker failed: {status}");
}

/// One folder, used and killed in, then looked at. Gives blocks found and operations acknowledged.
fn round(root: &Path, kills: u64, random: &mut Random) -> (u64, u64) {
    let folder = tempfile::Builder::new().prefix("cascade-kill-").tempdir_in(root).unwrap();
    let path = folder.path();
    let mut workers: Vec<Child> = (0..WORKERS).map(|slot| spawn(path, slot, random.bits() >> 1)).collect();
    for _ in 0..kills {
        std::thread::sleep(Duration::from_micros(random.below(150_000)));
        let slot = random.below(WORKERS);
        let worker = &mut workers[usize::try_from(slot).unwrap()];
        kill(worker);
        *worker = spawn(path, slot, random.bits() >> 1);
    }
    // The last ones get to work, so that a round is not only starts.
    let before: u64 = (0..WORKERS).map(|slot| length(path, slot)).sum();
    let deadline = Instant::now() + Duration::from_secs(30);
    while (0..WORKERS).map(|slot| length(path, slot)).sum::<u64>() < before + 24 * 40 {
        assert!(Instant::now() < deadline, "nobody gets on");
        std::thread::sleep(Duration::from_millis(2));
    }
    workers.iter_mut().for_each(kill);
    let tier = PfsTier::open(settings(&path.join("tier"), 0)).unwrap();
    let files = tier.file_stats();
    println!("half of the workers used {:?}: {}", files.engine, files.engine_reason);
    let mut found = (0, 0);
    for slot in 0..WORKERS {
        found.0 +=
            Notes::read(&path.join(format!("notes.{slot}"))).check(&tier, slot * KEYS..(slot + 1) * KEYS);
        found.1 += length(path, slot) / 48;
    }
    found
}

fn length(folder: &Path, slot: u64) -> u64 {
    std::fs::metadata(folder.join(format!("notes.{slot}"))).map_or(0, |metadata| metadata.len())
}

#[test]
fn no_acknowledged_block_is_lost_to_sigkill() {
    let (kills, mut random) = (number("CASCADE_KILLS", 40), Random::new(number("CASCADE_SEED", 1)));
    let root = std::env::var_os("CASCADE_KILL_ROOT").map_or_else(std::env::temp_dir, PathBuf::from);
    let (mut done, mut found) = (0, (0, 0));
    while done < kills {
        let now = KILLS_OF_ROUND.min(kills - done);
        let (blocks, operations) = round(&root, now, &mut random);
        found = (found.0 + blocks, found.1 + operations);
        done += now;
    }
    println!("{done} kills; {} operations acknowledged, {} blocks found at the ends", found.1, found.0);
    assert!(found.0 > 0 && found.1 > done);
}
