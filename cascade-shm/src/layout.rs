//! Bytes and offsets of the arena file. Table in docs/format.md.

mod superblock;

use cascade_core::{Error, ErrorKind, Result};

use crate::index::BUCKET_SLOTS;
use crate::slot::Slot;

pub use superblock::{HEAT, KNOWN_FEATURES, MAGIC, MIN_READER, NOTE, OLDEST_READABLE, Superblock, VERSION};

/// Unit of the data area that a digest, and a large block, are aligned to.
pub const CHUNK_BYTES: u64 = 64 * 1024;
/// Unit of small blocks, those of at most one chunk.
pub const PAGE_BYTES: u64 = 4096;
/// The superblock's size in bytes; its digest is in the last eight.
pub const SUPERBLOCK_BYTES: usize = 4096;
/// Where the note begins in the control page, in bytes, and how many words it has with its head.
pub const NOTE_AT: u64 = 1024;
/// Words of the note: to the end of the control page.
pub const NOTE_WORDS: usize = (4096 - NOTE_AT as usize) / 8;
/// Bytes of an owner row.
pub const OWNER_ROW_BYTES: u64 = 128;
/// Bytes of a region's lock line.
pub const REGION_LINE_BYTES: u64 = 64;
/// Ledger entries of a stripe: what one thread uses without meeting another.
pub const STRIPE_ENTRIES: usize = 64;
/// Entries of a stripe that leases and reservations may hold; the others are for evicting, replacing and recovering, which
/// must go on when everything else is held.
pub const STRIPE_LEASES: usize = 56;

const DATA_ALIGN: u64 = 2 << 20;
const MAX_DATA_BYTES: u64 = (1 << 40) * PAGE_BYTES / 2;

/// The numbers that an arena is made with; all offsets follow from them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Bytes of the data area: a multiple of `region_bytes`.
    pub data_bytes: u64,
    /// Bytes of a region: a power of two from 1 MiB to 1 GiB.
    pub region_bytes: u64,
    /// Buckets of eight slots.
    pub buckets: u64,
    /// Owner rows, the last of which is for recovery only.
    pub owners: u64,
    /// Ledger entries of each owner: a multiple of 64.
    pub ledger_entries: u64,
}

/// Where each area begins, in bytes from the start of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offsets {
    /// Shared counters and locks.
    pub control: u64,
    /// Owner rows.
    pub owners: u64,
    /// Ledgers, one run of entries for each owner.
    pub ledgers: u64,
    /// Tag words.
    pub tags: u64,
    /// Slots.
    pub slots: u64,
    /// Region summaries, one word each.
    pub summaries: u64,
    /// Region locks, one line each.
    pub regions: u64,
    /// Bitmaps of used units.
    pub bitmaps: u64,
    /// Slot of each used unit.
    pub residents: u64,
    /// Chunk digests.
    pub digests: u64,
    /// Data.
    pub data: u64,
    /// Length of the file.
    pub total: u64,
}

impl Geometry {
    /// Checks the numbers, wherever they come from.
    ///
    /// # Errors
    /// `Format`, naming the number that cannot be.
    pub fn check(self) -> Result<Self> {
        let bad = |what: &str| {
            Err(Error::new(ErrorKind::Format, format!("arena geometry: {what} is impossible in {self:?}")))
        };
        if !self.region_bytes.is_power_of_two() || !(1 << 20..=1 << 30).contains(&self.region_bytes) {
            return bad("region_bytes");
        }
        if self.data_bytes == 0
            || !self.data_bytes.is_multiple_of(self.region_bytes)
            || self.data_bytes > MAX_DATA_BYTES
        {
            return bad("data_bytes");
        }
        if self.buckets == 0 || self.buckets > (1 << 31) / BUCKET_SLOTS as u64 {
            return bad("buckets");
        }
        if !(2..=0xffff).contains(&self.owners) {
            return bad("owners");
        }
        if self.ledger_entries == 0
            || !self.ledger_entries.is_multiple_of(STRIPE_ENTRIES as u64)
            || self.ledger_entries > 1 << 20
        {
            return bad("ledger_entries");
        }
        Ok(self)
    }

    /// Leases and reservations that an owner can hold at once.
    #[must_use]
    pub fn leases(&self) -> u64 {
        self.ledger_entries / STRIPE_ENTRIES as u64 * STRIPE_LEASES as u64
    }

    /// Number of regions.
    #[must_use]
    pub fn regions(&self) -> usize {
        (self.data_bytes / self.region_bytes) as usize
    }

    /// Words of a region's bitmap: one bit for each 4 KiB.
    #[must_use]
    pub fn bitmap_words(&self) -> usize {
        (self.region_bytes / PAGE_BYTES / 64) as usize
    }

    /// Entries of a region's resident table: one for each 4 KiB.
    #[must_use]
    pub fn resident_entries(&self) -> usize {
        (self.region_bytes / PAGE_BYTES) as usize
    }

    /// Where each area begins.
    #[must_use]
    pub fn offsets(&self) -> Offsets {
        let regions = self.regions() as u64;
        let mut end = 2 * SUPERBLOCK_BYTES as u64;
        let mut area = |bytes: u64| {
            let start = end;
            end = (end + bytes).next_multiple_of(4096);
            start
        };
        let owners = area(self.owners * OWNER_ROW_BYTES);
        let ledgers = area(self.owners * self.ledger_entries * 8);
        let tags = area(self.buckets * 8);
        let slots = area(self.buckets * (BUCKET_SLOTS * size_of::<Slot>()) as u64);
        let summaries = area(regions * 8);
        let locks = area(regions * REGION_LINE_BYTES);
        let bitmaps = area(regions * self.bitmap_words() as u64 * 8);
        let residents = area(regions * self.resident_entries() as u64 * 4);
        let digests = area(self.data_bytes / CHUNK_BYTES * 8);
        let data = end.next_multiple_of(DATA_ALIGN);
        Offsets {
            control: SUPERBLOCK_BYTES as u64,
            owners,
            ledgers,
            tags,
            slots,
            summaries,
            regions: locks,
            bitmaps,
            residents,
            digests,
            data,
            total: data + self.data_bytes,
        }
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn areas_do_not_overlap_and_data_is_aligned() {
        let geometry = Geometry {
            data_bytes: 64 << 20,
            region_bytes: 4 << 20,
            buckets: 128,
            owners: 16,
            ledger_entries: 128,
        };
        let o = geometry.check().unwrap().offsets();
        let starts = [
            o.control,
            o.owners,
            o.ledgers,
            o.tags,
            o.slots,
            o.summaries,
            o.regions,
            o.bitmaps,
            o.residents,
            o.digests,
            o.data,
            o.total,
        ];
        assert!(starts.windows(2).all(|pair| pair[0] < pair[1]), "{starts:?}");
        assert_eq!(o.data % (2 << 20), 0);
    }
}
