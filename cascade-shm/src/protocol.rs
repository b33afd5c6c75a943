//! Pin against evict: the protocol that lets readers hold a block without writing to its slot.

use cascade_core::planted::{self, Bug};
use cascade_core::sync::{AtomicU64, Ordering, fence};

use crate::index::Index;
use crate::ledger::{Entry, announce_pin};
use crate::slot::{Slot, State, Word};

/// What became of a pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pin {
    /// The cell holds it.
    Held,
    /// The block is not there any more; the cell is empty.
    Gone,
    /// As `Gone`, but the slot holds a retired block, and whoever retired it may have taken our announcement for a pin: the
    /// caller reclaims it. The cell holds an intent.
    Reclaim(Word),
}

/// Pins `slot` in `cell` if it is still sealed with the generation of `word`.
#[inline]
pub fn pin(index: &Index<'_>, slot: u32, word: Word, cell: &AtomicU64) -> Pin {
    announce_pin(cell, slot);
    crate::kill::point("lease.announced");
    confirm(index, slot, word, cell)
}

/// Looks again at a block whose pin is announced in `cell`, a `SeqCst` fence ago: one fence serves many announcements.
#[inline]
pub fn confirm(index: &Index<'_>, slot: u32, word: Word, cell: &AtomicU64) -> Pin {
    if index.slot(slot).is_some_and(|slot| stands(slot, word)) {
        return Pin::Held;
    }
    unpin(index, slot, cell).map_or(Pin::Gone, Pin::Reclaim)
}

/// Whether `slot` still holds the sealed block of `word`: what makes an announced pin hold.
#[inline]
pub fn stands(slot: &Slot, word: Word) -> bool {
    let now = slot.word();
    let trusted = planted::is(Bug::NoLookAfterPin);
    trusted || now.state() == State::Sealed && now.generation() == word.generation()
}

/// Releases a pin. Gives the word of a block that was retired meanwhile, which the caller reclaims: the cell then holds an
/// intent, so that recovery does it if the caller dies. Else the cell is empty.
#[inline]
pub fn unpin(index: &Index<'_>, slot: u32, cell: &AtomicU64) -> Option<Word> {
    Entry::intent(slot).store(cell);
    crate::kill::point("unpin.intent");
    // Pairs with the fence between retiring and the last scan: either that scan sees the pin gone, or we see it retired.
    fence(Ordering::SeqCst);
    let retired = index.slot(slot).map(|slot| slot.word()).filter(|word| word.state() == State::Retired);
    if retired.is_none() {
        Entry::EMPTY.store(cell);
    }
    retired
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
    if !planted::is(Bug::NoScanFence) {
        fence(Ordering::SeqCst);
    }
    let mut found = vec![false; slots.len()];
    if planted::is(Bug::FreeBeforeScan) {
        return found;
    }
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

/// Whether a transition that nobody else may make was made. It always is, unless the slot was written over by something that
/// knows nothing of owners; then it is left alone, and no content of shared memory ends the process. In the models it is a proof.
pub(crate) fn held(moved: bool, what: &str) -> bool {
    if cfg!(loom) {
        assert!(moved, "{what}");
    }
    moved
}

/// Decides a begun block: on to `Freeing` when it is not pinned, else back or retired. Gives the word it now has, which is
/// in none of these states if the slot was damaged meanwhile: it is not the caller's any more.
pub fn decide(index: &Index<'_>, slot: u32, begun: Word, is_pinned: bool, when_pinned: WhenPinned) -> Word {
    let to = match (is_pinned, begun.state(), when_pinned) {
        (false, _, _) => begun.with(State::Freeing, begun.owner()),
        (true, State::Evicting, WhenPinned::Keep) => begun.with(State::Sealed, 0),
        (true, _, _) => begun.with(State::Retired, 0),
    };
    let moved = index.slot(slot).is_some_and(|slot| slot.advance(begun, to));
    if held(moved, "only the owner of a begun eviction decides it") {
        to
    } else {
        begun.with(State::Sealed, 0)
    }
}

/// Takes a retired block for freeing, if its last pin is gone; the caller's ledger already says so. `None`: somebody holds a
/// pin, and reclaims the block with it, or somebody else is at it. `cells` gives the ledgers of live owners.
pub fn reclaim<'a, C>(
    index: &Index<'_>,
    slot: u32,
    retired: Word,
    owner: u16,
    cells: impl Fn() -> C,
) -> Option<Word>
where
    C: Iterator<Item = &'a AtomicU64>,
{
    let mut word = retired;
    loop {
        let begun = begin_evict(index, slot, word, owner)?;
        crate::kill::point("reclaim.begun");
        let is_pinned = pinned(&[slot], cells()).contains(&true);
        word = decide(index, slot, begun, is_pinned, WhenPinned::Retire);
        match word.state() {
            State::Freeing => return Some(word),
            State::Retired => {}
            _ => return None,
        }
        // Who unpinned while it was not to be seen as retired did not reclaim it. Who does so from now on will.
        if planted::is(Bug::NoScanAfterRetire) || pinned(&[slot], cells()).contains(&true) {
            return None;
        }
    }
}
