//! The memory of a model: areas on the heap, because the atomics of loom and shuttle are larger than those they stand for.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::AtomicU64 as Bytes;

use cascade_core::sync::{AtomicU32, AtomicU64};

use super::mapped::Control;
use crate::index::BUCKET_SLOTS;
use crate::layout::{CHUNK_BYTES, Geometry};
use crate::lock::Lock;
use crate::owner::OwnerRow;
use crate::slot::Slot;

/// As a mapping's.
#[derive(Clone, Copy, Debug)]
pub(super) enum Advice {
    HugePage,
    Populate,
    Collapse,
}

/// What stands for a mapping: each area by its offset in the file, and the data.
pub(super) struct Memory {
    areas: BTreeMap<u64, Box<dyn Any + Send + Sync>>,
    data: Vec<Bytes>,
}

impl Memory {
    pub(super) fn new(geometry: &Geometry) -> Self {
        let data = (0..geometry.data_bytes / 8).map(|_| Bytes::new(0)).collect();
        let mut memory = Self { areas: BTreeMap::new(), data };
        let offsets = geometry.offsets();
        memory.add::<Control>(offsets.control, 1);
        memory.add::<OwnerRow>(offsets.owners, geometry.owners as usize);
        for row in 0..geometry.owners {
            let entries = geometry.ledger_entries;
            memory.add::<AtomicU64>(offsets.ledgers + row * entries * 8, entries as usize);
        }
        memory.add::<AtomicU64>(offsets.tags, geometry.buckets as usize);
        memory.add::<Slot>(offsets.slots, geometry.buckets as usize * BUCKET_SLOTS);
        memory.add::<AtomicU64>(offsets.summaries, geometry.regions());
        memory.add::<Lock>(offsets.regions, geometry.regions());
        let (words, entries) = (geometry.bitmap_words(), geometry.resident_entries());
        for region in 0..geometry.regions() {
            memory.add::<AtomicU64>(offsets.bitmaps + (region * words * 8) as u64, words);
            memory.add::<AtomicU32>(offsets.residents + (region * entries * 4) as u64, entries);
        }
        memory.add::<AtomicU64>(offsets.digests, (geometry.data_bytes / CHUNK_BYTES) as usize);
        memory
    }

    fn add<T: Default + Send + Sync + 'static>(&mut self, offset: u64, count: usize) {
        let area: Vec<T> = (0..count).map(|_| T::default()).collect();
        self.areas.insert(offset, Box::new(area));
    }

    /// The area at `offset`, which has `count` entries.
    pub(super) fn view<T: 'static>(&self, offset: u64, count: usize) -> &[T] {
        let area = self.areas.get(&offset).and_then(|area| area.downcast_ref::<Vec<T>>());
        let area = area.map_or(&[] as &[T], Vec::as_slice);
        assert_eq!(area.len(), count, "the model has every area of the file");
        area
    }

    /// Does nothing: the pages of a model all exist.
    pub(super) fn advise(&self, _advice: Advice, _offset: usize, _len: usize) -> std::io::Result<()> {
        Ok(())
    }

    /// First byte of the data area.
    pub(super) fn data(&self) -> *mut u8 {
        // Atomics may be written through a shared reference.
        self.data.as_ptr().cast_mut().cast()
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").field("areas", &self.areas.keys()).finish()
    }
}
