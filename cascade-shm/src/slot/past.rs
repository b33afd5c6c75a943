//! What a slot says of its block's past: 28 bits beside the length. Hints for eviction: whoever loses a race to write them loses
//! one touch.

use cascade_core::policy::{Heat, Kind, Tick};
use cascade_core::sync::Ordering;

use super::{LEN_MASK, PAST_SHIFT, Slot};

/// Bits of the time of a count.
const COUNT_TIME: u32 = (1 << 20) - 1;
/// Bits of the time of a heat.
const HEAT_TIME: u32 = (1 << 16) - 1;

/// What the 28 bits mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Meaning {
    /// A [`Heat`], in 256ths of the arena's size in bytes put.
    #[default]
    Heat,
    /// Uses in 8 bits above 20 bits of time, in 64ths: arenas without the feature `heat`.
    Count,
}

impl Meaning {
    /// Ticks while as many bytes are put as the arena holds.
    #[must_use]
    pub fn ticks(self) -> u64 {
        match self {
            Self::Heat => 256,
            Self::Count => 64,
        }
    }
}

/// The time of the eviction clock, as the slots of an arena keep it.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    tick: Tick,
    /// The bits of a past that are its time.
    mask: u32,
    /// The bits that count uses, where a touch counts; else 0.
    uses: u32,
    meaning: Meaning,
}

impl Now {
    /// The time `tick` in an arena whose slots have this meaning.
    #[inline]
    #[must_use]
    pub fn at(tick: Tick, meaning: Meaning) -> Self {
        let (mask, uses) = match meaning {
            Meaning::Heat => (HEAT_TIME, 0),
            Meaning::Count => (COUNT_TIME, 0xff << 20),
        };
        Self { tick, mask, uses, meaning }
    }

    /// The same, with every touch counted as a use: where nobody knows of requests.
    #[inline]
    #[must_use]
    pub fn counting(mut self) -> Self {
        if self.meaning == Meaning::Heat {
            self.uses = 15 << 16;
        }
        self
    }

    /// Ticks since the arena was made; wraps.
    #[must_use]
    pub fn tick(self) -> Tick {
        self.tick
    }

    /// What slots mean.
    #[must_use]
    pub fn meaning(self) -> Meaning {
        self.meaning
    }

    /// The past of a block that is put now.
    #[must_use]
    pub fn fresh(self) -> u32 {
        match self.meaning {
            Meaning::Heat => Heat::new(self.tick, 0, Kind::default(), 0).bits(),
            Meaning::Count => self.tick & COUNT_TIME,
        }
    }

    /// The past of a block that is put now, and of which that much is known.
    #[must_use]
    pub fn known(self, heat: Option<Heat>) -> u32 {
        match (heat, self.meaning) {
            (Some(heat), Meaning::Heat) => heat.at(self.tick).bits(),
            _ => self.fresh(),
        }
    }

    /// Uses and age of a past that is a count.
    pub fn counted(self, past: u32) -> (u32, u32) {
        (past >> 20, self.tick.wrapping_sub(past) & COUNT_TIME)
    }

    /// `past` after a touch.
    fn touched(self, past: u32) -> u32 {
        if self.meaning == Meaning::Heat {
            let heat = Heat::from_bits(past);
            return if self.uses == 0 { heat.at(self.tick) } else { heat.again(self.tick) }.bits();
        }
        let (uses, age) = self.counted(past);
        let aged = uses >> (age / 64).min(31);
        self.tick & COUNT_TIME | (aged + 1).min(255) << 20
    }
}

impl Slot {
    /// The 28 bits.
    #[inline]
    #[must_use]
    pub fn past(&self) -> u32 {
        (self.size.load(Ordering::Relaxed) >> PAST_SHIFT) as u32
    }

    /// Notes that the block is used: written at most once in each tick, so a hot block costs no shared cache line. Who knows of
    /// requests counts uses ([`Slot::note`]); where nobody does, a touch is one. The caller pins the block: nobody gives the slot another
    /// length meanwhile, so a store does, which costs a lease less than an exchange.
    #[inline]
    pub fn touch(&self, now: Now) {
        let old = self.size.load(Ordering::Relaxed);
        let past = (old >> PAST_SHIFT) as u32;
        if (past ^ now.tick) & now.mask == 0 && (now.uses == 0 || past & now.uses != 0) {
            return;
        }
        self.size.store(old & LEN_MASK | u64::from(now.touched(past)) << PAST_SHIFT, Ordering::Relaxed);
    }

    /// Notes what a request makes of the block: `heat`, and the more uses of those that it knows and those that are here.
    pub fn note(&self, heat: Heat) {
        let old = self.size.load(Ordering::Relaxed);
        let past = Heat::from_bits((old >> PAST_SHIFT) as u32);
        if past != heat {
            self.write(old, heat.beside(past).bits());
        }
    }

    fn write(&self, old: u64, past: u32) {
        let new = old & LEN_MASK | u64::from(past) << PAST_SHIFT;
        // Losing the race to another loses one touch, which changes nothing that matters. If there is another block by now, of this
        // length and this past, it gets a past that is not its own: a hint.
        let _ = self.size.compare_exchange(old, new, Ordering::Relaxed, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::slot::Extent;

    fn block(past: u32) -> Slot {
        let slot = Slot::default();
        slot.set_extent(Extent { offset: 0, len: 77 }, 0, past);
        slot
    }

    #[test]
    fn a_touch_moves_the_time_and_leaves_the_rest() {
        let kind = Kind::of(2, 9, 4, 0);
        let slot = block(Heat::new(70_000, 3, kind, 5).bits());
        slot.touch(Now::at(70_001, Meaning::Heat));
        assert_eq!(Heat::from_bits(slot.past()), Heat::new(70_001, 3, kind, 5));
        assert_eq!(slot.extent().unwrap().len, 77);
    }

    #[test]
    fn where_nobody_knows_of_requests_a_touch_is_a_use() {
        let now = |tick| Now::at(tick, Meaning::Heat).counting();
        let slot = block(now(5).fresh());
        for tick in [5, 5, 6, 6] {
            slot.touch(now(tick));
        }
        assert_eq!(Heat::from_bits(slot.past()), Heat::new(6, 2, Kind::default(), 0));
    }

    #[test]
    fn a_note_keeps_the_uses_that_others_saw() {
        let slot = block(Heat::new(5, 9, Kind::default(), 1).bits());
        slot.note(Heat::new(8, 2, Kind::of(1, 2, 2, 0), 3));
        assert_eq!(Heat::from_bits(slot.past()), Heat::new(8, 9, Kind::of(1, 2, 2, 0), 3));
    }

    #[test]
    fn a_count_is_halved_in_64_ticks() {
        let now = |tick| Now::at(tick, Meaning::Count);
        let slot = block(now(7).fresh());
        assert_eq!(now(7).counted(slot.past()), (0, 0));
        slot.touch(now(9));
        slot.touch(now(9));
        assert_eq!(now(9).counted(slot.past()), (1, 0), "once in a tick");
        slot.touch(now(10));
        assert_eq!(now(12).counted(slot.past()), (2, 2));
        slot.touch(now(10 + 64));
        assert_eq!(now(74).counted(slot.past()), (2, 0), "half of the count is forgotten");
    }
}
