//! What dead owners left: reservations, evictions half done, pins. Everything that an owner may own is in its ledger, so
//! recovery reads one ledger and not the index.

use std::time::Duration;

use cascade_core::planted::{self, Bug};
use cascade_core::sync::{Ordering, fence};

use crate::ledger::Entry;
use crate::lock::Holder;
use crate::owner::RowState;
use crate::process;
use crate::protocol;
use crate::raw::Map;
use crate::session::Core;
use crate::slot::{State, Word};

/// How long to wait for another recovery.
const PATIENCE: Duration = Duration::from_secs(1);

/// Recovers every owner that is certainly dead.
pub fn dead_owners(core: &Core) {
    let dead: Vec<Holder> = live_rows(core).filter(|holder| core.is_dead(*holder)).collect();
    owners(core, &dead);
}

/// Recovers the owners `dead`, which are certainly dead. One of which something has to wait keeps its row.
pub fn owners(core: &Core, dead: &[Holder]) {
    if dead.is_empty() {
        return;
    }
    let control = core.map().control();
    let Some(_guard) = control.reap.acquire(core.holder(), &|holder| core.is_dead(holder), PATIENCE) else {
        return;
    };
    crate::kill::point("recover.locked");
    for holder in dead {
        let row = &core.map().owners()[holder.row as usize];
        // Another recovery may have been here while we waited for the lock.
        if !row.is_current(*holder) {
            continue;
        }
        // Blocks that the dead could have damaged are verified again before they are leased.
        if !process::is_seen(row.process()) {
            core.map().control().deaths.fetch_add(1, Ordering::Relaxed);
            next_epoch(core.map());
        }
        crate::kill::point("recover.epoch");
        core.with_regions(|regions| regions.repair(*holder));
        crate::kill::point("recover.repaired");
        // A row with entries left stays: the next recovery goes on.
        if recover(core, *holder) {
            crate::kill::point("recover.leaving");
            row.leave(holder.generation);
        }
    }
}

/// Makes every block unverified.
pub fn next_epoch(map: &Map) {
    if planted::is(Bug::NoEpochBump) {
        return;
    }
    let epoch = &map.control().epoch;
    epoch.fetch_add(1, Ordering::AcqRel);
    if epoch.load(Ordering::Acquire).is_multiple_of(63) {
        // Slots keep six bits of the epoch: when those come round, what they said before must not count again.
        for slot in map.slots() {
            slot.set_verified(0);
        }
    }
}

/// The owner rows in use.
pub fn live_rows(core: &Core) -> impl Iterator<Item = Holder> {
    let rows = core.map().owners().iter().enumerate();
    rows.filter_map(|(row, owner)| match owner.state() {
        (RowState::Live, generation) => Some(Holder { row: row as u16, generation }),
        (RowState::Free, _) => None,
    })
}

/// Empties the ledger of `dead`; `false` if something has to wait.
///
/// All is done in the name of the dead owner, whose entries go last: if we die as well, the next recovery finds the same.
fn recover(core: &Core, dead: Holder) -> bool {
    let mut whole = true;
    for cell in core.map().ledger(dead.row) {
        let entry = Entry::load(cell);
        let Some(slot) = entry.slot() else { continue };
        if entry.is_pin() {
            Entry::intent(slot).store(cell);
            // As in `unpin`: who retires the block sees the pin gone, or we see the block retired.
            fence(Ordering::SeqCst);
        }
        if planted::is(Bug::EntryBeforeSlot) {
            Entry::EMPTY.store(cell);
        }
        crate::kill::point("recover.entry");
        let ignored = planted::is(Bug::IgnoreIntents) && !entry.is_pin();
        if ignored || finish(core, dead.row, slot) {
            crate::kill::point("recover.finished");
            Entry::EMPTY.store(cell);
        } else {
            whole = false;
        }
    }
    whole
}

/// Brings a slot that a dead owner may have owned, or may have been the last to pin, into a state without an owner. `false`:
/// to be tried again later.
fn finish(core: &Core, dead_row: u16, slot: u32) -> bool {
    let index = core.index();
    let Some(place) = index.slot(slot) else { return true };
    let word = place.word();
    match word.state() {
        State::Retired => return reclaim(core, dead_row, slot, word),
        State::Free | State::Sealed => return true,
        _ if word.owner() != dead_row => return true,
        _ => {}
    }
    match word.state() {
        State::Writing => {
            // Died before the slot was given anything.
            place.clear_extent();
            free(core, slot, word)
        }
        // A device may write to it until the kernel has closed what the process had open: in flight, or freed under it and kept
        // from use for the grace period.
        State::InFlight | State::Freeing
            if process::is_seen(core.map().owners()[dead_row as usize].process()) =>
        {
            false
        }
        State::Evicting if !is_replaced(core, dead_row, slot) => {
            place.advance(word, word.with(State::Sealed, 0));
            true
        }
        State::Evicting | State::Reclaiming => {
            let retired = word.with(State::Retired, 0);
            !place.advance(word, retired) || reclaim(core, dead_row, slot, retired)
        }
        _ => free(core, slot, word),
    }
}

/// Whether any thread of the dead owner was replacing the block in `slot`. The successor may have been seen, and may be gone
/// again by now: the old block must not come back.
fn is_replaced(core: &Core, dead_row: u16, slot: u32) -> bool {
    core.map().ledger(dead_row).iter().any(|cell| Entry::load(cell) == Entry::replacing(slot))
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

/// Frees a retired block whose last pin is gone, in the name of the dead owner.
fn reclaim(core: &Core, dead_row: u16, slot: u32, retired: Word) -> bool {
    let index = core.index();
    let cells = || core.ledger_cells().map(|(_, cell)| cell);
    match protocol::reclaim(&index, slot, retired, dead_row, cells) {
        Some(freeing) => core.with_regions(|regions| regions.free(&index, slot, freeing)),
        None => true,
    }
}
