//! Every block against its digests, while others work.

use std::ops::Range;
use std::sync::Arc;

use cascade_core::digest;
use cascade_core::id::BlockId;
use cascade_core::lease::LeaseHome;
use cascade_core::sync::Ordering;

use super::Arena;
use crate::layout::CHUNK_BYTES;
use crate::protocol::{self, Pin};
use crate::session::Stripe;
use crate::slot::{Extent, State};

/// What became of one slot's block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scrub {
    /// Its bytes match its digests.
    Sound,
    /// They do not; it was left as it is.
    Damaged,
    /// They do not, and it was dropped: a miss from now on.
    Dropped,
    /// It could not be pinned: this handle holds as many leases as it may.
    Skipped,
}

/// A block that was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scrubbed {
    /// Its id.
    pub id: BlockId,
    /// Its slot.
    pub slot: u32,
    /// Its payload in bytes.
    pub bytes: u64,
    /// What was found.
    pub found: Scrub,
}

impl Arena {
    /// Slots of the index, for [`Arena::scrub`].
    #[must_use]
    pub fn slot_count(&self) -> usize {
        self.inner.map.slots().len()
    }

    /// Compares every visible block of `slots` with its digests, each under a pin of its own, and hands it to `seen`, which
    /// answers whether to go on. With `repair`, damaged blocks are dropped. Use and age of blocks are left as they are.
    /// `false` when `seen` ended it, or this handle cannot join the arena.
    pub fn scrub(&self, slots: Range<usize>, repair: bool, seen: &mut dyn FnMut(&Scrubbed) -> bool) -> bool {
        let Some(stripe) = self.stripe() else { return false };
        slots.into_iter().all(|slot| scrub_slot(&stripe, slot as u32, repair).is_none_or(|one| seen(&one)))
    }
}

/// `None` when no block is visible there.
fn scrub_slot(stripe: &Arc<Stripe>, number: u32, repair: bool) -> Option<Scrubbed> {
    let index = stripe.core().index();
    let slot = index.slot(number)?;
    let word = slot.word();
    if word.state() != State::Sealed {
        return None;
    }
    let Some(cell) = stripe.take() else {
        let bytes = slot.extent().map_or(0, |extent| extent.len);
        return Some(Scrubbed { id: slot.id(), slot: number, bytes, found: Scrub::Skipped });
    };
    match protocol::pin(&index, number, word, cell.entry()) {
        Pin::Held => {}
        Pin::Gone => return None,
        Pin::Reclaim(retired) => {
            crate::evict::reclaim_retired(stripe, number, retired, cell);
            return None;
        }
    }
    let (id, extent) = (slot.id(), slot.extent());
    let sound = extent.is_some_and(|extent| is_sound(stripe, &id, slot.root(), extent));
    if sound {
        slot.set_verified(stripe.core().epoch());
    }
    stripe.release(cell.keep());
    let found = match (sound, repair) {
        (true, _) => Scrub::Sound,
        (false, false) => Scrub::Damaged,
        (false, true) => {
            super::ops::drop_corrupt(stripe, number, word);
            Scrub::Dropped
        }
    };
    Some(Scrubbed { id, slot: number, bytes: extent.map_or(0, |extent| extent.len), found })
}

fn is_sound(stripe: &Stripe, id: &BlockId, root: u64, extent: Extent) -> bool {
    let map = stripe.core().map();
    let Some(memory) = map.block(extent) else { return false };
    let digests = memory.digests();
    let is_root = digest::root(id.as_bytes(), extent.len, digests.iter().copied()) == root;
    // The digests of a block of one chunk are not kept.
    let first = (extent.offset / CHUNK_BYTES) as usize;
    let kept = map.digests().get(first..first + digests.len());
    let are_kept =
        || kept.is_some_and(|kept| kept.iter().zip(&digests).all(|(a, b)| a.load(Ordering::Relaxed) == *b));
    is_root && (extent.len <= CHUNK_BYTES || are_kept())
}
