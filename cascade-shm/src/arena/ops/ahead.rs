//! A batch's keys, with the cache lines that they need on their way: two dependent misses for each id, overlapped.

use cascade_core::id::BlockId;

use crate::index::{Index, Key};

/// Ids whose cache lines are under way together: about as many as a core keeps misses for.
pub(super) const LOOKAHEAD: usize = 16;

/// Goes through ids a few at a time: while some are looked at, the next ones' tags are fetched.
pub(super) struct Ahead<'a> {
    index: Index<'a>,
    rest: std::slice::Chunks<'a, BlockId>,
    keys: Vec<Key>,
    next: Vec<Key>,
}

impl<'a> Ahead<'a> {
    pub(super) fn new(index: Index<'a>, ids: &'a [BlockId]) -> Self {
        let mut ahead = Self {
            index,
            rest: ids.chunks(LOOKAHEAD),
            keys: Vec::with_capacity(ids.len().min(LOOKAHEAD)),
            next: Vec::with_capacity(ids.len().min(LOOKAHEAD)),
        };
        ahead.fetch_tags();
        ahead
    }

    /// The next keys, in the order of their ids; empty at the end.
    pub(super) fn step(&mut self) -> &[Key] {
        std::mem::swap(&mut self.keys, &mut self.next);
        if self.keys.len() > 1 {
            self.keys.iter().for_each(|key| self.index.prefetch_slots(key));
        }
        self.fetch_tags();
        &self.keys
    }

    fn fetch_tags(&mut self) {
        self.next.clear();
        let ids = self.rest.next().unwrap_or_default();
        self.next.extend(ids.iter().map(|id| self.index.key(id)));
        self.next.iter().for_each(|key| self.index.prefetch(key));
    }
}
