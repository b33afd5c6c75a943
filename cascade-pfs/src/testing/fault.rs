//! Calls that fail on purpose.

use std::collections::BTreeMap;
use std::io::{Error, Result};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use cascade_core::memory::Piece;
use parking_lot::{Condvar, Mutex};

use crate::buffer::Buffer;
use crate::filesystem::FileSystem;
use crate::fs::{Access, File, Fs, Queued, Way};
use crate::layout::PAGE_BYTES;
use crate::pieces::head;
use crate::raw;
use crate::stripe::Stripes;

/// End of the name, for rules, of files that were made without one: only segments are.
const PREPARED: &str = ".seg";

/// A kind of call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Call {
    /// Opening a file to read.
    Open,
    /// Making a file, or giving a name to one that has none.
    Create,
    /// Listing a directory.
    List,
    /// Removing a file.
    Remove,
    /// Making a directory.
    MakeDir,
    /// Making names durable.
    SyncDir,
    /// Reading.
    Read,
    /// Writing.
    Write,
    /// Making content durable.
    Sync,
    /// Asking for a length.
    Len,
    /// Cutting a file.
    Truncate,
    /// Setting room aside, also in a file that has no name yet.
    SetAside,
    /// Setting or asking for the time of the last change.
    Touch,
    /// Taking or asking for a lock.
    Lock,
    /// Asking what a directory is on, or whether its names have changed.
    Stat,
    /// Giving a file another name.
    Rename,
}

impl Call {
    /// Every kind.
    pub const ALL: [Self; 16] = [
        Self::Open,
        Self::Create,
        Self::List,
        Self::Remove,
        Self::MakeDir,
        Self::SyncDir,
        Self::Read,
        Self::Write,
        Self::Sync,
        Self::Len,
        Self::Truncate,
        Self::SetAside,
        Self::Touch,
        Self::Lock,
        Self::Stat,
        Self::Rename,
    ];
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The call does nothing and fails with this number.
    Errno(i32),
    /// A read or write moves this many bytes at most.
    Short(usize),
    /// The call waits before it does its work.
    Stall(Duration),
    /// The kernel's queue keeps a read until it is cancelled; a call fails with `ETIMEDOUT`.
    Hang,
    /// A call waits until [`FaultFs::release`] before it does its work; with the kernel's queue as `Hang`.
    Hold,
    /// One bit of what is read, or written, is another: the one with this number, modulo the length.
    Flip(u64),
}

/// Which calls go wrong: of kind `call`, on files whose name ends with `suffix`, number `first` (counted from 0) and the
/// `times - 1` after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The kind of call.
    pub call: Call,
    /// End of the file's name; everything ends with "".
    pub suffix: &'static str,
    /// The first that goes wrong.
    pub first: u64,
    /// How many go wrong.
    pub times: u64,
    /// How.
    pub fault: Fault,
}

/// The plan, and what tells of a release.
#[derive(Debug, Default)]
struct Shared {
    plan: Mutex<Plan>,
    released: Condvar,
}

#[derive(Debug, Default)]
struct Plan {
    holds: bool,
    held: u64,
    rules: Vec<(Rule, u64)>,
    counts: BTreeMap<(Call, String), u64>,
    injected: u64,
}

/// Any file system, with faults. Clones share plan and counts.
#[derive(Clone, Debug)]
pub struct FaultFs {
    inner: Arc<dyn Fs>,
    plan: Arc<Shared>,
}

#[derive(Debug)]
struct FaultFile {
    inner: Arc<dyn File>,
    plan: Arc<Shared>,
    name: String,
}

impl FaultFs {
    /// `inner`, without a fault so far.
    #[must_use]
    pub fn new(inner: Arc<dyn Fs>) -> Self {
        Self { inner, plan: Arc::default() }
    }

    /// Replaces the rules. Each counts its calls from here on.
    pub fn set(&self, rules: &[Rule]) {
        let mut plan = self.plan.plan.lock();
        plan.holds = true;
        plan.rules = rules.iter().map(|rule| (*rule, 0)).collect();
    }

    /// Calls so far, by kind and by what follows the last dot of the file's name.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<(Call, String), u64> {
        self.plan.plan.lock().counts.clone()
    }

    /// Lets calls go on that are held, and does not hold others until rules are set again.
    pub fn release(&self) {
        self.plan.plan.lock().holds = false;
        self.plan.released.notify_all();
    }

    /// Calls that are held now.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.plan.plan.lock().held
    }

    /// Faults so far.
    #[must_use]
    pub fn injected(&self) -> u64 {
        self.plan.plan.lock().injected
    }
}

fn name_of(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Counts a call and gives what is to go wrong with it.
fn find(shared: &Shared, call: Call, name: &str) -> Option<Fault> {
    let mut found = None;
    let mut plan = shared.plan.lock();
    let kind = name.rsplit_once('.').map_or("", |(_, end)| end).to_owned();
    *plan.counts.entry((call, kind)).or_default() += 1;
    for (rule, count) in &mut plan.rules {
        if rule.call == call && name.ends_with(rule.suffix) {
            let hit = (rule.first..rule.first.saturating_add(rule.times)).contains(count);
            *count += 1;
            found = found.or(hit.then_some(rule.fault));
        }
    }
    plan.injected += u64::from(found.is_some());
    found
}

/// As [`find`]; waits and plain failures are dealt with here.
fn meet(shared: &Shared, call: Call, name: &str) -> Result<Option<Fault>> {
    match find(shared, call, name) {
        Some(Fault::Errno(number)) => Err(Error::from_raw_os_error(number)),
        Some(Fault::Stall(time)) => {
            std::thread::sleep(time);
            Ok(None)
        }
        Some(Fault::Hang) => Err(Error::from_raw_os_error(libc::ETIMEDOUT)),
        Some(Fault::Hold) => {
            let mut plan = shared.plan.lock();
            plan.held += 1;
            while plan.holds {
                shared.released.wait(&mut plan);
            }
            plan.held -= 1;
            Ok(None)
        }
        other => Ok(other),
    }
}

impl Fs for FaultFs {
    fn open(&self, path: &Path, access: Access, direct: bool) -> Result<Arc<dyn File>> {
        let (name, call) = (name_of(path), if access == Access::Read { Call::Open } else { Call::Create });
        meet(&self.plan, call, &name)?;
        let inner = self.inner.open(path, access, direct)?;
        Ok(Arc::new(FaultFile { inner, plan: Arc::clone(&self.plan), name }))
    }

    fn list(&self, dir: &Path) -> Result<Vec<String>> {
        meet(&self.plan, Call::List, "")?;
        self.inner.list(dir)
    }

    fn remove(&self, path: &Path) -> Result<()> {
        meet(&self.plan, Call::Remove, &name_of(path))?;
        self.inner.remove(path)
    }

    fn make_dir(&self, dir: &Path) -> Result<()> {
        meet(&self.plan, Call::MakeDir, "")?;
        self.inner.make_dir(dir)
    }

    fn sync_dir(&self, dir: &Path) -> Result<()> {
        meet(&self.plan, Call::SyncDir, "")?;
        self.inner.sync_dir(dir)
    }

    fn probe(&self, dir: &Path) -> Result<FileSystem> {
        meet(&self.plan, Call::Stat, "")?;
        self.inner.probe(dir)
    }

    fn stamp(&self, dir: &Path) -> Result<u64> {
        meet(&self.plan, Call::Stat, "")?;
        self.inner.stamp(dir)
    }

    fn create_striped(&self, path: &Path, direct: bool, stripes: Stripes) -> Result<Arc<dyn File>> {
        let name = name_of(path);
        meet(&self.plan, Call::Create, &name)?;
        let inner = self.inner.create_striped(path, direct, stripes)?;
        Ok(Arc::new(FaultFile { inner, plan: Arc::clone(&self.plan), name }))
    }

    fn prepare(&self, dir: &Path, direct: bool, len: u64) -> Result<Arc<dyn File>> {
        let name = PREPARED.to_owned();
        meet(&self.plan, Call::SetAside, &name)?;
        let inner = self.inner.prepare(dir, direct, len)?;
        Ok(Arc::new(FaultFile { inner, plan: Arc::clone(&self.plan), name }))
    }

    fn trim(&self, path: &Path, len: u64) -> Result<bool> {
        meet(&self.plan, Call::Truncate, &name_of(path))?;
        self.inner.trim(path, len)
    }

    fn settle(&self, path: &Path) -> Result<()> {
        meet(&self.plan, Call::SetAside, &name_of(path))?;
        self.inner.settle(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        meet(&self.plan, Call::Rename, &name_of(from))?;
        self.inner.rename(from, to)
    }
}

fn flip(bytes: &mut [u8], bit: u64) {
    let bits = (bytes.len() as u64 * 8).max(1);
    if let Some(byte) = bytes.get_mut((bit % bits / 8) as usize) {
        *byte ^= 1 << (bit % 8);
    }
}

/// A descriptor that nothing is ever to be read from.
fn silent() -> Result<RawFd> {
    static PIPE: OnceLock<(OwnedFd, OwnedFd)> = OnceLock::new();
    if let Some((from, _)) = PIPE.get() {
        return Ok(from.as_raw_fd());
    }
    let pipe = nix::unistd::pipe()?;
    Ok(PIPE.get_or_init(|| pipe).0.as_raw_fd())
}

impl FaultFile {
    /// What is left of a write that is cut to `most` bytes.
    fn cut(&self, from: &[Piece], most: usize) -> Vec<Piece> {
        head(from, if self.inner.is_direct() { most / PAGE_BYTES * PAGE_BYTES } else { most })
    }
}

/// The pieces' bytes with one bit turned.
fn flipped(pieces: &[Piece], bit: u64) -> Vec<u8> {
    let mut bytes = raw::bytes_of(pieces);
    flip(&mut bytes, bit);
    bytes
}

impl File for FaultFile {
    fn is_direct(&self) -> bool {
        self.inner.is_direct()
    }

    fn takes_direct(&self) -> bool {
        self.inner.takes_direct()
    }

    fn read_at(&self, into: &[Piece], offset: u64) -> Result<usize> {
        match meet(&self.plan, Call::Read, &self.name)? {
            Some(Fault::Short(most)) => {
                let read = self.inner.read_at(into, offset)?;
                Ok(read.min(most))
            }
            Some(Fault::Flip(bit)) => {
                let read = self.inner.read_at(into, offset)?;
                raw::fill(into, &flipped(&head(into, read), bit));
                Ok(read)
            }
            _ => self.inner.read_at(into, offset),
        }
    }

    fn write_at(&self, from: &[Piece], offset: u64) -> Result<usize> {
        match meet(&self.plan, Call::Write, &self.name)? {
            Some(Fault::Short(most)) => {
                let left = self.cut(from, most);
                if left.is_empty() { Ok(0) } else { self.inner.write_at(&left, offset) }
            }
            Some(Fault::Flip(bit)) => self.inner.write_at(&[Buffer::of(&flipped(from, bit)).piece()], offset),
            _ => self.inner.write_at(from, offset),
        }
    }

    fn queued(&self, way: Way, pieces: &[Piece]) -> Option<Result<Queued>> {
        let mut queued = match self.inner.queued(way, pieces)? {
            Ok(queued) => queued,
            Err(error) => return Some(Err(error)),
        };
        let call = if way == Way::Read { Call::Read } else { Call::Write };
        match (find(&self.plan, call, &self.name), way) {
            (None, _) => {}
            (Some(Fault::Errno(number)), _) => return Some(Err(Error::from_raw_os_error(number))),
            (Some(Fault::Stall(time)), _) => queued.pause = time,
            (Some(Fault::Hang | Fault::Hold), _) => match silent() {
                Ok(descriptor) => queued.descriptor = descriptor,
                Err(error) => return Some(Err(error)),
            },
            (Some(Fault::Short(most)), Way::Read) => {
                queued.ending = Some(Box::new(move |result| Ok(result?.min(most))));
            }
            (Some(Fault::Short(most)), Way::Write) => queued.pieces = self.cut(pieces, most),
            (Some(Fault::Flip(bit)), Way::Read) => {
                let into = pieces.to_vec();
                queued.ending = Some(Box::new(move |result| {
                    let read = result?;
                    raw::fill(&into, &flipped(&head(&into, read), bit));
                    Ok(read)
                }));
            }
            (Some(Fault::Flip(bit)), Way::Write) => {
                queued.pieces = vec![Buffer::of(&flipped(pieces, bit)).piece()];
            }
        }
        Some(Ok(queued))
    }

    fn sync(&self) -> Result<()> {
        meet(&self.plan, Call::Sync, &self.name)?;
        self.inner.sync()
    }

    fn len_bytes(&self) -> Result<u64> {
        meet(&self.plan, Call::Len, &self.name)?;
        self.inner.len_bytes()
    }

    fn truncate(&self, len: u64) -> Result<()> {
        meet(&self.plan, Call::Truncate, &self.name)?;
        self.inner.truncate(len)
    }

    fn set_aside(&self, len: u64) -> Result<()> {
        meet(&self.plan, Call::SetAside, &self.name)?;
        self.inner.set_aside(len)
    }

    fn give_name(&self, path: &Path) -> Result<()> {
        meet(&self.plan, Call::Create, &name_of(path))?;
        self.inner.give_name(path)
    }

    fn touch(&self) -> Result<()> {
        meet(&self.plan, Call::Touch, &self.name)?;
        self.inner.touch()
    }

    fn touched(&self) -> Result<SystemTime> {
        meet(&self.plan, Call::Touch, &self.name)?;
        self.inner.touched()
    }

    fn lock(&self) -> Result<bool> {
        meet(&self.plan, Call::Lock, &self.name)?;
        self.inner.lock()
    }

    fn is_locked(&self) -> Result<bool> {
        meet(&self.plan, Call::Lock, &self.name)?;
        self.inner.is_locked()
    }
}
