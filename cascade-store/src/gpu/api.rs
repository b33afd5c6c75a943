//! The store's calls for device memory.

use cascade_core::batch::Outcome;
use cascade_core::id::BlockId;
use cascade_core::memory::SgList;
use cascade_core::tier::{BlockMeta, MissReason};
use cascade_gpu::device::Stream;
use cascade_gpu::lease::DeviceLease;
use cascade_gpu::tier::GpuTier;

use crate::put::Put;
use crate::store::Store;

impl Store {
    /// The tier of devices, for what only tier 1 can do; `None` where there is none, and in a forked child.
    #[must_use]
    pub fn gpu(&self) -> Option<&GpuTier> {
        self.tiers.gpu().map(|gpu| gpu.tier())
    }

    /// Stores blocks whose bytes are in device memory, in one piece or in pages, an outcome for each. Their bytes are read after
    /// what `after`, a stream of the caller's, holds now, and have been read when this returns. A block that is found is on the
    /// device, and in the arena at once or soon after ([`Store::flush`] waits for that).
    #[must_use]
    pub fn put_device(&self, blocks: &[(BlockId, SgList)], put: Put, after: Option<Stream>) -> Vec<Outcome> {
        let one = |(id, from): &(BlockId, SgList)| {
            self.tiers.put_device(&(*id, from.clone(), put.meta(id)), put.reach, after)
        };
        blocks.iter().map(one).collect()
    }

    /// Copies blocks to device memory, in one piece or in pages, from the highest tier that has each; an answer for each. The
    /// memory is written after what `after` holds now, and has been written when this returns.
    #[must_use]
    pub fn get_device(
        &self,
        wanted: &[(BlockId, SgList)],
        after: Option<Stream>,
    ) -> Vec<std::result::Result<BlockMeta, MissReason>> {
        wanted.iter().map(|(id, into)| self.tiers.get_device(id, into, after)).collect()
    }

    /// Pins a block on its device and gives its address, without a copy if it is there; else it is brought up.
    ///
    /// # Errors
    /// The reason for a miss; `Unavailable` without a tier of devices, `Throttled` when it has no room for a block from below.
    pub fn get_gpu_ptr(&self, id: &BlockId) -> std::result::Result<DeviceLease, MissReason> {
        self.tiers.get_gpu_ptr(id)
    }
}
