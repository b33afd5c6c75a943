//! What dead owners left: reservations, evictions half done, pins. Everything that an owner may own is in its ledger, so
//! recovery reads one ledger and not the index.

use cascade_core::sync::{AtomicU64, Ordering};

use crate::ledger::Entry;
use crate::lock::Holder;
use crate::owner::RowState;
use crate::protocol::{self, WhenPinned};
use crate::session::Core;
use crate::slot::{State, Word};

/// Steps to wait for another recovery.
const LOCK_STEPS: u32 = 2_000_000;

/// Recovers every owner that is certainly dead.
pub fn dead_owners(core: &Core) {
    let dead: Vec<Holder> = owners(core).filter(|holder| core.is_dead(*holder)).collect();
    if dead.is_empty() {
        return;
    }
    let control = core.map().control();
    let Some(_guard) = control.reap.acquire(core.holder(), &|holder| core.is_dead(holder), LOCK_STEPS) else {
        return;
    };
    crate::kill::point("attach.reaping");
    for holder in dead {
        let row = &core.map().owners()[holder.row as usize];
        // Another recovery may have been here while we waited for the lock.
        if row.is_current(holder) {
            // Blocks that the dead could have damaged are verified again before they are leased.
            next_epoch(core);
            recover(core, holder);
            row.leave(holder.generation);
        }
    }
}

fn next_epoch(core: &Core) {
    let epoch = &core.map().control().epoch;
    epoch.fetch_add(1, Ordering::AcqRel);
    if epoch.load(Ordering::Acquire).is_multiple_of(63) {
        // Slots keep six bits of the epoch: when those come round, what they said before must not count again.
        for slot in core.map().slots() {
            slot.set_verified(0);
        }
    }
}

fn owners(core: &Core) -> impl Iterator<Item = Holder> {
    let rows = core.map().owners().iter().enumerate();
    rows.filter_map(|(row, owner)| match owner.state() {
        (RowState::Live, generation) => Some(Holder { row: row as u16, generation }),
        (RowState::Free, _) => None,
    })
}

fn recover(core: &Core, dead: Holder) {
    for cell in core.map().ledger(dead.row) {
        let entry = Entry::load(cell);
        let Some(slot) = entry.slot() else { continue };
        if entry.is_pin() {
            Entry::EMPTY.store(cell);
            release_retired(core, slot);
        } else if finish(core, dead.row, slot) {
            Entry::EMPTY.store(cell);
        }
    }
}

/// Brings a slot that a dead owner may have owned into a state without an owner. The entry stays until that is done, so a
/// recovery that dies is repeated. `false`: to be tried again later.
fn finish(core: &Core, dead_row: u16, slot: u32) -> bool {
    let index = core.index();
    let Some(place) = index.slot(slot) else { return true };
    let word = place.word();
    if word.owner() != dead_row {
        return true;
    }
    match word.state() {
        State::Writing => {
            // Died before the slot was given anything.
            place.clear_extent();
            free(core, slot, word)
        }
        State::Claiming | State::Reserved | State::InFlight | State::Freeing => free(core, slot, word),
        State::Evicting => {
            if has_sealed_twin(core, slot) {
                // It was being replaced, and its successor is visible.
                return free(core, slot, word);
            }
            place.advance(word, word.with(State::Sealed, 0));
            true
        }
        State::Reclaiming => {
            place.advance(word, word.with(State::Retired, 0));
            release_retired(core, slot);
            true
        }
        State::Free | State::Sealed | State::Retired => true,
    }
}

/// Whether the id of `slot`, which is not sealed, is sealed elsewhere.
fn has_sealed_twin(core: &Core, slot: u32) -> bool {
    let index = core.index();
    let Some(id) = index.slot(slot).map(|slot| slot.id()) else { return false };
    matches!(index.find(&index.key(&id)), crate::index::Found::Sealed(..))
}

/// Frees a dead owner's slot. The state stays the dead owner's until the end: if we die, the next recovery goes on.
fn free(core: &Core, slot: u32, word: Word) -> bool {
    let index = core.index();
    let freeing = word.with(State::Freeing, word.owner());
    if word != freeing && !index.slot(slot).is_some_and(|place| place.advance(word, freeing)) {
        return true;
    }
    core.with_regions(|regions| regions.free(&index, slot, freeing))
}

/// Frees a retired block whose last pin went with its owner.
fn release_retired(core: &Core, slot: u32) {
    let index = core.index();
    let Some(word) = index.slot(slot).map(|slot| slot.word()) else { return };
    if word.state() != State::Retired {
        return;
    }
    // Our own ledger says what we do meanwhile, for the case that we die as well.
    let Some(cell) = spare_cell(core) else { return };
    Entry::intent(slot).store(cell);
    if let Some(begun) = protocol::begin_evict(&index, slot, word, core.row()) {
        let pinned = is_pinned(core, slot);
        let decided = protocol::decide(&index, slot, begun, pinned, WhenPinned::Retire);
        if !pinned && !core.with_regions(|regions| regions.free(&index, slot, decided)) {
            return;
        }
    }
    Entry::EMPTY.store(cell);
}

/// The last entry of our ledger, which stripes do not use: recovery runs under one lock.
fn spare_cell(core: &Core) -> Option<&AtomicU64> {
    core.map().ledger(core.row()).last()
}

fn is_pinned(core: &Core, slot: u32) -> bool {
    protocol::pinned(&[slot], core.ledger_cells().map(|(_, cell)| cell)).contains(&true)
}
