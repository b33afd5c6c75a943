//! A directory seen from outside: nothing is made, changed, adopted or waited for.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io::Result;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cascade_core::id::BlockId;
use cascade_core::tier::Lookup;

use crate::buffer::Buffer;
use crate::config::{IoEngine, PfsConfig};
use crate::core::{Core, is_lost};
use crate::engine::Engine;
use crate::filesystem::FileSystem;
use crate::follow::{self, Follow};
use crate::fs::{Access, Fs};
use crate::io;
use crate::layout::{Identity, OtherVersion, PAGE_BYTES, WriterId};
use crate::names::{Name, SegmentId};
use crate::{process, recover};

/// Whether a writer still writes, as far as this process can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// It does.
    Lives,
    /// Its log says that it ended in good order.
    Ended,
    /// It ended without a word.
    Dead,
    /// It is of another node, and was heard of so long ago by this node's clock.
    Silent(Duration),
}

impl Life {
    /// Whether it certainly writes no more, or was not heard of for `adopt_after`.
    #[must_use]
    pub fn is_over(self, adopt_after: Duration) -> bool {
        match self {
            Self::Lives => false,
            Self::Ended | Self::Dead => true,
            Self::Silent(time) => time > adopt_after,
        }
    }
}

/// One writer.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WriterView {
    /// Its name: 32 hexadecimal digits.
    pub writer: WriterId,
    /// Its process, where its identity file can be read.
    pub identity: Option<Identity>,
    /// Whether it lives.
    pub life: Life,
    /// Who has claimed its segments, if it is dead and somebody has.
    pub claimed_by: Option<WriterId>,
    /// Segment files.
    pub segments: u64,
    /// Their bytes.
    pub file_bytes: u64,
    /// Of these, bytes of records that are still visible.
    pub live_bytes: u64,
    /// Blocks that are visible in its segments.
    pub blocks: u64,
    /// Bytes of its log.
    pub log_bytes: u64,
    /// Files of it that are of a version of the format that this program does not read.
    pub other_version: u64,
}

/// What is in a directory.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Inspection {
    /// What it is stored on.
    pub on: FileSystem,
    /// Everyone who has a file there, those who live first.
    pub writers: Vec<WriterView>,
    /// Files of the tier in the directory.
    pub files: u64,
    /// Those of a version of the format that this program does not read, by name.
    pub others: BTreeMap<String, OtherVersion>,
}

/// A core that has no writer.
///
/// # Errors
/// The system's, when it gives no threads.
pub(crate) fn observer(dir: &Path, fs: &Arc<dyn Fs>) -> Result<Core> {
    let config = PfsConfig {
        direct: false,
        io_engine: IoEngine::Pool,
        read_threads: 1,
        write_threads: 1,
        ..PfsConfig::new(dir, u64::MAX)
    };
    let engine = Engine::start(&config, fs.as_ref())?;
    Ok(Core::new(config, Arc::clone(fs), engine))
}

/// Looks at a directory. Blocks of segments that no log tells of are not counted.
///
/// # Errors
/// The system's, when the directory cannot be read.
pub fn inspect(dir: &Path, fs: &Arc<dyn Fs>) -> Result<Inspection> {
    let on = fs.probe(dir)?;
    let core = observer(dir, fs)?;
    let mut follow = Follow::new(&core);
    let names = follow::listed(&core)?;
    follow.look(&core);
    let mut writers: BTreeMap<WriterId, WriterView> = BTreeMap::new();
    for name in &names {
        let writer = name.writer();
        let view = writers.entry(writer).or_insert_with(|| view(&core, &follow, writer));
        view.other_version += u64::from(core.reads_other(*name));
        match name {
            Name::Segment(id) => {
                view.segments += 1;
                view.file_bytes += length(&core, Name::Segment(*id));
            }
            Name::Log(_) => view.log_bytes += length(&core, *name),
            Name::Claim(..) => view.claimed_by = identity(&core, *name).map(|claimant| claimant.writer),
            Name::Writer(_) => {}
        }
    }
    let catalog = core.catalog.read();
    for id in recover::segments(&names) {
        if let Some(view) = writers.get_mut(&id.writer) {
            let residents = catalog.residents(id);
            view.blocks += residents.len() as u64;
            view.live_bytes += residents.iter().map(|resident| resident.record.bytes()).sum::<u64>();
        }
    }
    let mut writers: Vec<WriterView> = writers.into_values().collect();
    writers.sort_by_key(|view| (view.life != Life::Lives, view.writer));
    Ok(Inspection { on, writers, files: names.len() as u64, others: core.others() })
}

/// What the logs of a directory say of each of `ids`: the length of its block in bytes, `None` where there is none to be found.
///
/// # Errors
/// The system's, when the directory cannot be read.
pub fn find(dir: &Path, fs: &Arc<dyn Fs>, ids: &[BlockId]) -> Result<Vec<Option<u64>>> {
    fs.list(dir)?;
    let core = observer(dir, fs)?;
    Follow::new(&core).look(&core);
    let catalog = core.catalog.read();
    let len = |id: &BlockId| match catalog.lookup(id) {
        Lookup::Hit(meta) => Some(meta.len),
        _ => None,
    };
    Ok(ids.iter().map(len).collect())
}

fn length(core: &Core, name: Name) -> u64 {
    let file = core.fs.open(&core.path(name), Access::Read, false);
    file.and_then(|file| file.len_bytes()).unwrap_or(0)
}

fn view(core: &Core, follow: &Follow, writer: WriterId) -> WriterView {
    WriterView {
        writer,
        identity: identity(core, Name::Writer(writer)),
        life: if follow.has_ended(writer) { Life::Ended } else { life(core, writer).unwrap_or(Life::Lives) },
        claimed_by: None,
        segments: 0,
        file_bytes: 0,
        live_bytes: 0,
        blocks: 0,
        log_bytes: 0,
        other_version: 0,
    }
}

fn identity(core: &Core, name: Name) -> Option<Identity> {
    let file = core.fs.open(&core.path(name), Access::Read, false).ok()?;
    let mut page = Buffer::new(PAGE_BYTES);
    let read = io::read_up_to(file.as_ref(), &[page.piece()], 0).ok()?;
    Identity::parse(page.bytes().get(..read)?).ok()
}

/// Whether the writer lives, by its identity file alone.
pub(crate) fn life(core: &Core, writer: WriterId) -> Result<Life> {
    let file = match core.fs.open(&core.path(Name::Writer(writer)), Access::Read, false) {
        Err(error) if is_lost(&error) => return Ok(Life::Dead),
        other => other?,
    };
    let me = process::new_identity();
    if let Some(other) = identity(core, Name::Writer(writer))
        && process::is_neighbour(&me, &other)
    {
        let dead = matches!(file.is_locked(), Ok(false)) || process::is_gone(&me, &other);
        return Ok(if dead { Life::Dead } else { Life::Lives });
    }
    if matches!(file.is_locked(), Ok(true)) {
        return Ok(Life::Lives);
    }
    let age = SystemTime::now().duration_since(file.touched()?).unwrap_or_default();
    Ok(if age < Duration::from_secs(30) { Life::Lives } else { Life::Silent(age) })
}

/// A segment that is not there keeps nobody's log.
fn forget_missing(core: &Core, names: &[Name]) {
    let there: HashSet<SegmentId> = recover::segments(names).collect();
    let mut catalog = core.catalog.write();
    let gone: Vec<SegmentId> = catalog.segments.keys().filter(|id| !there.contains(id)).copied().collect();
    for id in gone {
        catalog.drop_segment(id);
    }
}

/// A file that is of no use any more.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Leftover {
    /// Its name in the directory.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// Whether it was removed.
    pub is_removed: bool,
}

/// Finds identity, log and claim files of dead writers that have no segment and whose log forgets nothing that could still be
/// somewhere, and removes them when `remove` says so. A tier that is open does the same for those that it adopted.
///
/// # Errors
/// The system's, when the directory cannot be read.
pub fn leftovers(dir: &Path, fs: &Arc<dyn Fs>, adopt_after: Duration, remove: bool) -> Result<Vec<Leftover>> {
    fs.list(dir)?;
    let core = observer(dir, fs)?;
    let mut follow = Follow::new(&core);
    let names = follow.look(&core);
    forget_missing(&core, &names);
    let mut found = Vec::new();
    let with_segments: HashSet<WriterId> =
        recover::segments(&names).map(|SegmentId { writer, .. }| writer).collect();
    let writers: BTreeSet<WriterId> = names.iter().map(Name::writer).collect();
    for writer in writers.into_iter().filter(|writer| !with_segments.contains(writer)) {
        // What its log forgets cannot be read here.
        if names.iter().filter(|name| name.writer() == writer).any(|name| core.reads_other(*name)) {
            continue;
        }
        let life = if follow.has_ended(writer) { Life::Ended } else { life(&core, writer)? };
        if !life.is_over(adopt_after) || !follow::forgets(&core, writer).is_empty() {
            continue;
        }
        for name in names.iter().filter(|name| name.writer() == writer) {
            let bytes = length(&core, *name);
            let is_removed = remove && core.fs.remove(&core.path(*name)).is_ok();
            found.push(Leftover { name: name.to_string(), bytes, is_removed });
        }
    }
    Ok(found)
}
