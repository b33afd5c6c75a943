//! Counts over slots and regions.

use cascade_core::Result;
use cascade_core::tier::Class;

use super::Inspection;
use crate::index::BUCKET_SLOTS;
use crate::region::Kind;
use crate::slot::{Slot, State};

/// Visible blocks of one class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClassCount {
    /// Blocks.
    pub blocks: u64,
    /// Their payload in bytes.
    pub payload_bytes: u64,
}

/// Slots by what they do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotCount {
    /// Slots in all.
    pub total: u64,
    /// Slots in each state; the number of a state is its place.
    pub states: [u64; 10],
    /// Visible blocks of class ordinary.
    pub ordinary: ClassCount,
    /// Visible blocks of class prefix.
    pub prefix: ClassCount,
    /// Visible blocks whose bytes were compared with their digest in the epoch of now: since a process died over the arena, or
    /// nobody watched over it.
    pub verified: u64,
    /// Buckets without a free slot: a put of an id whose two buckets are full evicts one of their blocks.
    pub full_buckets: u64,
    /// Payload bytes of blocks that were given up while hardware could still write to them, and are kept out of use.
    pub quarantined_bytes: u64,
}

/// Regions by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RegionCount {
    /// Their pages do not exist yet.
    pub not_ready: u64,
    /// Without a block.
    pub empty: u64,
    /// With blocks of at most 64 KiB.
    pub small: u64,
    /// With larger blocks.
    pub large: u64,
}

impl SlotCount {
    /// Slots in `state`.
    #[must_use]
    pub fn state(&self, state: State) -> u64 {
        self.states[state as usize]
    }

    fn add(&mut self, slot: &Slot, epoch: u8) {
        let word = slot.word();
        let len = slot.extent().map_or(0, |extent| extent.len);
        self.total += 1;
        self.states[word.state() as usize] += 1;
        match word.state() {
            // A block that is being evicted may yet stay; until then it is not served.
            State::Sealed => {
                let class = if word.class() == Class::Prefix { &mut self.prefix } else { &mut self.ordinary };
                class.blocks += 1;
                class.payload_bytes += len;
                self.verified += u64::from(slot.verified_epoch() == epoch);
            }
            State::Freeing => self.quarantined_bytes += len,
            _ => {}
        }
    }
}

impl Inspection {
    pub(super) fn count_slots(&self, epoch: u8) -> Result<SlotCount> {
        let geometry = self.superblock.geometry;
        let mut count = SlotCount::default();
        let bytes = geometry.buckets * (BUCKET_SLOTS * size_of::<Slot>()) as u64;
        self.read(geometry.offsets().slots, bytes, |step| {
            for bucket in step.as_chunks::<64>().0.chunks(BUCKET_SLOTS) {
                let free = count.state(State::Free);
                for bytes in bucket {
                    count.add(&Slot::from_bytes(bytes), epoch);
                }
                count.full_buckets += u64::from(count.state(State::Free) == free);
            }
        })?;
        Ok(count)
    }

    /// Regions by kind, and the bytes in use in the `ready` ones.
    pub(super) fn count_regions(&self, ready: u64) -> Result<(RegionCount, u64)> {
        let geometry = self.superblock.geometry;
        let (offsets, regions) = (geometry.offsets(), geometry.regions() as u64);
        let mut count = RegionCount { not_ready: regions - ready, ..RegionCount::default() };
        let summaries = self.words(offsets.summaries, ready)?;
        let words = geometry.bitmap_words() as u64;
        let mut used_bytes = 0;
        for (region, summary) in summaries.into_iter().enumerate() {
            let kind = Kind::from_summary(summary);
            *match kind {
                Kind::NotReady => &mut count.not_ready,
                Kind::Empty => &mut count.empty,
                Kind::Small => &mut count.small,
                Kind::Large => &mut count.large,
            } += 1;
            if matches!(kind, Kind::Small | Kind::Large) {
                let bitmap = self.words(offsets.bitmaps + region as u64 * words * 8, words)?;
                let units: u64 = bitmap.iter().map(|word| u64::from(word.count_ones())).sum();
                used_bytes += units * kind.unit_bytes();
            }
        }
        Ok((count, used_bytes))
    }
}
