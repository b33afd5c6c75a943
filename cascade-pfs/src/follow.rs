//! Following what other writers log.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::Result;
use std::sync::Arc;

use crate::buffer::Buffer;
use crate::core::{Core, is_lost};
use crate::fs::{Access, File};
use crate::io;
use crate::layout::{LOG_RECORD_BYTES, LogEvent, LogHeader, LogRecord, PAGE_BYTES, WriterId};
use crate::names::{Name, SegmentId};

/// Bytes of a log that are read at once.
const LOG_BYTES: usize = 1 << 20;
/// Bytes that are asked for first: mostly there is nothing new.
const LOG_NEWS: usize = 16 << 10;

/// The names in the tier's directory that are its own; none when it cannot be listed.
pub(crate) fn names(core: &Core) -> Vec<Name> {
    let listed = core.fs.list(&core.config.dir).unwrap_or_else(|_| {
        core.counters.io_errors.add(1);
        Vec::new()
    });
    listed.iter().filter_map(|name| Name::parse(name)).collect()
}

/// Place in one log.
#[derive(Debug)]
struct Follower {
    file: Arc<dyn File>,
    next: u64,
    ended: bool,
}

impl Follower {
    fn open(core: &Core, writer: WriterId) -> Result<Option<Self>> {
        let file = core.fs.open(&core.path(Name::Log(writer)), Access::Read, false)?;
        let mut page = Buffer::new(PAGE_BYTES);
        let read = io::read_up_to(file.as_ref(), &[page.piece()], 0)?;
        let header = page.bytes().get(..read).map(|bytes| LogHeader::parse(bytes, writer));
        // A log that has no header yet is looked at again.
        Ok(matches!(header, Some(Ok(_))).then_some(Self { file, next: 0, ended: false }))
    }

    /// The events that are new, up to the first record that is not whole.
    fn news(&mut self, writer: WriterId, mut take: impl FnMut(LogEvent)) -> Result<()> {
        let mut ask = LOG_NEWS;
        while !self.ended {
            let mut buffer = Buffer::new(ask);
            let read = io::read_up_to(self.file.as_ref(), &[buffer.piece()], LogRecord::at(self.next))?;
            let records = buffer.bytes().get(..read).unwrap_or(&[]).chunks_exact(LOG_RECORD_BYTES);
            let asked = ask / LOG_RECORD_BYTES;
            let mut whole = 0;
            for bytes in records {
                let Ok(record) = LogRecord::parse(bytes, writer, self.next) else { break };
                whole += 1;
                self.next += 1;
                if let Some(LogRecord { event, .. }) = record {
                    self.ended |= event == LogEvent::End;
                    take(event);
                }
            }
            if whole < asked {
                break;
            }
            ask = LOG_BYTES;
        }
        Ok(())
    }
}

/// Everyone who is followed.
#[derive(Debug, Default)]
pub(crate) struct Follow {
    followers: HashMap<WriterId, Follower>,
}

impl Follow {
    /// Reads on in every log.
    pub(crate) fn poll(&mut self, core: &Core) -> Vec<Name> {
        let names = names(core);
        for name in &names {
            if let Name::Log(writer) = name
                && !core.is_me(*writer)
                && let Err(error) = self.read(core, *writer)
                && !is_lost(&error)
            {
                core.counters.io_errors.add(1);
            }
        }
        // A log that is gone has nothing more to say.
        if !names.is_empty() {
            self.followers.retain(|writer, _| names.contains(&Name::Log(*writer)));
        }
        names
    }

    fn read(&mut self, core: &Core, writer: WriterId) -> Result<()> {
        let follower = match self.followers.entry(writer) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => match Follower::open(core, writer)? {
                Some(follower) => place.insert(follower),
                None => return Ok(()),
            },
        };
        follower.news(writer, |event| apply(core, writer, event))
    }

    /// Whether a writer has said that it ended.
    pub(crate) fn has_ended(&self, writer: WriterId) -> bool {
        self.followers.get(&writer).is_some_and(|follower| follower.ended)
    }
}

fn apply(core: &Core, writer: WriterId, event: LogEvent) {
    let mut catalog = core.catalog.write();
    match event {
        LogEvent::Put(record) => catalog.put(record),
        LogEvent::Forget { id, sequence } => drop(catalog.forget(&id, sequence)),
        LogEvent::Drop { writer, segment } => {
            let id = SegmentId { writer, number: segment };
            let owned = catalog.segments.get(&id).is_some_and(|segment| segment.owned);
            let gone = catalog.drop_segment(id);
            if owned {
                core.counters.evictions.add(gone);
            }
            drop(catalog);
            core.close(id);
        }
        LogEvent::Close { segment } => {
            if let Some(segment) = catalog.segments.get_mut(&SegmentId { writer, number: segment }) {
                segment.closed = true;
            }
        }
        LogEvent::End => {}
    }
}

/// What the log of a writer forgets that may still be somewhere.
pub(crate) fn forgets(core: &Core, writer: WriterId) -> Vec<LogEvent> {
    let mut events = Vec::new();
    let read = Follower::open(core, writer).and_then(|follower| match follower {
        Some(mut follower) => follower.news(writer, |event| events.push(event)),
        None => Ok(()),
    });
    if read.is_err() {
        core.counters.io_errors.add(1);
    }
    let catalog = core.catalog.read();
    events.retain(|event| matches!(event, LogEvent::Forget { sequence, .. } if catalog.hides(*sequence)));
    events
}
