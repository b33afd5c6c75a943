//! How much of a chain is there, over several shards of it.

use cascade_core::id::BlockId;
use cascade_core::tier::Lookup;

use crate::chain::{Level, Located};
use crate::store::Store;

/// The blocks of a chain that are there in every shard, before the first that is not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prefix {
    /// For each block the slowest tier that a shard of it must come from.
    pub levels: Vec<Level>,
    /// Why it ends: what is known of the block behind it in the shard that lacks it. `Pending` says that all shards have it or are
    /// being written, so that asking again may find more. `None` when the whole chain is there.
    pub end: Option<Lookup>,
}

impl Prefix {
    /// Number of blocks.
    #[must_use]
    pub fn blocks(&self) -> usize {
        self.levels.len()
    }
}

/// What all shards of one block come to: the slowest tier, or the answer of the worst.
fn worst(shards: impl Iterator<Item = Located>) -> Result<Option<Level>, Lookup> {
    let (mut level, mut lacks) = (None, None);
    for found in shards {
        match found.answer {
            Lookup::Hit(_) => level = level.max(found.level),
            Lookup::Pending => lacks = lacks.or(Some(Lookup::Pending)),
            Lookup::Miss(_) => return Err(found.answer),
        }
    }
    lacks.map_or(Ok(level), Err)
}

impl Store {
    /// The longest prefix of a chain of which every shard is there, with the tier of each block. `shards` has the chain's ids of
    /// each rank of a tensor parallel engine, in its order; one shard is a chain of its own. All are asked at once; never blocks.
    /// Where shards differ in length the shortest decides.
    #[must_use]
    pub fn prefix(&self, shards: &[&[BlockId]]) -> Prefix {
        let len = shards.iter().map(|ids| ids.len()).min().unwrap_or(0);
        let ids: Vec<BlockId> = shards.iter().flat_map(|ids| &ids[..len]).copied().collect();
        let found = self.locate(&ids);
        let mut prefix = Prefix::default();
        for block in 0..len {
            match worst((0..shards.len()).map(|shard| found[shard * len + block])) {
                Ok(level) => prefix.levels.extend(level),
                Err(answer) => {
                    prefix.end = Some(answer);
                    break;
                }
            }
        }
        prefix
    }
}
