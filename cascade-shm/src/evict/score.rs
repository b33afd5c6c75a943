//! What a block is worth keeping.

use cascade_core::tier::Class;

use crate::slot::{Slot, TOUCH_MODULUS, Word};

/// Prefix blocks are worth more than any ordinary block.
const PREFIX: f64 = 1e6;
/// A block that was never used again is worth this share of one that was: a scan passes through without displacing anything.
const NEVER_USED: f64 = 1.0 / 256.0;

/// A block that a tier below has too is worth this share of one that would be lost.
const KEPT: f64 = 1.0 / 64.0;

/// Worth of the block in `slot` at time `now`: uses by age, where a 64th of the arena written is one unit of age.
pub fn worth(slot: &Slot, word: Word, now: u64) -> f64 {
    let (uses, touched) = slot.heat();
    let age = now.wrapping_sub(touched) % TOUCH_MODULUS;
    let uses = if uses == 0 { NEVER_USED } else { uses as f64 };
    let class = if word.class() == Class::Prefix { PREFIX } else { 1.0 };
    let kept = if slot.is_kept() { KEPT } else { 1.0 };
    class * kept * uses / (age as f64 + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slot::{Below, Extent, State};

    fn block(class: Class, touched: u64, uses: u64) -> (Slot, Word) {
        let slot = Slot::default();
        slot.set_extent(Extent { offset: 0, len: 1 }, 0, touched);
        for tick in 0..uses {
            slot.touch(touched + tick);
        }
        (slot, Word::new(State::Sealed, class, 0, 1))
    }

    fn worth_of((slot, word): &(Slot, Word), now: u64) -> f64 {
        worth(slot, *word, now)
    }

    #[test]
    fn a_scan_does_not_displace_what_was_used_again() {
        let used = block(Class::Ordinary, 0, 1);
        let fresh = block(Class::Ordinary, 200, 0);
        assert!(worth_of(&used, 200) > worth_of(&fresh, 200));
        assert!(worth_of(&used, 300) < worth_of(&block(Class::Ordinary, 300, 0), 300), "but not for ever");
    }

    #[test]
    fn what_a_tier_below_has_goes_before_what_would_be_lost() {
        let (kept, alone) = (block(Class::Ordinary, 50, 1), block(Class::Ordinary, 0, 1));
        kept.0.set_below(Below::Kept);
        assert!(worth_of(&kept, 50) < worth_of(&alone, 50));
    }

    #[test]
    fn older_goes_before_newer_and_ordinary_before_prefix() {
        assert!(worth_of(&block(Class::Ordinary, 1, 0), 9) < worth_of(&block(Class::Ordinary, 5, 0), 9));
        assert!(worth_of(&block(Class::Prefix, 0, 0), 900) > worth_of(&block(Class::Ordinary, 890, 9), 900));
    }
}
