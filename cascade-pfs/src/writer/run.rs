//! Runs: records that stand one behind the other and are written by calls of some MiB, several at a time.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cascade_core::batch::{Outcome, Refusal};
use cascade_core::digest;
use cascade_core::memory::{Piece, SgList};
use cascade_core::tier::{BlockMeta, OnExisting};
use parking_lot::Mutex;

use crate::buffer::Buffer;
use crate::catalog::moved;
use crate::config::Durability;
use crate::core::Core;
use crate::fs::File;
use crate::layout::{LogEvent, PAGE_BYTES, Record, header_bytes, record_bytes};
use crate::names::SegmentId;
use crate::part::Part;
use crate::pieces::{are_pages, cut, cut_at, head, list, rest, total};
use crate::queue::Put;
use crate::raw;

use super::{Writer, refusal};

/// Blocks up to this length are copied beside their header, if they do not lie at page boundaries anyway; longer ones are
/// written from where they are.
const COPIED_BYTES: usize = 64 << 10;
/// Blocks up to this length are copied always: one piece of memory costs less than two.
const SMALL_BYTES: usize = 16 << 10;

/// A block on its way.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) record: Record,
    pub(super) part: Option<Part>,
    pub(super) from: SgList,
}

/// Records that are being gathered.
#[derive(Debug, Default)]
pub(super) struct Draft {
    waiting: Vec<Waiting>,
    pieces: Vec<Piece>,
    bytes: u64,
}

impl Draft {
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// How far the writes of a run are.
#[derive(Debug)]
pub(super) struct Progress {
    left: AtomicUsize,
    error: Mutex<Option<io::Error>>,
}

impl Progress {
    pub(super) fn of(writes: usize) -> Self {
        Self { left: AtomicUsize::new(writes), error: Mutex::new(None) }
    }

    pub(super) fn ended(&self, result: io::Result<()>) {
        if let Err(error) = result {
            self.error.lock().get_or_insert(error);
        }
        self.left.fetch_sub(1, Ordering::Release);
    }
}

/// A run that is being written.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) segment: SegmentId,
    pub(super) waiting: Vec<Waiting>,
    pub(super) start: u64,
    pub(super) progress: Arc<Progress>,
}

impl Run {
    fn is_done(&self) -> bool {
        self.progress.left.load(Ordering::Acquire) == 0
    }
}

/// A block's bytes made ready: a header to be filled in, the payload, zeros.
struct Staged {
    digests: Vec<u64>,
    /// Header, then what was copied of the payload, then zeros.
    buffer: Buffer,
    header: usize,
    /// What is written from where it is, between header and the copied rest.
    direct: Vec<Piece>,
}

fn stage(from: &SgList) -> Option<Staged> {
    let len = from.len();
    let header = usize::try_from(header_bytes(len as u64)).ok()?;
    let whole = len / PAGE_BYTES * PAGE_BYTES;
    let copied = len <= SMALL_BYTES || (len <= COPIED_BYTES && !are_pages(&head(from.pieces(), whole)));
    let direct = if copied { 0 } else { whole };
    let tail = list(rest(from.pieces(), direct));
    let buffer = Buffer::new(header + tail.len().next_multiple_of(PAGE_BYTES));
    let place = buffer.part(header, tail.len());
    let copied = if tail.is_empty() { Vec::new() } else { raw::gather(&tail, &place)? };
    let digests = if direct == 0 { copied } else { raw::digests(from.pieces(), len) };
    Some(Staged { digests, buffer, header, direct: head(from.pieces(), direct) })
}

impl Staged {
    /// The whole record, once its header is known.
    fn pieces(mut self, record: &Record) -> Option<Vec<Piece>> {
        let header = self.header;
        record.write(&self.digests, self.buffer.bytes_mut()?.get_mut(..header)?);
        let rest = self.buffer.len() - header;
        let mut pieces = vec![self.buffer.part(0, header)];
        pieces.append(&mut self.direct);
        pieces.push(self.buffer.part(header, rest));
        // One piece where nothing stands between.
        Some(if pieces.len() == 2 { vec![self.buffer.piece()] } else { pieces })
    }
}

/// Bytes of each call that writes `bytes` in all: about `io_bytes`, in equal parts, so that none is a small rest.
fn call_bytes(bytes: u64, io_bytes: usize) -> usize {
    let io_bytes = io_bytes as u64;
    let calls = ((bytes + io_bytes / 2) / io_bytes).max(1);
    let each = bytes.div_ceil(calls).next_multiple_of(PAGE_BYTES as u64);
    usize::try_from(each).unwrap_or(usize::MAX)
}

/// The calls that write `bytes` from `start` of a file on.
pub(super) fn groups(core: &Core, pieces: &[Piece], start: u64, bytes: u64) -> Vec<Vec<Piece>> {
    let each = call_bytes(bytes, core.config.io_bytes);
    match core.stripes() {
        Some(stripes) => cut_at(pieces, start, each, u64::from(stripes.bytes)),
        None => cut(pieces, each),
    }
}

impl Writer {
    /// Whether the open segment takes a record of `bytes` behind the draft.
    pub(super) fn fits(&self, draft: &Draft, bytes: u64) -> bool {
        self.open.as_ref().is_some_and(|open| open.fits(draft.waiting.len() + self.in_runs(open.id), bytes))
    }

    fn in_runs(&self, id: SegmentId) -> usize {
        self.runs.iter().filter(|run| run.segment == id).map(|run| run.waiting.len()).sum()
    }

    /// Puts a block behind the draft, in the open segment; or gives it back with the answer.
    pub(super) fn place(&mut self, draft: &mut Draft, put: Put) -> Option<(Put, Outcome)> {
        if put.part.as_ref().is_some_and(|part| !part.begin(&put.from)) {
            // Answered meanwhile: the bytes are the caller's again.
            return Some((put, Outcome::Cancelled));
        }
        let bytes = record_bytes(put.from.len() as u64).unwrap_or(u64::MAX);
        let put = match self.is_long(&put, bytes) {
            true => self.place_long(draft, put)?,
            false => put,
        };
        let Some(staged) = stage(&put.from) else { return Some((put, Outcome::Refused(Refusal::Memory))) };
        let (len, id) = (put.from.len() as u64, put.id);
        let digest = digest::root(id.as_bytes(), len, staged.digests.iter().copied());
        let Some(open) = self.open.as_mut() else {
            return Some((put, Outcome::Refused(Refusal::Unavailable)));
        };
        let sequence = {
            let mut catalog = self.core.catalog.write();
            let known = catalog.find(&id).filter(|_| put.moved.is_none());
            let keeps = put.meta.on_existing == OnExisting::Keep;
            if known.is_some_and(|known| keeps || (known.meta.digest, known.meta.len) == (digest, len)) {
                return Some((put, Outcome::Exists));
            }
            put.moved.unwrap_or_else(|| catalog.next_sequence())
        };
        let meta = BlockMeta { len, digest, class: put.meta.class, tenant: put.meta.tenant };
        let record =
            Record { writer: open.id.writer, segment: open.id.number, offset: open.end, sequence, id, meta };
        let Some(mut pieces) = staged.pieces(&record) else {
            return Some((put, Outcome::Refused(Refusal::Memory)));
        };
        open.end += record.bytes();
        draft.bytes += total(&pieces) as u64;
        draft.pieces.append(&mut pieces);
        draft.waiting.push(Waiting { record, part: put.part, from: put.from });
        None
    }

    /// Starts the writes of a draft.
    pub(super) fn launch(&mut self, mut draft: Draft) {
        let Some(open) = self.open.as_mut().filter(|_| !draft.waiting.is_empty()) else { return };
        open.set_aside(&self.core);
        let start = open.end - draft.bytes;
        let mut at = start;
        if let Some(first) = open.take_first() {
            // It stands right before the first record.
            at = 0;
            draft.bytes += first.len() as u64;
            draft.pieces.insert(0, first.piece());
        }
        let groups = groups(&self.core, &draft.pieces, at, draft.bytes);
        drop(draft.pieces);
        let (segment, file) = (open.id, Arc::clone(&open.file));
        let progress = Arc::new(Progress::of(groups.len()));
        for group in groups {
            let len = total(&group) as u64;
            self.start(&file, group, at, &progress);
            at += len;
        }
        self.runs.push_back(Run { segment, waiting: draft.waiting, start, progress });
        self.look_ahead();
    }

    /// Starts one write of a run.
    pub(super) fn start(
        &self,
        file: &Arc<dyn File>,
        group: Vec<Piece>,
        offset: u64,
        progress: &Arc<Progress>,
    ) {
        let (core, progress) = (Arc::clone(&self.core), Arc::clone(progress));
        self.core.write_later(file, group, offset, move |result| {
            progress.ended(result);
            core.queue.wake();
        });
    }

    /// Answers the runs that have ended, in the order in which they stand, and has those segments closed that are done with.
    pub(super) fn commit_done(&mut self) {
        let mut ready: Vec<Run> = Vec::new();
        while self.runs.front().is_some_and(Run::is_done) {
            let Some(run) = self.runs.pop_front() else { break };
            if ready.first().is_some_and(|first| first.segment != run.segment) {
                self.commit(std::mem::take(&mut ready));
            }
            let error = run.progress.error.lock().take();
            match error {
                None => ready.push(run),
                Some(error) => {
                    self.commit(std::mem::take(&mut ready));
                    self.cut_off(vec![run], &error);
                }
            }
        }
        self.commit(ready);
        self.close_full();
        self.take_closed();
    }

    /// Answers runs of one segment.
    fn commit(&mut self, runs: Vec<Run>) {
        let Some(segment) = runs.first().map(|run| run.segment) else { return };
        let core = Arc::clone(&self.core);
        let buffered = self.segment_mut(segment).is_some_and(|open| !open.file.is_direct());
        let syncs = core.config.durability == Durability::Block || (buffered && core.pushes());
        let synced = self.segment_mut(segment).filter(|_| syncs).map_or(Ok(()), |open| open.sync(&core));
        if let Err(error) = synced {
            // What follows in this file cannot be believed either.
            return self.cut_off(runs, &error);
        }
        // What was refused because its time was over is not named: it stays behind as bytes that nobody looks for.
        let in_time = |waiting: &Waiting| waiting.part.as_ref().is_none_or(Part::settle);
        let (waiting, late): (Vec<Waiting>, Vec<Waiting>) =
            runs.into_iter().flat_map(|run| run.waiting).partition(in_time);
        self.refuse(late, Refusal::Deadline);
        for waiting in &waiting {
            self.log.note(LogEvent::Put(waiting.record));
        }
        // The blocks describe themselves: what is not in the log yet gets there later.
        if let Err(error) = self.log.write() {
            refusal(&self.core, &error);
        }
        if let Some(open) = self.segment_mut(segment) {
            open.committed(waiting.iter().map(|waiting| waiting.record));
        }
        {
            let mut catalog = self.core.catalog.write();
            waiting.iter().for_each(|waiting| catalog.put(waiting.record));
        }
        for Waiting { record, part, from } in waiting {
            if part.is_some() {
                self.core.counters.puts.add(1);
                self.core.counters.bytes_in.add(record.meta.len);
            } else {
                self.core.counters.kept.add(1);
            }
            drop(from);
            self.settle(&record.id, part.as_ref(), record.bytes(), Outcome::Stored);
        }
    }

    /// A write or sync of a segment failed: it ends before `runs`, the first that were not answered, and these and those behind
    /// them are refused. Other segments do not depend on it.
    fn cut_off(&mut self, mut runs: Vec<Run>, error: &io::Error) {
        let Some((segment, start)) = runs.first().map(|run| (run.segment, run.start)) else { return };
        let why = refusal(&self.core, error);
        while self.runs.iter().any(|run| run.segment == segment && !run.is_done()) {
            let _ = self.core.queue.next(false, true);
        }
        let (behind, others) =
            std::mem::take(&mut self.runs).into_iter().partition(|run| run.segment == segment);
        self.runs = others;
        runs.extend::<VecDeque<Run>>(behind);
        if let Some(open) = self.segment_mut(segment) {
            open.end = start;
            // Best effort: a whole record that stays behind is right, only newer than what was answered.
            let _ = open.file.truncate(start);
        }
        if self.open.as_ref().is_some_and(|open| open.id == segment) {
            // Closed later: runs that are in nobody's list now may be of a segment that is full.
            self.retire();
        }
        self.refuse(runs.into_iter().flat_map(|run| run.waiting), why);
        if why == Refusal::Full {
            // For those that come next.
            self.was_full = !self.give_back();
        }
    }

    fn refuse(&self, waiting: impl IntoIterator<Item = Waiting>, why: Refusal) {
        for Waiting { record, part, from } in waiting {
            drop(from);
            let bytes = record_bytes(record.meta.len).unwrap_or(0);
            self.settle(&record.id, part.as_ref(), bytes, Outcome::Refused(why));
        }
    }

    /// A block that is written again from its old segment.
    pub(super) fn move_block(
        record: &Record,
        buffer: &Buffer,
        class_kept: cascade_core::tier::PutMeta,
    ) -> Option<Put> {
        let len = usize::try_from(record.meta.len).ok()?;
        let (from, moved) = (list(vec![buffer.part(0, len)]), moved(record.sequence)?);
        Some(Put { id: record.id, from, meta: class_kept, moved: Some(moved), part: None })
    }
}
