//! Blocks in memory: 64 bytes for each, and an index of 8-byte words over them.
//!
//! Entries stand in pieces of a fixed size, so that growth copies none of them. The index is open addressing over words of 32
//! bits of hash and 32 bits of place: it grows, and answers most misses, without looking at an entry.

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU8, Ordering};

use cascade_core::id::BlockId;
use cascade_core::tier::{BlockMeta, Class};

use super::hash::IdHash;
use crate::layout::{PAGE_BYTES, Record};
use crate::names::SegmentId;

/// Entries of one piece.
const PIECE: usize = 1 << 14;
/// Segment number of an entry that holds no block.
const NONE: u32 = u32::MAX;
/// Words of an index that has to begin somewhere.
const LEAST: usize = 64;

const PREFIX: u8 = 1 << 7;
const REPLACED: u8 = 1 << 6;
/// Fetches, up to 63.
const USED: u8 = REPLACED - 1;

#[derive(Debug)]
struct Entry {
    id: BlockId,
    digest: u64,
    sequence: u64,
    segment: u32,
    /// Offset in pages: of segments up to 16 TiB.
    page: u32,
    /// Payload length less one, 40 bits.
    length: [u8; 5],
    flags: AtomicU8,
    tenant: u16,
}

impl Entry {
    fn empty() -> Self {
        Self {
            id: BlockId::from_bytes([0; 32]),
            digest: 0,
            sequence: 0,
            segment: NONE,
            page: 0,
            length: [0; 5],
            flags: AtomicU8::new(0),
            tenant: 0,
        }
    }

    fn len(&self) -> u64 {
        let mut bytes = [0; 8];
        bytes[..5].copy_from_slice(&self.length);
        u64::from_le_bytes(bytes) + 1
    }

    fn record(&self, home: SegmentId) -> Record {
        let class =
            if self.flags.load(Ordering::Relaxed) & PREFIX == 0 { Class::Ordinary } else { Class::Prefix };
        Record {
            writer: home.writer,
            segment: home.number,
            offset: u64::from(self.page) * PAGE_BYTES as u64,
            sequence: self.sequence,
            id: self.id,
            meta: BlockMeta { len: self.len(), digest: self.digest, class, tenant: self.tenant },
        }
    }
}

/// A block that is there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found<'a> {
    entry: &'a Entry,
    pub(super) home: SegmentId,
}

impl Found<'_> {
    pub(super) fn record(&self) -> Record {
        self.entry.record(self.home)
    }

    pub(super) fn sequence(&self) -> u64 {
        self.entry.sequence
    }

    /// Fetches since it was written, up to 63.
    pub(super) fn used(&self) -> u8 {
        self.entry.flags.load(Ordering::Relaxed) & USED
    }

    /// Whether an older version of it was seen.
    pub(super) fn replaced(&self) -> bool {
        self.entry.flags.load(Ordering::Relaxed) & REPLACED != 0
    }

    /// Counts a fetch. One of two at the same moment may be lost.
    pub(super) fn touch(&self) {
        let flags = self.entry.flags.load(Ordering::Relaxed);
        if flags & USED < USED {
            self.entry.flags.store(flags + 1, Ordering::Relaxed);
        }
    }

    pub(super) fn set_replaced(&self) {
        self.entry.flags.fetch_or(REPLACED, Ordering::Relaxed);
    }
}

/// The table.
#[derive(Debug, Default)]
pub(super) struct Table {
    pieces: Vec<Box<[Entry]>>,
    /// Entries ever used: those behind are empty.
    used: u32,
    free: Vec<u32>,
    /// High half: hash; low half: entry + 1, or 0.
    index: Vec<u64>,
    count: usize,
    homes: Vec<SegmentId>,
    free_homes: Vec<u32>,
    hash: IdHash,
}

fn entry_of(word: u64) -> Option<u32> {
    (word as u32).checked_sub(1)
}

impl Table {
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Bytes of memory for blocks and index.
    pub(super) fn bytes(&self) -> usize {
        self.pieces.len() * PIECE * size_of::<Entry>() + self.index.capacity() * 8 + self.free.capacity() * 4
    }

    /// A number for a segment, by which blocks name it.
    pub(super) fn enter(&mut self, home: SegmentId) -> u32 {
        if let Some(number) = self.free_homes.pop() {
            self.homes[number as usize] = home;
            return number;
        }
        self.homes.push(home);
        (self.homes.len() - 1) as u32
    }

    /// Gives a number back; no block has it any more.
    pub(super) fn leave(&mut self, number: u32) {
        self.free_homes.push(number);
    }

    fn entry(&self, number: u32) -> &Entry {
        &self.pieces[number as usize / PIECE][number as usize % PIECE]
    }

    fn found(&self, number: u32) -> Option<Found<'_>> {
        let entry = self.entry(number);
        let home = *self.homes.get(entry.segment as usize)?;
        Some(Found { entry, home })
    }

    fn hash(&self, id: &BlockId) -> u32 {
        (self.hash.hash_one(id) >> 32) as u32
    }

    /// Where a hash would like to stand. It grows with the hash, so that a larger index has the same order.
    fn ideal(&self, hash: u32) -> usize {
        ((u64::from(hash) * self.index.len() as u64) >> 32) as usize
    }

    fn next(&self, place: usize) -> usize {
        if place + 1 == self.index.len() { 0 } else { place + 1 }
    }

    /// The place of an id in the index.
    fn place(&self, id: &BlockId) -> Option<usize> {
        if self.index.is_empty() {
            return None;
        }
        let hash = self.hash(id);
        let mut place = self.ideal(hash);
        loop {
            let word = self.index[place];
            let number = entry_of(word)?;
            if (word >> 32) as u32 == hash && self.entry(number).id == *id {
                return Some(place);
            }
            place = self.next(place);
        }
    }

    pub(super) fn get(&self, id: &BlockId) -> Option<Found<'_>> {
        self.place(id).and_then(|place| entry_of(self.index[place])).and_then(|number| self.found(number))
    }

    /// Every block's id.
    pub(super) fn ids(&self) -> impl Iterator<Item = BlockId> + '_ {
        let numbers = self.index.iter().filter_map(|word| entry_of(*word));
        numbers.filter_map(|number| self.found(number)).map(|found| found.record().id)
    }

    /// The block of an entry, if it is of this segment.
    pub(super) fn resident(&self, entry: u32, segment: u32) -> Option<Found<'_>> {
        self.found(entry).filter(|found| found.entry.segment == segment)
    }

    /// Makes room in the index for `more` blocks.
    pub(super) fn reserve(&mut self, more: usize) {
        // Two thirds full at most: beyond, a miss looks at many words.
        let needed = (self.count + more) / 2 * 3 + 2;
        if needed > self.index.len() {
            let len = needed.max(self.index.len() / 2 * 3).max(LEAST);
            let old = std::mem::replace(&mut self.index, vec![0; len]);
            old.into_iter().filter(|word| *word != 0).for_each(|word| self.insert_word(word));
        }
    }

    fn insert_word(&mut self, word: u64) {
        let mut place = self.ideal((word >> 32) as u32);
        while self.index[place] != 0 {
            place = self.next(place);
        }
        self.index[place] = word;
    }

    fn new_entry(&mut self) -> u32 {
        if let Some(number) = self.free.pop() {
            return number;
        }
        let number = self.used;
        if number as usize == self.pieces.len() * PIECE {
            self.pieces.push((0..PIECE).map(|_| Entry::empty()).collect());
        }
        self.used += 1;
        number
    }

    /// Adds a block whose id is not there, in the segment with this number. Gives its entry; `None` when the record cannot be
    /// one of a file, or there are too many blocks.
    pub(super) fn insert(&mut self, record: &Record, segment: u32) -> Option<u32> {
        let page = u32::try_from(record.offset / PAGE_BYTES as u64).ok()?;
        let len = record.meta.len.checked_sub(1).filter(|len| *len < 1 << 40)?;
        if self.count >= NONE as usize - 1 {
            return None;
        }
        self.reserve(1);
        let number = self.new_entry();
        let mut length = [0; 5];
        length.copy_from_slice(&len.to_le_bytes()[..5]);
        let flags = if record.meta.class == Class::Prefix { PREFIX } else { 0 };
        self.pieces[number as usize / PIECE][number as usize % PIECE] = Entry {
            id: record.id,
            digest: record.meta.digest,
            sequence: record.sequence,
            segment,
            page,
            length,
            flags: AtomicU8::new(flags),
            tenant: record.meta.tenant,
        };
        self.insert_word(u64::from(self.hash(&record.id)) << 32 | (u64::from(number) + 1));
        self.count += 1;
        Some(number)
    }

    /// Removes a block.
    pub(super) fn remove(&mut self, id: &BlockId) -> Option<Record> {
        let mut hole = self.place(id)?;
        let number = entry_of(self.index[hole])?;
        let record = self.found(number)?.record();
        let entry = &mut self.pieces[number as usize / PIECE][number as usize % PIECE];
        entry.segment = NONE;
        self.free.push(number);
        self.count -= 1;
        // Words behind that would like to stand at the hole or before it move up.
        let mut place = hole;
        loop {
            place = self.next(place);
            let word = self.index[place];
            if word == 0 {
                break;
            }
            let len = self.index.len();
            let ideal = self.ideal((word >> 32) as u32);
            let (way, hole_way) = ((place + len - ideal) % len, (place + len - hole) % len);
            if way >= hole_way {
                self.index[hole] = word;
                hole = place;
            }
        }
        self.index[hole] = 0;
        Some(record)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::layout::WriterId;
    use crate::testing::Random;

    fn record(key: u64, version: u64) -> Record {
        let meta = BlockMeta {
            len: 1 + (key * 7919 + version) % (1 << 40),
            digest: key ^ version << 32,
            class: if version.is_multiple_of(3) { Class::Prefix } else { Class::Ordinary },
            tenant: (key % 65_536) as u16,
        };
        let (writer, segment) = (WriterId([(key % 7) as u8; 16]), key % 11);
        let offset = (1 + version % 4_000_000_000) * 4096;
        Record { writer, segment, offset, sequence: version, id: BlockId::named(&key.to_string()), meta }
    }

    #[test]
    fn a_block_takes_64_bytes() {
        assert_eq!(size_of::<Entry>(), 64);
        let mut table = Table::default();
        let home = table.enter(SegmentId { writer: WriterId([1; 16]), number: 1 });
        for key in 0..200_000 {
            assert!(table.insert(&record(key, 1), home).is_some());
        }
        let each = table.bytes() / table.len();
        assert!(each <= 88, "{each} bytes for each block");
    }

    #[test]
    fn it_holds_what_a_map_holds() {
        let (mut table, mut map, mut random) = (Table::default(), HashMap::new(), Random::new(5));
        let mut numbers = HashMap::new();
        for version in 1..60_000 {
            let key = random.below(3000);
            let id = BlockId::named(&key.to_string());
            if random.once_in(2) {
                assert_eq!(table.remove(&id), map.remove(&id));
            } else if let std::collections::hash_map::Entry::Vacant(place) = map.entry(id) {
                let record = record(key, version * 77_777);
                let home = SegmentId { writer: record.writer, number: record.segment };
                let number = *numbers.entry(home).or_insert_with(|| table.enter(home));
                let entry = table.insert(&record, number).unwrap();
                assert!(
                    table.resident(entry, number).is_some() && table.resident(entry, number + 1).is_none()
                );
                place.insert(record);
            }
            assert_eq!(table.get(&id).map(|found| found.record()), map.get(&id).copied());
            assert_eq!(table.len(), map.len());
        }
        for (id, record) in &map {
            assert_eq!(table.get(id).map(|found| found.record()), Some(*record));
        }
    }

    #[test]
    fn uses_are_counted_up_to_a_bound_and_nothing_else_changes() {
        let mut table = Table::default();
        let record = record(1, 3);
        let home = table.enter(SegmentId { writer: record.writer, number: record.segment });
        table.insert(&record, home);
        (0..100).for_each(|_| table.get(&record.id).unwrap().touch());
        let found = table.get(&record.id).unwrap();
        assert_eq!((found.used(), found.replaced(), found.record()), (63, false, record));
        found.set_replaced();
        assert_eq!((found.used(), found.replaced(), found.record()), (63, true, record));
        let far = Record { offset: 1 << 50, ..record };
        assert_eq!(table.insert(&Record { id: BlockId::named("far"), ..far }, home), None);
    }
}
