//! LRU, and LFU with dynamic ageing.

use std::collections::BTreeSet;

use crate::policy::{Block, EvictionPolicy, Tick, Verdict};

/// Slots in the order of a key; the lowest goes first.
#[derive(Debug, Default)]
struct Order {
    keys: Vec<Option<(u64, u64)>>,
    sorted: BTreeSet<((u64, u64), u32)>,
}

impl Order {
    fn key(&self, slot: u32) -> Option<(u64, u64)> {
        self.keys.get(slot as usize).copied().flatten()
    }

    fn set(&mut self, slot: u32, key: (u64, u64)) {
        self.remove(slot);
        if self.keys.len() <= slot as usize {
            self.keys.resize(slot as usize + 1, None);
        }
        self.keys[slot as usize] = Some(key);
        self.sorted.insert((key, slot));
    }

    fn remove(&mut self, slot: u32) {
        if let Some(key) = self.key(slot) {
            self.sorted.remove(&(key, slot));
            self.keys[slot as usize] = None;
        }
    }

    fn pop(&mut self) -> Option<((u64, u64), u32)> {
        let (key, slot) = *self.sorted.first()?;
        self.remove(slot);
        Some((key, slot))
    }
}

/// The block that was used longest ago goes.
#[derive(Debug, Default)]
pub struct Lru {
    order: Order,
    clock: u64,
}

impl EvictionPolicy for Lru {
    fn request(&mut self, _: &[u64], _: Tick) {}

    fn used(&mut self, block: &Block, _: Tick) {
        self.clock += 1;
        self.order.set(block.slot, (self.clock, 0));
    }

    fn inserted(&mut self, block: &Block, now: Tick) {
        self.used(block, now);
    }

    fn evict(&mut self, _: &Block, _: Tick) -> Verdict {
        self.order.pop().map_or(Verdict::Pinned, |(_, slot)| Verdict::Evict(slot))
    }
}

/// The block with the lowest count goes; a new one begins at the count of the last that went.
#[derive(Debug, Default)]
pub struct Lfu {
    order: Order,
    clock: u64,
    age: u64,
}

impl EvictionPolicy for Lfu {
    fn request(&mut self, _: &[u64], _: Tick) {}

    fn used(&mut self, block: &Block, _: Tick) {
        self.clock += 1;
        let count = self.order.key(block.slot).map_or(0, |key| key.0);
        self.order.set(block.slot, (count.max(self.age) + 1, self.clock));
    }

    fn inserted(&mut self, block: &Block, now: Tick) {
        self.order.remove(block.slot);
        self.used(block, now);
    }

    fn evict(&mut self, _: &Block, _: Tick) -> Verdict {
        let Some(((count, _), slot)) = self.order.pop() else { return Verdict::Pinned };
        self.age = count;
        Verdict::Evict(slot)
    }
}
