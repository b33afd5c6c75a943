//! What a slot notes of copies in the tiers below: two bits of its place, which go with its extent.

use cascade_core::sync::Ordering;

use super::Slot;

/// A tier below has the block too.
const KEPT: u64 = 1 << 62;
/// The block came up from a tier below.
const RISEN: u64 = 1 << 63;

/// What is noted of a block and the tiers below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Below {
    /// No tier below is known to have it.
    Absent,
    /// A tier below has a copy: evicting the block loses nothing.
    Kept,
    /// It was brought up from a tier below, which has it still.
    Risen,
}

impl Slot {
    /// Whether a tier below has the block too.
    #[inline]
    pub fn is_kept(&self) -> bool {
        self.place.load(Ordering::Relaxed) & KEPT != 0
    }

    /// Whether the block came up from a tier below.
    #[inline]
    pub fn is_risen(&self) -> bool {
        self.place.load(Ordering::Relaxed) & RISEN != 0
    }

    /// Notes where else the block is. The caller pins it, so that the extent stays. That it once came up stays noted.
    pub fn set_below(&self, below: Below) {
        let mut old = self.place.load(Ordering::Relaxed);
        loop {
            let new = match below {
                Below::Absent => old & !KEPT,
                Below::Kept => old | KEPT,
                Below::Risen => old | KEPT | RISEN,
            };
            match self.place.compare_exchange(old, new, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => old = now,
            }
        }
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::slot::Extent;

    #[test]
    fn notes_leave_the_rest_of_the_word_alone_and_go_with_the_extent() {
        let slot = Slot::default();
        let extent = Extent { offset: 4096 * ((1 << 40) - 2), len: 5 };
        slot.set_extent(extent, 0xffff, 7);
        slot.set_verified(63);
        assert!(!slot.is_kept() && !slot.is_risen());
        slot.set_below(Below::Kept);
        assert!(slot.is_kept() && !slot.is_risen());
        slot.set_below(Below::Risen);
        slot.set_below(Below::Absent);
        assert!(!slot.is_kept() && slot.is_risen());
        assert_eq!((slot.extent(), slot.tenant(), slot.verified_epoch()), (Some(extent), 0xffff, 63));
        slot.set_below(Below::Kept);
        slot.set_verified(5);
        assert!(slot.is_kept() && slot.verified_epoch() == 5);
        slot.set_extent(extent, 0, 0);
        assert!(!slot.is_kept() && !slot.is_risen());
    }
}
