//! Which blocks there are and where: derived from logs, footers and headers, kept in memory.

mod hash;
mod table;

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cascade_core::id::BlockId;
use cascade_core::tier::{Class, Lookup, MissReason};

use crate::layout::{Record, WriterId};
use crate::names::SegmentId;
use crate::read::Asked;
use hash::IdHash;
use table::Table;

/// Forgets are kept for blocks that a log read later may still name.
const FORGET_AFTER: Duration = Duration::from_secs(600);
/// Forgets kept before the old ones are looked for.
const FORGETS: usize = 1 << 16;

/// Sequences are multiples of this; what is added counts how often a block was moved, so that a copy is newer than what it was
/// copied from and older than any later put or forget of its id.
const MOVES: u64 = 1024;

/// The sequence of a block with sequence `sequence` that is moved once more; `None` when it was moved too often.
pub(crate) fn moved(sequence: u64) -> Option<u64> {
    let next = sequence.checked_add(1)?;
    (!next.is_multiple_of(MOVES)).then_some(next)
}

/// Nanoseconds since 1970.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// What is known of a segment.
#[derive(Debug, Default)]
pub(crate) struct Segment {
    /// Its number in the table, and the entries of the blocks that were put there.
    number: Option<u32>,
    entries: Vec<u32>,
    /// Bytes of the records that are visible.
    pub(crate) live_bytes: u64,
    /// Bytes of the file; while it is being written, of the file as it is meant to become.
    pub(crate) file_bytes: u64,
    /// Counts against this writer's capacity, and may be reclaimed.
    pub(crate) owned: bool,
    /// Is written by this process, or not closed yet.
    pub(crate) writing: bool,
    /// Has its footer.
    pub(crate) closed: bool,
    /// Smallest sequence in it, 0 while unknown.
    pub(crate) first: u64,
    /// End of the records known, in bytes from the start of the file.
    pub(crate) known_to: u64,
}

/// A block of a segment that is to be reclaimed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Resident {
    pub(crate) record: Record,
    pub(crate) used: u8,
    /// An older version of it may be in a segment yet.
    pub(crate) replaced: bool,
}

impl Resident {
    /// Whether it is worth being written again.
    pub(crate) fn worthy(&self) -> bool {
        self.used > 0 || self.record.meta.class == Class::Prefix
    }
}

#[derive(Debug, Default)]
pub(crate) struct Catalog {
    blocks: Table,
    forgotten: HashMap<BlockId, u64, IdHash>,
    pub(crate) segments: HashMap<SegmentId, Segment, IdHash>,
    dropped: HashSet<SegmentId, IdHash>,
    /// What is being written, and who waits to fetch it.
    pending: HashMap<BlockId, Vec<Asked>, IdHash>,
    sequence: u64,
}

fn home(record: &Record) -> SegmentId {
    SegmentId { writer: record.writer, number: record.segment }
}

impl Catalog {
    /// The next sequence of this writer: larger than any seen.
    pub(crate) fn next_sequence(&mut self) -> u64 {
        let next = now().max(self.sequence.saturating_add(1));
        self.sequence = next.checked_next_multiple_of(MOVES).unwrap_or(u64::MAX);
        self.sequence
    }

    pub(crate) fn lookup(&self, id: &BlockId) -> Lookup {
        match self.find(id) {
            Some(record) => Lookup::Hit(record.meta),
            None if self.pending.contains_key(id) => Lookup::Pending,
            None => Lookup::Miss(MissReason::Absent),
        }
    }

    pub(crate) fn find(&self, id: &BlockId) -> Option<Record> {
        self.blocks.get(id).map(|block| block.record())
    }

    /// Counts a fetch.
    pub(crate) fn touch(&self, id: &BlockId) {
        if let Some(block) = self.blocks.get(id) {
            block.touch();
        }
    }

    /// Makes room for `more` blocks at once.
    pub(crate) fn reserve(&mut self, more: usize) {
        self.blocks.reserve(more);
    }

    /// Bytes of memory for what is known of blocks.
    pub(crate) fn bytes(&self) -> usize {
        let entries = self.segments.values().map(|segment| segment.entries.capacity() * 4);
        let segments = self.segments.capacity() * (size_of::<Segment>() + size_of::<SegmentId>());
        self.blocks.bytes() + entries.sum::<usize>() + segments
    }

    /// Marks `id` as being written; `false` when it is already.
    pub(crate) fn begin(&mut self, id: &BlockId) -> bool {
        match self.pending.entry(*id) {
            Entry::Occupied(_) => false,
            Entry::Vacant(place) => {
                place.insert(Vec::new());
                true
            }
        }
    }

    /// Whether `id` is being written.
    pub(crate) fn is_pending(&self, id: &BlockId) -> bool {
        self.pending.contains_key(id)
    }

    /// The write of `id` has ended; gives back who waits for it.
    #[must_use]
    pub(crate) fn end(&mut self, id: &BlockId) -> Vec<Asked> {
        self.pending.remove(id).unwrap_or_default()
    }

    /// The block, or nothing where `asked` waits now for the end of its write; else `asked` again.
    pub(crate) fn find_or_wait(&mut self, asked: Asked) -> Result<Option<(Asked, Record)>, Asked> {
        match (self.find(&asked.id), self.pending.get_mut(&asked.id)) {
            (Some(record), _) => Ok(Some((asked, record))),
            (None, Some(waiting)) => {
                waiting.push(asked);
                Ok(None)
            }
            (None, None) => Err(asked),
        }
    }

    pub(crate) fn ids(&self) -> Vec<BlockId> {
        self.blocks.ids().collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Takes note of a block. One that is forgotten, or older than what is known, changes nothing.
    pub(crate) fn put(&mut self, record: Record) {
        self.sequence = self.sequence.max(record.sequence);
        let place = home(&record);
        if self.dropped.contains(&place) {
            return;
        }
        let segment = self.segments.entry(place).or_default();
        let end = record.offset.saturating_add(record.bytes());
        segment.known_to = segment.known_to.max(end);
        segment.file_bytes = segment.file_bytes.max(end);
        segment.first = if segment.first == 0 { record.sequence } else { segment.first.min(record.sequence) };
        let forgotten = self.forgotten.get(&record.id).is_some_and(|at| *at > record.sequence);
        if forgotten {
            return;
        }
        let mut replaced = false;
        if let Some(block) = self.blocks.get(&record.id) {
            if block.sequence() >= record.sequence {
                if block.sequence() > record.sequence {
                    block.set_replaced();
                }
                return;
            }
            replaced = true;
        }
        if replaced {
            self.take(&record.id);
        }
        self.place(record, place, replaced);
    }

    fn place(&mut self, record: Record, place: SegmentId, replaced: bool) {
        let segment = self.segments.entry(place).or_default();
        let number = *segment.number.get_or_insert_with(|| self.blocks.enter(place));
        // A record that no file can hold is left out.
        let Some(entry) = self.blocks.insert(&record, number) else { return };
        segment.entries.push(entry);
        segment.live_bytes += record.bytes();
        if replaced && let Some(block) = self.blocks.get(&record.id) {
            block.set_replaced();
        }
    }

    /// Takes a block out.
    fn take(&mut self, id: &BlockId) {
        if let Some(record) = self.blocks.remove(id)
            && let Some(segment) = self.segments.get_mut(&home(&record))
        {
            segment.live_bytes = segment.live_bytes.saturating_sub(record.bytes());
        }
    }

    /// Forgets what there is of `id` with a smaller sequence; whether something was visible.
    pub(crate) fn forget(&mut self, id: &BlockId, sequence: u64) -> bool {
        self.sequence = self.sequence.max(sequence);
        let newest = self.forgotten.entry(*id).or_default();
        *newest = sequence.max(*newest);
        let gone = self.blocks.get(id).is_some_and(|block| block.sequence() < sequence);
        if gone {
            self.take(id);
        }
        if self.forgotten.len() > FORGETS {
            self.prune();
        }
        gone
    }

    fn prune(&mut self) {
        let recent = now().saturating_sub(u64::try_from(FORGET_AFTER.as_nanos()).unwrap_or(u64::MAX));
        self.forgotten.retain(|_, sequence| *sequence > recent);
    }

    /// Whether a forget of this sequence may still hide something in a segment that exists.
    pub(crate) fn hides(&self, sequence: u64) -> bool {
        self.segments.values().any(|segment| segment.first < sequence)
    }

    /// Removes the block, if it still is this one.
    pub(crate) fn remove(&mut self, record: &Record) -> bool {
        let is_it = self.find(&record.id).as_ref() == Some(record);
        if is_it {
            self.take(&record.id);
        }
        is_it
    }

    /// The visible blocks of a segment, in the order in which they were put there.
    pub(crate) fn residents(&self, id: SegmentId) -> Vec<Resident> {
        let Some(segment) = self.segments.get(&id) else { return Vec::new() };
        let Some(number) = segment.number else { return Vec::new() };
        let blocks = segment.entries.iter().filter_map(|entry| self.blocks.resident(*entry, number));
        let of = |block: table::Found<'_>| Resident {
            record: block.record(),
            used: block.used(),
            replaced: block.replaced(),
        };
        let mut residents: Vec<Resident> = blocks.map(of).collect();
        // An entry that came back to its segment stands there twice.
        residents.sort_by_key(|resident| resident.record.offset);
        residents.dedup_by_key(|resident| resident.record.offset);
        residents
    }

    /// Forgets a segment for good; gives the blocks that went with it.
    pub(crate) fn drop_segment(&mut self, id: SegmentId) -> u64 {
        let gone = self.residents(id);
        for resident in &gone {
            self.blocks.remove(&resident.record.id);
        }
        if let Some(number) = self.segments.remove(&id).and_then(|segment| segment.number) {
            self.blocks.leave(number);
        }
        self.dropped.insert(id);
        gone.len() as u64
    }

    /// Segments of this writer's and those that it adopted: number and bytes of the files, bytes of the visible records.
    pub(crate) fn owned(&self) -> (u64, u64, u64) {
        let owned = self.segments.values().filter(|segment| segment.owned);
        owned.fold((0, 0, 0), |(n, file, live), s| (n + 1, file + s.file_bytes, live + s.live_bytes))
    }

    /// Segments of one writer.
    pub(crate) fn segments_of(&self, writer: WriterId) -> Vec<SegmentId> {
        self.segments.keys().filter(|id| id.writer == writer).copied().collect()
    }

    /// Whether a segment is known to be removed.
    pub(crate) fn is_dropped(&self, id: SegmentId) -> bool {
        self.dropped.contains(&id)
    }
}
