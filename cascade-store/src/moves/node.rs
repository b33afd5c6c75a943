//! What the processes of a node agree on about moves, by record locks on a file beside the arena: one at a time changes or moves a
//! name, and one sweeps. The system takes a lock back when its process ends, however it ends, and a forked child has none.

use std::fmt::Debug;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use cascade_core::clock::{Clock, SystemClock};
use cascade_core::id::BlockId;
use cascade_core::{Error, ErrorKind, Result};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use parking_lot::Mutex;

use super::changes::Changes;
use super::flights::Flights;
use super::raw;

/// The byte of the sweeping role.
const ROLE: i64 = 0;
/// Where the bytes of names begin, and how many there are.
const NAMES: i64 = 1 << 20;
const NAMES_MASK: u64 = (1 << 61) - 1;
/// How long to wait for another process before going on without its consent: it may be stopped.
const PATIENCE: Duration = Duration::from_secs(10);
const SHORTEST_NAP: Duration = Duration::from_micros(20);
const LONGEST_NAP: Duration = Duration::from_millis(2);

/// Bytes that one process of a node has at a time, and time that passes while others have them: the file beside the arena, or a
/// simulation of it.
pub(crate) trait Bytes: Debug + Send + Sync {
    /// Takes a byte, which is the process's then; `false` when another process has it.
    fn try_take(&self, at: i64) -> bool;

    /// Gives a byte back. One that is not the process's stays as it is.
    fn give_back(&self, at: i64);

    /// Whether another process has a byte.
    fn is_held(&self, at: i64) -> bool;

    fn now(&self) -> Duration;

    /// Waits for so long.
    fn nap(&self, time: Duration);
}

/// The locks of this process on what the processes of a node share.
#[derive(Debug)]
pub(crate) struct Locks {
    bytes: Box<dyn Bytes>,
    is_sweeping: AtomicBool,
}

/// The byte of a name. Two names have the same once in 2^61, and only wait for each other then.
fn byte_of(id: &BlockId) -> i64 {
    let word = id.as_bytes().first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
    NAMES + (word & NAMES_MASK) as i64
}

impl Locks {
    pub(crate) fn on(bytes: impl Bytes + 'static) -> Self {
        Self { bytes: Box::new(bytes), is_sweeping: AtomicBool::new(false) }
    }

    /// Naps while something `is_busy` on account of another process, [`PATIENCE`] at most; whether it is not any more.
    fn wait_while(&self, is_busy: impl Fn() -> bool) -> bool {
        let (until, mut nap) = (self.bytes.now() + PATIENCE, SHORTEST_NAP);
        while is_busy() {
            if self.bytes.now() >= until {
                return false;
            }
            self.bytes.nap(nap);
            nap = (nap * 2).min(LONGEST_NAP);
        }
        true
    }

    /// Takes the right to change or move a name; `false` when another process has it.
    pub(crate) fn try_name(&self, id: &BlockId) -> bool {
        self.bytes.try_take(byte_of(id))
    }

    /// The same, waited for at most [`PATIENCE`]; whether it was given.
    pub(crate) fn name(&self, id: &BlockId) -> bool {
        self.wait_while(|| !self.try_name(id))
    }

    pub(crate) fn release_name(&self, id: &BlockId) {
        self.bytes.give_back(byte_of(id));
    }

    /// Waits until no other process has the right to change or move a name, or for too long.
    pub(crate) fn wait_name(&self, id: &BlockId) {
        self.wait_while(|| self.bytes.is_held(byte_of(id)));
    }
}

/// Whether this store sweeps the arena for blocks that are not in files yet: one of the node does.
#[derive(Debug)]
pub(crate) struct Role {
    flights: Arc<Flights>,
    is_held: bool,
}

impl Role {
    /// The role, not held yet.
    pub(crate) fn new(flights: Arc<Flights>) -> Self {
        Self { flights, is_held: false }
    }

    /// Takes the role if nobody else has it; whether it is ours.
    pub(crate) fn tend(&mut self) -> bool {
        let Some(locks) = self.flights.locks() else { return true };
        if !self.is_held && !locks.is_sweeping.swap(true, Ordering::AcqRel) {
            self.is_held = locks.bytes.try_take(ROLE);
            locks.is_sweeping.store(self.is_held, Ordering::Release);
        }
        self.is_held
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        if let Some(locks) = self.flights.locks().filter(|_| self.is_held) {
            locks.bytes.give_back(ROLE);
            locks.is_sweeping.store(false, Ordering::Release);
        }
    }
}

/// The locks of one arena in this process.
#[derive(Debug)]
struct Entry {
    pid: u32,
    identity: (u64, u64),
    file: Arc<File>,
    flights: Weak<Flights>,
}

static ENTRIES: Mutex<Vec<Entry>> = Mutex::new(Vec::new());

/// Record locks on the file beside an arena. Such a lock belongs to the process, and goes with the first descriptor of its file
/// that the process closes: so there is one of these for each arena, whoever uses it.
#[derive(Debug)]
struct Records {
    /// There until it is dropped.
    file: Option<Arc<File>>,
    pid: u32,
    clock: SystemClock,
}

fn record(kind: i32, at: i64) -> libc::flock {
    libc::flock { l_type: kind as _, l_whence: libc::SEEK_SET as _, l_start: at, l_len: 1, l_pid: 0 }
}

impl Records {
    fn is_on(&self, file: &Arc<File>) -> bool {
        self.file.as_ref().is_some_and(|own| Arc::ptr_eq(own, file))
    }

    fn ask(&self, what: FcntlArg<'_>) -> nix::Result<i32> {
        self.file.as_ref().map_or(Err(Errno::EBADF), |file| fcntl(&**file, what))
    }
}

impl Bytes for Records {
    /// A system without locks to give refuses nobody.
    fn try_take(&self, at: i64) -> bool {
        let taken = self.ask(FcntlArg::F_SETLK(&record(libc::F_WRLCK, at)));
        !matches!(taken, Err(Errno::EAGAIN | Errno::EACCES))
    }

    fn give_back(&self, at: i64) {
        let _ = self.ask(FcntlArg::F_SETLK(&record(libc::F_UNLCK, at)));
    }

    fn is_held(&self, at: i64) -> bool {
        let mut asked = record(libc::F_WRLCK, at);
        self.ask(FcntlArg::F_GETLK(&mut asked)).is_ok() && i32::from(asked.l_type) != libc::F_UNLCK
    }

    fn now(&self) -> Duration {
        self.clock.now()
    }

    fn nap(&self, time: Duration) {
        std::thread::sleep(time);
    }
}

impl Drop for Records {
    fn drop(&mut self) {
        if self.pid != std::process::id() {
            return;
        }
        // Under the lock of the table, so that nobody opens the file between its leaving the table and its being closed.
        let mut entries = ENTRIES.lock();
        entries.retain(|entry| !self.is_on(&entry.file) || entry.flights.strong_count() > 0);
        drop(self.file.take());
    }
}

fn lock_path(arena: &Path) -> PathBuf {
    let name = arena.file_name().map(|name| name.to_string_lossy().replacen("arena.", "moves.", 1));
    arena.with_file_name(name.unwrap_or_else(|| "moves".into()))
}

fn identity(metadata: &std::fs::Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

fn flights_on(file: &Arc<File>) -> Arc<Flights> {
    let (file, pid) = (Arc::clone(file), std::process::id());
    let changes = Changes::on(raw::page(&file));
    let records = Records { file: Some(file), pid, clock: SystemClock::default() };
    Arc::new(Flights::with_locks(Locks::on(records), changes))
}

/// The moves of the arena at `arena`: one table for all stores of this process.
///
/// # Errors
/// `System` when the file of locks beside it cannot be opened.
pub(crate) fn flights_of(arena: &Path) -> Result<Arc<Flights>> {
    let (path, pid) = (lock_path(arena), std::process::id());
    let system = |error| {
        Error::new(ErrorKind::System, format!("cannot open the locks {}", path.display())).with_source(error)
    };
    // A process that was forked while another thread was here finds it held for ever.
    let mut entries = ENTRIES.try_lock_for(PATIENCE).ok_or_else(|| {
        Error::new(ErrorKind::System, "this process was forked while its parent opened a store: fork earlier")
    })?;
    // Asked by name first: a second descriptor of the file would take the locks with it when it is closed.
    let known = std::fs::symlink_metadata(&path).ok().map(|metadata| identity(&metadata));
    let found = entries.iter_mut().find(|entry| entry.pid == pid && Some(entry.identity) == known);
    if let Some(entry) = found {
        return Ok(entry.flights.upgrade().unwrap_or_else(|| {
            let flights = flights_on(&entry.file);
            entry.flights = Arc::downgrade(&flights);
            flights
        }));
    }
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).read(true).write(true).mode(0o600);
    let file = options.custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC).open(&path).map_err(system)?;
    let (identity, file) = (identity(&file.metadata().map_err(system)?), Arc::new(file));
    let flights = flights_on(&file);
    entries.push(Entry { pid, identity, file, flights: Arc::downgrade(&flights) });
    Ok(flights)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_of_a_process_share_their_moves_and_the_last_one_closes_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let arena = folder.path().join("arena.node");
        let first = flights_of(&arena).unwrap();
        let second = flights_of(&arena).unwrap();
        assert!(Arc::ptr_eq(&first, &second));
        let (mut one, mut two) = (Role::new(Arc::clone(&first)), Role::new(second));
        assert!(one.tend() && one.tend() && !two.tend());
        drop(one);
        assert!(two.tend());
        let path = lock_path(&arena);
        let is_on_it = |entry: &&Entry| entry.identity == identity(&std::fs::metadata(&path).unwrap());
        let file = ENTRIES.lock().iter().find(is_on_it).map(|entry| Arc::downgrade(&entry.file)).unwrap();
        drop((two, first));
        assert!(file.upgrade().is_none());
        flights_of(&arena).unwrap();
    }
}
