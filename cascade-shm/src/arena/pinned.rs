//! What is pinned in the arena, by anybody.

use super::Arena;
use crate::ledger::Entry;

impl Arena {
    /// Bytes of blocks that leases of any process pin now, each block once. Looks at every owner's ledger: not for a hot path.
    #[must_use]
    pub fn pinned_bytes(&self) -> u64 {
        let Some(session) = self.session() else { return 0 };
        let core = session.core();
        let pins = core.ledger_cells().map(|(_, cell)| Entry::load(cell)).filter(|entry| entry.is_pin());
        let mut slots: Vec<u32> = pins.filter_map(Entry::slot).collect();
        slots.sort_unstable();
        slots.dedup();
        let extents = slots.iter().filter_map(|slot| core.index().slot(*slot)?.extent());
        extents.map(|extent| extent.len).sum()
    }
}
