//! Processes killed by SIGKILL, at every named point of the code and at random times, while others use the same arena.
//!
//! After each kill the survivors and a process that comes anew go on storing and reading; every byte that anyone reads is
//! checked; and when the last one is gone, nothing of them is left. `CASCADE_KILLS` sets the number of kills, `CASCADE_SEED`
//! the seed.

// Clippy's exemption for tests reaches `#[test]` functions only, not their helpers.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "kill/block.rs"]
mod block;
#[path = "kill/raw.rs"]
mod raw;
#[path = "kill/worker.rs"]
mod worker;

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cascade_core::tier::Tier;
use cascade_shm::ArenaConfig;
use cascade_shm::kill::POINTS;

use crate::block::Random;
use crate::worker::{Progress, Worker};

/// Others must get on within this time after a kill.
const PATIENCE: Duration = Duration::from_secs(5);
/// A named point must be reached within this time, counted from the start of the process.
const REACH: Duration = Duration::from_secs(20);
/// Kills on one arena before it is looked at and a new one made.
const KILLS_OF_ROUND: usize = 12;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |value| value.parse().unwrap())
}

fn config(folder: &Path) -> ArenaConfig {
    let config = ArenaConfig::new(folder.join("arena")).capacity(16 << 20);
    ArenaConfig { region_bytes: Some(1 << 20), owners: Some(12), ..config }
}

/// The body of a worker process; in a normal run of the tests there is nothing to do.
#[test]
fn worker_process() {
    let Some(folder) = std::env::var_os("CASCADE_KILL_FOLDER").map(PathBuf::from) else { return };
    let progress = PathBuf::from(std::env::var_os("CASCADE_KILL_PROGRESS").unwrap());
    let seed = number("CASCADE_SEED", 1);
    worker::work(&config(&folder), &progress, seed, seed.is_multiple_of(3));
}

struct Process {
    child: Child,
    progress: PathBuf,
}

impl Process {
    fn killed(&mut self) {
        self.child.kill().unwrap();
        self.reap();
    }

    /// Waits for its end, which must be SIGKILL: a worker that finds an error panics.
    fn reap(&mut self) {
        let status = self.child.wait().unwrap();
        assert_eq!(status.signal(), Some(9), "a worker failed: {status}");
    }

    fn progress(&self) -> Progress {
        Progress::read(&self.progress)
    }

    fn kill_forked_child(&self) {
        if let Ok(text) = std::fs::read_to_string(self.progress.with_extension("child")) {
            let pid = nix::unistd::Pid::from_raw(text.parse().unwrap());
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
        }
    }
}

/// One arena, the processes that use it, and those that did.
struct Round<'a> {
    folder: tempfile::TempDir,
    random: &'a mut Random,
    by_point: &'a mut BTreeMap<&'static str, u64>,
    living: Vec<Process>,
    dead: Vec<Process>,
    verified: u64,
}

impl Round<'_> {
    fn spawn(&mut self, point: Option<&str>) -> Process {
        let progress = self.folder.path().join(format!("progress.{}", self.living.len() + self.dead.len()));
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "worker_process", "--nocapture", "--test-threads=1"]);
        command.env("CASCADE_KILL_FOLDER", self.folder.path()).env("CASCADE_KILL_PROGRESS", &progress);
        command.env("CASCADE_SEED", (self.random.next() >> 1).to_string()).stdout(Stdio::null());
        match point {
            Some(point) => command.env("CASCADE_KILL_POINT", point),
            None => command.env_remove("CASCADE_KILL_POINT"),
        };
        Process { child: command.spawn().unwrap(), progress }
    }

    /// Starts a process that dies at `point`, and sees to it that it can get there.
    fn kill_at(&mut self, point: &'static str) {
        if point.starts_with("reap.") || point == "attach.reaping" {
            // Somebody must be dead with something in its ledger, and nobody else there to recover it.
            self.kill_all();
            self.kill_at("put.allocated");
        }
        if point.starts_with("janitor.") {
            // Nobody else has the role.
            self.kill_all();
        }
        // Deep in the work where the point is passed often.
        let rare = ["attach.", "grow.", "reap.", "janitor."];
        let often = !rare.iter().any(|rare| point.starts_with(rare));
        let passage = if often { 1 + self.random.below(4) } else { 1 };
        let mut victim = self.spawn(Some(&format!("{point}:{passage}")));
        let deadline = Instant::now() + REACH;
        while victim.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "nobody came to {point} {passage} times");
            std::thread::sleep(Duration::from_millis(1));
        }
        victim.reap();
        self.dead.push(victim);
        self.count(point, 1);
    }

    fn count(&mut self, point: &'static str, kills: u64) {
        *self.by_point.entry(point).or_default() += kills;
    }

    fn kill_at_random(&mut self) {
        if self.living.is_empty() {
            let process = self.spawn(None);
            self.living.push(process);
        }
        std::thread::sleep(Duration::from_micros(self.random.below(60_000)));
        let which = self.random.below(self.living.len() as u64) as usize;
        let mut victim = self.living.swap_remove(which);
        victim.killed();
        self.dead.push(victim);
        self.count("random", 1);
    }

    fn kill_all(&mut self) {
        self.living.iter_mut().for_each(Process::killed);
        self.count("random", self.living.len() as u64);
        self.dead.append(&mut self.living);
    }

    /// Survivors go on, and so does who comes anew.
    fn check_progress(&mut self, what: &str) {
        let before: Vec<Progress> = self.living.iter().map(Process::progress).collect();
        let deadline = Instant::now() + PATIENCE;
        let mut newcomer = Worker::open(&config(self.folder.path()), self.random.next());
        while newcomer.progress.stored < 3 {
            newcomer.step();
            assert!(Instant::now() < deadline, "who comes anew cannot store after a kill at {what}");
        }
        newcomer.read_all();
        self.verified += newcomer.progress.verified;
        drop(newcomer);
        for (process, before) in self.living.iter_mut().zip(before) {
            while process.progress().stored <= before.stored {
                assert_eq!(
                    process.child.try_wait().unwrap(),
                    None,
                    "a survivor failed after a kill at {what}"
                );
                assert!(Instant::now() < deadline, "a survivor cannot store after a kill at {what}");
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    /// All are dead, though some of their forked children live: nothing is left but blocks, and then nothing at all.
    fn check_remains(&mut self) {
        self.kill_all();
        let mut last = Worker::open(&config(self.folder.path()), 1);
        let deadline = Instant::now() + PATIENCE;
        let audit = loop {
            last.arena().recover();
            let audit = last.arena().audit().unwrap();
            if audit.live_owners == 1 && audit.ledger_entries == 0 {
                break audit;
            }
            assert!(Instant::now() < deadline, "dead owners stay: {audit:?}");
        };
        assert_eq!(
            (audit.filling_slots, audit.leaving_slots, audit.retired_slots, audit.disagreements),
            (0, 0, 0, 0),
            "{audit:?}"
        );
        last.read_all();
        self.verified += last.progress.verified;
        last.arena().clear();
        let (stats, audit) = (last.arena().stats(), last.arena().audit().unwrap());
        assert_eq!((stats.blocks, stats.used_bytes, stats.corrupt), (0, 0, 0), "{audit:?}");
        assert_eq!((audit.sealed_slots, audit.retired_slots, audit.disagreements), (0, 0, 0), "{audit:?}");
        self.verified += self.dead.iter().map(|process| process.progress().verified).sum::<u64>();
        self.dead.iter().for_each(Process::kill_forked_child);
    }
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn whoever_is_killed_the_others_go_on_and_nothing_is_left() {
    if std::env::var_os("CASCADE_KILL_FOLDER").is_some() {
        return;
    }
    let (kills, seed) = (number("CASCADE_KILLS", 200) as usize, number("CASCADE_SEED", 0x5eed));
    println!("seed {seed}");
    let mut random = Random(seed | 1);
    let mut by_point: BTreeMap<&'static str, u64> = BTreeMap::new();
    let (mut done, mut verified, mut points, mut files) = (0, 0, POINTS.iter().cycle(), None);
    while done < kills {
        let folder = tempfile::Builder::new().prefix("cascade-kill-").tempdir_in("/dev/shm").unwrap();
        let workers = 1 + random.below(4);
        let mut round = Round {
            folder,
            random: &mut random,
            by_point: &mut by_point,
            living: Vec::new(),
            dead: Vec::new(),
            verified: 0,
        };
        // A new arena: only its first users come past growth.
        round.kill_at("grow.allocated");
        for kill in 1..KILLS_OF_ROUND.min(kills - done + 1) {
            while (round.living.len() as u64) < workers {
                let process = round.spawn(None);
                round.living.push(process);
            }
            let what = if kill % 3 == 0 {
                "random"
            } else {
                points.find(|point| **point != "grow.allocated").unwrap()
            };
            if what == "random" {
                round.kill_at_random()
            } else {
                round.kill_at(what)
            }
            round.check_progress(what);
        }
        // One last death in the middle of a change to a region, with nobody there to come upon it.
        round.kill_all();
        let last = ["alloc.locked", "alloc.marked", "free.locked", "free.cleared"];
        let last = last[round.random.below(4) as usize];
        round.kill_at(last);
        round.check_remains();
        verified += round.verified;
        done = by_point.values().sum::<u64>() as usize;
        let now = open_files();
        assert!(*files.get_or_insert(now) >= now, "descriptors leak: {files:?}, then {now}");
    }
    println!("{done} kills, {verified} blocks verified\n{by_point:#?}");
    let missing: Vec<_> = POINTS.iter().filter(|point| !by_point.contains_key(**point)).collect();
    assert!(missing.is_empty() || kills < 4 * POINTS.len(), "never reached: {missing:?}");
    assert!(verified > 0, "nothing was read");
}
