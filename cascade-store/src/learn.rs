//! What a store learns from requests, and tells its arena: the past of blocks, and what blocks with such a past are worth.
//!
//! A look-up of a chain announces a request; what is fetched, leased or put of it after that belongs to it. Each process learns from its
//! own requests; the arena keeps the table of who has seen most, and all go by it.

use std::time::Duration;

use cascade_core::id::BlockId;
use cascade_core::policy::{Heat, Learned, Tick};
use cascade_shm::Arena;
use parking_lot::{Mutex, MutexGuard};

use crate::observed::try_for;

/// Blocks that are remembered, at most: 16 MiB.
const MOST_KEYS: usize = 1 << 20;
/// Blocks that are remembered at first.
const FIRST_KEYS: usize = 1 << 14;
/// How long a request waits until it is heard. One that is not costs nothing but what could have been learned from it; and a forked
/// child may find a lock held for ever.
const PATIENCE: Duration = Duration::from_micros(200);
/// Puts that the mean length of a block is taken over.
const MEAN_OF: f64 = 64.0;

/// Learns from the requests of one store. Does nothing where its arena evicts by another rule.
#[derive(Debug, Default)]
pub(crate) struct Learner {
    of: Option<(Arena, Mutex<State>)>,
}

#[derive(Debug)]
struct State {
    learned: Learned,
    keys: Vec<u64>,
    ids: Vec<BlockId>,
    published: u64,
    /// Mean length of what was put, in bytes.
    mean: f64,
}

/// 64 bits of an id: an engine's own ids may have structure, so all of it counts.
fn key(id: &BlockId) -> u64 {
    let mix = |hash: u64, word: &u64| (hash ^ word).wrapping_mul(0xff51_afd7_ed55_8ccd).rotate_left(29);
    id.words().iter().fold(0x9e37_79b9_7f4a_7c15, mix)
}

impl Learner {
    /// For a store over `arena`.
    pub(crate) fn new(arena: &Arena) -> Self {
        let learned = Learned::new(FIRST_KEYS);
        let state = State { learned, keys: Vec::new(), ids: Vec::new(), published: 0, mean: 0.0 };
        Self { of: arena.is_learning().then(|| (arena.clone(), Mutex::new(state))) }
    }

    /// The chain `ids` is looked up.
    pub(crate) fn look_up<'a>(&self, ids: impl IntoIterator<Item = &'a BlockId>) {
        self.hear(ids, Learned::look_up);
    }

    /// Blocks are fetched or leased.
    pub(crate) fn fetch<'a>(&self, ids: impl IntoIterator<Item = &'a BlockId>) {
        self.hear(ids, Learned::fetch);
    }

    /// Blocks of so many bytes together are to be put: their pasts, or nothing where nobody learns.
    pub(crate) fn put(&self, ids: &[BlockId], bytes: usize) -> Vec<Heat> {
        let mut heats = Vec::new();
        let heard = self.hear(ids, |learned, keys, now| {
            heats.extend_from_slice(learned.put(keys, now));
            &[]
        });
        let Some(mut state) = heard.filter(|_| !ids.is_empty()) else { return heats };
        let length = bytes as f64 / ids.len() as f64;
        state.mean += if state.mean == 0.0 { length } else { (length - state.mean) / MEAN_OF };
        // As many as may matter to an arena of so many blocks.
        let capacity = self.of.as_ref().map_or(0, |(arena, _)| arena.superblock().geometry.data_bytes);
        let blocks = (capacity as f64 / state.mean.max(1.0)) as usize;
        state.learned.allow(Learned::memory_for(blocks).min(MOST_KEYS));
        heats
    }

    /// Tells what is learned from of blocks, and the arena what it gives for those that are there.
    fn hear<'a>(
        &self,
        ids: impl IntoIterator<Item = &'a BlockId>,
        what: impl for<'b> FnOnce(&'b mut Learned, &[u64], Tick) -> &'b [Heat],
    ) -> Option<MutexGuard<'_, State>> {
        let (arena, state) = self.of.as_ref()?;
        let mut guard = try_for(state, PATIENCE)?;
        let State { learned, keys, ids: heard, published, .. } = &mut *guard;
        heard.clear();
        heard.extend(ids);
        keys.clear();
        keys.extend(heard.iter().map(key));
        arena.note_heats(heard, what(learned, keys, arena.tick()));
        if learned.looks() != *published {
            *published = learned.looks();
            arena.publish_worth(learned.table(), learned.evidence());
        }
        Some(guard)
    }
}
