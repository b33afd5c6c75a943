//! The index: two buckets of eight slots for each id, and a byte of tag for each slot so that a lookup touches few lines.

use std::time::Duration;

use cascade_core::id::BlockId;
use cascade_core::planted::{self, Bug};
use cascade_core::sync::{AtomicU64, Ordering, Wait, fence};
use cascade_core::tier::Class;

use crate::protocol::held;
use crate::slot::{Slot, State, Word};

/// Slots of a bucket, and tags of a tag word.
pub const BUCKET_SLOTS: usize = 8;
/// The high bit of each tag of a tag word.
const HIGH_BITS: u64 = 0x8080_8080_8080_8080;
/// How long to wait for another owner's transition, which takes nanoseconds unless the owner is stopped or dead.
const TRANSITION: Duration = Duration::from_millis(2);

/// The index as a view over slots and tags, in shared memory or (under loom) on the heap.
#[derive(Clone, Copy, Debug)]
pub struct Index<'a> {
    slots: &'a [Slot],
    tags: &'a [AtomicU64],
}

/// An id with where it may stand.
#[derive(Clone, Copy, Debug, Default)]
pub struct Key {
    words: [u64; 4],
    buckets: [u32; 2],
    tag: u8,
    /// The slot of either bucket that is looked at first for room.
    home: u8,
}

/// Slots of an id's two buckets that had its tag when the tags were read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Candidates {
    /// The first slot of each bucket.
    starts: [u32; 2],
    /// Bit 8 i for slot i of the first bucket, the bit above it for that of the second.
    left: u64,
}

impl Iterator for Candidates {
    type Item = u32;

    #[inline]
    fn next(&mut self) -> Option<u32> {
        let bit = (self.left != 0).then(|| self.left.trailing_zeros())?;
        self.left &= self.left - 1;
        Some(self.starts[(bit & 1) as usize] + (bit >> 3))
    }
}

/// What the index says of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Sealed in this slot, with this word.
    Sealed(u32, Word),
    /// Someone is filling it.
    Pending,
    /// Someone is evicting or replacing it; the slot may yet be sealed again.
    Evicting(u32, Word),
    /// Not here.
    Absent,
}

/// What became of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The slot is ours, in state `Reserved` with this word.
    Ours(Word),
    /// Someone else has the id sealed (or is about to evict it).
    Exists,
    /// Someone else is storing the id.
    Pending,
}

impl<'a> Index<'a> {
    /// A view; there are eight slots for each tag word.
    #[must_use]
    pub fn new(slots: &'a [Slot], tags: &'a [AtomicU64]) -> Self {
        assert_eq!(slots.len(), tags.len() * BUCKET_SLOTS, "a tag for each slot");
        Self { slots, tags }
    }

    /// Where `id` may stand.
    #[inline]
    #[must_use]
    pub fn key(&self, id: &BlockId) -> Key {
        let words = id.words();
        // Ids are hashes, but an engine's own may have structure: every bit is mixed in before use.
        let mixed = words.iter().fold(0x9e37_79b9_7f4a_7c15_u64, |hash, word| {
            (hash ^ word).wrapping_mul(0xff51_afd7_ed55_8ccd).rotate_left(31)
        });
        let second = (mixed ^ mixed >> 29).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        let pick = |hash: u64| (u128::from(hash) * self.tags.len() as u128 >> 64) as u32;
        let (tag, home) = ((second as u8 & 0x7f) | 0x80, (mixed & 7) as u8);
        Key { words, buckets: [pick(mixed), pick(second)], tag, home }
    }

    /// Brings the tag words of `key` into the cache.
    #[inline]
    pub fn prefetch(&self, key: &Key) {
        for bucket in key.buckets {
            crate::raw::prefetch(&self.tags[bucket as usize]);
        }
    }

    /// Gets one lookup of `key` under way: its tag words and, beside them, the slots where most blocks are. Which slot it is, the
    /// tags must say; but waiting for them before asking for any would take as long again.
    #[inline]
    pub fn prefetch_alone(&self, key: &Key) {
        self.prefetch(key);
        for bucket in key.buckets {
            let home = bucket as usize * BUCKET_SLOTS + key.home as usize;
            crate::raw::prefetch(&self.slots[home]);
            crate::raw::prefetch(&self.slots[home ^ 1]);
        }
    }

    /// Brings the slots that may hold `key` into the cache and says which they are; its tag words should be there.
    #[inline]
    pub fn prefetch_slots(&self, key: &Key) -> Candidates {
        let candidates = self.candidates(key);
        for slot in candidates {
            crate::raw::prefetch(&self.slots[slot as usize]);
        }
        candidates
    }

    /// The slot at `index`.
    #[must_use]
    pub fn slot(&self, index: u32) -> Option<&'a Slot> {
        self.slots.get(index as usize)
    }

    /// Number of slots.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there are no slots (there always are).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Slots of both buckets whose tag matches.
    #[inline]
    fn candidates(&self, key: &Key) -> Candidates {
        let [first, second] = key.buckets;
        let matches =
            |bucket: u32| matching_bytes(self.tags[bucket as usize].load(Ordering::Acquire), key.tag);
        let others = if first == second { 0 } else { matches(second) };
        let starts = key.buckets.map(|bucket| bucket * BUCKET_SLOTS as u32);
        Candidates { starts, left: matches(first) >> 7 | others >> 6 }
    }

    /// All slots of both buckets.
    pub fn neighbours(&self, key: &Key) -> impl Iterator<Item = u32> + use<'a> {
        let buckets = key.buckets;
        let both = if buckets[0] == buckets[1] { 1 } else { 2 };
        buckets.into_iter().take(both).flat_map(|bucket| bucket * 8..bucket * 8 + 8)
    }

    /// The word of `slot` if it holds the id of `key`: state and generation stood while the id was read.
    #[inline]
    fn word_if_id(&self, slot: u32, key: &Key) -> Option<Word> {
        let slot = &self.slots[slot as usize];
        let mut word = slot.word();
        // Bounded: a slot that changes hands this often while we look is somebody else's by now.
        for _ in 0..16 {
            if matches!(word.state(), State::Free | State::Writing) {
                return None;
            }
            let equal = slot.has_id(&key.words);
            if planted::is(Bug::NoSecondLook) {
                return equal.then_some(word);
            }
            // The id's loads must not sink below the second look at the word.
            fence(Ordering::Acquire);
            let again = slot.word();
            if again.generation() == word.generation()
                && !matches!(again.state(), State::Free | State::Writing)
            {
                return equal.then_some(again);
            }
            word = again;
        }
        None
    }

    /// Looks for a block. No lock, no system call, no store.
    #[inline]
    pub fn find(&self, key: &Key) -> Found {
        self.find_among(key, self.candidates(key))
    }

    /// [`Index::find`] where tags that were read before say: `Sealed` is as good as if they had been read now, another answer is
    /// as old as they are.
    #[inline]
    pub fn find_among(&self, key: &Key, candidates: Candidates) -> Found {
        let mut best = Found::Absent;
        for slot in candidates {
            let Some(word) = self.word_if_id(slot, key) else { continue };
            match word.state() {
                State::Sealed => return Found::Sealed(slot, word),
                State::Evicting => best = Found::Evicting(slot, word),
                State::Claiming | State::Reserved | State::InFlight if best == Found::Absent => {
                    best = Found::Pending
                }
                _ => {}
            }
        }
        best
    }

    /// [`Index::find`], waiting a moment for an eviction to be decided.
    pub fn find_settled(&self, key: &Key) -> Found {
        let mut wait = Wait::new(TRANSITION);
        loop {
            match self.find(key) {
                Found::Evicting(..) if wait.again() => {}
                found => return found,
            }
        }
    }

    /// A free slot, of the emptier bucket if both have one: what keeps both from filling up early. In a bucket it is the one
    /// nearest to where [`Index::prefetch_alone`] looks.
    pub fn free_slot(&self, key: &Key) -> Option<(u32, Word)> {
        // Every tag in use has its high bit set.
        let used =
            |bucket: u32| (self.tags[bucket as usize].load(Ordering::Relaxed) & HIGH_BITS).count_ones();
        let [first, second] = key.buckets;
        let order = if used(second) < used(first) { [second, first] } else { [first, second] };
        let slots = |bucket: u32| (0..8).map(move |step| bucket * 8 + (u32::from(key.home) ^ step));
        order
            .into_iter()
            .flat_map(slots)
            .map(|slot| (slot, self.slots[slot as usize].word()))
            .find(|(_, word)| word.state() == State::Free)
    }

    /// Claims the free `slot` for the id of `key`; the caller's ledger already says so. `None`: someone was faster.
    /// With `replace`, a sealed block of the same id does not end the claim.
    pub fn claim(
        &self,
        key: &Key,
        slot: u32,
        free: Word,
        class: Class,
        owner: u16,
        replace: bool,
    ) -> Option<Claim> {
        let mine = &self.slots[slot as usize];
        let writing = Word::new(State::Writing, class, owner, free.generation());
        if !mine.advance(free, writing) {
            return None;
        }
        crate::kill::point("claim.writing");
        mine.set_id(&key.words);
        mine.clear_extent();
        self.set_tag(slot, key.tag);
        let claiming = writing.with(State::Claiming, owner);
        if !held(mine.advance(writing, claiming), "only a slot's owner moves it out of Writing") {
            return None;
        }
        // Of two claims on one id, at least one sees the other after this.
        fence(Ordering::SeqCst);
        crate::kill::point("claim.claiming");
        let claim =
            if planted::is(Bug::NoRecheckAfterClaim) { None } else { self.rivals(key, slot, replace) };
        if claim.is_none() {
            let reserved = claiming.with(State::Reserved, owner);
            let confirmed = mine.advance(claiming, reserved);
            return held(confirmed, "only a slot's owner moves it out of Claiming")
                .then_some(Claim::Ours(reserved));
        }
        let freeing = claiming.with(State::Freeing, owner);
        if held(mine.advance(claiming, freeing), "only a slot's owner moves it out of Claiming") {
            crate::kill::point("claim.given_up");
            self.release(slot, freeing);
        }
        claim
    }

    /// Looks for other claims on the id: `None` if there are none, else what to answer.
    ///
    /// A claim that is confirmed wins. Of two that are not, the lower slot wins: the higher one gives up at once, the
    /// lower one waits to see whether the higher was confirmed before the lower was visible. Giving up is always safe.
    fn rivals(&self, key: &Key, mine: u32, replace: bool) -> Option<Claim> {
        for slot in self.candidates(key).filter(|slot| *slot != mine) {
            let mut wait = Wait::new(TRANSITION);
            while let Some(word) = self.word_if_id(slot, key) {
                match word.state() {
                    State::Sealed if replace => break,
                    State::Sealed => return Some(Claim::Exists),
                    State::Reserved | State::InFlight => return Some(Claim::Pending),
                    State::Claiming if slot < mine => return Some(Claim::Pending),
                    State::Claiming | State::Evicting if wait.again() => {}
                    State::Claiming | State::Evicting => return Some(Claim::Pending),
                    _ => break,
                }
            }
        }
        None
    }

    /// Ends the life of a slot that the caller owns in state `Freeing` and that has no extent.
    pub fn release(&self, slot: u32, freeing: Word) {
        self.set_tag(slot, 0);
        crate::kill::point("free.untagged");
        let step = u64::from(!planted::is(Bug::NoGenerationBump));
        let free = Word::new(State::Free, Class::Ordinary, 0, freeing.generation() + step);
        let freed = self.slots[slot as usize].advance(freeing, free);
        held(freed, "only a slot's owner moves it out of Freeing");
    }

    fn set_tag(&self, slot: u32, tag: u8) {
        let (bucket, shift) = (slot as usize / BUCKET_SLOTS, slot % 8 * 8);
        let cell = &self.tags[bucket];
        let mut old = cell.load(Ordering::Relaxed);
        loop {
            let new = old & !(0xff << shift) | u64::from(tag) << shift;
            match cell.compare_exchange_weak(old, new, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => old = now,
            }
        }
    }
}

/// Which slots of a bucket have a tag in its word of `tags`.
pub fn used(tags: u64) -> impl Iterator<Item = usize> {
    let mut left = tags & HIGH_BITS;
    std::iter::from_fn(move || {
        let bit = (left != 0).then(|| left.trailing_zeros())?;
        left &= left - 1;
        Some(bit as usize / 8)
    })
}

/// High bit set in each byte of the result whose byte in `word` is `tag` (which is never 0).
#[inline]
fn matching_bytes(word: u64, tag: u8) -> u64 {
    const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    let differing = word ^ u64::from_ne_bytes([tag; 8]);
    // Exact zero-byte detection: no borrow crosses a byte.
    !(((differing & LOW) + LOW) | differing | LOW)
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    fn index_of(buckets: usize) -> (Vec<Slot>, Vec<AtomicU64>) {
        (
            (0..buckets * 8).map(|_| Slot::default()).collect(),
            (0..buckets).map(|_| AtomicU64::new(0)).collect(),
        )
    }

    #[test]
    fn the_slots_of_a_bucket_that_are_used_are_those_with_a_tag() {
        for slots in 0..=0xff_u64 {
            let bytes =
                std::array::from_fn(|slot| if slots >> slot & 1 == 1 { 0x80 | slot as u8 } else { 0 });
            let found = used(u64::from_le_bytes(bytes)).fold(0, |all, slot| all | 1 << slot);
            assert_eq!(found, slots);
        }
    }

    #[test]
    fn tags_match_exactly() {
        for tag in [0x80, 0x81, 0xff] {
            let word = u64::from_le_bytes([tag, 0, tag ^ 1, tag, 0x7f, 1, 0xfe ^ 1, tag]);
            let bytes: Vec<u32> =
                (0..8).filter(|byte| matching_bytes(word, tag) >> (byte * 8 + 7) & 1 == 1).collect();
            let expected: Vec<u32> =
                (0..8).filter(|byte| word.to_le_bytes()[*byte as usize] == tag).collect();
            assert_eq!(bytes, expected);
        }
    }

    #[test]
    fn a_claim_is_pending_then_sealed_and_a_second_finds_it() {
        let (slots, tags) = index_of(2);
        let index = Index::new(&slots, &tags);
        let key = index.key(&BlockId::named("a"));
        assert_eq!(index.find(&key), Found::Absent);
        let (slot, free) = index.free_slot(&key).unwrap();
        let Some(Claim::Ours(reserved)) = index.claim(&key, slot, free, Class::Prefix, 3, false) else {
            panic!("nobody else is here")
        };
        assert_eq!((index.find(&key), reserved.owner()), (Found::Pending, 3));
        let (other, free) = index.free_slot(&key).unwrap();
        assert_eq!(index.claim(&key, other, free, Class::Ordinary, 4, false), Some(Claim::Pending));
        let sealed = reserved.with(State::Sealed, 0);
        assert!(index.slot(slot).unwrap().advance(reserved, sealed));
        assert_eq!(index.find(&key), Found::Sealed(slot, sealed));
        let (other, free) = index.free_slot(&key).unwrap();
        assert_eq!(free.generation(), 1, "the claim that gave up used a generation");
        assert_eq!(index.claim(&key, other, free, Class::Ordinary, 4, false), Some(Claim::Exists));
    }

    #[test]
    fn buckets_fill_evenly_before_one_is_full() {
        let (slots, tags) = index_of(256);
        let index = Index::new(&slots, &tags);
        for number in 0..256 * 8 * 3 / 4 {
            let key = index.key(&BlockId::named(&number.to_string()));
            let (slot, free) = index.free_slot(&key).expect("three quarters fit without any eviction");
            assert!(matches!(index.claim(&key, slot, free, Class::Ordinary, 1, false), Some(Claim::Ours(_))));
        }
    }

    #[test]
    fn ids_spread_over_all_buckets() {
        let (slots, tags) = index_of(64);
        let index = Index::new(&slots, &tags);
        let mut hits = [0_u32; 64];
        for number in 0..6_400_u32 {
            for bucket in index.key(&BlockId::named(&number.to_string())).buckets {
                hits[bucket as usize] += 1;
            }
        }
        assert!(hits.iter().all(|count| (120..280).contains(count)), "{hits:?}");
    }
}
