//! Slots of a pool, used under its lock.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use cascade_core::batch::{Outcome, Refusal};
use cascade_core::digest;
use cascade_core::id::BlockId;
use cascade_core::metrics::TierStats;
use cascade_core::quarantine::Quarantine;
use cascade_core::reservation::Sealed;
use cascade_core::tier::{BlockMeta, Class, Lookup, MissReason, OnExisting, PutMeta};

use super::evict::{self, CANDIDATES, Window};
use super::slabs::{Extent, Slabs, UNIT};
use crate::device::{Event, Fault};

/// Prefix blocks outlive others until they fill this share of the budget, one half.
const PREFIX_SHARE: u64 = 2;

/// A slot at one time of its life: an old token names nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    slot: u32,
    generation: u32,
}

impl Token {
    pub(crate) fn to_bits(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.slot)
    }

    pub(crate) fn from_bits(bits: u64) -> Self {
        Self { slot: bits as u32, generation: (bits >> 32) as u32 }
    }

    pub(crate) fn generation(self) -> u32 {
        self.generation
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Free,
    Reserved,
    Sealed,
    /// Deleted or replaced while it was pinned: goes with its last pin.
    Retired,
    Quarantined,
}

#[derive(Debug)]
struct Slot {
    id: BlockId,
    generation: u32,
    life: Life,
    extent: Extent,
    meta: BlockMeta,
    pins: u32,
    touched: u64,
}

#[derive(Debug)]
pub(crate) enum NoReservation {
    Exists(BlockMeta),
    Refused(Refusal),
}

#[derive(Debug)]
pub(super) struct State {
    slots: Vec<Slot>,
    free: Vec<u32>,
    stored: HashMap<BlockId, u32>,
    pending: HashMap<BlockId, u32>,
    /// Sealed blocks by class and last use.
    order: BTreeMap<(Class, u64), u32>,
    quarantine: Quarantine<u32>,
    pub(super) slabs: Slabs,
    /// Leases that go when their event has come.
    pub(super) releasing: Vec<(Event, Token)>,
    clock: u64,
    prefix_bytes: u64,
    pub(super) stats: TierStats,
}

impl State {
    pub(super) fn new(slabs: Slabs, grace: Duration) -> Self {
        let quarantine = Quarantine::new(grace, slabs.budget_bytes() / 4);
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            stored: HashMap::new(),
            pending: HashMap::new(),
            order: BTreeMap::new(),
            quarantine,
            slabs,
            releasing: Vec::new(),
            clock: 0,
            prefix_bytes: 0,
            stats: TierStats::default(),
        }
    }

    pub(super) fn lookup(&self, id: &BlockId) -> Lookup {
        if let Some(slot) = self.stored.get(id).and_then(|slot| self.slots.get(*slot as usize)) {
            return Lookup::Hit(slot.meta);
        }
        if self.pending.contains_key(id) { Lookup::Pending } else { Lookup::Miss(MissReason::Absent) }
    }

    pub(super) fn reserve(
        &mut self,
        id: &BlockId,
        len: u64,
        meta: PutMeta,
        now: Duration,
    ) -> Result<(Token, Extent), NoReservation> {
        while let Some(slot) = self.quarantine.pop_expired(now) {
            self.vacate(slot);
        }
        let bytes = self.admit(id, len, meta)?;
        let number = self.empty_slot();
        let extent = match self.space(bytes, number) {
            Ok(extent) => extent,
            Err(why) => {
                self.free.push(number);
                return Err(self.refuse(why));
            }
        };
        let touched = self.tick();
        let slot = &mut self.slots[number as usize];
        slot.generation = slot.generation.wrapping_add(1).max(1);
        (slot.id, slot.life, slot.extent, slot.pins, slot.touched) =
            (*id, Life::Reserved, extent, 0, touched);
        slot.meta = BlockMeta { len, digest: 0, class: meta.class, tenant: meta.tenant };
        self.pending.insert(*id, number);
        Ok((Token { slot: number, generation: slot.generation }, extent))
    }

    /// Bytes that the block takes, if it may be reserved at all.
    fn admit(&mut self, id: &BlockId, len: u64, meta: PutMeta) -> Result<usize, NoReservation> {
        if len == 0 {
            return Err(self.refuse(Refusal::Empty));
        }
        if let (Lookup::Hit(stored), OnExisting::Keep) = (self.lookup(id), meta.on_existing) {
            self.stats.exists += 1;
            return Err(NoReservation::Exists(stored));
        }
        if len > self.slabs.budget_bytes() {
            return Err(self.refuse(Refusal::TooLarge));
        }
        if self.pending.contains_key(id) {
            return Err(self.refuse(Refusal::Pending));
        }
        if self.quarantine.is_full() {
            return Err(self.refuse(Refusal::Throttled));
        }
        let bytes = usize::try_from(len).ok().and_then(|len| len.checked_next_multiple_of(UNIT));
        bytes.ok_or_else(|| self.refuse(Refusal::TooLarge))
    }

    fn space(&mut self, bytes: usize, slot: u32) -> Result<Extent, Refusal> {
        if let Some(extent) = self.slabs.take(bytes, slot) {
            return Ok(extent);
        }
        if self.slabs.may_grow(bytes) {
            match self.slabs.grow(bytes) {
                Ok(()) => return self.slabs.take(bytes, slot).ok_or(Refusal::Full),
                // The device has less than the budget: what is held must do.
                Err(Fault::OutOfMemory) => {}
                Err(_) => return Err(Refusal::Unavailable),
            }
        }
        if self.make_room(bytes)
            && let Some(extent) = self.slabs.take(bytes, slot)
        {
            return Ok(extent);
        }
        Err(Refusal::Full)
    }

    /// Evicts what is worth least; nothing when that could not be enough.
    fn make_room(&mut self, bytes: usize) -> bool {
        if let Some(window) = self.window(bytes) {
            window.slots.iter().for_each(|slot| self.evict(*slot));
            return true;
        }
        let worth = |slot: u32| self.worth(slot);
        let Some((slots, numbers)) = evict::whole_slabs(&self.slabs, bytes, &worth) else { return false };
        slots.into_iter().for_each(|slot| self.evict(slot));
        numbers.into_iter().for_each(|number| {
            self.slabs.drop_slab(number);
        });
        self.slabs.may_grow(bytes) && self.slabs.grow(bytes).is_ok()
    }

    fn window(&self, bytes: usize) -> Option<Window> {
        let worth = |slot: u32| self.worth(slot);
        let mut best: Option<Window> = None;
        let prefixes_first = self.prefix_bytes > self.slabs.budget_bytes() / PREFIX_SHARE;
        let prefixes = || self.order.range((Class::Prefix, 0)..).map(|(_, slot)| *slot);
        let head: Vec<u32> = if prefixes_first {
            prefixes().take(CANDIDATES).collect()
        } else {
            self.order.values().copied().take(CANDIDATES).collect()
        };
        for number in head {
            let extent = &self.slots[number as usize].extent;
            let found = evict::around(&self.slabs, extent.slab, extent.offset, bytes, &worth);
            if let Some(window) = found
                && best.as_ref().is_none_or(|best| window.is_cheaper_than(best))
            {
                best = Some(window);
            }
        }
        best.or_else(|| evict::anywhere(&self.slabs, bytes, &worth))
    }

    /// Class and last use of a block that may be evicted.
    fn worth(&self, number: u32) -> Option<(Class, u64)> {
        let slot = self.slots.get(number as usize)?;
        let above = self.prefix_bytes > self.slabs.budget_bytes() / PREFIX_SHARE;
        let class = if above { Class::Ordinary } else { slot.meta.class };
        (slot.life == Life::Sealed && slot.pins == 0).then_some((class, slot.touched))
    }

    fn evict(&mut self, number: u32) {
        self.unlink(number);
        self.vacate(number);
        self.stats.evictions += 1;
    }

    pub(super) fn seal(&mut self, token: Token, digests: &[u64]) -> Sealed {
        let Some(slot) = self.at(token).filter(|slot| slot.life == Life::Reserved) else {
            return Sealed::Lost;
        };
        let id = slot.id;
        let root = digest::root(id.as_bytes(), slot.meta.len, digests.iter().copied());
        let meta = BlockMeta { digest: root, ..slot.meta };
        self.pending.remove(&id);
        if let Some(old) = self.stored.get(&id).copied() {
            let old_meta = self.slots[old as usize].meta;
            if old_meta.digest == root {
                self.vacate(token.slot);
                self.stats.exists += 1;
                return Sealed::Exists(old_meta);
            }
            self.forget(old);
        }
        let touched = self.tick();
        let slot = &mut self.slots[token.slot as usize];
        (slot.life, slot.meta, slot.touched) = (Life::Sealed, meta, touched);
        self.stored.insert(id, token.slot);
        self.order.insert((meta.class, touched), token.slot);
        if meta.class == Class::Prefix {
            self.prefix_bytes += meta.len;
        }
        self.stats.puts += 1;
        self.stats.bytes_in += meta.len;
        Sealed::Stored(meta)
    }

    pub(super) fn abandon(&mut self, token: Token) {
        if let Some(slot) = self.at(token).filter(|slot| slot.life == Life::Reserved) {
            let id = slot.id;
            self.pending.remove(&id);
            self.vacate(token.slot);
        }
    }

    pub(super) fn quarantine(&mut self, token: Token, now: Duration) {
        if let Some(slot) = self.at(token).filter(|slot| slot.life == Life::Reserved) {
            let (id, bytes) = (slot.id, slot.extent.len as u64);
            self.pending.remove(&id);
            self.slots[token.slot as usize].life = Life::Quarantined;
            self.quarantine.push(now, bytes, token.slot);
        }
    }

    pub(super) fn lease(&mut self, id: &BlockId) -> Result<(Token, Extent, BlockMeta), MissReason> {
        let Some(number) = self.stored.get(id).copied() else {
            self.stats.misses += 1;
            return Err(MissReason::Absent);
        };
        let touched = self.tick();
        self.stats.hits += 1;
        let slot = &mut self.slots[number as usize];
        self.order.remove(&(slot.meta.class, slot.touched));
        self.order.insert((slot.meta.class, touched), number);
        slot.touched = touched;
        slot.pins += 1;
        Ok((Token { slot: number, generation: slot.generation }, slot.extent, slot.meta))
    }

    pub(super) fn release(&mut self, token: Token) {
        if self.at(token).is_none_or(|slot| slot.pins == 0) {
            return;
        }
        let slot = &mut self.slots[token.slot as usize];
        slot.pins -= 1;
        if slot.pins == 0 && slot.life == Life::Retired {
            self.vacate(token.slot);
        }
    }

    pub(super) fn is_pinned(&self, token: Token) -> bool {
        self.at(token).is_some_and(|slot| slot.pins > 0)
    }

    pub(super) fn delete(&mut self, id: &BlockId) -> Outcome {
        let Some(number) = self.stored.get(id).copied() else { return Outcome::Miss(MissReason::Absent) };
        self.forget(number);
        Outcome::Deleted
    }

    pub(super) fn clear(&mut self) {
        let all: Vec<u32> = self.stored.values().copied().collect();
        all.into_iter().for_each(|number| self.forget(number));
    }

    /// Forgets the leased block whose bytes did not match; one that replaced it meanwhile stays.
    pub(super) fn drop_corrupt(&mut self, token: Token) {
        if self.at(token).is_some_and(|slot| slot.life == Life::Sealed) {
            self.forget(token.slot);
            self.stats.corrupt += 1;
        }
    }

    pub(super) fn refuse(&mut self, why: Refusal) -> NoReservation {
        self.stats.refused += 1;
        NoReservation::Refused(why)
    }

    pub(super) fn snapshot(&self) -> TierStats {
        TierStats {
            capacity_bytes: self.slabs.budget_bytes(),
            ready_bytes: self.slabs.budget_bytes(),
            used_bytes: self.slabs.used_bytes(),
            blocks: self.stored.len() as u64,
            quarantined_bytes: self.quarantine.bytes(),
            ..self.stats
        }
    }

    fn at(&self, token: Token) -> Option<&Slot> {
        self.slots.get(token.slot as usize).filter(|slot| slot.generation == token.generation)
    }

    /// A stored block is no hit any more; its space comes free with its last pin.
    fn forget(&mut self, number: u32) {
        self.unlink(number);
        if self.slots[number as usize].pins > 0 {
            self.slots[number as usize].life = Life::Retired;
        } else {
            self.vacate(number);
        }
    }

    fn unlink(&mut self, number: u32) {
        let slot = &self.slots[number as usize];
        self.stored.remove(&slot.id);
        self.order.remove(&(slot.meta.class, slot.touched));
        if slot.meta.class == Class::Prefix {
            self.prefix_bytes -= slot.meta.len;
        }
    }

    fn vacate(&mut self, number: u32) {
        let slot = &mut self.slots[number as usize];
        slot.life = Life::Free;
        slot.generation = slot.generation.wrapping_add(1).max(1);
        let extent = slot.extent;
        self.slabs.give(&extent);
        self.free.push(number);
    }

    fn empty_slot(&mut self) -> u32 {
        if let Some(number) = self.free.pop() {
            return number;
        }
        let blank = BlockMeta { len: 0, digest: 0, class: Class::Ordinary, tenant: 0 };
        let extent = Extent { slab: u32::MAX, offset: 0, len: 0 };
        let id = BlockId::from_bytes([0; 32]);
        self.slots.push(Slot {
            id,
            generation: 0,
            life: Life::Free,
            extent,
            meta: blank,
            pins: 0,
            touched: 0,
        });
        (self.slots.len() - 1) as u32
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }
}
