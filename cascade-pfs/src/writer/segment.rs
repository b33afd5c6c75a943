//! The segment that is being written.

use std::io;
use std::sync::Arc;

use cascade_core::planted::{self, Bug};

use crate::buffer::Buffer;
use crate::config::Durability;
use crate::core::{Core, is_full, is_invalid};
use crate::fs::{File, Way};
use crate::io as whole;
use crate::layout::{LogEvent, PAGE_BYTES, Page, Record, SegmentHeader, footer_bytes, write_footer};
use crate::names::{Name, SegmentId};

use super::Writer;

/// Full segments that are not closed yet. With more, whoever fills them waits.
const MOST_CLOSING: usize = 2;

#[derive(Debug)]
pub(super) struct Open {
    pub(super) id: SegmentId,
    pub(super) file: Arc<dyn File>,
    /// Where the next record begins.
    pub(super) end: u64,
    /// Bytes that the file, with its footer, may have.
    pub(super) limit: u64,
    /// Bytes for which the file system has set room aside; `u64::MAX` where it does not.
    aside: u64,
    /// What is answered, in order.
    entries: Vec<Record>,
    /// The name is not durable yet.
    fresh: bool,
    /// A sync failed: nothing that is written here is believed any more.
    poisoned: bool,
    /// The first page, until it is on its way: beside the first records, and not before them, so that it does not wait alone
    /// behind what is being written to the segment before.
    first: Option<Buffer>,
}

impl Open {
    /// Whether a record of `bytes` fits, behind `waiting` that are not answered yet.
    pub(super) fn fits(&self, waiting: usize, bytes: u64) -> bool {
        let footer = footer_bytes(self.entries.len() + waiting + 1);
        !self.poisoned && self.end.saturating_add(bytes).saturating_add(footer) <= self.limit
    }

    /// Has room set aside for the whole segment, before anything is written behind its header: later, the file system would
    /// first wait for every write under way. Best effort: without it, writes wait for each other.
    pub(super) fn set_aside(&mut self, core: &Core) {
        if self.aside > 0 || !self.file.is_direct() {
            return;
        }
        core.counters.metadata.add(1);
        self.aside = match self.file.set_aside(self.limit) {
            Ok(()) => self.limit,
            Err(error) => {
                if is_full(&error) {
                    // What it got before there was no more is needed elsewhere.
                    let _ = self.file.truncate(if self.first.is_some() { 0 } else { PAGE_BYTES as u64 });
                }
                u64::MAX
            }
        };
    }

    pub(super) fn committed(&mut self, records: impl Iterator<Item = Record>) {
        self.entries.extend(records);
    }

    /// The first page, where it is not written yet; whoever takes it writes it.
    pub(super) fn take_first(&mut self) -> Option<Buffer> {
        self.first.take()
    }

    /// Whether room was set aside for all of it, and half of it is written to.
    pub(super) fn is_half_full(&self) -> bool {
        self.aside == self.limit && self.end >= self.limit / 2
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Makes what is written durable. Once only: after an error the segment is poisoned.
    pub(super) fn sync(&mut self, core: &Core) -> io::Result<()> {
        if self.poisoned {
            return Ok(());
        }
        core.counters.syncs.add(1);
        let mut synced = self.file.sync();
        if planted::is(Bug::SwallowedSync) {
            synced = Ok(());
        }
        if synced.is_ok() && self.fresh {
            core.counters.metadata.add(1);
            synced = core.fs.sync_dir(&core.config.dir);
            self.fresh = synced.is_err();
        }
        if synced.is_err() {
            self.poisoned = true;
            core.counters.poisoned.add(1);
        }
        synced
    }

    /// Writes the footer, if the segment is good to the end, and cuts the file to its length.
    pub(super) fn close(mut self, core: &Arc<Core>) -> Closed {
        let footer = footer_bytes(self.entries.len());
        let with_footer = !self.poisoned && self.write_footer(core, footer).is_ok();
        let mut failed = None;
        if with_footer && core.config.durability != Durability::None {
            // The blocks were acknowledged: an error is for the next flush to tell.
            failed = self.sync(core).err();
        }
        let mut file_bytes = self.end + footer;
        if !with_footer {
            // Half a footer is none; the headers say the same. Room that was set aside is needed elsewhere: where it cannot be
            // given back, it counts.
            let cut = self.file.truncate(self.end).is_ok() || self.aside == u64::MAX;
            file_bytes = if cut { self.end } else { self.limit };
        }
        let closed = with_footer && failed.is_none();
        Closed { id: self.id, file_bytes, closed, failed }
    }

    fn write_footer(&self, core: &Core, footer: u64) -> io::Result<()> {
        let len = usize::try_from(footer).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let mut buffer = Buffer::new(len);
        if let Some(bytes) = buffer.bytes_mut() {
            write_footer(self.id.writer, self.id.number, self.end, &self.entries, bytes);
        }
        core.write(&self.file, vec![buffer.piece()], self.end)?;
        // The trailer is found at the end of the file.
        let is_longer = (self.end + footer..u64::MAX).contains(&self.aside);
        if is_longer { self.file.truncate(self.end + footer) } else { Ok(()) }
    }
}

/// What became of a segment that takes no more records.
#[derive(Debug)]
pub(super) struct Closed {
    id: SegmentId,
    file_bytes: u64,
    /// It has its footer, as durable as the setting asks for.
    closed: bool,
    failed: Option<io::Error>,
}

impl Writer {
    /// Opens a segment that takes a record of `bytes`, after making room for it. The one before is closed beside that, once its
    /// writes have ended.
    pub(super) fn open_for(&mut self, bytes: u64) -> io::Result<()> {
        self.retire();
        self.close_full();
        while self.full.len() + self.closing > MOST_CLOSING {
            self.wait_for_some();
        }
        let needed = bytes.saturating_add(PAGE_BYTES as u64 + footer_bytes(1));
        let limit = self.core.config.target_bytes().max(needed);
        self.make_room(limit)?;
        // Making room may have opened a segment for what was kept.
        if self.open.as_ref().is_some_and(|open| open.fits(0, bytes)) {
            return Ok(());
        }
        self.retire();
        self.turn_log();
        self.begin_segment(limit)
    }

    pub(super) fn begin_segment(&mut self, limit: u64) -> io::Result<()> {
        let id = SegmentId { writer: self.log.me.writer, number: self.number };
        self.number += 1;
        let header = SegmentHeader {
            writer: id.writer,
            number: id.number,
            sequence: self.core.catalog.write().next_sequence(),
            target_bytes: limit,
        };
        let page = header.to_page();
        let (file, first, aside) = match self.take_ahead(id, limit) {
            Some(file) => (file, Some(Buffer::of(&page)), limit),
            None => self.create(id, &page).map(|(file, first)| (file, first, 0))?,
        };
        {
            let mut catalog = self.core.catalog.write();
            let segment = catalog.segments.entry(id).or_default();
            (segment.owned, segment.writing, segment.file_bytes) = (true, true, limit);
            segment.first = header.sequence;
        }
        let end = PAGE_BYTES as u64;
        let (entries, fresh, poisoned) = (Vec::new(), true, false);
        self.open = Some(Open { id, file, end, limit, aside, entries, fresh, poisoned, first });
        Ok(())
    }

    /// Makes the file of a segment, and its first page where that is not written yet.
    fn create(&mut self, id: SegmentId, page: &Page) -> io::Result<(Arc<dyn File>, Option<Buffer>)> {
        match self.attempt(id, page) {
            Err(error) if is_invalid(&error) && self.core.refuse_direct() => self.attempt(id, page),
            other => other,
        }
    }

    fn attempt(&mut self, id: SegmentId, page: &Page) -> io::Result<(Arc<dyn File>, Option<Buffer>)> {
        let core = &self.core;
        let direct = core.is_direct();
        let file = core.create(id)?;
        core.counters.creates.add(1);
        let first = Buffer::of(page);
        if self.has_written || file.takes_direct() {
            core.opened(file.as_ref(), direct);
            return Ok((file, Some(first)));
        }
        // Some file systems refuse direct I/O only when it comes to writing. Where they do not say, the first page is tried, before
        // anything else is written: that takes as long as the disk takes for one write.
        let pieces = vec![first.piece()];
        let written = whole::wrote(core.engine.wait(&file, Way::Write, pieces, 0), PAGE_BYTES);
        written.inspect_err(|_| {
            let _ = core.fs.remove(&core.path(Name::Segment(id)));
        })?;
        core.opened(file.as_ref(), direct);
        self.has_written = true;
        Ok((file, None))
    }

    /// The open segment takes no more records.
    pub(super) fn retire(&mut self) {
        self.full.extend(self.open.take());
    }

    /// The segment of this number, while it is written or waits for its writes.
    pub(super) fn segment_mut(&mut self, id: SegmentId) -> Option<&mut Open> {
        self.full.iter_mut().chain(&mut self.open).find(|open| open.id == id)
    }

    /// Has those segments closed that take no more records and whose writes have ended, on another thread.
    pub(super) fn close_full(&mut self) {
        while let Some(id) = self.full.front().map(|open| open.id) {
            if self.runs.iter().any(|run| run.segment == id) {
                return;
            }
            let Some(open) = self.full.pop_front() else { return };
            if open.is_empty() {
                self.core.catalog.write().drop_segment(open.id);
                self.remove(Name::Segment(open.id));
                continue;
            }
            self.closing += 1;
            let (core, ends) = (Arc::clone(&self.core), self.ends.0.clone());
            self.core.engine.run_write(move || {
                let closed = open.close(&core);
                let _ = ends.send(closed);
                core.queue.wake();
            });
        }
    }

    /// Takes note of the segments that were closed.
    pub(super) fn take_closed(&mut self) {
        while let Ok(Closed { id, file_bytes, closed, failed }) = self.ends.1.try_recv() {
            self.closing -= 1;
            if failed.is_some() {
                self.failed = failed;
            }
            if let Some(segment) = self.core.catalog.write().segments.get_mut(&id) {
                (segment.file_bytes, segment.closed, segment.writing) = (file_bytes, closed, false);
            }
            if closed {
                self.log.note(LogEvent::Close { segment: id.number });
                // It waits with the next events if it cannot be written now.
                let _ = self.log.write();
            }
        }
    }

    /// Ends the open segment and waits until all that are full are closed.
    pub(super) fn finish_segments(&mut self) {
        self.retire();
        self.finish_full();
    }

    /// Waits until every run is answered and every full segment closed.
    pub(super) fn finish_full(&mut self) {
        self.commit_done();
        while !self.runs.is_empty() || !self.full.is_empty() || self.closing > 0 {
            self.wait_for_some();
        }
    }

    /// Waits until a write or a closing has ended, and deals with it.
    pub(super) fn wait_for_some(&mut self) {
        let _ = self.core.queue.next(false, true);
        self.commit_done();
    }

    /// Makes what is written to the open segment durable.
    pub(super) fn sync_open(&mut self) -> io::Result<()> {
        self.open.as_mut().map_or(Ok(()), |open| open.sync(&self.core))
    }
}
