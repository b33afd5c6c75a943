//! Blocks out of segments, verified where they arrive.

mod many;
mod part;
mod record;

use std::io::{Error, ErrorKind};
use std::sync::{Arc, mpsc};

use cascade_core::batch::Outcome;
use cascade_core::id::BlockId;
use cascade_core::memory::SgList;
use cascade_core::tier::MissReason;

use crate::core::{Core, is_invalid, is_lost};
use crate::layout::Record;
use crate::names::SegmentId;
use crate::part::Part;

pub(crate) use part::fetch_part;
pub(crate) use record::verified;

/// Times that a block is looked for: it may be moved, and its file removed, while it is read.
const ATTEMPTS: u32 = 4;

/// What came of reading a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Read {
    Right,
    Wrong,
    Lost,
    /// The file system does not read past the page cache what it has opened so.
    Undirected,
    Failed,
}

impl Read {
    fn of(read: std::io::Result<bool>) -> Self {
        match read {
            Ok(true) => Self::Right,
            Ok(false) => Self::Wrong,
            Err(error) => Self::failed(&error),
        }
    }

    fn failed(error: &Error) -> Self {
        match error {
            error if error.kind() == ErrorKind::UnexpectedEof => Self::Wrong,
            error if is_lost(error) => Self::Lost,
            error if is_invalid(error) => Self::Undirected,
            _ => Self::Failed,
        }
    }
}

/// A block that somebody waits for.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) id: BlockId,
    pub(crate) into: SgList,
    pub(crate) part: Part,
}

impl Asked {
    fn end(self, core: &Core, outcome: Outcome) {
        let Self { into, part, .. } = self;
        // The memory is the caller's again before it hears of it.
        drop(into);
        part.complete(&core.counters, outcome);
    }

    fn miss(self, core: &Core, reason: MissReason) {
        self.end(core, Outcome::Miss(reason));
    }
}

/// One attempt at a block that is known.
#[derive(Debug)]
struct Fetch {
    asked: Asked,
    record: Record,
    /// How often it was read before.
    attempt: u32,
}

/// Fetches blocks; their parts hear of it.
pub(crate) fn fetch(core: &Arc<Core>, asked: Vec<Asked>) {
    let mut found: Vec<Fetch> = asked.into_iter().filter_map(|asked| find(core, asked, 0)).collect();
    found.sort_unstable_by_key(|fetch| (fetch.record.writer.0, fetch.record.segment, fetch.record.offset));
    let is_open = |fetch: &Fetch| core.open_segment(home(&fetch.record)).is_some();
    if found.iter().all(is_open) {
        return many::start(core, found);
    }
    // Opening a file may take long.
    let opening = Arc::clone(core);
    core.engine.run(move || many::start(&opening, found));
}

/// Looks for a block; answers where there is nothing to read.
fn find(core: &Core, asked: Asked, attempt: u32) -> Option<Fetch> {
    if let Some(outcome) = asked.part.given_up() {
        asked.end(core, outcome);
        return None;
    }
    let (asked, record) = match known(core, asked) {
        Ok(known) => known?,
        Err(asked) => {
            asked.miss(core, MissReason::Absent);
            return None;
        }
    };
    let into = &asked.into;
    if record.meta.len > into.len() as u64 || !into.is_host() || !into.is_writable() {
        asked.miss(core, MissReason::Destination);
        return None;
    }
    if core.gate.is_crowded() {
        asked.miss(core, MissReason::Throttled);
        return None;
    }
    Some(Fetch { asked, record, attempt })
}

/// Where the block of `asked` is; nothing where its write is under way, at whose end `asked` is looked for again.
fn known(core: &Core, asked: Asked) -> Result<Option<(Asked, Record)>, Asked> {
    let (found, is_pending) = {
        let catalog = core.catalog.read();
        (catalog.find(&asked.id), catalog.is_pending(&asked.id))
    };
    match found {
        Some(record) => Ok(Some((asked, record))),
        None if is_pending => core.catalog.write().find_or_wait(asked),
        None => Err(asked),
    }
}

impl Fetch {
    /// Answers, or tries again.
    fn ended(self, core: &Arc<Core>, read: Read) {
        let Self { asked, record, attempt } = self;
        match read {
            Read::Right => {
                core.catalog.read().touch(&asked.id);
                core.counters.bytes_out.add(record.meta.len);
                return asked.end(core, Outcome::Fetched(record.meta));
            }
            Read::Undirected if core.refuse_direct() => {}
            Read::Failed | Read::Undirected if asked.part.is_late() => {
                return asked.miss(core, MissReason::Deadline);
            }
            Read::Failed | Read::Undirected => {
                core.counters.io_errors.add(1);
                return asked.miss(core, MissReason::Unavailable);
            }
            // Once more, from a file that is opened anew: a server may have shown an old state.
            Read::Wrong | Read::Lost if attempt == 0 => {}
            Read::Wrong => {
                if core.drop_corrupt(&record) {
                    return asked.miss(core, MissReason::Corrupt);
                }
            }
            Read::Lost => lose(core, &record),
        }
        if attempt + 1 == ATTEMPTS {
            return asked.miss(core, MissReason::Evicting);
        }
        let again = Arc::clone(core);
        core.engine.run(move || {
            again.close(home(&record));
            if let Some(fetch) = find(&again, asked, attempt + 1) {
                many::start(&again, vec![fetch]);
            }
        });
    }
}

/// Copies exactly this block, whose length `into` has; whether it is right. This thread, none of the engine's, waits.
pub(crate) fn exactly(core: &Arc<Core>, record: &Record, into: &SgList) -> bool {
    let Ok(file) = core.segment(home(record)) else { return false };
    let (send, receive) = mpsc::sync_channel(1);
    let end = move |read| {
        let _ = send.send(read);
    };
    record::read(core, &file, record, into.clone(), None, Box::new(end));
    matches!(receive.recv(), Ok(Ok(true)))
}

fn home(record: &Record) -> SegmentId {
    SegmentId { writer: record.writer, number: record.segment }
}

/// The file of a block that has not moved is gone: so are all that were in it.
fn lose(core: &Core, record: &Record) {
    let mut catalog = core.catalog.write();
    if catalog.find(&record.id) == Some(*record) {
        let gone = catalog.drop_segment(home(record));
        core.counters.evictions.add(gone);
        core.counters.lost_files.add(1);
    }
}
