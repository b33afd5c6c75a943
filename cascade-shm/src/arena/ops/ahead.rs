//! A batch's keys, with the cache lines that they need on their way: two dependent misses for each id, both over before its turn.

use cascade_core::id::BlockId;

use crate::index::{Candidates, Index, Key};

/// Ids whose cache lines are asked for together: about as many as a core keeps misses for.
const GROUP: usize = 16;
/// Three groups, in a power of two, so that a place costs no division.
const RING: usize = 4 * GROUP;

/// Goes through ids, a group ahead with the slots that they may be in and two groups ahead with their tags.
pub(super) struct Ahead<'a> {
    index: Index<'a>,
    ids: &'a [BlockId],
    next: usize,
    ring: [(Key, Candidates); RING],
}

impl<'a> Ahead<'a> {
    #[inline]
    pub(super) fn new(index: Index<'a>, ids: &'a [BlockId]) -> Self {
        let mut ahead = Self { index, ids, next: 0, ring: [(Key::default(), Candidates::default()); RING] };
        ahead.fetch_tags(0);
        ahead.fetch_slots(0);
        ahead.fetch_tags(GROUP);
        ahead
    }

    /// Asks for the tags of the group at `place`, one after the other with nothing in between that could wait.
    #[inline]
    fn fetch_tags(&mut self, place: usize) {
        let ids = self.ids.get(place..).unwrap_or_default();
        for (entry, id) in self.ring[place % RING..].iter_mut().zip(ids).take(GROUP) {
            entry.0 = self.index.key(id);
            self.index.prefetch(&entry.0);
        }
    }

    #[inline]
    fn fetch_slots(&mut self, place: usize) {
        let left = self.ids.len().saturating_sub(place);
        for (key, candidates) in self.ring[place % RING..].iter_mut().take(GROUP.min(left)) {
            *candidates = self.index.prefetch_slots(key);
        }
    }
}

impl Iterator for Ahead<'_> {
    type Item = (Key, Candidates);

    /// The key of the next id, and where it may be.
    #[inline]
    fn next(&mut self) -> Option<(Key, Candidates)> {
        let place = self.next;
        if place >= self.ids.len() {
            return None;
        }
        if place.is_multiple_of(GROUP) {
            self.fetch_slots(place + GROUP);
            self.fetch_tags(place + 2 * GROUP);
        }
        self.next += 1;
        Some(self.ring[place % RING])
    }
}
