//! Which blocks were fetched from files lately: the second fetch of one is worth a place in the arena.

use std::sync::atomic::{AtomicU64, Ordering};

use cascade_core::id::BlockId;

/// Blocks that are remembered, at most.
const PLACES: usize = 1 << 14;

/// A table of fingerprints, each in the one place that it can have: a later block takes the place of an earlier one.
#[derive(Debug)]
pub(crate) struct Seen(Box<[AtomicU64]>);

impl Default for Seen {
    fn default() -> Self {
        Self((0..PLACES).map(|_| AtomicU64::new(0)).collect())
    }
}

impl Seen {
    /// The place of a block, and its fingerprint.
    fn slot(&self, id: &BlockId) -> Option<(&AtomicU64, u64)> {
        // Ids are hashes already.
        let words: Vec<u64> =
            id.as_bytes().as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
        let (place, print) = (words.get(1)?, words.get(2)?);
        Some((self.0.get(usize::try_from(place % PLACES as u64).ok()?)?, print | 1))
    }

    /// Notes a fetch; whether the block was noted before.
    pub(crate) fn again(&self, id: &BlockId) -> bool {
        self.slot(id).is_some_and(|(slot, print)| slot.swap(print, Ordering::Relaxed) == print)
    }
}

/// How often blocks were put or used, up to three times: [`Seen`] with a count in the two lowest bits.
#[derive(Debug, Default)]
pub(crate) struct Sightings(Seen);

impl Sightings {
    /// Notes that a block was put, put again, or used; how often that was so, this time included. Of two that come together, one
    /// is told that it was the second.
    pub(crate) fn see(&self, id: &BlockId) -> u64 {
        let Some((slot, print)) = self.0.slot(id) else { return 0 };
        let seen = |before: u64| if before | 3 == print | 3 { (before & 3).min(2) + 1 } else { 1 };
        let then = |before: u64| Some(print & !3 | seen(before));
        let before = slot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, then);
        before.map_or(0, seen)
    }

    /// How often a block was seen, as far as is known.
    pub(crate) fn count(&self, id: &BlockId) -> u64 {
        let Some((slot, print)) = self.0.slot(id) else { return 0 };
        let seen = slot.load(Ordering::Relaxed);
        if seen | 3 == print | 3 { seen & 3 } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_many_is_told_that_it_was_the_second() {
        let (seen, a) = (Sightings::default(), BlockId::named("a"));
        let seconds: usize = std::thread::scope(|scope| {
            let count = || (0..50).filter(|_| seen.see(&a) == 2).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(count)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!((seconds, seen.count(&a), seen.count(&BlockId::named("b"))), (1, 3, 0));
    }

    #[test]
    fn the_second_time_is_noticed() {
        let seen = Seen::default();
        let (a, b) = (BlockId::named("a"), BlockId::named("b"));
        assert!(!seen.again(&a) && !seen.again(&b) && seen.again(&a) && seen.again(&b));
    }
}
