//! Ledger entries: what an owner holds. A pin is an entry in its holder's own row; slots hold no pin count.

use cascade_core::planted::{self, Bug};
use cascade_core::sync::{AtomicU64, Ordering, fence};

const INTENT: u64 = 1 << 63;
const REPLACING: u64 = 1 << 62;

/// One value of a ledger entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry(u64);

impl Entry {
    /// Nothing held.
    pub const EMPTY: Self = Self(0);

    /// A pin of the block in `slot`.
    #[must_use]
    pub fn pin(slot: u32) -> Self {
        Self(u64::from(slot) + 1)
    }

    /// A note, made before it is done, that the holder is about to own `slot`: what recovery looks at.
    #[must_use]
    pub fn intent(slot: u32) -> Self {
        Self(u64::from(slot) + 1 | INTENT)
    }

    /// An intent to hide `slot` for good, because another slot takes its place. Recovery must not bring it back: the other
    /// may have been seen.
    #[must_use]
    pub fn replacing(slot: u32) -> Self {
        Self(u64::from(slot) + 1 | INTENT | REPLACING)
    }

    /// An entry as the file has it.
    #[must_use]
    pub fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The slot, if the entry holds one.
    #[must_use]
    pub fn slot(self) -> Option<u32> {
        u32::try_from((self.0 & !(INTENT | REPLACING)).checked_sub(1)?).ok()
    }

    /// Whether this is a pin.
    #[must_use]
    pub fn is_pin(self) -> bool {
        self.0 != 0 && self.0 & INTENT == 0
    }

    /// Reads an entry, ordered after what its holder did before clearing it.
    #[inline]
    pub fn load(cell: &AtomicU64) -> Self {
        Self(cell.load(Ordering::Acquire))
    }

    /// Writes an entry, ordered after what the holder did under the old one.
    #[inline]
    pub fn store(self, cell: &AtomicU64) {
        cell.store(self.0, Ordering::Release);
    }
}

/// Announces a pin: the entry is globally visible before anything read after this. The caller then looks at the slot again.
#[inline]
pub fn announce_pin(cell: &AtomicU64, slot: u32) {
    Entry::pin(slot).store(cell);
    // Pairs with the evictor's fence: either it sees this entry, or we see its state change.
    if !planted::is(Bug::NoPinFence) {
        fence(Ordering::SeqCst);
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn entries_say_what_they_are() {
        assert_eq!(Entry::EMPTY.slot(), None);
        assert!(!Entry::EMPTY.is_pin());
        for slot in [0, 1, u32::MAX] {
            assert_eq!(Entry::pin(slot).slot(), Some(slot));
            assert!(Entry::pin(slot).is_pin() && !Entry::intent(slot).is_pin());
            assert_eq!(Entry::intent(slot).slot(), Some(slot));
            assert!(!Entry::replacing(slot).is_pin() && Entry::replacing(slot) != Entry::intent(slot));
            assert_eq!(Entry::replacing(slot).slot(), Some(slot));
        }
    }
}
