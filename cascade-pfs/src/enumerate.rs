//! What the tier holds, by name.

use cascade_core::id::BlockId;

use crate::tier::PfsTier;

impl PfsTier {
    /// The ids of all blocks that are known now, of every writer, in no order. None in a forked child.
    #[must_use]
    pub fn ids(&self) -> Vec<BlockId> {
        self.catalog(|catalog| catalog.ids()).unwrap_or_default()
    }
}
