//! Which host memory is registered: a map of ranges, and the thread that registers in the background.

mod raw;

use std::sync::Arc;

use cascade_core::memory::Piece;
use parking_lot::RwLock;

pub use raw::Registry;

/// Registered ranges `(first address, end)`, sorted; a copy must not cross from one into the next.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ranges(Arc<[(usize, usize)]>);

impl Ranges {
    /// Bytes from `address` on within one registration; 0 outside of all.
    pub(crate) fn from(&self, address: usize) -> usize {
        let after = self.0.partition_point(|(first, _)| *first <= address);
        match after.checked_sub(1).and_then(|at| self.0.get(at)) {
            Some((_, end)) => end.saturating_sub(address),
            None => 0,
        }
    }

    /// How many.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// Whether every byte of `piece` is registered.
    pub(crate) fn cover(&self, piece: &Piece) -> bool {
        let (mut at, end) = (piece.as_ptr() as usize, piece.as_ptr() as usize + piece.len());
        while at < end {
            match self.from(at) {
                0 => return false,
                bytes => at = at.saturating_add(bytes),
            }
        }
        true
    }

    fn with(&self, range: (usize, usize)) -> Self {
        let mut all: Vec<_> = self.0.to_vec();
        all.insert(all.partition_point(|(first, _)| *first < range.0), range);
        Self(all.into())
    }

    fn without(&self, first: usize) -> Self {
        Self(self.0.iter().copied().filter(|range| range.0 != first).collect())
    }
}

/// The map, replaced as a whole when it changes.
#[derive(Debug, Default)]
struct Map {
    ranges: RwLock<Ranges>,
}

impl Map {
    fn snapshot(&self) -> Ranges {
        self.ranges.read().clone()
    }

    fn add(&self, range: (usize, usize)) {
        let mut ranges = self.ranges.write();
        *ranges = ranges.with(range);
    }

    fn remove(&self, first: usize) {
        let mut ranges = self.ranges.write();
        *ranges = ranges.without(first);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_end_where_their_registration_does() {
        let map = Map::default();
        map.add((4096, 8192));
        map.add((0, 4096));
        let ranges = map.snapshot();
        assert_eq!(
            (ranges.from(0), ranges.from(4095), ranges.from(4096), ranges.from(8192)),
            (4096, 1, 4096, 0)
        );
        map.remove(0);
        assert_eq!((map.snapshot().from(10), map.snapshot().from(5000)), (0, 3192));
    }
}
