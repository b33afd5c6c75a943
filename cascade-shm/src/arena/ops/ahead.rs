//! A batch's keys, with the cache lines that they need on their way: two dependent misses for each id, both over before its turn.

use cascade_core::id::BlockId;

use crate::index::{Index, Key};

/// Ids whose cache lines are under way together: about as many as a core keeps misses for.
pub(super) const LOOKAHEAD: usize = 16;

/// Goes through ids a few at a time, in three steps at once: while some are looked at, the slots of the next ones are fetched, and
/// the tags of those after them.
pub(super) struct Ahead<'a> {
    index: Index<'a>,
    rest: std::slice::Chunks<'a, BlockId>,
    keys: Vec<Key>,
    with_slots: Vec<Key>,
    with_tags: Vec<Key>,
}

impl<'a> Ahead<'a> {
    pub(super) fn new(index: Index<'a>, ids: &'a [BlockId]) -> Self {
        let room = || Vec::with_capacity(ids.len().min(LOOKAHEAD));
        let rest = ids.chunks(LOOKAHEAD);
        let mut ahead = Self { index, rest, keys: room(), with_slots: room(), with_tags: room() };
        ahead.fetch();
        ahead.fetch();
        ahead
    }

    /// The next keys, in the order of their ids; empty at the end.
    pub(super) fn step(&mut self) -> &[Key] {
        std::mem::swap(&mut self.keys, &mut self.with_slots);
        self.fetch();
        &self.keys
    }

    fn fetch(&mut self) {
        std::mem::swap(&mut self.with_slots, &mut self.with_tags);
        self.with_slots.iter().for_each(|key| self.index.prefetch_slots(key));
        self.with_tags.clear();
        let ids = self.rest.next().unwrap_or_default();
        self.with_tags.extend(ids.iter().map(|id| self.index.key(id)));
        self.with_tags.iter().for_each(|key| self.index.prefetch(key));
    }
}
