//! Capacity: whole segments are given up, and what is worth keeping of them is written again first.

use std::io;

use cascade_core::id::{BlockId, IdKind};
use cascade_core::memory::SgList;
use cascade_core::tier::{Class, OnExisting, PutMeta};

use crate::buffer::Buffer;
use crate::catalog::Resident;
use crate::config::Durability;
use crate::core::is_full;
use crate::layout::{LogEvent, PAGE_BYTES, Record, record_bytes};
use crate::names::{Name, SegmentId};
use crate::queue::Put;

use super::Writer;
use super::run::Draft;

/// A segment that may go, and what of it stays.
#[derive(Debug)]
struct Victim {
    id: SegmentId,
    keep: Vec<Resident>,
    /// Prefix blocks that would be lost.
    lost_prefix: usize,
    /// Gives less than a quarter of its bytes back.
    poor: bool,
    first: u64,
    /// Bytes of the file, of its records that are visible, and of those that are not any more.
    file_bytes: u64,
    live_bytes: u64,
    dead_bytes: u64,
}

impl Victim {
    /// A segment of which nothing stays.
    fn dead(id: SegmentId) -> Self {
        let (keep, lost_prefix, poor, first) = (Vec::new(), 0, false, 0);
        Self { id, keep, lost_prefix, poor, first, file_bytes: 0, live_bytes: 0, dead_bytes: 0 }
    }

    /// Whether a quarter of it is of no use to anybody: emptying it gains room, and more than it risks.
    fn is_partly_dead(&self) -> bool {
        self.live_bytes > 0 && self.dead_bytes >= self.file_bytes / 4
    }
}

/// Whether an older version may be somewhere: it was seen, or the id may stand for other bytes tomorrow and not everything
/// that others wrote could be read.
fn may_have_been_replaced(resident: &Resident) -> bool {
    let fixed = matches!(resident.record.id.kind(), IdKind::Content | IdKind::Chain | IdKind::Foreign);
    resident.replaced || !fixed
}

impl Writer {
    /// Frees bytes until a segment of `needed` fits, beside one that what is kept can be written to.
    pub(super) fn make_room(&mut self, needed: u64) -> io::Result<()> {
        let (capacity, spare) = (self.core.config.capacity_bytes, self.core.config.target_bytes());
        loop {
            let (_, used, _) = self.core.catalog.read().owned();
            // The segment that was opened for what is kept is the spare.
            let spare = if self.open.is_some() { 0 } else { spare };
            if used.saturating_add(needed).saturating_add(spare) <= capacity {
                return Ok(());
            }
            match self.choose() {
                Some(victim) => self.reclaim(victim),
                None if !self.full.is_empty() || self.closing > 0 => self.finish_full(),
                None if used.saturating_add(needed) <= capacity => return Ok(()),
                None => return Err(io::Error::from_raw_os_error(libc::ENOSPC)),
            }
        }
    }

    /// The oldest segment that gives enough back; prefix blocks are lost last.
    fn choose(&self) -> Option<Victim> {
        let key = |victim: &Victim| (victim.lost_prefix > 0, victim.poor, victim.lost_prefix, victim.first);
        self.victims().into_iter().min_by_key(key)
    }

    /// What may go.
    fn victims(&self) -> Vec<Victim> {
        let limit = self.core.config.target_bytes() / 4 * 3;
        let catalog = self.core.catalog.read();
        let owned = catalog.segments.iter().filter(|(_, segment)| segment.owned && !segment.writing);
        let victims = owned.map(|(id, segment)| {
            let (file_bytes, live_bytes) = (segment.file_bytes, segment.live_bytes);
            let dead_bytes = segment.known_to.saturating_sub(PAGE_BYTES as u64 + live_bytes);
            let mut residents = catalog.residents(*id);
            residents.sort_by_key(|resident| {
                (resident.record.meta.class != Class::Prefix, std::cmp::Reverse(resident.used))
            });
            let (mut kept_bytes, mut keep, mut lost_prefix) = (0, Vec::new(), 0);
            for resident in residents.into_iter().filter(Resident::worthy) {
                let bytes = resident.record.bytes();
                if kept_bytes + bytes <= limit {
                    kept_bytes += bytes;
                    keep.push(resident);
                } else if resident.record.meta.class == Class::Prefix {
                    lost_prefix += 1;
                }
            }
            let poor = file_bytes.saturating_sub(kept_bytes) < file_bytes / 4;
            let first = segment.first;
            Victim { id: *id, keep, lost_prefix, poor, first, file_bytes, live_bytes, dead_bytes }
        });
        victims.collect()
    }

    /// Opens a segment that takes a record of `bytes`, on a file system that is full after giving up what holds little.
    pub(super) fn open_or_empty(&mut self, bytes: u64) -> io::Result<()> {
        // A file could be made the last time, and nothing be written to it.
        if std::mem::take(&mut self.was_full) && self.empty_one() && self.fits(&Draft::default(), bytes) {
            return Ok(());
        }
        match self.open_for(bytes) {
            Err(error) if is_full(&error) && (self.give_back() || self.empty_one()) => {
                if self.fits(&Draft::default(), bytes) { Ok(()) } else { self.open_for(bytes) }
            }
            opened => opened,
        }
    }

    /// The file system is full, whatever the capacity says: segments of which nothing is left go. Whether one went.
    pub(super) fn give_back(&mut self) -> bool {
        let dead: Vec<SegmentId> = {
            let catalog = self.core.catalog.read();
            // Of an adopted segment that could not be read to the end not everything is known.
            let is_known = |id: &SegmentId, closed: bool| closed || self.core.is_me(id.writer);
            let owned = catalog.segments.iter().filter(|(_, segment)| segment.owned && !segment.writing);
            let known = owned.filter(|(id, segment)| is_known(id, segment.closed)).map(|(id, _)| *id);
            known.filter(|id| catalog.residents(*id).is_empty()).collect()
        };
        for id in &dead {
            self.reclaim(Victim::dead(*id));
        }
        !dead.is_empty()
    }

    /// The file system is full, and no segment is dead to the end: the one that is most so goes, if at least a quarter of it is. What
    /// is worth keeping of it is held in memory meanwhile, and written again in the room that it had: nowhere else is any. Whoever
    /// is killed in between has lost those blocks, as if they had been evicted. Whether one went.
    pub(super) fn empty_one(&mut self) -> bool {
        let is_known = |victim: &Victim| {
            let catalog = self.core.catalog.read();
            let closed = catalog.segments.get(&victim.id).is_some_and(|segment| segment.closed);
            closed || self.core.is_me(victim.id.writer)
        };
        let partly = self.victims().into_iter().filter(|victim| victim.is_partly_dead() && is_known(victim));
        let Some(victim) = partly.min_by_key(|victim| (victim.lost_prefix, victim.live_bytes)) else {
            return false;
        };
        let carried: Vec<Put> = victim.keep.iter().filter_map(|resident| self.read_again(resident)).collect();
        self.retire();
        self.give_up_segment(victim.id, carried.len() as u64);
        if carried.is_empty() {
            return true;
        }
        let places: Vec<_> = carried.iter().map(|put| (put.id, put.moved)).collect();
        let begun = self.begin_segment(self.core.config.target_bytes());
        let mut draft = Draft::default();
        for put in carried.into_iter().filter(|_| begun.is_ok()) {
            if self.fits(&draft, record_bytes(put.from.len() as u64).unwrap_or(u64::MAX)) {
                self.place(&mut draft, put);
            }
        }
        self.launch(draft);
        self.drain();
        let catalog = self.core.catalog.read();
        let is_lost = |(id, moved): &&(BlockId, Option<u64>)| {
            catalog.find(id).is_none_or(|record| Some(record.sequence) < *moved)
        };
        self.core.counters.evictions.add(places.iter().filter(is_lost).count() as u64);
        true
    }

    fn reclaim(&mut self, victim: Victim) {
        let mut draft = Draft::default();
        for resident in &victim.keep {
            if self.keep(&mut draft, resident).is_none() {
                break;
            }
        }
        if !victim.keep.is_empty() {
            self.launch(draft);
            self.drain();
        }
        self.give_up_segment(victim.id, 0);
    }

    /// Removes a segment. Its blocks are evicted, but for `carried` ones that will be written again.
    fn give_up_segment(&mut self, id: SegmentId, carried: u64) {
        self.forget_residents(id);
        let lost = self.core.catalog.write().drop_segment(id);
        self.core.counters.evictions.add(lost.saturating_sub(carried));
        self.core.close(id);
        self.log.note(LogEvent::Drop { writer: id.writer, segment: id.number });
        // Who has not read of it finds no file, which is a miss.
        let _ = self.log.write();
        self.remove(Name::Segment(id));
        // A file that came back after a loss of power could bring an old version of a name with it.
        if self.core.config.durability == Durability::Block
            && self.core.fs.sync_dir(&self.core.config.dir).is_err()
        {
            self.core.counters.io_errors.add(1);
        }
        if id.writer != self.log.me.writer {
            self.bury(id.writer);
        }
    }

    /// The newest version of a name goes: an older one, in a segment that stays, must not come back at the next opening.
    fn forget_residents(&mut self, id: SegmentId) {
        let residents = self.core.catalog.read().residents(id);
        let mut noted = false;
        for resident in residents.into_iter().filter(may_have_been_replaced) {
            let Record { id, sequence, .. } = resident.record;
            self.log.note(LogEvent::Forget { id, sequence: sequence.saturating_add(1) });
            noted = true;
        }
        if noted && self.log.write().is_ok() && self.core.config.durability == Durability::Block {
            // One that fails is counted there, and this process goes on as another writer.
            let _ = self.sync_log();
        }
    }

    /// Writes a block again. `None` when there is no more room to.
    fn keep(&mut self, draft: &mut Draft, resident: &Resident) -> Option<()> {
        let Some(put) = self.read_again(resident) else { return Some(()) };
        if !self.fits(draft, resident.record.bytes()) {
            self.launch(std::mem::take(draft));
            self.finish_segments();
            let limit = self.core.config.target_bytes();
            let (_, used, _) = self.core.catalog.read().owned();
            if used.saturating_add(limit) > self.core.config.capacity_bytes {
                return None;
            }
            self.begin_segment(limit).ok()?;
        }
        self.place(draft, put);
        Some(())
    }

    /// A block as it is to be written again; `None` when it is not to be had.
    fn read_again(&self, resident: &Resident) -> Option<Put> {
        let record = &resident.record;
        let len = usize::try_from(record.meta.len).ok()?;
        let buffer = Buffer::new(len.next_multiple_of(PAGE_BYTES));
        let into: SgList = buffer.part(0, len).into();
        let meta = PutMeta {
            class: record.meta.class,
            tenant: record.meta.tenant,
            on_existing: OnExisting::Replace,
            heat: None,
        };
        self.read_back(record, &into).then(|| Self::move_block(record, &buffer, meta))?
    }

    /// Reads a block that is to be moved; `false` when it is not to be had, or not this one any more.
    fn read_back(&self, record: &Record, into: &SgList) -> bool {
        let core = &self.core;
        let read = crate::read::exactly(core, record, into);
        if !read {
            core.drop_corrupt(record);
        }
        read
    }
}
