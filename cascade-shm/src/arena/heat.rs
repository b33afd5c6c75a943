//! What an arena is told of requests, by who sees whole chains of blocks.

use cascade_core::id::BlockId;
use cascade_core::policy::{Heat, Tick, WorthTable};

use super::Arena;
use crate::config::Eviction;
use crate::evict::shared;
use crate::index::Found;
use crate::slot::Meaning;

/// Ids that are looked for ahead.
const AHEAD: usize = 8;

impl Arena {
    /// Whether this handle evicts by what is learned of requests, and the arena keeps what that takes.
    #[must_use]
    pub fn is_learning(&self) -> bool {
        self.inner.rule.meaning == Meaning::Heat && self.inner.rule.eviction == Eviction::Learned
    }

    /// The time of the eviction clock: 256 ticks go by while as many bytes are put as the arena holds.
    #[must_use]
    pub fn tick(&self) -> Tick {
        self.session().map_or(0, |session| session.core().now().tick())
    }

    /// Notes at the blocks of a request that are here what the request makes of them.
    pub fn note_heats(&self, ids: &[BlockId], heats: &[Heat]) {
        let Some(session) = self.session().filter(|_| self.inner.rule.meaning == Meaning::Heat) else {
            return;
        };
        let index = session.core().index();
        for (ids, heats) in ids.chunks(AHEAD).zip(heats.chunks(AHEAD)) {
            let keys = ids.iter().map(|id| index.key(id));
            let keys: Vec<_> = keys.inspect(|key| index.prefetch_alone(key)).collect();
            for (key, heat) in keys.iter().zip(heats) {
                if let Found::Sealed(number, _) = index.find(key)
                    && let Some(slot) = index.slot(number)
                {
                    // Nobody pins it: see `Slot::write`.
                    slot.note(*heat);
                }
            }
        }
    }

    /// Gives the arena a table of worth, for all who evict by what is learned. It is taken if what is there was made by this handle,
    /// from less evidence, or long ago.
    pub fn publish_worth(&self, table: &WorthTable, evidence: f64) {
        if let Some(session) = self.session().filter(|_| self.inner.rule.meaning == Meaning::Heat) {
            shared::publish(session.core(), table, evidence);
        }
    }
}
