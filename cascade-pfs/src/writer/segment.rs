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

#[derive(Debug)]
pub(super) struct Open {
    pub(super) id: SegmentId,
    pub(super) file: Arc<dyn File>,
    /// Where the next record begins.
    pub(super) end: u64,
    /// Bytes that the file, with its footer, may have.
    limit: u64,
    /// Bytes for which the file system has set room aside; `u64::MAX` where it does not.
    aside: u64,
    /// What is answered, in order.
    entries: Vec<Record>,
    /// The name is not durable yet.
    fresh: bool,
    /// A sync failed: nothing that is written here is believed any more.
    poisoned: bool,
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
                    let _ = self.file.truncate(PAGE_BYTES as u64);
                }
                u64::MAX
            }
        };
    }

    pub(super) fn committed(&mut self, records: impl Iterator<Item = Record>) {
        self.entries.extend(records);
    }
}

impl Writer {
    /// Opens a segment that takes a record of `bytes`, after making room for it.
    pub(super) fn open_for(&mut self, bytes: u64) -> io::Result<()> {
        self.drain();
        self.finish_segment();
        let needed = bytes.saturating_add(PAGE_BYTES as u64 + footer_bytes(1));
        let limit = self.core.config.target_bytes().max(needed);
        self.make_room(limit)?;
        // Making room may have opened a segment for what was kept.
        if self.open.as_ref().is_some_and(|open| open.fits(0, bytes)) {
            return Ok(());
        }
        self.finish_segment();
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
        let file = self.create(id, &header.to_page())?;
        {
            let mut catalog = self.core.catalog.write();
            let segment = catalog.segments.entry(id).or_default();
            (segment.owned, segment.file_bytes) = (true, limit);
            segment.first = header.sequence;
        }
        let end = PAGE_BYTES as u64;
        self.open =
            Some(Open { id, file, end, limit, aside: 0, entries: Vec::new(), fresh: true, poisoned: false });
        Ok(())
    }

    fn create(&self, id: SegmentId, page: &Page) -> io::Result<Arc<dyn File>> {
        let (core, path) = (&self.core, self.core.path(Name::Segment(id)));
        let attempt = || {
            let direct = core.is_direct();
            let file = core.create(id)?;
            core.counters.creates.add(1);
            let first = vec![Buffer::of(page).piece()];
            let written = whole::wrote(core.engine.wait(&file, Way::Write, first, 0), PAGE_BYTES);
            written.inspect_err(|_| {
                let _ = core.fs.remove(&path);
            })?;
            core.opened(file.as_ref(), direct);
            Ok(file)
        };
        match attempt() {
            Err(error) if is_invalid(&error) && core.refuse_direct() => attempt(),
            other => other,
        }
    }

    /// Makes what is written to the open segment durable. Once only: after an error the segment is poisoned.
    pub(super) fn sync_open(&mut self) -> io::Result<()> {
        let Some(open) = self.open.as_mut().filter(|open| !open.poisoned) else { return Ok(()) };
        self.core.counters.syncs.add(1);
        let mut synced = open.file.sync();
        if planted::is(Bug::SwallowedSync) {
            synced = Ok(());
        }
        if synced.is_ok() && open.fresh {
            self.core.counters.metadata.add(1);
            synced = self.core.fs.sync_dir(&self.core.config.dir);
            open.fresh = synced.is_err();
        }
        if synced.is_err() {
            open.poisoned = true;
            self.core.counters.poisoned.add(1);
        }
        synced
    }

    /// Closes the open segment: with a footer, if it is good to the end.
    pub(super) fn finish_segment(&mut self) {
        let Some(open) = self.open.take() else { return };
        if open.entries.is_empty() {
            self.core.catalog.write().drop_segment(open.id);
            return self.remove(Name::Segment(open.id));
        }
        let footer = footer_bytes(open.entries.len());
        let file_bytes = open.end + footer;
        let closed = !open.poisoned && self.write_footer(&open, footer).is_ok();
        let (id, file) = (open.id, Arc::clone(&open.file));
        self.open = Some(open);
        // The blocks were acknowledged: an error is for the next flush to tell.
        let durable = self.core.config.durability == Durability::None || {
            let synced = if closed { self.sync_open() } else { Ok(()) };
            synced.map_err(|error| self.failed = Some(error)).is_ok()
        };
        self.open = None;
        drop(file);
        {
            let mut catalog = self.core.catalog.write();
            if let Some(segment) = catalog.segments.get_mut(&id) {
                segment.file_bytes = file_bytes;
                segment.closed = closed && durable;
            }
        }
        if closed && durable {
            self.log.note(LogEvent::Close { segment: id.number });
            // It waits with the next events if it cannot be written now.
            let _ = self.log.write();
        }
    }

    fn write_footer(&self, open: &Open, footer: u64) -> io::Result<()> {
        let len = usize::try_from(footer).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let mut buffer = Buffer::new(len);
        if let Some(bytes) = buffer.bytes_mut() {
            write_footer(open.id.writer, open.id.number, open.end, &open.entries, bytes);
        }
        let mut written = self.core.write(&open.file, vec![buffer.piece()], open.end);
        // The trailer is found at the end of the file.
        if written.is_ok() && (open.end + footer..u64::MAX).contains(&open.aside) {
            written = open.file.truncate(open.end + footer);
        }
        written.inspect_err(|_| {
            // Half a footer is none; the headers say the same.
            let _ = open.file.truncate(open.end);
        })
    }
}
