//! An arena with survivors, and the owner processes that die beside them.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use cascade_core::batch::Outcome;
use cascade_core::tier::Tier;
use cascade_shm::{Arena, Audit};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::owner::{self, BASE};

/// Others must get on within this time.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// An owner process.
pub struct Owner {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Owner {
    pub fn spawn(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { child, out }
    }

    /// Reads what it says until a line begins with `word`; gives the rest of that line.
    pub fn hear(&mut self, word: &str) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            let read = self.out.read_line(&mut line).unwrap();
            assert!(read > 0, "an owner ended before it said {word}");
            if let Some(rest) = line.strip_prefix(word) {
                return rest.trim().to_owned();
            }
        }
    }

    pub fn tell(&mut self, what: &str) {
        self.child.stdin.as_mut().unwrap().write_all(what.as_bytes()).unwrap();
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// Waits until it stands still.
    pub fn wait_stopped(&self) {
        let status = waitpid(self.pid(), Some(WaitPidFlag::WUNTRACED)).unwrap();
        assert!(matches!(status, WaitStatus::Stopped(..)), "not stopped but {status:?}");
    }

    /// Its process id, once it is gone for good.
    pub fn reap(mut self) -> u32 {
        self.child.wait().unwrap();
        self.child.id()
    }
}

/// Two handles that survive, and what the arena holds when nobody else is there.
pub struct Rig {
    pub folder: tempfile::TempDir,
    pub survivors: Vec<Arena>,
    pub before: (Audit, u64),
}

impl Rig {
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("cascade-deaths-").tempdir_in("/dev/shm").unwrap();
        let mut rig = Self { folder, survivors: Vec::new(), before: (Audit::default(), 0) };
        rig.join();
        assert!(rig.survivors[0].wait_ready(Instant::now() + PATIENCE));
        (0..BASE).for_each(|number| assert_eq!(owner::put(&rig.survivors[0], number), Outcome::Stored));
        rig.before = rig.now();
        rig
    }

    /// Opens the survivors' handles.
    pub fn join(&mut self) {
        self.survivors = (0..2).map(|_| Arena::open(&owner::config(self.folder.path())).unwrap()).collect();
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// What the tables say, and bytes in use.
    pub fn now(&self) -> (Audit, u64) {
        (self.survivors[0].audit().unwrap(), self.survivors[0].stats().used_bytes)
    }

    /// Waits until the survivors have noticed by themselves who is dead, and only they are left; how long that took.
    pub fn reclaimed(&self, since: Instant) -> Duration {
        loop {
            let audit = self.survivors[1].audit().unwrap();
            if audit.live_owners == 2 && audit.ledger_entries == 0 {
                return since.elapsed();
            }
            assert!(since.elapsed() < PATIENCE, "a dead owner stays: {audit:?}");
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}
