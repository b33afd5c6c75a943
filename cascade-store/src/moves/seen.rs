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
    /// Notes a fetch; whether the block was noted before.
    pub(crate) fn again(&self, id: &BlockId) -> bool {
        // Ids are hashes already.
        let words: Vec<u64> =
            id.as_bytes().as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
        let (Some(place), Some(print)) = (words.get(1), words.get(2)) else { return false };
        let print = print | 1;
        let slot = &self.0[usize::try_from(place % PLACES as u64).unwrap_or(0)];
        slot.swap(print, Ordering::Relaxed) == print
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_time_is_noticed() {
        let seen = Seen::default();
        let (a, b) = (BlockId::named("a"), BlockId::named("b"));
        assert!(!seen.again(&a) && !seen.again(&b) && seen.again(&a) && seen.again(&b));
    }
}
