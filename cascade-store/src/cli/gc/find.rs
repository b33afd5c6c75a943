//! What lies in the directory of the arenas, and beside it.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use cascade_core::{Error, ErrorKind, Result};
use cascade_shm::ArenaConfig;
use cascade_shm::inspect::{Fault, Inspection, fault};
use cascade_shm::remove::{Removal, is_in_use, remove};
use cascade_shm::slot::State;

use crate::cli::place;
use crate::counters;

/// Folders of `cascade-bench`, which carry the process id of their run.
const SCRATCH: &str = "cascade-bench-";

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// A process, or the fork of one, holds an owner row.
    Living,
    /// An arena that a store could open.
    Usable,
    /// It begins as an arena and is damaged or cut short.
    Damaged,
    /// Of a version or with features that this program does not know.
    OtherFormat,
    /// It never was an arena.
    Foreign,
    /// Its name says another node than its superblock.
    Misnamed,
    /// Not to be removed by us, for this reason.
    Guarded(String),
    /// A folder of a benchmark run whose process is gone.
    Scratch,
}

impl Status {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Living => "living",
            Self::Usable => "usable",
            Self::Damaged => "damaged",
            Self::OtherFormat => "other_format",
            Self::Foreign => "foreign",
            Self::Misnamed => "misnamed",
            Self::Guarded(_) => "guarded",
            Self::Scratch => "scratch",
        }
    }
}

/// A file or folder that may be garbage.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) path: PathBuf,
    pub(super) status: Status,
    /// The node in an arena's name.
    pub(super) node: Option<String>,
    /// Blocks that a store would find, where that can be said.
    pub(super) blocks: Option<u64>,
    /// Memory that it takes.
    pub(super) file_bytes: u64,
    /// Time since a store last opened or closed it.
    pub(super) idle: Option<Duration>,
}

/// Everything that may be garbage: arenas, then scratch folders.
pub(super) fn entries(config: &ArenaConfig, now: SystemTime) -> Result<Vec<Entry>> {
    let mut found: Vec<Entry> =
        place::arenas(config)?.into_iter().filter_map(|path| arena(path, now)).collect();
    if let Some(parent) = config.dir.parent() {
        found.extend(scratch(parent, now));
    }
    Ok(found)
}

fn idle(metadata: &Metadata, now: SystemTime) -> Option<Duration> {
    now.duration_since(metadata.modified().ok()?).ok()
}

/// `None` when it has gone.
fn arena(path: PathBuf, now: SystemTime) -> Option<Entry> {
    let metadata = std::fs::symlink_metadata(&path).ok()?;
    let node = path.file_name()?.to_str().and_then(|name| name.strip_prefix("arena.")).map(str::to_owned);
    let (status, blocks) = match is_in_use(&path) {
        Ok(None) => return None,
        Ok(Some(true)) => (Status::Living, count(&path)),
        Ok(Some(false)) => read(&path, node.as_deref()),
        Err(error) => (Status::Guarded(error.to_string()), None),
    };
    let (file_bytes, idle) = (metadata.blocks() * 512, idle(&metadata, now));
    Some(Entry { path, status, node, blocks, file_bytes, idle })
}

fn count(path: &Path) -> Option<u64> {
    let slots = Inspection::open(path).ok()??.snapshot().ok()?.slots;
    // What is being evicted may stay.
    Some(slots.state(State::Sealed) + slots.state(State::Evicting))
}

fn read(path: &Path, node: Option<&str>) -> (Status, Option<u64>) {
    let seen = match Inspection::open(path) {
        Ok(Some(seen)) => seen,
        Ok(None) => return (Status::Guarded("it has just gone".into()), None),
        Err(error) => return (refused(path, &error), None),
    };
    if Some(seen.superblock().node.as_str()) != node {
        return (Status::Misnamed, count(path));
    }
    match count(path) {
        Some(blocks) => (Status::Usable, Some(blocks)),
        None => (Status::Damaged, None),
    }
}

fn refused(path: &Path, error: &Error) -> Status {
    match (error.kind(), fault(path)) {
        (ErrorKind::Format, Ok(Some(Fault::Damaged))) => Status::Damaged,
        (ErrorKind::Format, Ok(Some(Fault::OtherFormat))) => Status::OtherFormat,
        (ErrorKind::Format, Ok(Some(Fault::Foreign))) => Status::Foreign,
        // Wrong mode, links: the error says the cure, and it is not to remove it.
        _ => Status::Guarded(error.to_string()),
    }
}

/// Folders of killed benchmarks in `parent`.
fn scratch(parent: &Path, now: SystemTime) -> Vec<Entry> {
    let found = std::fs::read_dir(parent).into_iter().flatten().flatten();
    let stale = found.filter_map(|entry| {
        let name = entry.file_name().to_str()?.strip_prefix(SCRATCH)?.to_owned();
        let process: u32 = name.parse().ok()?;
        let metadata = std::fs::symlink_metadata(entry.path()).ok()?;
        let ours = metadata.is_dir() && metadata.uid() == nix::unistd::geteuid().as_raw();
        let runs = Path::new(&format!("/proc/{process}")).exists();
        (ours && !runs).then(|| (entry.path(), metadata))
    });
    stale.filter_map(|(path, metadata)| folder(path, idle(&metadata, now))).collect()
}

fn folder(path: PathBuf, idle: Option<Duration>) -> Option<Entry> {
    let files: Vec<_> = std::fs::read_dir(&path).ok()?.flatten().collect();
    // A run in another pid namespace holds its arenas, but has no process here.
    let is_held = files.iter().any(|file| matches!(is_in_use(&file.path()), Ok(Some(true))));
    let sizes = files.iter().filter_map(|file| file.metadata().ok()).map(|file| file.blocks() * 512);
    let status = if is_held { Status::Living } else { Status::Scratch };
    Some(Entry { file_bytes: sizes.sum(), path, status, node: None, blocks: None, idle })
}

impl Entry {
    /// Removes it: the bytes that it gave back, or `None` when it is in use or gone by now.
    ///
    /// # Errors
    /// As of the removal.
    pub(super) fn remove(&self) -> Result<Option<u64>> {
        if self.status != Status::Scratch {
            return Ok(match remove(&self.path)? {
                Removal::Removed(bytes) => {
                    // Of no use without it; what cannot be removed is begun anew by the next store.
                    let _ = std::fs::remove_file(counters::path_of(&self.path));
                    Some(bytes)
                }
                Removal::InUse | Removal::Gone => None,
            });
        }
        std::fs::remove_dir_all(&self.path).map_err(|error| {
            let what = format!("cannot remove {}", self.path.display());
            Error::new(ErrorKind::System, what).with_source(error)
        })?;
        Ok(Some(self.file_bytes))
    }
}
