//! Capacity: whole segments are given up, and what is worth keeping of them is written again first.

use std::io;

use cascade_core::id::IdKind;
use cascade_core::memory::SgList;
use cascade_core::tier::{Class, OnExisting, PutMeta};

use crate::buffer::Buffer;
use crate::catalog::Resident;
use crate::config::Durability;
use crate::layout::{LogEvent, PAGE_BYTES, Record};
use crate::names::{Name, SegmentId};

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
        let limit = self.core.config.target_bytes() / 4 * 3;
        let catalog = self.core.catalog.read();
        let owned = catalog.segments.iter().filter(|(_, segment)| segment.owned && !segment.writing);
        let victims = owned.map(|(id, segment)| {
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
            let poor = segment.file_bytes.saturating_sub(kept_bytes) < segment.file_bytes / 4;
            Victim { id: *id, keep, lost_prefix, poor, first: segment.first }
        });
        victims.min_by_key(|victim| (victim.lost_prefix > 0, victim.poor, victim.lost_prefix, victim.first))
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
            self.reclaim(Victim { id: *id, keep: Vec::new(), lost_prefix: 0, poor: false, first: 0 });
        }
        !dead.is_empty()
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
        self.forget_residents(victim.id);
        let lost = self.core.catalog.write().drop_segment(victim.id);
        self.core.counters.evictions.add(lost);
        self.core.close(victim.id);
        self.log.note(LogEvent::Drop { writer: victim.id.writer, segment: victim.id.number });
        // Who has not read of it finds no file, which is a miss.
        let _ = self.log.write();
        self.remove(Name::Segment(victim.id));
        // A file that came back after a loss of power could bring an old version of a name with it.
        if self.core.config.durability == Durability::Block
            && self.core.fs.sync_dir(&self.core.config.dir).is_err()
        {
            self.core.counters.io_errors.add(1);
        }
        if victim.id.writer != self.log.me.writer {
            self.bury(victim.id.writer);
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
        let record = &resident.record;
        let len = usize::try_from(record.meta.len).ok()?;
        let buffer = Buffer::new(len.next_multiple_of(PAGE_BYTES));
        let into: SgList = buffer.part(0, len).into();
        if !self.read_back(record, &into) {
            return Some(());
        }
        let meta = PutMeta {
            class: record.meta.class,
            tenant: record.meta.tenant,
            on_existing: OnExisting::Replace,
            heat: None,
        };
        let Some(put) = Self::move_block(record, &buffer, meta) else { return Some(()) };
        if !self.fits(draft, record.bytes()) {
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
