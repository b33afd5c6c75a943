//! W-TinyLFU: a window of a hundredth by LRU, a main part by segmented LRU, and a sketch of counts that decides between the
//! oldest of both.

use std::collections::BTreeSet;

use crate::policy::{Block, EvictionPolicy, Tick, Verdict};

/// Rows of the sketch.
const ROWS: usize = 4;
/// Counters saturate here.
const MOST: u8 = 15;

/// Counts of keys, halved when ten times the tier's blocks were counted.
#[derive(Debug)]
struct Sketch {
    counters: Vec<u8>,
    columns: usize,
    counted: usize,
    halve_at: usize,
}

impl Sketch {
    fn new(slots: usize) -> Self {
        let columns = slots.max(16).next_power_of_two();
        Self { counters: vec![0; columns * ROWS], columns, counted: 0, halve_at: 10 * slots.max(16) }
    }

    fn cells(&self, key: u64) -> [usize; ROWS] {
        std::array::from_fn(|row| {
            let mixed =
                (key ^ (row as u64).wrapping_mul(0xa24b_aed4_963e_e407)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            row * self.columns + ((mixed >> 24) as usize & (self.columns - 1))
        })
    }

    fn count(&mut self, key: u64) {
        for cell in self.cells(key) {
            self.counters[cell] = (self.counters[cell] + 1).min(MOST);
        }
        self.counted += 1;
        if self.counted >= self.halve_at {
            self.counters.iter_mut().for_each(|counter| *counter /= 2);
            self.counted /= 2;
        }
    }

    fn of(&self, key: u64) -> u8 {
        self.cells(key).into_iter().map(|cell| self.counters[cell]).min().unwrap_or(0)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Part {
    #[default]
    None,
    Window,
    Probation,
    Protected,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    key: u64,
    part: Part,
    touch: u64,
}

/// See the module.
#[derive(Debug)]
pub struct TinyLfu {
    slots: Vec<Slot>,
    parts: [BTreeSet<(u64, u32)>; 3],
    sketch: Sketch,
    clock: u64,
    /// The last that left the window.
    candidate: Option<u32>,
}

impl TinyLfu {
    /// For a tier of `slots` blocks.
    #[must_use]
    pub fn new(slots: usize) -> Self {
        let parts = [BTreeSet::new(), BTreeSet::new(), BTreeSet::new()];
        Self {
            slots: vec![Slot::default(); slots],
            parts,
            sketch: Sketch::new(slots),
            clock: 0,
            candidate: None,
        }
    }

    fn part(&mut self, part: Part) -> &mut BTreeSet<(u64, u32)> {
        let index = match part {
            Part::None | Part::Window => 0,
            Part::Probation => 1,
            Part::Protected => 2,
        };
        &mut self.parts[index]
    }

    /// Moves a slot to the new end of `part`; out of all with `Part::None`.
    fn put(&mut self, slot: u32, part: Part) {
        let Some(Slot { part: old, touch, .. }) = self.slots.get(slot as usize).copied() else { return };
        if old != Part::None {
            self.part(old).remove(&(touch, slot));
        }
        self.clock += 1;
        let clock = self.clock;
        self.slots[slot as usize].part = part;
        self.slots[slot as usize].touch = clock;
        if part != Part::None {
            self.part(part).insert((clock, slot));
        }
    }

    fn oldest(&mut self, part: Part) -> Option<u32> {
        self.part(part).first().map(|(_, slot)| *slot)
    }
}

impl EvictionPolicy for TinyLfu {
    fn request(&mut self, chain: &[u64], _: Tick) {
        chain.iter().for_each(|key| self.sketch.count(*key));
    }

    fn used(&mut self, block: &Block, _: Tick) {
        let Some(slot) = self.slots.get(block.slot as usize) else { return };
        let part = if slot.part == Part::Window { Part::Window } else { Part::Protected };
        self.put(block.slot, part);
        if self.parts[2].len() > self.slots.len() * 4 / 5
            && let Some(oldest) = self.oldest(Part::Protected)
        {
            self.put(oldest, Part::Probation);
        }
    }

    fn inserted(&mut self, block: &Block, _: Tick) {
        if let Some(slot) = self.slots.get_mut(block.slot as usize) {
            slot.key = block.key;
        }
        self.put(block.slot, Part::Window);
        if self.parts[0].len() > (self.slots.len() / 100).max(1) {
            self.candidate = self.oldest(Part::Window);
            if let Some(candidate) = self.candidate {
                self.put(candidate, Part::Probation);
            }
        }
    }

    fn evict(&mut self, _: &Block, _: Tick) -> Verdict {
        let old = self.oldest(Part::Probation).or_else(|| self.oldest(Part::Protected));
        let old = old.or_else(|| self.oldest(Part::Window));
        let is_there =
            |slot: &u32| self.slots.get(*slot as usize).is_some_and(|slot| slot.part == Part::Probation);
        let new = self.candidate.take().filter(is_there);
        let count = |slot: u32| self.sketch.of(self.slots[slot as usize].key);
        let victim = match (new, old) {
            (Some(new), Some(old)) if count(new) <= count(old) => new,
            (_, Some(old)) => old,
            (_, None) => return Verdict::Pinned,
        };
        self.put(victim, Part::None);
        Verdict::Evict(victim)
    }
}
