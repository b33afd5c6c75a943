//! The one thread that writes: gathers puts to runs, acknowledges them in order, and logs what it did.

mod ahead;
mod log;
mod long;
mod room;
mod run;
mod segment;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use cascade_core::batch::{Completer, Outcome, Refusal};
use cascade_core::id::BlockId;

use crate::config::Durability;
use crate::core::{Core, is_full};
use crate::layout::{LogEvent, Record, WriterId, record_bytes};
use crate::names::Name;
use crate::part::Part;
use crate::queue::{Next, Put, Request};

use ahead::Ahead;
pub(crate) use log::{Log, begin};
use run::{Draft, Run};
use segment::{Closed, Open};

/// Runs under way at once: one is written while the next is made ready and the one before is made durable.
const RUNS: usize = 4;

#[derive(Debug)]
pub(crate) struct Writer {
    core: Arc<Core>,
    log: Log,
    /// Logs that became too long. Their writers live on in this process as long as they have segments.
    past: Vec<Log>,
    open: Option<Open>,
    /// Segments that take no more records, and whose writes have not all ended.
    full: VecDeque<Open>,
    /// Segments that another thread writes the footers of.
    closing: usize,
    ends: (Sender<Closed>, Receiver<Closed>),
    /// The file of the next segment.
    ahead: Ahead,
    /// A first page was written: the file system takes what is written as it is.
    has_written: bool,
    /// Number of the next segment.
    number: u64,
    runs: VecDeque<Run>,
    /// A write found the file system full, and no segment that was dead to the end has gone since.
    was_full: bool,
    /// What could not be made durable since the last flush that said so.
    failed: Option<io::Error>,
}

/// What a failed write means for who asked for it.
fn refusal(core: &Core, error: &io::Error) -> Refusal {
    if is_full(error) {
        core.counters.no_space.add(1);
        return Refusal::Full;
    }
    core.counters.io_errors.add(1);
    Refusal::Unavailable
}

impl Writer {
    /// A writer whose identity and log are made.
    pub(crate) fn new(core: Arc<Core>, log: Log) -> Self {
        Self {
            core,
            log,
            past: Vec::new(),
            open: None,
            full: VecDeque::new(),
            closing: 0,
            ends: channel(),
            ahead: Ahead::default(),
            has_written: false,
            number: 0,
            runs: VecDeque::new(),
            was_full: false,
            failed: None,
        }
    }

    /// Works until the queue is closed and empty.
    pub(crate) fn work(mut self) {
        loop {
            self.commit_done();
            match self.core.queue.next(self.runs.len() < RUNS, !self.runs.is_empty()) {
                Next::Request(request) => self.handle(request),
                Next::Woken => {}
                Next::Closed => break,
            }
        }
        self.finish_segments();
        let durable = self.core.config.durability != Durability::None;
        for mut log in self.past.into_iter().chain([self.log]) {
            log.note(LogEvent::End);
            // Without it the writer counts as dead, and its segments are found by footers and headers.
            if log.write().is_ok() && durable {
                let _ = log.sync(&self.core);
            }
        }
    }

    fn handle(&mut self, request: Request) {
        match request {
            Request::Put(put) => self.gather(put),
            Request::Delete { id, part } => self.delete(&id, &part),
            Request::Hide(record) => self.hide(&record),
            Request::Flush(completer) => self.flush(&completer),
            Request::Bury(writer) => self.bury(writer),
        }
    }

    /// Makes a run of `first` and what waits behind it.
    fn gather(&mut self, first: Put) {
        let mut draft = Draft::default();
        self.append(&mut draft, first);
        while draft.bytes() < self.core.config.io_bytes as u64 {
            match self.core.queue.next_put() {
                Some(put) => self.append(&mut draft, put),
                None => break,
            }
        }
        self.launch(draft);
    }

    /// Adds a block to the draft, in a new segment if the open one is full.
    fn append(&mut self, draft: &mut Draft, put: Put) {
        if let Some(outcome) = put.part.as_ref().and_then(Part::given_up) {
            return self.give_up(put, outcome);
        }
        // The tier has checked the length.
        let bytes = record_bytes(put.from.len() as u64).unwrap_or(0);
        if !self.fits(draft, bytes) {
            self.launch(std::mem::take(draft));
            if let Err(error) = self.open_or_empty(bytes) {
                let why = refusal(&self.core, &error);
                return self.give_up(put, Outcome::Refused(why));
            }
        }
        if let Some((put, outcome)) = self.place(draft, put) {
            self.give_up(put, outcome);
        }
    }

    /// Answers a put that is not written.
    fn give_up(&self, put: Put, outcome: Outcome) {
        let Put { id, from, part, .. } = put;
        let bytes = record_bytes(from.len() as u64).unwrap_or(0);
        // The memory is the caller's again before it hears of it.
        drop(from);
        self.settle(&id, part.as_ref(), bytes, outcome);
    }

    /// Counts and answers a put that has ended.
    fn settle(&self, id: &BlockId, part: Option<&Part>, bytes: u64, outcome: Outcome) {
        let Some(part) = part else { return };
        let waiting = self.core.catalog.write().end(id);
        self.core.queue.release(bytes);
        part.complete(&self.core.counters, outcome);
        if !waiting.is_empty() {
            crate::read::fetch(&self.core, waiting);
        }
    }

    /// Waits until every run has ended and been answered.
    fn drain(&mut self) {
        self.commit_done();
        while !self.runs.is_empty() {
            self.wait_for_some();
        }
    }

    fn delete(&mut self, id: &BlockId, part: &Part) {
        let given_up = part.given_up();
        // Once it has begun it is answered by its end.
        if given_up.is_none() && !part.settle() {
            return;
        }
        let outcome = given_up.unwrap_or_else(|| self.forget(id));
        part.complete(&self.core.counters, outcome);
    }

    fn forget(&mut self, id: &BlockId) -> Outcome {
        use cascade_core::tier::MissReason;
        // Also where nothing is known of it: another writer may have logged it just now.
        let sequence = self.core.catalog.write().next_sequence();
        let mut logged = self.log_forget(id, sequence);
        if logged.as_ref().is_err_and(is_full) && (self.give_back() || self.empty_one()) {
            logged = self.log_forget(id, sequence);
        }
        if logged.is_ok() && self.core.config.durability == Durability::Block {
            logged = self.sync_log();
        }
        if let Err(error) = logged {
            refusal(&self.core, &error);
            return Outcome::Miss(MissReason::Unavailable);
        }
        if self.core.catalog.write().forget(id, sequence) {
            Outcome::Deleted
        } else {
            Outcome::Miss(MissReason::Absent)
        }
    }

    fn log_forget(&mut self, id: &BlockId, sequence: u64) -> io::Result<()> {
        self.log.note(LogEvent::Forget { id: *id, sequence });
        // What was not written is not to be tried again; what was, is no longer the last that waits.
        self.log.write().inspect_err(|_| self.log.unnote())
    }

    /// Logs that a block is gone; where that cannot be written now, it is with the next events.
    fn hide(&mut self, record: &Record) {
        let (id, sequence) = (record.id, record.sequence.saturating_add(1));
        self.core.catalog.write().forget(&id, sequence);
        self.log.note(LogEvent::Forget { id, sequence });
        let _ = self.log.write();
    }

    fn flush(&mut self, completer: &Completer) {
        self.finish_full();
        if self.core.config.durability != Durability::None {
            let synced = self.sync_open().and_then(|()| self.log.write()).and_then(|()| self.sync_log());
            if let Err(error) = synced {
                self.failed = Some(error);
            }
        }
        let outcome = match self.failed.take() {
            None => Outcome::Stored,
            Some(error) => Outcome::Refused(refusal(&self.core, &error)),
        };
        completer.complete(0, outcome);
    }

    /// Removes what is left of an adopted writer without segments. What it has forgotten is logged here first.
    fn bury(&mut self, writer: WriterId) {
        if !self.core.catalog.read().segments_of(writer).is_empty() {
            return;
        }
        let events = crate::follow::forgets(&self.core, writer);
        let any = !events.is_empty();
        events.into_iter().for_each(|event| self.log.note(event));
        // Whatever the setting: the old log may be durable, and so it must be here before that one goes.
        if self.log.write().is_err() || (any && self.sync_log().is_err()) {
            return;
        }
        for name in crate::follow::names(&self.core) {
            // A segment that is still there keeps everything.
            if name.writer() == writer && !matches!(name, Name::Segment(_)) {
                self.remove(name);
            }
        }
        self.past.retain(|log| log.me.writer != writer);
        self.core.end_life(writer);
    }

    fn remove(&self, name: Name) {
        self.core.counters.metadata.add(1);
        if self.core.fs.remove(&self.core.path(name)).is_ok() {
            self.core.counters.removes.add(1);
        }
    }
}
