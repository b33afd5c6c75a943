//! Pin against evict: the protocol that lets readers hold a block without writing to its slot.

use cascade_core::sync::{AtomicU64, Ordering, fence};

use crate::index::Index;
use crate::ledger::{Entry, announce_pin};
use crate::slot::{State, Word};

/// Pins `slot` in `cell` if it is still sealed with the generation of `word`.
#[inline]
pub fn pin(index: &Index<'_>, slot: u32, word: Word, cell: &AtomicU64) -> bool {
    announce_pin(cell, slot);
    let now = index.slot(slot).map(|slot| slot.word());
    let stands = now.is_some_and(|now| now.state() == State::Sealed && now.generation() == word.generation());
    if !stands {
        Entry::EMPTY.store(cell);
    }
    stands
}

/// Releases a pin. Tells whether the block was retired meanwhile and may now be reclaimed.
#[inline]
pub fn unpin(index: &Index<'_>, slot: u32, generation: u64, cell: &AtomicU64) -> Option<Word> {
    Entry::EMPTY.store(cell);
    // Pairs with the fence between retiring and the second scan: either that scan sees the pin gone, or we see it retired.
    fence(Ordering::SeqCst);
    let word = index.slot(slot)?.word();
    (word.state() == State::Retired && word.generation() == generation).then_some(word)
}

/// After a [`pin`] that did not stand: the block that `slot` now holds, if it is retired. Whoever retired it may have seen
/// the announcement and left it to us, whatever its generation.
#[inline]
pub fn left_retired(index: &Index<'_>, slot: u32) -> Option<Word> {
    // As in `unpin`.
    fence(Ordering::SeqCst);
    let word = index.slot(slot)?.word();
    (word.state() == State::Retired).then_some(word)
}

/// Begins to evict a sealed block (or to reclaim a retired one); the caller's ledger already says so.
pub fn begin_evict(index: &Index<'_>, slot: u32, word: Word, owner: u16) -> Option<Word> {
    let to = match word.state() {
        State::Sealed => State::Evicting,
        State::Retired => State::Reclaiming,
        _ => return None,
    };
    let begun = word.with(to, owner);
    index.slot(slot)?.advance(word, begun).then_some(begun)
}

/// For each of `slots`, all begun, whether someone holds a pin. One pass over `cells`, the ledgers of live owners.
pub fn pinned<'a>(slots: &[u32], cells: impl Iterator<Item = &'a AtomicU64>) -> Vec<bool> {
    // Pairs with the reader's fence in `announce_pin`.
    fence(Ordering::SeqCst);
    let mut found = vec![false; slots.len()];
    for cell in cells {
        let entry = Entry::load(cell);
        if !entry.is_pin() {
            continue;
        }
        for (slot, found) in slots.iter().zip(&mut found) {
            *found |= entry.slot() == Some(*slot);
        }
    }
    found
}

/// What to do with a begun block that turned out to be pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenPinned {
    /// It stays: eviction backs out.
    Keep,
    /// It disappears from lookups at once and is reclaimed with its last pin: deletion and replacement.
    Retire,
}

/// Decides a begun block: on to `Freeing` when it is not pinned, else back or retired. Gives the word it now has.
pub fn decide(index: &Index<'_>, slot: u32, begun: Word, is_pinned: bool, when_pinned: WhenPinned) -> Word {
    let to = match (is_pinned, begun.state(), when_pinned) {
        (false, _, _) => begun.with(State::Freeing, begun.owner()),
        (true, State::Evicting, WhenPinned::Keep) => begun.with(State::Sealed, 0),
        (true, _, _) => begun.with(State::Retired, 0),
    };
    let moved = index.slot(slot).is_some_and(|slot| slot.advance(begun, to));
    assert!(moved, "only the owner of a begun eviction decides it");
    to
}
