//! One arena, the processes that use it, and those that did.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cascade_core::tier::{Lookup, Tier};
use cascade_shm::ArenaConfig;

use crate::block::{self, IDS, Random};
use crate::points::{IN_A_REGION, Setting, setting};
use crate::worker::{FEW_ROWS, Progress, Worker};

/// Others must get on within this time after a kill.
const PATIENCE: Duration = Duration::from_secs(5);
/// A named point must be reached within this time, counted from the start of the process.
const REACH: Duration = Duration::from_secs(20);
/// Owner rows of an arena whose rows shall suffice.
const ROWS: u16 = 16;

/// Where tests make their folders. A planted bug may end the process without destructors: who plants it gives a folder, and removes it.
fn memory() -> std::path::PathBuf {
    std::env::var_os("CASCADE_TEST_MEMORY").map_or_else(|| "/dev/shm".into(), Into::into)
}

/// Kills by the point at which they were, and blocks verified.
#[derive(Default)]
pub struct Count {
    pub by_point: BTreeMap<&'static str, u64>,
    pub verified: u64,
}

impl Count {
    pub fn kills(&self) -> u64 {
        self.by_point.values().sum()
    }

    fn add(&mut self, point: &'static str, kills: u64) {
        *self.by_point.entry(point).or_default() += kills;
    }
}

pub fn config(folder: &Path, rows: u16) -> ArenaConfig {
    let config = ArenaConfig::new(folder.join("arena")).capacity(16 << 20);
    ArenaConfig { region_bytes: Some(1 << 20), owners: Some(rows), ..config }
}

struct Process {
    child: Child,
    progress: PathBuf,
}

impl Process {
    /// Stops it, and waits until it stands.
    fn stop(&self) {
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
        let status = nix::sys::wait::waitpid(pid, Some(nix::sys::wait::WaitPidFlag::WUNTRACED)).unwrap();
        assert!(matches!(status, nix::sys::wait::WaitStatus::Stopped(..)), "a worker failed: {status:?}");
    }

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

    fn reached(&self) -> PathBuf {
        self.progress.with_extension("reached")
    }

    fn kill_forked_child(&self) {
        if let Ok(text) = std::fs::read_to_string(self.progress.with_extension("child"))
            && let Ok(pid) = text.parse()
        {
            // It may have ended by itself.
            let pid = nix::unistd::Pid::from_raw(pid);
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        }
    }
}

pub struct Round<'a> {
    folder: tempfile::TempDir,
    config: ArenaConfig,
    random: &'a mut Random,
    count: &'a mut Count,
    living: Vec<Process>,
    dead: Vec<Process>,
}

impl<'a> Round<'a> {
    /// A round that begins with a death at `first`.
    pub fn new(random: &'a mut Random, count: &'a mut Count, first: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("cascade-kill-").tempdir_in(memory()).unwrap();
        let rows = if setting(first) == Setting::FullRows { FEW_ROWS } else { ROWS };
        let config = config(folder.path(), rows);
        Self { folder, config, random, count, living: Vec::new(), dead: Vec::new() }
    }

    fn spawn(&mut self, point: Option<&str>) -> Process {
        let number = self.living.len() + self.dead.len();
        let progress = self.folder.path().join(format!("progress-{number}"));
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "worker_process", "--nocapture", "--test-threads=1"]);
        command.env("CASCADE_KILL_FOLDER", self.folder.path()).env("CASCADE_KILL_PROGRESS", &progress);
        command.env("CASCADE_KILL_ROWS", self.config.owners.unwrap().to_string());
        command.env("CASCADE_KILL_REPORT", progress.with_extension("reached"));
        command.env("CASCADE_SEED", (self.random.next() >> 1).to_string()).stdout(Stdio::null());
        match point {
            Some(point) => command.env("CASCADE_KILL_POINT", point),
            None => command.env_remove("CASCADE_KILL_POINT"),
        };
        Process { child: command.spawn().unwrap(), progress }
    }

    /// Brings the number of working processes up to `workers`.
    pub fn fill_up(&mut self, workers: usize) {
        while self.living.len() < workers {
            let process = self.spawn(None);
            self.living.push(process);
        }
    }

    /// Sees to it that a process can get to `point`, and starts one that dies there.
    pub fn kill_at(&mut self, point: &'static str) {
        let passage = match setting(point) {
            Setting::Nothing | Setting::Once => 1,
            Setting::FullRows => {
                self.take_all_rows();
                1
            }
            Setting::Remains(of) => {
                self.kill_all();
                let of = of[self.random.below(of.len() as u64) as usize];
                self.kill_at_passage(of, 1);
                1
            }
            Setting::Often => 1 + self.random.below(4),
        };
        self.kill_at_passage(point, passage);
    }

    fn kill_at_passage(&mut self, point: &'static str, passage: u64) {
        let mut victim = self.spawn(Some(&format!("{point}:{passage}")));
        let deadline = Instant::now() + REACH;
        while victim.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "nobody came to {point} {passage} times");
            std::thread::sleep(Duration::from_millis(1));
        }
        victim.reap();
        let reached = std::fs::read_to_string(victim.reached()).ok();
        assert_eq!(reached.as_deref(), Some(point), "a process died, and not where it was to die");
        self.dead.push(victim);
        self.count.add(point, 1);
    }

    /// As many processes as there are rows, all killed before one can recover another.
    fn take_all_rows(&mut self) {
        self.fill_up(FEW_ROWS.into());
        let deadline = Instant::now() + REACH;
        for process in &self.living {
            while process.progress().steps == 0 {
                assert!(Instant::now() < deadline, "a process cannot begin");
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        // The last to be killed must not recover the first.
        self.living.iter().for_each(Process::stop);
        self.kill_all();
    }

    /// Kills a working process at a random time.
    pub fn kill_at_random(&mut self) {
        self.fill_up(1);
        std::thread::sleep(Duration::from_micros(self.random.below(60_000)));
        let which = self.random.below(self.living.len() as u64) as usize;
        let mut victim = self.living.swap_remove(which);
        victim.killed();
        self.dead.push(victim);
        self.count.add("random", 1);
    }

    fn kill_all(&mut self) {
        self.living.iter_mut().for_each(Process::killed);
        self.count.add("random", self.living.len() as u64);
        self.dead.append(&mut self.living);
    }

    /// Survivors go on, and so does who comes anew.
    pub fn check_progress(&mut self, what: &str) {
        let before: Vec<Progress> = self.living.iter().map(Process::progress).collect();
        let deadline = Instant::now() + PATIENCE;
        let mut newcomer = Worker::open(&self.config, self.random.next());
        while newcomer.progress.stored < 3 {
            newcomer.step();
            let why = || format!("{:?} {:?}", newcomer.progress, newcomer.arena().audit());
            assert!(Instant::now() < deadline, "who comes anew cannot store after {what}: {}", why());
        }
        newcomer.read_all();
        newcomer.let_go();
        self.count.verified += newcomer.progress.verified;
        drop(newcomer);
        for (process, before) in self.living.iter_mut().zip(before) {
            while process.progress().stored <= before.stored {
                assert_eq!(process.child.try_wait().unwrap(), None, "a survivor failed after {what}");
                assert!(Instant::now() < deadline, "a survivor cannot store after {what}");
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    /// One last death, in the middle of a change to a region and with nobody there to come upon it; then all are dead, though
    /// some of their forked children live. Nothing is left but blocks, and then nothing at all.
    pub fn finish(mut self) {
        self.kill_all();
        let last = IN_A_REGION[self.random.below(IN_A_REGION.len() as u64) as usize];
        let passage = 1 + self.random.below(4);
        self.kill_at_passage(last, passage);
        let mut last = Worker::open(&self.config, 1);
        assert!(
            last.arena().wait_ready(Instant::now() + PATIENCE),
            "the arena stays smaller than it was made"
        );
        check_tables(&last);
        last.read_all();
        self.count.verified += last.progress.verified;
        last.arena().clear();
        let (stats, audit) = (last.arena().stats(), last.arena().audit().unwrap());
        assert_eq!((stats.blocks, stats.used_bytes, stats.corrupt), (0, 0, 0), "{audit:?}");
        assert_eq!((audit.sealed_slots, audit.retired_slots, audit.disagreements), (0, 0, 0), "{audit:?}");
        self.count.verified += self.dead.iter().map(|process| process.progress().verified).sum::<u64>();
    }
}

impl Drop for Round<'_> {
    fn drop(&mut self) {
        for process in &mut self.living {
            // Only when the lane has failed are there any.
            let _ = process.child.kill();
            let _ = process.child.wait();
        }
        self.dead.iter().chain(&self.living).for_each(Process::kill_forked_child);
    }
}

/// No owner but this one, no slot but free and sealed ones, and no byte in use but theirs.
fn check_tables(last: &Worker) {
    let deadline = Instant::now() + PATIENCE;
    let audit = loop {
        last.arena().recover();
        let audit = last.arena().audit().unwrap();
        if audit.live_owners == 1 && audit.ledger_entries == 0 {
            break audit;
        }
        assert!(Instant::now() < deadline, "dead owners stay: {audit:?}");
    };
    let left = (audit.filling_slots, audit.leaving_slots, audit.retired_slots, audit.disagreements);
    assert_eq!(left, (0, 0, 0, 0), "{audit:?}");
    let ids: Vec<_> = (0..IDS).map(block::id).collect();
    let mut found = vec![Lookup::Pending; ids.len()];
    last.arena().lookup(&ids, &mut found);
    let bytes = found.iter().map(|found| match found {
        Lookup::Hit(meta) => block::rounded(meta.len),
        Lookup::Miss(_) => 0,
        Lookup::Pending => panic!("a block is being filled, and nobody is there"),
    });
    let (bytes, used) = (bytes.sum::<u64>(), last.arena().stats().used_bytes);
    assert_eq!(used, bytes, "bytes in use against the sum of the blocks: {audit:?}");
}
