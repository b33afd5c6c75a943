//! The tiers of a store, top to bottom, and questions that go down them until somebody answers.

use std::sync::Arc;

use cascade_core::id::BlockId;
use cascade_core::tier::{Lookup, MissReason, Tier};

/// A place in the chain of tiers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Level {
    /// The memory of GPUs, of this process.
    Device,
    /// The node's shared memory.
    Arena,
    /// The shared memory of other nodes.
    Remote,
    /// Segment files.
    Files,
}

impl Level {
    /// The name as statistics and Python write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Device => "hbm",
            Self::Arena => "arena",
            Self::Remote => "remote",
            Self::Files => "files",
        }
    }
}

/// What is known of an id, and the highest tier that has its block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Located {
    /// The answer.
    pub answer: Lookup,
    /// Where the block is; `None` unless the answer is a hit.
    pub level: Option<Level>,
    /// Whether a tier above has it in hand, so that it will be there shortly: it is being written, or on its way up. Who gets it now waits
    /// for that rather than read it again.
    pub is_rising: bool,
}

/// One tier of a chain.
#[derive(Debug)]
pub(crate) struct Rung {
    pub(crate) level: Level,
    pub(crate) tier: Arc<dyn Tier>,
}

/// Tiers from the fastest to the largest. Every question is asked of each only for what those above it lack, so that a chain
/// of one costs what the tier costs.
#[derive(Debug)]
pub(crate) struct Chain {
    rungs: Vec<Rung>,
}

/// Of two answers for one id, the one that says more.
fn better(above: Lookup, below: Lookup) -> Lookup {
    match (above, below) {
        (_, Lookup::Hit(_)) => below,
        (Lookup::Pending, _) | (_, Lookup::Pending) => Lookup::Pending,
        (Lookup::Miss(MissReason::Absent), Lookup::Miss(_)) => below,
        _ => above,
    }
}

impl Chain {
    pub(crate) fn new(rungs: Vec<Rung>) -> Self {
        Self { rungs }
    }

    /// Puts a tier above all others.
    pub(crate) fn put_above(&mut self, rung: Rung) {
        self.rungs.insert(0, rung);
    }

    /// Puts a tier right below the arena.
    pub(crate) fn put_below_arena(&mut self, rung: Rung) {
        let at = self.rungs.iter().position(|rung| rung.level > Level::Arena).unwrap_or(self.rungs.len());
        self.rungs.insert(at, rung);
    }

    pub(crate) fn rungs(&self) -> &[Rung] {
        &self.rungs
    }

    /// What is known of each id, and where.
    pub(crate) fn locate(&self, ids: &[BlockId]) -> Vec<Located> {
        self.locate_in(ids, |_| true)
    }

    /// The same, of some levels.
    pub(crate) fn locate_in(&self, ids: &[BlockId], is_asked: impl Fn(Level) -> bool) -> Vec<Located> {
        let unknown = Located { answer: Lookup::Miss(MissReason::Absent), level: None, is_rising: false };
        let mut found = vec![unknown; ids.len()];
        let mut left: Vec<usize> = (0..ids.len()).collect();
        for rung in self.rungs.iter().filter(|rung| is_asked(rung.level)) {
            let asked: Vec<BlockId> = left.iter().map(|at| ids[*at]).collect();
            let mut answers = vec![Lookup::Pending; asked.len()];
            rung.tier.lookup(&asked, &mut answers);
            for (at, answer) in left.iter().zip(answers) {
                let (above, level) = (found[*at], answer.is_hit().then_some(rung.level));
                let is_rising = above.is_rising || answer == Lookup::Pending;
                found[*at] = Located { answer: better(above.answer, answer), level, is_rising };
            }
            left.retain(|at| found[*at].level.is_none());
            if left.is_empty() {
                break;
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use cascade_core::batch::{Batch, Op};
    use cascade_core::memory::Piece;
    use cascade_core::memory_tier::MemoryTier;
    use cascade_core::tier::PutMeta;

    use super::*;

    fn tier_with(ids: &[BlockId]) -> Arc<dyn Tier> {
        let tier = MemoryTier::new(1 << 20);
        let store = |id: &BlockId| Op::Store {
            id: *id,
            from: Piece::shared(b"x"[..].into()).into(),
            meta: PutMeta::default(),
        };
        let ticket = tier.submit(Batch::new(ids.iter().map(store).collect()));
        assert!(ticket.wait(Instant::now() + Duration::from_secs(5)).is_some());
        Arc::new(tier)
    }

    #[test]
    fn the_highest_tier_that_has_a_block_answers() {
        let [a, b, c] = [1_u8, 2, 3].map(|number| BlockId::content(&[number]));
        let rungs = [(Level::Arena, &[a][..]), (Level::Files, &[a, b][..])];
        let rungs = rungs.map(|(level, ids)| Rung { level, tier: tier_with(ids) });
        let chain = Chain::new(rungs.into());
        let levels: Vec<_> = chain.locate(&[a, b, c]).iter().map(|found| found.level).collect();
        assert_eq!(levels, [Some(Level::Arena), Some(Level::Files), None]);
    }

    #[test]
    fn pending_above_gives_way_to_a_hit_below_and_to_nothing_else() {
        let absent = Lookup::Miss(MissReason::Absent);
        assert_eq!(better(Lookup::Pending, absent), Lookup::Pending);
        assert_eq!(better(absent, Lookup::Pending), Lookup::Pending);
        assert_eq!(
            better(absent, Lookup::Miss(MissReason::Unavailable)),
            Lookup::Miss(MissReason::Unavailable)
        );
        let evicting = Lookup::Miss(MissReason::Evicting);
        assert_eq!(better(evicting, absent), evicting);
    }
}
