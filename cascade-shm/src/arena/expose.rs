//! An arena as memory that others read without its taking part: where blocks lie in the file, and what a slot says that was read from
//! there.

use cascade_core::id::BlockId;
use cascade_core::sync::{Ordering, fence};
use cascade_core::tier::BlockMeta;

use super::Arena;
use crate::index::{Found, Index};
use crate::seal::meta_of;
use crate::slot::{Slot, State, Word};

/// A visible block, by its place in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exposed {
    /// Length, digest, class and tenant.
    pub meta: BlockMeta,
    /// Number of its slot.
    pub slot: u32,
    /// How many blocks that slot has held.
    pub generation: u64,
    /// First byte of the payload, from the start of the file: a multiple of 4 KiB.
    pub offset: u64,
}

/// Whether a slot that was read out of an arena says that `id` is visible in it, in this generation.
#[must_use]
pub fn is_visible(slot: &[u8; 64], id: &BlockId, generation: u64) -> bool {
    let slot = Slot::from_bytes(slot);
    let word = slot.word();
    // One that somebody looks for pins of may be gone in a moment, as any may.
    matches!(word.state(), State::Sealed | State::Evicting)
        && word.generation() == generation
        && slot.id() == *id
}

impl Arena {
    /// Where a visible block lies.
    #[must_use]
    pub fn exposed(&self, id: &BlockId) -> Option<Exposed> {
        let index = Index::new(self.inner.map.slots(), self.inner.map.tags());
        match index.find(&index.key(id)) {
            Found::Sealed(slot, word) => self.expose(slot, word),
            _ => None,
        }
    }

    /// Where the slots begin, in bytes from the start of the file; each has 64.
    #[must_use]
    pub fn slots_at(&self) -> u64 {
        self.inner.map.geometry().offsets().slots
    }

    /// Blocks that became visible since the last call with the same `seen`, which begins empty and is as long as the index after
    /// that. Looks at every slot: a millisecond for some hundred thousand.
    pub fn news(&self, seen: &mut Vec<u64>, found: &mut dyn FnMut(BlockId, Exposed)) {
        let slots = self.inner.map.slots();
        seen.resize(slots.len(), 0);
        for (number, (slot, seen)) in slots.iter().zip(seen).enumerate() {
            let word = slot.word();
            // Never 0, which stands for nothing seen.
            let mark = word.generation() << 1 | 1;
            if word.state() != State::Sealed || *seen == mark {
                continue;
            }
            let id = slot.id();
            if let Some(exposed) = self.expose(number as u32, word) {
                *seen = mark;
                found(id, exposed);
            }
        }
    }

    /// What a slot says; `None` when it became another's while it was read.
    fn expose(&self, number: u32, word: Word) -> Option<Exposed> {
        let slot = self.inner.map.slots().get(number as usize)?;
        let (meta, extent) = (meta_of(slot, word)?, slot.extent()?);
        fence(Ordering::Acquire);
        let data = self.inner.map.geometry().offsets().data;
        let (generation, offset) = (word.generation(), data + extent.offset);
        (slot.word().generation() == generation).then_some(Exposed { meta, slot: number, generation, offset })
    }
}
