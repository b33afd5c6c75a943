//! The slot: one cache line that says all of a block. Byte table in docs/format.md.

mod below;
mod past;

use cascade_core::id::BlockId;
use cascade_core::planted::{self, Bug};
use cascade_core::sync::{AtomicU64, Ordering, fence};
use cascade_core::tier::Class;

pub use below::Below;
pub use past::{Meaning, Now};

/// Offsets are stored in units of this many bytes.
pub const OFFSET_UNIT: u64 = 4096;
/// Stored in place of an offset while a slot has no extent.
const NO_OFFSET: u64 = (1 << 40) - 1;
const GENERATION_MASK: u64 = (1 << 40) - 1;
const LEN_MASK: u64 = (1 << 36) - 1;
/// Where the bits begin that say of a block's past what eviction asks.
const PAST_SHIFT: u32 = 36;

/// What a slot is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// Nothing here.
    Free = 0,
    /// Claimed; the id is not yet readable.
    Writing = 1,
    /// The id is readable; its writer is looking for another claim on it.
    Claiming = 2,
    /// The only claim on its id; being filled by the CPU.
    Reserved = 3,
    /// Being filled by hardware.
    InFlight = 4,
    /// Visible.
    Sealed = 5,
    /// Its owner looks for pins; goes back to sealed, or on to freeing or retired.
    Evicting = 6,
    /// The extent is being given back.
    Freeing = 7,
    /// Invisible, and still pinned: replaced or deleted under a lease.
    Retired = 8,
    /// Retired, and its owner looks whether the last pin is gone.
    Reclaiming = 9,
}

impl State {
    fn from_bits(bits: u64) -> Self {
        match bits {
            1 => Self::Writing,
            2 => Self::Claiming,
            3 => Self::Reserved,
            4 => Self::InFlight,
            5 => Self::Sealed,
            6 => Self::Evicting,
            7 => Self::Freeing,
            8 => Self::Retired,
            9 => Self::Reclaiming,
            // Never written by us: read as in transition, so that it is neither served nor reused.
            10.. => Self::Freeing,
            0 => Self::Free,
        }
    }
}

/// The state word: state 4 bits, spare 1, class 3, owner row 16, generation 40.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Word(pub u64);

impl Word {
    /// A word with these fields; the owner is 0 where the state has none.
    #[must_use]
    pub fn new(state: State, class: Class, owner: u16, generation: u64) -> Self {
        Self(
            state as u64
                | u64::from(class.to_bits() & 7) << 5
                | u64::from(owner) << 8
                | (generation & GENERATION_MASK) << 24,
        )
    }

    /// What the slot is doing.
    #[must_use]
    pub fn state(self) -> State {
        State::from_bits(self.0 & 0xf)
    }

    /// Eviction class.
    #[must_use]
    pub fn class(self) -> Class {
        Class::from_bits((self.0 >> 5 & 7) as u8)
    }

    /// Owner row, in the states that have one.
    #[must_use]
    pub fn owner(self) -> u16 {
        (self.0 >> 8 & 0xffff) as u16
    }

    /// Counts the blocks that this slot has held.
    #[must_use]
    pub fn generation(self) -> u64 {
        self.0 >> 24
    }

    /// The same block in another state.
    #[must_use]
    pub fn with(self, state: State, owner: u16) -> Self {
        Self::new(state, self.class(), owner, self.generation())
    }
}

/// Where a block lies in the data area.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Bytes from the start of the data area, a multiple of 4 KiB.
    pub offset: u64,
    /// Payload length in bytes.
    pub len: u64,
}

/// One slot of the index, in shared memory.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Slot {
    state: AtomicU64,
    id: [AtomicU64; 4],
    root: AtomicU64,
    place: AtomicU64,
    size: AtomicU64,
}

impl Slot {
    /// A private copy of a slot, from its bytes in the file.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 64]) -> Self {
        let slot = Self::default();
        let words = [&slot.state].into_iter().chain(&slot.id).chain([&slot.root, &slot.place, &slot.size]);
        for (word, bytes) in words.zip(bytes.as_chunks().0) {
            word.store(u64::from_le_bytes(*bytes), Ordering::Relaxed);
        }
        slot
    }

    /// The state word, with all that was written before it was published.
    #[inline]
    pub fn word(&self) -> Word {
        Word(self.state.load(Ordering::Acquire))
    }

    /// Moves from `from` to `to`, if nobody else moved first.
    #[inline]
    pub fn advance(&self, from: Word, to: Word) -> bool {
        let order = if planted::is(Bug::NoReleaseOnAdvance) { Ordering::Relaxed } else { Ordering::AcqRel };
        self.state.compare_exchange(from.0, to.0, order, Ordering::Acquire).is_ok()
    }

    /// Whether the id is `words`. Only meaningful while the word's generation stands before and after.
    #[inline]
    pub fn has_id(&self, words: &[u64; 4]) -> bool {
        self.id.iter().zip(words).all(|(stored, wanted)| stored.load(Ordering::Relaxed) == *wanted)
    }

    /// The id; same caution.
    pub fn id(&self) -> BlockId {
        let mut bytes = [0; 32];
        for (part, stored) in bytes.chunks_exact_mut(8).zip(&self.id) {
            part.copy_from_slice(&stored.load(Ordering::Relaxed).to_le_bytes());
        }
        BlockId::from_bytes(bytes)
    }

    /// Writes the id. Only by the owner of a slot in state `Writing`.
    pub fn set_id(&self, words: &[u64; 4]) {
        for (stored, word) in self.id.iter().zip(words) {
            stored.store(*word, Ordering::Relaxed);
        }
        self.root.store(0, Ordering::Relaxed);
    }

    /// Root digest; same caution.
    #[inline]
    pub fn root(&self) -> u64 {
        self.root.load(Ordering::Relaxed)
    }

    /// Writes the root digest. Only by the owner, before sealing.
    pub fn set_root(&self, root: u64) {
        self.root.store(root, Ordering::Relaxed);
    }

    /// The extent, if the slot has one.
    #[inline]
    pub fn extent(&self) -> Option<Extent> {
        let units = self.place.load(Ordering::Acquire) & NO_OFFSET;
        let len = self.size.load(Ordering::Relaxed) & LEN_MASK;
        (units != NO_OFFSET).then_some(Extent { offset: units * OFFSET_UNIT, len })
    }

    /// The extent of a slot that others may be giving a new one: never the offset of one with the length of another.
    pub fn steady_extent(&self) -> Option<Extent> {
        let mut extent = self.extent();
        loop {
            fence(Ordering::Acquire);
            let again = self.extent();
            if again == extent {
                return extent;
            }
            extent = again;
        }
    }

    /// Index of the tenant.
    #[inline]
    pub fn tenant(&self) -> u16 {
        (self.place.load(Ordering::Relaxed) >> 40 & 0xffff) as u16
    }

    /// Gives the slot its extent, and the block its past ([`Now::fresh`]). Only by the owner, under the region's lock: the length
    /// first, so that a rebuild which sees the offset sees the length.
    pub fn set_extent(&self, extent: Extent, tenant: u16, past: u32) {
        // Released for `steady_extent`: who sees this length sees that the extent before it is gone.
        self.size.store(extent.len & LEN_MASK | u64::from(past) << PAST_SHIFT, Ordering::Release);
        let units = extent.offset / OFFSET_UNIT;
        self.place.store(units & NO_OFFSET | u64::from(tenant) << 40, Ordering::Release);
    }

    /// Takes the extent away. Only by the owner: under the region's lock, or before the slot has one.
    pub fn clear_extent(&self) {
        self.place.store(NO_OFFSET, Ordering::Release);
    }

    /// The epoch in which the payload was last known to match its digest; 0: never.
    #[inline]
    pub fn verified_epoch(&self) -> u8 {
        (self.place.load(Ordering::Relaxed) >> 56 & 0x3f) as u8
    }

    /// Notes that the payload matched its digest in `epoch` (1..=63). Lost if the extent changes meanwhile.
    pub fn set_verified(&self, epoch: u8) {
        let old = self.place.load(Ordering::Relaxed);
        let new = old & !(0x3f << 56) | u64::from(epoch & 0x3f) << 56;
        // A failed exchange means that another reader verified it, or that the block is gone: nothing to do in either case.
        let _ = self.place.compare_exchange(old, new, Ordering::Relaxed, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_one_cache_line() {
        assert_eq!((size_of::<Slot>(), align_of::<Slot>()), (64, 64));
    }

    #[test]
    fn the_word_keeps_its_fields_apart() {
        let word = Word::new(State::Evicting, Class::Prefix, 0xbeef, (1 << 40) - 2);
        assert_eq!(word.state(), State::Evicting);
        assert_eq!(word.class(), Class::Prefix);
        assert_eq!((word.owner(), word.generation()), (0xbeef, (1 << 40) - 2));
        let sealed = word.with(State::Sealed, 0);
        assert_eq!((sealed.state(), sealed.generation()), (State::Sealed, word.generation()));
    }

    #[test]
    fn extent_past_and_verification_share_words_without_touching_each_other() {
        let slot = Slot::default();
        slot.clear_extent();
        assert_eq!(slot.extent(), None);
        let extent = Extent { offset: 4096 * ((1 << 40) - 2), len: (1 << 36) - 1 };
        slot.set_extent(extent, 0xffff, (1 << 28) - 1);
        slot.set_verified(63);
        assert_eq!((slot.extent(), slot.tenant(), slot.past()), (Some(extent), 0xffff, (1 << 28) - 1));
        slot.touch(Now::at(9, Meaning::Heat));
        assert_eq!((slot.verified_epoch(), slot.past()), (63, (1 << 28) - 1 & !0xffff | 9));
        assert_eq!((slot.extent(), slot.tenant()), (Some(extent), 0xffff));
    }
}
