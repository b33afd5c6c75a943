//! What a block is worth keeping.

use cascade_core::policy::{Heat, WorthTable};
use cascade_core::sync::{AtomicU64, Ordering};
use cascade_core::tier::Class;

use super::shared;
use crate::config::Eviction;
use crate::session::Core;
use crate::slot::{Meaning, Now, Slot, Word};

/// Prefix blocks are worth more than any ordinary block.
pub(super) const PREFIX: f64 = 1e12;
/// Where nothing was learned, a block that was never used again is worth this share of one that was.
const NEVER_USED: f64 = 1.0 / 256.0;
/// A block that a tier below has too is worth this share of one that would be lost.
const KEPT: f64 = 1.0 / 64.0;
/// Of blocks that are worth the same the oldest goes first: by so little for each tick of age,
const BY_AGE: f64 = 1.5e-8;
/// and of those the deepest in its chain.
const BY_DEPTH: f64 = 4e-10;
/// Worth more than nothing, so that these orders hold where a table says nothing.
const LEAST: f64 = 1e-12;

/// Says what blocks are worth, at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Judge<'a> {
    now: Now,
    eviction: Eviction,
    table: Option<&'a [AtomicU64]>,
    /// Whether prefix blocks are within their share.
    protects: bool,
}

impl<'a> Judge<'a> {
    /// As this process evicts now; prefix blocks go by their worth alone unless `protects`.
    #[must_use]
    pub fn new(core: &'a Core, protects: bool) -> Self {
        let eviction = core.rule().eviction;
        let table = if eviction == Eviction::Learned { shared::table(core.map()) } else { None };
        Self { now: core.now(), eviction, table, protects }
    }

    /// Worth of the block in `slot`, for each byte of it.
    #[must_use]
    pub fn worth(&self, slot: &Slot, word: Word) -> f64 {
        let class = if self.protects && word.class() == Class::Prefix { PREFIX } else { 1.0 };
        let kept = if slot.is_kept() { KEPT } else { 1.0 };
        class * kept * self.of_past(slot.past())
    }

    fn of_uses(&self, uses: u32) -> f64 {
        match (self.eviction, uses) {
            (Eviction::Lru, _) => 1.0,
            (Eviction::Learned, 0) => NEVER_USED,
            (Eviction::Learned, uses) => f64::from(uses),
        }
    }

    fn of_past(&self, past: u32) -> f64 {
        if self.now.meaning() == Meaning::Count {
            let (uses, age) = self.now.counted(past);
            return self.of_uses(uses) / (f64::from(age) + 1.0);
        }
        let (heat, tick) = (Heat::from_bits(past), self.now.tick());
        let age = f64::from(heat.age(tick));
        let worth = match self.table {
            None => self.of_uses(heat.uses()) / (age + 1.0),
            Some(table) => {
                let word = |at: usize| table.get(at).map_or(0, |word| word.load(Ordering::Relaxed));
                f64::from(WorthTable::look_up(heat, tick, word)) + LEAST
            }
        };
        worth * (1.0 - age * BY_AGE - f64::from(heat.depth()) * BY_DEPTH)
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use cascade_core::policy::{Kind, Learned};

    use super::*;
    use crate::slot::{Below, Extent, State};

    fn judge(tick: u32) -> Judge<'static> {
        let now = Now::at(tick, Meaning::Heat);
        Judge { now, eviction: Eviction::Learned, table: None, protects: true }
    }

    fn block(class: Class, touched: u32, depth: usize) -> (Slot, Word) {
        let slot = Slot::default();
        let heat = Heat::new(touched, 0, Kind::default(), depth);
        slot.set_extent(Extent { offset: 0, len: 1 }, 0, heat.bits());
        (slot, Word::new(State::Sealed, class, 0, 1))
    }

    fn worth(judge: &Judge<'_>, (slot, word): &(Slot, Word)) -> f64 {
        judge.worth(slot, *word)
    }

    #[test]
    fn where_nothing_is_learned_the_oldest_goes_first_and_of_those_the_deepest() {
        let now = judge(60_000);
        for age in 0..59_999 {
            let of = |age: u32, depth| worth(&now, &block(Class::Ordinary, 60_000 - age, depth));
            assert!(of(age, 31) > of(age + 1, 0), "at {age}");
            assert!(of(age, 0) > of(age, 1));
        }
    }

    #[test]
    fn prefix_blocks_outrank_others_while_they_are_within_their_share() {
        let (old, young) = (block(Class::Prefix, 0, 0), block(Class::Ordinary, 60_000, 0));
        assert!(worth(&judge(60_000), &old) > worth(&judge(60_000), &young));
        let beyond = Judge { protects: false, ..judge(60_000) };
        assert!(worth(&beyond, &old) < worth(&beyond, &young));
    }

    #[test]
    fn what_a_tier_below_has_goes_before_what_would_be_lost() {
        let (kept, alone) = (block(Class::Ordinary, 50, 0), block(Class::Ordinary, 0, 0));
        kept.0.set_below(Below::Kept);
        assert!(worth(&judge(50), &kept) < worth(&judge(50), &alone));
    }

    #[test]
    fn a_table_in_shared_words_says_what_the_table_says() {
        let mut learned = Learned::new(1 << 12);
        for number in 0..4000_u64 {
            let chain: Vec<u64> = (0..4).map(|depth| number % 100 << 32 | depth << 8 | 1).collect();
            cascade_core::policy::Worth::request(&mut learned, &chain, number as u32 / 10);
        }
        let words: Vec<AtomicU64> = learned.table().words().map(AtomicU64::new).collect();
        let judge = Judge { table: Some(Box::leak(words.into_boxed_slice())), ..judge(500) };
        for uses in 0..16 {
            for age in [0_u32, 3, 10, 90, 499] {
                let heat = Heat::new(500 - age, uses, Kind::of(1, 4, 4, 0), 0);
                let (whole, short) =
                    (f64::from(learned.table().worth(heat, 500)), judge.of_past(heat.bits()));
                assert!((short / whole - 1.0).abs() < 0.02, "{short} for {whole}");
            }
        }
    }

    #[test]
    fn no_words_make_a_worth_that_cannot_be_compared() {
        let words: Vec<AtomicU64> = (0..WorthTable::WORDS).map(|_| AtomicU64::new(u64::MAX)).collect();
        let judge = Judge { table: Some(Box::leak(words.into_boxed_slice())), ..judge(500) };
        for past in [0, 1 << 27, (1 << 28) - 1] {
            assert!(judge.of_past(past).is_finite() && judge.of_past(past) > 0.0);
        }
    }

    #[test]
    fn an_arena_of_counts_goes_by_them() {
        let judge = Judge { now: Now::at(200, Meaning::Count), ..judge(200) };
        let slot = |touched: u32, uses: u32| {
            let slot = Slot::default();
            slot.set_extent(Extent { offset: 0, len: 1 }, 0, touched | uses << 20);
            (slot, Word::new(State::Sealed, Class::Ordinary, 0, 1))
        };
        assert!(worth(&judge, &slot(0, 1)) > worth(&judge, &slot(200, 0)), "a scan displaces nothing used");
        let lru = Judge { eviction: Eviction::Lru, ..judge };
        assert!(worth(&lru, &slot(0, 1)) < worth(&lru, &slot(200, 0)));
    }
}
