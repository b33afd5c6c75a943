//! What the arena holds, and whether its tables agree with each other.

use super::Arena;
use crate::ledger::Entry;
use crate::owner::RowState;
use crate::slot::State;

/// Counts over the whole arena, of all owners. Exact only while nobody else is at work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// Slots without a block.
    pub free_slots: u64,
    /// Slots that are being claimed or filled.
    pub filling_slots: u64,
    /// Slots with a visible block.
    pub sealed_slots: u64,
    /// Slots on their way out: being evicted, freed or reclaimed.
    pub leaving_slots: u64,
    /// Slots with a block that was deleted or replaced under a lease.
    pub retired_slots: u64,
    /// Owner rows in use.
    pub live_owners: u64,
    /// Ledger entries in use.
    pub ledger_entries: u64,
    /// Units of the data area that the region tables and the slots disagree on, or that two slots claim: 0 in a sound arena.
    pub disagreements: u64,
}

impl Arena {
    /// Looks at every slot, ledger entry and region table; `None` when this handle cannot join the arena.
    #[must_use]
    pub fn audit(&self) -> Option<Audit> {
        let core = self.session()?.core();
        let mut audit = Audit::default();
        for slot in core.map().slots() {
            let count = match slot.word().state() {
                State::Free => &mut audit.free_slots,
                State::Writing | State::Claiming | State::Reserved | State::InFlight => {
                    &mut audit.filling_slots
                }
                State::Sealed => &mut audit.sealed_slots,
                State::Evicting | State::Freeing | State::Reclaiming => &mut audit.leaving_slots,
                State::Retired => &mut audit.retired_slots,
            };
            *count += 1;
        }
        for (row, owner) in core.map().owners().iter().enumerate() {
            audit.live_owners += u64::from(owner.state().0 == RowState::Live);
            let used = |cell: &&cascade_core::sync::AtomicU64| Entry::load(cell) != Entry::EMPTY;
            audit.ledger_entries += core.map().ledger(row as u16).iter().filter(used).count() as u64;
        }
        audit.disagreements = core.with_regions(|regions| regions.disagreements());
        Some(audit)
    }
}
