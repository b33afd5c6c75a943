//! Files in memory that remember what is durable.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Error, Result};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use cascade_core::memory::Piece;
use parking_lot::Mutex;

use super::Random;
use crate::filesystem::{FileSystem, Kind};
use crate::fs::{Access, File, Fs};
use crate::layout::PAGE_BYTES;
use crate::raw;
use crate::stripe::Stripes;

/// Unit that a disk writes whole.
const SECTOR_BYTES: usize = 512;

#[derive(Clone, Debug)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Truncate(usize),
}

#[derive(Clone, Debug, Default)]
struct Inode {
    now: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
    touched: Option<SystemTime>,
    /// Number of the open file that holds the lock.
    locked_by: Option<u64>,
}

#[derive(Clone, Debug)]
enum Naming {
    Create(PathBuf, u64),
    Remove(PathBuf),
}

#[derive(Debug, Default)]
struct Disk {
    inodes: BTreeMap<u64, Inode>,
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    unsynced: Vec<Naming>,
    /// Files without a name: they take room as long as they are open.
    nameless: BTreeSet<u64>,
    limit_bytes: Option<u64>,
    next: u64,
    /// Names that came or went.
    stamp: u64,
    /// Kind of file system that a test pretends.
    kind: Option<Kind>,
    striped: BTreeMap<PathBuf, Stripes>,
    /// Whether stripes are refused.
    refuses_stripes: bool,
    /// Writes of killed processes that the kernel has yet.
    late: Vec<(PathBuf, Change)>,
}

/// A file system in memory. Clones are the same file system.
#[derive(Clone, Debug, Default)]
pub struct MemFs {
    disk: Arc<Mutex<Disk>>,
    direct: bool,
}

#[derive(Debug)]
struct MemFile {
    disk: Arc<Mutex<Disk>>,
    inode: u64,
    number: u64,
    direct: bool,
    writable: bool,
}

fn errno(number: i32) -> Error {
    Error::from_raw_os_error(number)
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write { offset, bytes: written } => {
            let end = offset + written.len();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[*offset..end].copy_from_slice(written);
        }
        Change::Truncate(len) => bytes.resize(*len, 0),
    }
}

/// What a crash may leave of a write: nothing, all, or some of its sectors.
fn torn(change: &Change, random: &mut Random) -> Vec<Change> {
    let Change::Write { offset, bytes } = change else {
        return if random.once_in(2) { vec![change.clone()] } else { Vec::new() };
    };
    match random.below(3) {
        0 => Vec::new(),
        1 => vec![change.clone()],
        _ => {
            let sectors = bytes.chunks(SECTOR_BYTES).enumerate().filter(|_| random.once_in(2));
            sectors
                .map(|(at, sector)| Change::Write {
                    offset: offset + at * SECTOR_BYTES,
                    bytes: sector.to_vec(),
                })
                .collect()
        }
    }
}

impl Disk {
    fn used_bytes(&self) -> u64 {
        self.names
            .values()
            .chain(&self.nameless)
            .filter_map(|number| self.inodes.get(number))
            .map(|inode| inode.now.len() as u64)
            .sum()
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Late writes to such files come to their end.
    fn land(&mut self, is_of: impl Fn(&Path) -> bool) {
        let (landed, late) = std::mem::take(&mut self.late).into_iter().partition(|(path, _)| is_of(path));
        self.late = late;
        let landed: Vec<(PathBuf, Change)> = landed;
        for (path, change) in landed {
            let inode = self.names.get(&path).and_then(|number| self.inodes.get_mut(number));
            if let Some(inode) = inode {
                apply(&mut inode.now, &change);
                inode.unsynced.push(change);
            }
        }
    }
}

impl MemFs {
    /// An empty file system.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same files, with direct I/O where it is asked for: what is not aligned then fails with `EINVAL`.
    #[must_use]
    pub fn with_direct(mut self) -> Self {
        self.direct = true;
        self
    }

    /// Bounds the bytes of all files; a write beyond it fails with `ENOSPC`.
    pub fn set_limit(&self, bytes: Option<u64>) {
        self.disk.lock().limit_bytes = bytes;
    }

    /// Says that it is another kind of file system.
    #[must_use]
    pub fn on(self, kind: Kind) -> Self {
        self.disk.lock().kind = Some(kind);
        self
    }

    /// Has every file refused that is to be striped.
    pub fn refuse_stripes(&self) {
        self.disk.lock().refuses_stripes = true;
    }

    /// The stripes of a file that was made with some.
    #[must_use]
    pub fn stripes(&self, path: &Path) -> Option<Stripes> {
        self.disk.lock().striped.get(path).copied()
    }

    /// Bytes of all files.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.disk.lock().used_bytes()
    }

    /// What a file holds now.
    #[must_use]
    pub fn contents(&self, path: &Path) -> Option<Vec<u8>> {
        let disk = self.disk.lock();
        disk.inodes.get(disk.names.get(path)?).map(|inode| inode.now.clone())
    }

    /// Changes what a file holds, as damage on the medium would.
    pub fn damage(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut disk = self.disk.lock();
        let Some(number) = disk.names.get(path).copied() else { return };
        if let Some(inode) = disk.inodes.get_mut(&number) {
            change(&mut inode.now);
            change_durable(inode);
        }
    }

    /// A write that outlives its killed process: its bytes are not there until somebody waits for them ([`Fs::settle`]), or until
    /// [`MemFs::land`].
    pub fn leave_late(&self, path: &Path, offset: u64, bytes: &[u8]) {
        let Ok(offset) = usize::try_from(offset) else { return };
        let change = Change::Write { offset, bytes: bytes.to_vec() };
        self.disk.lock().late.push((path.to_owned(), change));
    }

    /// Late writes come to their end by themselves.
    pub fn land(&self) {
        self.disk.lock().land(|_| true);
    }

    /// A copy as it is after every process has ended: all that was written is there, and nobody holds a lock.
    #[must_use]
    pub fn image(&self) -> Self {
        let disk = self.disk.lock();
        let inodes = disk.inodes.iter().map(|(number, inode)| (*number, settled(inode.now.clone())));
        let names = disk.names.clone();
        let image = Disk {
            inodes: inodes.collect(),
            durable_names: names.clone(),
            names,
            next: disk.next,
            kind: disk.kind,
            ..Disk::default()
        };
        Self { disk: Arc::new(Mutex::new(image)), direct: self.direct }
    }

    /// A copy as it may be after the machine has lost power now: what was not synced is there, gone, torn or in another
    /// order, by the dice of `seed`.
    #[must_use]
    pub fn crash(&self, seed: u64) -> Self {
        let (disk, mut random) = (self.disk.lock(), Random::new(seed));
        let mut inodes = BTreeMap::new();
        for (number, inode) in &disk.inodes {
            let mut bytes = inode.durable.clone();
            let mut changes: Vec<Change> =
                inode.unsynced.iter().flat_map(|change| torn(change, &mut random)).collect();
            for at in (1..changes.len()).rev() {
                changes.swap(at, random.below(at as u64 + 1) as usize);
            }
            changes.iter().for_each(|change| apply(&mut bytes, change));
            inodes.insert(*number, settled(bytes));
        }
        let mut names = disk.durable_names.clone();
        for naming in &disk.unsynced {
            match naming {
                _ if random.once_in(2) => {}
                Naming::Create(path, number) => {
                    names.insert(path.clone(), *number);
                }
                Naming::Remove(path) => {
                    names.remove(path);
                }
            }
        }
        let image = Disk { inodes, durable_names: names.clone(), names, next: disk.next, ..Disk::default() };
        Self { disk: Arc::new(Mutex::new(image)), direct: self.direct }
    }
}

fn settled(bytes: Vec<u8>) -> Inode {
    Inode { durable: bytes.clone(), now: bytes, ..Inode::default() }
}

fn change_durable(inode: &mut Inode) {
    inode.durable = inode.now.clone();
    inode.unsynced.clear();
}

impl Fs for MemFs {
    fn open(&self, path: &Path, access: Access, direct: bool) -> Result<Arc<dyn File>> {
        let mut disk = self.disk.lock();
        let inode = match (access, disk.names.get(path)) {
            (Access::Read, None) => return Err(errno(libc::ENOENT)),
            (Access::Create, Some(_)) => return Err(errno(libc::EEXIST)),
            (Access::Read, Some(inode)) => *inode,
            (Access::Create, None) => {
                let number = disk.number();
                disk.inodes.insert(number, Inode { touched: Some(SystemTime::now()), ..Inode::default() });
                disk.names.insert(path.to_owned(), number);
                disk.stamp += 1;
                disk.unsynced.push(Naming::Create(path.to_owned(), number));
                number
            }
        };
        let number = disk.number();
        let writable = access == Access::Create;
        let disk = Arc::clone(&self.disk);
        Ok(Arc::new(MemFile { disk, inode, number, direct: direct && self.direct, writable }))
    }

    fn list(&self, dir: &Path) -> Result<Vec<String>> {
        let disk = self.disk.lock();
        let within = disk.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(within.filter_map(|path| path.file_name()?.to_str().map(str::to_owned)).collect())
    }

    fn remove(&self, path: &Path) -> Result<()> {
        let mut disk = self.disk.lock();
        disk.names.remove(path).ok_or_else(|| errno(libc::ENOENT))?;
        disk.stamp += 1;
        disk.unsynced.push(Naming::Remove(path.to_owned()));
        Ok(())
    }

    fn make_dir(&self, _dir: &Path) -> Result<()> {
        Ok(())
    }

    fn sync_dir(&self, _dir: &Path) -> Result<()> {
        let mut disk = self.disk.lock();
        disk.durable_names = disk.names.clone();
        disk.unsynced.clear();
        Ok(())
    }

    fn probe(&self, _dir: &Path) -> Result<FileSystem> {
        Ok(FileSystem::unbounded(self.disk.lock().kind.unwrap_or(Kind::Other(0))))
    }

    fn stamp(&self, _dir: &Path) -> Result<u64> {
        Ok(self.disk.lock().stamp)
    }

    fn create_striped(&self, path: &Path, direct: bool, stripes: Stripes) -> Result<Arc<dyn File>> {
        if self.disk.lock().refuses_stripes {
            return Err(std::io::ErrorKind::Unsupported.into());
        }
        let file = self.open(path, Access::Create, direct)?;
        self.disk.lock().striped.insert(path.to_owned(), stripes);
        Ok(file)
    }

    fn prepare(&self, _dir: &Path, direct: bool, len: u64) -> Result<Arc<dyn File>> {
        let mut disk = self.disk.lock();
        let (inode, number) = (disk.number(), disk.number());
        disk.inodes.insert(inode, Inode { touched: Some(SystemTime::now()), ..Inode::default() });
        disk.nameless.insert(inode);
        drop(disk);
        let (disk, direct) = (Arc::clone(&self.disk), direct && self.direct);
        let file = MemFile { disk, inode, number, direct, writable: true };
        file.set_aside(len)?;
        Ok(Arc::new(file))
    }

    fn trim(&self, path: &Path, len: u64) -> Result<bool> {
        let mut disk = self.disk.lock();
        let number = *disk.names.get(path).ok_or_else(|| errno(libc::ENOENT))?;
        let inode = disk.inodes.get_mut(&number).ok_or_else(|| errno(libc::ESTALE))?;
        let len = usize::try_from(len).map_err(|_| errno(libc::EFBIG))?;
        let is_hole =
            inode.now.get(len..).is_some_and(|rest| !rest.is_empty() && rest.iter().all(|byte| *byte == 0));
        if is_hole {
            inode.now.truncate(len);
            inode.unsynced.push(Change::Truncate(len));
        }
        Ok(is_hole)
    }

    fn settle(&self, path: &Path) -> Result<()> {
        self.disk.lock().land(|late| late == path);
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let mut disk = self.disk.lock();
        let number = disk.names.remove(from).ok_or_else(|| errno(libc::ENOENT))?;
        disk.names.insert(to.to_owned(), number);
        disk.stamp += 1;
        disk.unsynced.push(Naming::Create(to.to_owned(), number));
        disk.unsynced.push(Naming::Remove(from.to_owned()));
        Ok(())
    }
}

impl MemFile {
    fn with<T>(&self, work: impl FnOnce(&mut Inode) -> T) -> Result<T> {
        self.disk.lock().inodes.get_mut(&self.inode).map(work).ok_or_else(|| errno(libc::ESTALE))
    }

    /// What the system refuses: pieces that are not aligned, with direct I/O.
    fn check(&self, pieces: &[Piece], offset: u64) -> Result<()> {
        let aligned = |number: u64| number.is_multiple_of(PAGE_BYTES as u64);
        let all = pieces.iter().all(|piece| aligned(piece.as_ptr() as u64) && aligned(piece.len() as u64));
        if self.direct && !(all && aligned(offset)) { Err(errno(libc::EINVAL)) } else { Ok(()) }
    }
}

impl File for MemFile {
    fn is_direct(&self) -> bool {
        self.direct
    }

    fn read_at(&self, into: &[Piece], offset: u64) -> Result<usize> {
        self.check(into, offset)?;
        let at = usize::try_from(offset).map_err(|_| errno(libc::EFBIG))?;
        self.with(|inode| raw::fill(into, inode.now.get(at..).unwrap_or(&[])))
    }

    fn write_at(&self, from: &[Piece], offset: u64) -> Result<usize> {
        self.check(from, offset)?;
        if !self.writable {
            return Err(errno(libc::EBADF));
        }
        let (bytes, offset) = (raw::bytes_of(from), usize::try_from(offset).map_err(|_| errno(libc::EFBIG))?);
        let mut disk = self.disk.lock();
        let used = disk.used_bytes();
        let limit = disk.limit_bytes.unwrap_or(u64::MAX);
        let inode = disk.inodes.get_mut(&self.inode).ok_or_else(|| errno(libc::ESTALE))?;
        let more = (offset + bytes.len()).saturating_sub(inode.now.len()) as u64;
        if used + more > limit && more > 0 {
            return Err(errno(libc::ENOSPC));
        }
        let len = bytes.len();
        let change = Change::Write { offset, bytes };
        apply(&mut inode.now, &change);
        inode.unsynced.push(change);
        Ok(len)
    }

    fn sync(&self) -> Result<()> {
        self.with(change_durable)
    }

    fn len_bytes(&self) -> Result<u64> {
        self.with(|inode| inode.now.len() as u64)
    }

    fn truncate(&self, len: u64) -> Result<()> {
        let len = usize::try_from(len).map_err(|_| errno(libc::EFBIG))?;
        self.with(|inode| {
            inode.now.resize(len, 0);
            inode.unsynced.push(Change::Truncate(len));
        })
    }

    /// On a full disk the file is left as long as there was room, as ext4 leaves it.
    fn set_aside(&self, len: u64) -> Result<()> {
        let mut disk = self.disk.lock();
        let room = disk.limit_bytes.map_or(u64::MAX, |limit| limit.saturating_sub(disk.used_bytes()));
        let inode = disk.inodes.get_mut(&self.inode).ok_or_else(|| errno(libc::ESTALE))?;
        let now = inode.now.len() as u64;
        let reached = usize::try_from(len.min(now.saturating_add(room))).map_err(|_| errno(libc::EFBIG))?;
        if reached as u64 > now {
            inode.now.resize(reached, 0);
            inode.unsynced.push(Change::Truncate(reached));
        }
        if len.saturating_sub(now) > room { Err(errno(libc::ENOSPC)) } else { Ok(()) }
    }

    fn give_name(&self, path: &Path) -> Result<()> {
        let mut disk = self.disk.lock();
        if disk.names.contains_key(path) {
            return Err(errno(libc::EEXIST));
        }
        if !disk.nameless.remove(&self.inode) {
            return Err(errno(libc::ENOENT));
        }
        disk.names.insert(path.to_owned(), self.inode);
        disk.stamp += 1;
        disk.unsynced.push(Naming::Create(path.to_owned(), self.inode));
        Ok(())
    }

    fn touch(&self) -> Result<()> {
        self.with(|inode| inode.touched = Some(SystemTime::now()))
    }

    fn touched(&self) -> Result<SystemTime> {
        self.with(|inode| inode.touched.unwrap_or(SystemTime::UNIX_EPOCH))
    }

    fn lock(&self) -> Result<bool> {
        self.with(|inode| *inode.locked_by.get_or_insert(self.number) == self.number)
    }

    fn is_locked(&self) -> Result<bool> {
        self.with(|inode| inode.locked_by.is_some_and(|holder| holder != self.number))
    }
}

impl Drop for MemFile {
    fn drop(&mut self) {
        let _ = self.with(|inode| inode.locked_by = inode.locked_by.filter(|holder| *holder != self.number));
        let mut disk = self.disk.lock();
        if disk.nameless.remove(&self.inode) {
            disk.inodes.remove(&self.inode);
        }
    }
}
