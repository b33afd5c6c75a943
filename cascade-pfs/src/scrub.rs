//! Every byte of a directory against its digests: pages, headers, payloads, padding, footers, and the logs against them.
//!
//! A scrub reads and does not write; others may work meanwhile. With [`Options::repair`] it writes a log of its own, as any
//! writer may, in which damaged blocks are forgotten: everyone who follows logs stops offering them, and no good block is
//! touched. A segment of a dead writer without a single sound block is moved to the folder `quarantine`.

mod log;
mod reader;
mod repair;
mod segment;

use std::collections::{HashMap, HashSet};
use std::io::Result;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cascade_core::id::BlockId;
use parking_lot::Mutex;

use crate::core::{Core, is_lost};
use crate::follow;
use crate::fs::{Access, Fs};
use crate::inspect::{self, Life};
use crate::layout::{Damage, LogEvent, Record, WriterId};
use crate::names::{Name, SegmentId};
use crate::recover;

/// Folder that segments without a sound block are moved to.
pub const QUARANTINE: &str = "quarantine";

/// How a scrub is done.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Threads that read, at least 1.
    pub threads: usize,
    /// Whether what is damaged is put out of use.
    pub repair: bool,
    /// Whether to read past the page cache where that can be: what the medium holds, not what the system remembers.
    pub direct: bool,
    /// A writer of another node counts as dead when it has not been heard of for so long.
    pub adopt_after: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { threads: 4, repair: false, direct: true, adopt_after: Duration::from_secs(600) }
    }
}

/// How far a scrub is; for another thread to look at.
#[derive(Debug, Default)]
pub struct Progress {
    /// Bytes of all segments; 0 until they are known.
    pub total_bytes: AtomicU64,
    /// Bytes looked at.
    pub done_bytes: AtomicU64,
    /// Ends the scrub early.
    pub stop: AtomicBool,
}

/// What is wrong with a range of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum What {
    /// The first page of a segment. Blocks do not depend on it.
    FirstPage(Damage),
    /// The header of a block. The whole block can be read without it, parts of it cannot.
    Header,
    /// The payload of a block does not match its digests.
    Payload,
    /// Bytes between a payload and the end of its page are not zero. No block depends on them.
    Padding,
    /// The log or the footer speaks of another block at this place.
    Disagrees,
    /// The footer of a closed segment. Its log, or its headers, say the same.
    Footer(Damage),
    /// Bytes behind the last good record of a segment that should have none there.
    Gap,
    /// Bytes behind the last good record of a segment that its writer did not close: a write that its death cut off. No
    /// damage.
    Tail,
    /// A segment that a log speaks of is not there.
    Missing,
    /// The first page of a log: nobody follows it.
    LogPage(Damage),
    /// A record within a log: who follows it reads no further.
    LogRecord(Damage),
    /// A log ends in bytes that are no record: a write that the death of its writer cut off. No damage.
    LogTail,
    /// An identity or claim file that cannot be read.
    Identity,
    /// The file is of a version of the format that this program does not read. No damage; it is left alone.
    OtherVersion,
    /// The file could not be read; the system's number.
    Unreadable(i32),
}

impl What {
    /// Whether it is damage, and not what the death of a writer leaves.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        !matches!(self, Self::Tail | Self::LogTail | Self::OtherVersion)
    }

    /// One word for it, the same in every version.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::FirstPage(_) => "first_page",
            Self::Header => "header",
            Self::Payload => "payload",
            Self::Padding => "padding",
            Self::Disagrees => "disagrees",
            Self::Footer(_) => "footer",
            Self::Gap => "gap",
            Self::Tail => "tail",
            Self::Missing => "missing",
            Self::LogPage(_) => "log_page",
            Self::LogRecord(_) => "log_record",
            Self::LogTail => "log_tail",
            Self::Identity => "identity",
            Self::OtherVersion => "other_version",
            Self::Unreadable(_) => "unreadable",
        }
    }
}

/// Something that was found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Finding {
    /// Name of the file.
    pub file: String,
    /// Where, in bytes from the start of the file.
    pub at: u64,
    /// How many bytes are concerned.
    pub bytes: u64,
    /// What is wrong.
    pub what: What,
    /// The block that is there, if one is known.
    pub id: Option<BlockId>,
    /// Whether a block is lost by it.
    pub loses_block: bool,
    /// Whether the block had been out of use before: forgotten, or deleted.
    pub is_known: bool,
    /// Whether it was put out of use by this repair: no reader offers it any more.
    pub is_repaired: bool,
    /// The record that was lost.
    record: Option<Record>,
}

/// What a scrub found.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Report {
    /// Whether everything was looked at.
    pub is_complete: bool,
    /// Segment files looked at.
    pub segments: u64,
    /// Logs looked at.
    pub logs: u64,
    /// Blocks whose payload matches its digests, older versions too.
    pub sound: u64,
    /// Blocks that are lost, and were not out of use before.
    pub lost: u64,
    /// Bytes of segments read.
    pub bytes: u64,
    /// Segments moved to the folder `quarantine`.
    pub moved: u64,
    /// How long it took.
    pub took: Duration,
    /// What was found, by file and place.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Findings that are damage, those of blocks aside that were out of use before.
    #[must_use]
    pub fn damages(&self) -> u64 {
        let counts = |finding: &&Finding| finding.what.is_damage() && !finding.is_known;
        self.findings.iter().filter(counts).count() as u64
    }
}

/// What logs say, gathered for the segments.
#[derive(Debug, Default)]
struct Index {
    puts: HashMap<SegmentId, Vec<Record>>,
    closed: HashSet<SegmentId>,
    dropped: HashSet<SegmentId>,
    ended: HashSet<WriterId>,
    forgotten: HashMap<BlockId, u64>,
    /// Forgets that stand where followers do not get to.
    unheard: Vec<LogEvent>,
}

impl Index {
    fn take(&mut self, writer: WriterId, event: LogEvent, is_heard: bool) {
        match event {
            LogEvent::Put(record) => {
                self.puts.entry(SegmentId { writer, number: record.segment }).or_default().push(record);
            }
            LogEvent::Drop { writer, segment } => {
                self.dropped.insert(SegmentId { writer, number: segment });
            }
            LogEvent::Close { segment } => {
                self.closed.insert(SegmentId { writer, number: segment });
            }
            LogEvent::End => {
                self.ended.insert(writer);
            }
            LogEvent::Forget { .. } if !is_heard => self.unheard.push(event),
            LogEvent::Forget { id, sequence } => {
                let newest = self.forgotten.entry(id).or_default();
                *newest = sequence.max(*newest);
            }
        }
    }
}

/// Looks at every file of the tier in `dir`. What the logs name is held in memory meanwhile, about 100 bytes a block.
///
/// # Errors
/// The system's, when the directory cannot be read, or the log of a repair cannot be written.
pub fn scrub(dir: &Path, fs: &Arc<dyn Fs>, options: &Options, progress: &Progress) -> Result<Report> {
    let started = Instant::now();
    let core = inspect::observer(dir, fs)?;
    let names = follow::listed(&core)?;
    let mut report = Report::default();
    let mut index = Index::default();
    for name in &names {
        match name {
            Name::Log(writer) => {
                report.logs += 1;
                let found = log::check(&core, *writer, &mut index);
                keep(&mut report, &core, *name, found);
            }
            Name::Writer(_) | Name::Claim(..) => check_identity(&core, *name, &mut report),
            Name::Segment(_) => {}
        }
    }
    let living = living(&core, &names, &index, options);
    // A log that ends in half a record belongs to a writer at work.
    report
        .findings
        .retain(|finding| finding.what != What::LogTail || !living.iter().any(|w| of(&finding.file, *w)));
    let segments: Vec<SegmentId> =
        recover::segments(&names).filter(|id| !index.dropped.contains(id)).collect();
    let soundless = check_segments(&core, &segments, &index, &living, options, progress, &mut report);
    missing(&core, &segments, &index, &mut report)?;
    report.findings.sort_by(|a, b| (&a.file, a.at).cmp(&(&b.file, b.at)));
    for finding in &mut report.findings {
        let forgotten =
            |record: &Record| index.forgotten.get(&record.id).is_some_and(|at| *at > record.sequence);
        finding.is_known = finding.record.as_ref().is_some_and(forgotten);
    }
    report.lost = report.findings.iter().filter(|f| f.loses_block && !f.is_known).count() as u64;
    report.is_complete = !progress.stop.load(Ordering::Relaxed);
    if options.repair {
        repair::repair(&core, &index, &soundless, &mut report)?;
    }
    report.took = started.elapsed();
    Ok(report)
}

fn of(file: &str, writer: WriterId) -> bool {
    file.starts_with(&writer.to_string())
}

fn living(core: &Core, names: &[Name], index: &Index, options: &Options) -> HashSet<WriterId> {
    let writers: HashSet<WriterId> = names.iter().map(Name::writer).collect();
    let lives = |writer: &WriterId| {
        let life = inspect::life(core, *writer).unwrap_or(Life::Lives);
        !index.ended.contains(writer) && !life.is_over(options.adopt_after)
    };
    writers.into_iter().filter(lives).collect()
}

/// Whether the file went while others work; what is there and no file is told of.
fn went(error: &std::io::Error) -> bool {
    is_lost(error) && error.raw_os_error() != Some(libc::ELOOP)
}

fn keep(report: &mut Report, core: &Core, name: Name, found: Result<Vec<Finding>>) {
    match found {
        Ok(mut found) => report.findings.append(&mut found),
        // It went while others work.
        Err(error) if went(&error) && core.fs.open(&core.path(name), Access::Read, false).is_err() => {}
        Err(error) => report.findings.push(Finding::new(name, 0, 0, What::unreadable(&error))),
    }
}

impl What {
    fn unreadable(error: &std::io::Error) -> Self {
        Self::Unreadable(error.raw_os_error().unwrap_or(0))
    }
}

impl Finding {
    fn new(file: Name, at: u64, bytes: u64, what: What) -> Self {
        Self {
            file: file.to_string(),
            at,
            bytes,
            what,
            id: None,
            loses_block: false,
            is_known: false,
            is_repaired: false,
            record: None,
        }
    }

    /// Something about the place of this block.
    fn of(file: Name, record: &Record, what: What) -> Self {
        Self { id: Some(record.id), ..Self::new(file, record.offset, record.bytes(), what) }
    }

    /// The block is lost.
    fn lost(self, record: &Record) -> Self {
        Self { loses_block: true, record: Some(*record), ..self }
    }
}

fn check_identity(core: &Core, name: Name, report: &mut Report) {
    let mut page = crate::buffer::Buffer::new(crate::layout::PAGE_BYTES);
    let read = core
        .fs
        .open(&core.path(name), Access::Read, false)
        .and_then(|file| crate::io::read_up_to(file.as_ref(), &[page.piece()], 0));
    let parsed = read.map(|read| crate::layout::Identity::parse(page.bytes().get(..read).unwrap_or(&[])));
    match parsed {
        Ok(Ok(_)) => {}
        Ok(Err(Damage::Version)) => {
            let whole = crate::layout::PAGE_BYTES as u64;
            report.findings.push(Finding::new(name, 0, whole, What::OtherVersion));
        }
        Err(error) if went(&error) => {}
        _ => report.findings.push(Finding::new(name, 0, crate::layout::PAGE_BYTES as u64, What::Identity)),
    }
}

/// Gives the segments of dead writers that have no sound block but damage.
fn check_segments(
    core: &Core,
    segments: &[SegmentId],
    index: &Index,
    living: &HashSet<WriterId>,
    options: &Options,
    progress: &Progress,
    report: &mut Report,
) -> Vec<SegmentId> {
    let total: u64 = segments.iter().map(|id| segment::length(core, *id)).sum();
    progress.total_bytes.store(total, Ordering::Relaxed);
    let (next, soundless) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let all = Mutex::new(std::mem::take(report));
    let work = || {
        while let Some(id) = segments.get(next.fetch_add(1, Ordering::Relaxed)) {
            if progress.stop.load(Ordering::Relaxed) {
                return;
            }
            let known = segment::Known {
                puts: index.puts.get(id).map_or(&[][..], Vec::as_slice),
                is_closed: index.closed.contains(id),
                is_open: living.contains(&id.writer) && !index.closed.contains(id),
            };
            let checked = segment::check(core, *id, &known, options.direct, progress);
            let mut report = all.lock();
            if let Ok(checked) = &checked {
                report.segments += 1;
                report.sound += checked.sound;
                let damaged = checked.findings.iter().any(|finding| finding.what.is_damage());
                if checked.sound == 0 && damaged && !living.contains(&id.writer) {
                    soundless.lock().push(*id);
                }
            }
            keep(&mut report, core, Name::Segment(*id), checked.map(|checked| checked.findings));
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..options.threads.max(1) {
            // Without another thread this one does the work.
            let _ = std::thread::Builder::new().name("cascade-pfs-scrub".into()).spawn_scoped(scope, work);
        }
        work();
    });
    *report = all.into_inner();
    report.bytes = progress.done_bytes.load(Ordering::Relaxed);
    soundless.into_inner()
}

/// Segments that logs speak of and that are not there. Others may have removed them since: their logs are asked again.
fn missing(core: &Core, present: &[SegmentId], index: &Index, report: &mut Report) -> Result<()> {
    let present: HashSet<SegmentId> = present.iter().copied().collect();
    let gone = |id: &SegmentId| !present.contains(id) && !index.dropped.contains(id);
    let suspects: Vec<SegmentId> = index.puts.keys().copied().filter(gone).collect();
    if suspects.is_empty() {
        return Ok(());
    }
    let (names, mut now) = (follow::listed(core)?, Index::default());
    let there: HashSet<SegmentId> = recover::segments(&names).collect();
    for name in &names {
        if let Name::Log(writer) = name {
            let _ = log::check(core, *writer, &mut now);
        }
    }
    // A log that is gone by now has nothing to say.
    let really =
        |id: &SegmentId| !there.contains(id) && !now.dropped.contains(id) && now.puts.contains_key(id);
    for id in suspects.into_iter().filter(really) {
        for record in &index.puts[&id] {
            report.findings.push(Finding::of(Name::Segment(id), record, What::Missing).lost(record));
        }
    }
    Ok(())
}
