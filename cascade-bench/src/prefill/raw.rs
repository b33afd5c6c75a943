//! The tags and slots of an arena's file, mapped a second time.

use std::fs::File;

use cascade_core::sync::AtomicU64;
use cascade_shm::index::{BUCKET_SLOTS, Index};
use cascade_shm::layout::Geometry;
use cascade_shm::slot::Slot;
use memmap2::{MmapOptions, MmapRaw};

/// Tags, and the slots behind them.
#[derive(Debug)]
pub(super) struct Tables {
    map: MmapRaw,
    /// Where slots begin in the mapping.
    slots_at: usize,
    buckets: usize,
}

impl Tables {
    /// Of the arena `file`, made with `geometry`.
    pub(super) fn of(file: &File, geometry: &Geometry) -> std::io::Result<Self> {
        let offsets = geometry.offsets();
        let len = (offsets.summaries - offsets.tags) as usize;
        let map = MmapOptions::new().offset(offsets.tags).len(len).map_raw(file)?;
        let slots_at = (offsets.slots - offsets.tags) as usize;
        let buckets = geometry.buckets as usize;
        let end = slots_at + buckets * BUCKET_SLOTS * size_of::<Slot>();
        assert!(buckets * 8 <= slots_at && end <= len, "the geometry's areas do not overlap");
        Ok(Self { map, slots_at, buckets })
    }

    /// The index in them.
    pub(super) fn index(&self) -> Index<'_> {
        let tags = self.map.as_ptr().cast::<AtomicU64>();
        // SAFETY: mapped and aligned to a page, as long as checked in `of`; atomics are valid for every bit pattern, and all who map
        // the file reach these words as atomics only.
        let tags = unsafe { std::slice::from_raw_parts(tags, self.buckets) };
        // SAFETY: within the mapping (checked in `of`), aligned as areas are to a page; a slot is made of atomics, as above.
        let slots = unsafe {
            let first = self.map.as_ptr().add(self.slots_at).cast::<Slot>();
            std::slice::from_raw_parts(first, self.buckets * BUCKET_SLOTS)
        };
        Index::new(slots, tags)
    }
}
