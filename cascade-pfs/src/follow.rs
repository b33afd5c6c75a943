//! Following what other writers log.

mod scan;

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::io::Result;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::buffer::Buffer;
use crate::core::{Core, is_lost};
use crate::fs::{Access, File, Watch};
use crate::io;
use crate::layout::{Damage, LogEvent, LogHeader, PAGE_BYTES, WriterId};
use crate::names::{Name, SegmentId};

/// However quiet a directory seems, it is listed and every log looked at so often.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// A server's clock may be as coarse as this: names that change within it may not change the stamp.
const COARSE: Duration = Duration::from_secs(2);
/// Events that are applied under one lock.
const EVENTS: usize = 1024;

/// The names in the tier's directory that are its own; none when it cannot be listed.
pub(crate) fn names(core: &Core) -> Vec<Name> {
    listed(core).unwrap_or_default()
}

/// The same, for who must know that there may be more.
pub(crate) fn listed(core: &Core) -> Result<Vec<Name>> {
    core.counters.metadata.add(1);
    let listed = core.fs.list(&core.config.dir).inspect_err(|_| core.counters.io_errors.add(1))?;
    Ok(listed.iter().filter_map(|name| Name::parse(name)).collect())
}

/// Place in one log.
#[derive(Debug)]
pub(crate) struct Follower {
    file: Arc<dyn File>,
    next: u64,
    ended: bool,
}

impl Follower {
    fn open(core: &Core, writer: WriterId) -> Result<Option<Self>> {
        core.counters.metadata.add(1);
        let file = core.fs.open(&core.path(Name::Log(writer)), Access::Read, false)?;
        let mut page = Buffer::new(PAGE_BYTES);
        let read = io::read_up_to(file.as_ref(), &[page.piece()], 0)?;
        let bytes = page.bytes().get(..read).unwrap_or(&[]);
        let header = LogHeader::parse(bytes, writer);
        if header == Err(Damage::Version) {
            core.is_other(Name::Log(writer), bytes);
        }
        // A log that has no header yet is looked at again.
        Ok(header.is_ok().then_some(Self { file, next: 0, ended: false }))
    }
}

/// Everyone who is followed, and how the directory is looked at.
#[derive(Debug)]
pub(crate) struct Follow {
    followers: HashMap<WriterId, Follower>,
    names: Vec<Name>,
    /// Segments of others that logs speak of and that were not in the directory the last time.
    missing: HashSet<SegmentId>,
    watch: Option<Box<dyn Watch>>,
    stamp: Option<u64>,
    /// A log could not be read.
    failed: bool,
    /// When the stamp was last another.
    restamped: Instant,
    listed: Instant,
}

/// What is to be looked at.
#[derive(Debug, PartialEq, Eq)]
enum News {
    /// Nothing has happened.
    None,
    /// These logs.
    Logs(Vec<WriterId>),
    /// Every known log.
    AllLogs,
    /// The directory, and every log.
    All,
}

impl Follow {
    /// Begins to follow. Whatever changes from here on will be looked at.
    pub(crate) fn new(core: &Core) -> Self {
        Self {
            followers: HashMap::new(),
            names: Vec::new(),
            missing: HashSet::new(),
            watch: core.fs.watch(&core.config.dir),
            stamp: None,
            failed: false,
            restamped: Instant::now(),
            listed: Instant::now(),
        }
    }

    /// Reads on where something may be new; whether everything could be read. What could not is read the next time.
    pub(crate) fn poll(&mut self, core: &Core) -> bool {
        match self.news(core) {
            News::None => {}
            News::Logs(writers) => self.read_logs(core, &writers),
            News::AllLogs => self.read_known(core),
            News::All => drop(self.look(core)),
        }
        !self.failed
    }

    /// Lists the directory and reads on in every log.
    pub(crate) fn look(&mut self, core: &Core) -> Vec<Name> {
        self.listed = Instant::now();
        // Before the list: what changes in between shows the next time.
        core.counters.metadata.add(1);
        self.stamp = core.fs.stamp(&core.config.dir).ok();
        match listed(core) {
            Ok(names) => self.names = names,
            // Those that are known are read on; there may be others.
            Err(_) => self.failed = true,
        }
        self.read_known(core);
        // A log that is gone has nothing more to say.
        if !self.names.is_empty() {
            let names: HashSet<WriterId> = self.logs().collect();
            self.followers.retain(|writer, _| names.contains(writer));
            self.drop_missing(core);
        }
        self.names.clone()
    }

    /// Forgets segments that were not there twice: the log that told of their end may have gone before it was read. Once is not
    /// enough, since a log that was read after the list may speak of a new segment.
    fn drop_missing(&mut self, core: &Core) {
        let there: HashSet<SegmentId> = crate::recover::segments(&self.names).collect();
        let gone = |id: &SegmentId| !there.contains(id) && !core.is_me(id.writer);
        let now: HashSet<SegmentId> = core.catalog.read().segments.keys().copied().filter(gone).collect();
        for id in now.intersection(&self.missing) {
            let mut catalog = core.catalog.write();
            let owned = catalog.segments.get(id).is_some_and(|segment| segment.owned);
            let blocks = catalog.drop_segment(*id);
            drop(catalog);
            core.counters.evictions.add(if owned { blocks } else { 0 });
            core.close(*id);
        }
        self.missing = now;
    }

    fn logs(&self) -> impl Iterator<Item = WriterId> {
        self.names.iter().filter_map(|name| match name {
            Name::Log(writer) => Some(*writer),
            _ => None,
        })
    }

    fn news(&mut self, core: &Core) -> News {
        if self.listed.elapsed() >= LOOK_EVERY || std::mem::take(&mut self.failed) {
            return News::All;
        }
        if let Some(watch) = &mut self.watch {
            match watch.changes() {
                Ok(changes) if changes.names => return News::All,
                Ok(changes) => {
                    let log = |name: &String| match Name::parse(name) {
                        Some(Name::Log(writer)) => Some(writer),
                        _ => None,
                    };
                    let logs: Vec<WriterId> = changes.written.iter().filter_map(log).collect();
                    return if logs.is_empty() { News::None } else { News::Logs(logs) };
                }
                Err(_) => self.watch = None,
            }
        }
        core.counters.metadata.add(1);
        match core.fs.stamp(&core.config.dir) {
            Ok(stamp) if Some(stamp) != self.stamp => {
                self.restamped = Instant::now();
                News::All
            }
            Ok(_) if self.restamped.elapsed() > COARSE => News::AllLogs,
            _ => News::All,
        }
    }

    fn read_known(&mut self, core: &Core) {
        let writers: Vec<WriterId> = self.logs().collect();
        self.read_logs(core, &writers);
    }

    fn read_logs(&mut self, core: &Core, writers: &[WriterId]) {
        for writer in writers {
            if !core.is_me(*writer)
                && let Err(error) = self.read(core, *writer)
                && !is_lost(&error)
            {
                core.counters.io_errors.add(1);
                self.failed = true;
            }
        }
    }

    fn read(&mut self, core: &Core, writer: WriterId) -> Result<()> {
        let follower = match self.followers.entry(writer) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => match Follower::open(core, writer)? {
                Some(follower) => place.insert(follower),
                None => return Ok(()),
            },
        };
        let read = follower.read_on(core, writer, |events| apply_all(core, writer, &events));
        // A server may have given the name to another file: it is opened anew, and read from the start.
        if read.as_ref().is_err_and(is_lost) {
            self.followers.remove(&writer);
        }
        read
    }

    /// Whether a writer has said that it ended.
    pub(crate) fn has_ended(&self, writer: WriterId) -> bool {
        self.followers.get(&writer).is_some_and(|follower| follower.ended)
    }
}

fn apply_all(core: &Core, writer: WriterId, events: &[LogEvent]) {
    for events in events.chunks(EVENTS) {
        let mut gone = Vec::new();
        let mut catalog = core.catalog.write();
        for event in events {
            match *event {
                LogEvent::Put(record) => catalog.put(record),
                LogEvent::Forget { id, sequence } => drop(catalog.forget(&id, sequence)),
                LogEvent::Drop { writer, segment } => {
                    let id = SegmentId { writer, number: segment };
                    let owned = catalog.segments.get(&id).is_some_and(|segment| segment.owned);
                    let blocks = catalog.drop_segment(id);
                    core.counters.evictions.add(if owned { blocks } else { 0 });
                    gone.push(id);
                }
                LogEvent::Close { segment } => {
                    if let Some(segment) = catalog.segments.get_mut(&SegmentId { writer, number: segment }) {
                        segment.closed = true;
                    }
                }
                LogEvent::End => {}
            }
        }
        drop(catalog);
        gone.into_iter().for_each(|id| core.close(id));
    }
}

/// What the log of a writer forgets that may still be somewhere.
pub(crate) fn forgets(core: &Core, writer: WriterId) -> Vec<LogEvent> {
    let mut events = Vec::new();
    let read = Follower::open(core, writer).and_then(|follower| match follower {
        Some(mut follower) => follower.read_on(core, writer, |mut more| {
            more.retain(|event| matches!(event, LogEvent::Forget { .. }));
            events.append(&mut more);
        }),
        None => Ok(()),
    });
    if read.is_err() {
        core.counters.io_errors.add(1);
    }
    let catalog = core.catalog.read();
    events.retain(|event| matches!(event, LogEvent::Forget { sequence, .. } if catalog.hides(*sequence)));
    events
}
