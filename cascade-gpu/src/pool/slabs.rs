//! Device memory in slabs, and the free space in them. All lengths are multiples of [`UNIT`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::device::{Device, Fault, Hbm};

/// Blocks begin and end at multiples of this: what kernels and copy engines like, and little waste for small blocks.
pub(super) const UNIT: usize = 512;

/// Space of one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) slab: u32,
    pub(super) offset: usize,
    pub(super) len: usize,
}

#[derive(Debug)]
pub(super) struct Slab {
    memory: Arc<Hbm>,
    free: BTreeMap<usize, usize>,
    /// Extents in use by their offset: length and slot.
    pub(super) used: BTreeMap<usize, (usize, u32)>,
}

/// All slabs of a pool, within a budget.
#[derive(Debug)]
pub(super) struct Slabs {
    device: Arc<dyn Device>,
    budget: usize,
    slab_bytes: usize,
    pub(super) slabs: BTreeMap<u32, Slab>,
    /// Free extents by length, for the best fit.
    by_len: BTreeSet<(usize, u32, usize)>,
    next: u32,
    held: usize,
    used: usize,
}

impl Slabs {
    pub(super) fn new(device: &Arc<dyn Device>, budget_bytes: u64, slab_bytes: usize) -> Self {
        let budget = usize::try_from(budget_bytes).unwrap_or(usize::MAX) / UNIT * UNIT;
        Self {
            device: Arc::clone(device),
            budget,
            slab_bytes: slab_bytes.next_multiple_of(UNIT).clamp(UNIT, budget.max(UNIT)),
            slabs: BTreeMap::new(),
            by_len: BTreeSet::new(),
            next: 0,
            held: 0,
            used: 0,
        }
    }

    pub(super) fn budget_bytes(&self) -> u64 {
        self.budget as u64
    }

    /// Bytes of extents in use.
    pub(super) fn used_bytes(&self) -> u64 {
        self.used as u64
    }

    /// Bytes taken from the device.
    pub(super) fn held_bytes(&self) -> u64 {
        self.held as u64
    }

    pub(super) fn memory(&self, extent: &Extent) -> Option<&Arc<Hbm>> {
        Some(&self.slabs.get(&extent.slab)?.memory)
    }

    /// Space in a slab that there is, for `slot`.
    pub(super) fn take(&mut self, len: usize, slot: u32) -> Option<Extent> {
        let (free, slab, offset) = *self.by_len.range((len, 0, 0)..).next()?;
        self.by_len.remove(&(free, slab, offset));
        let found = self.slabs.get_mut(&slab)?;
        found.free.remove(&offset);
        if free > len {
            found.free.insert(offset + len, free - len);
            self.by_len.insert((free - len, slab, offset + len));
        }
        found.used.insert(offset, (len, slot));
        self.used += len;
        Some(Extent { slab, offset, len })
    }

    /// Gives space back. The slab stays: giving it to the device would stop all of its work.
    pub(super) fn give(&mut self, extent: &Extent) {
        let Some(slab) = self.slabs.get_mut(&extent.slab) else { return };
        if slab.used.remove(&extent.offset).is_none() {
            return;
        }
        self.used -= extent.len;
        let (mut offset, mut len) = (extent.offset, extent.len);
        let before = slab.free.range(..offset).next_back().map(|(at, free)| (*at, *free));
        if let Some((at, free)) = before.filter(|(at, free)| at + free == offset) {
            self.by_len.remove(&(free, extent.slab, at));
            slab.free.remove(&at);
            (offset, len) = (at, len + free);
        }
        if let Some(free) = slab.free.remove(&(offset + len)) {
            self.by_len.remove(&(free, extent.slab, offset + len));
            len += free;
        }
        slab.free.insert(offset, len);
        self.by_len.insert((len, extent.slab, offset));
    }

    /// Whether the budget has room for a new slab that holds `len`.
    pub(super) fn may_grow(&self, len: usize) -> bool {
        self.held + len <= self.budget
    }

    /// A new slab that holds at least `len`; within the budget, which the caller has asked for.
    pub(super) fn grow(&mut self, len: usize) -> Result<(), Fault> {
        let bytes = self.slab_bytes.max(len).min(self.budget - self.held);
        let memory = match Hbm::new(&self.device, bytes) {
            // Others use the device too: what is left may do for this block.
            Err(Fault::OutOfMemory) if bytes > len => Hbm::new(&self.device, len)?,
            other => other?,
        };
        let slab = self.next;
        self.next += 1;
        self.held += memory.len();
        self.by_len.insert((memory.len(), slab, 0));
        let free = BTreeMap::from([(0, memory.len())]);
        self.slabs.insert(slab, Slab { memory: Arc::new(memory), free, used: BTreeMap::new() });
        Ok(())
    }

    /// Gives every slab without a block back to the device; their bytes.
    pub(super) fn trim(&mut self) -> u64 {
        let can_go = |slab: &Slab| slab.used.is_empty() && !slab.memory.is_shared();
        let empty: Vec<u32> =
            self.slabs.iter().filter(|(_, slab)| can_go(slab)).map(|(number, _)| *number).collect();
        empty.into_iter().map(|slab| self.drop_slab(slab)).sum()
    }

    pub(super) fn drop_slab(&mut self, number: u32) -> u64 {
        let Some(slab) = self.slabs.remove(&number) else { return 0 };
        for (offset, len) in &slab.free {
            self.by_len.remove(&(*len, number, *offset));
        }
        self.held -= slab.memory.len();
        slab.memory.len() as u64
    }

    /// Whether a slab may be given back to the device: not when other processes may have it open.
    pub(super) fn is_own(&self, number: u32) -> bool {
        self.slabs.get(&number).is_some_and(|slab| !slab.memory.is_shared())
    }

    pub(super) fn slab_len(&self, number: u32) -> usize {
        self.slabs.get(&number).map_or(0, |slab| slab.memory.len())
    }
}
