//! A lease: the right to read a sealed block where it lies.

use std::fmt::Debug;
use std::sync::Arc;

use crate::block::BlockMemory;
use crate::memory::SgList;
use crate::tier::{BlockMeta, Class};

/// What a tier must do for the leases that it gives.
pub trait LeaseHome: Send + Sync + Debug {
    /// Takes the pin back. Called once for each lease; must not block or fail.
    fn release(&self, token: u64);

    /// Whether the lease still stands: false once the process has forked and this is the child, or the device is gone.
    fn is_valid(&self, token: u64) -> bool;
}

/// Pins one sealed block; dropping it releases the pin. It counts against nothing but its holder's ledger.
#[derive(Debug)]
pub struct Lease {
    memory: BlockMemory,
    // Not a whole `BlockMeta`, which says the length again: a lease, or the miss in its place, is one cache line.
    digest: u64,
    class: Class,
    tenant: u16,
    home: Arc<dyn LeaseHome>,
    token: u64,
}

impl Lease {
    /// A lease on `memory`, all of the block that `meta` tells of, to be released at `home` under `token`. For tiers.
    #[inline]
    #[must_use]
    pub fn new(memory: BlockMemory, meta: BlockMeta, home: Arc<dyn LeaseHome>, token: u64) -> Self {
        debug_assert_eq!(memory.len() as u64, meta.len, "a lease is on a whole block");
        Self { memory, digest: meta.digest, class: meta.class, tenant: meta.tenant, home, token }
    }

    /// Payload length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.memory.len()
    }

    /// Whether the block holds no byte (it never does).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.memory.is_empty()
    }

    /// What the tier knows of the block.
    #[must_use]
    pub fn meta(&self) -> BlockMeta {
        BlockMeta { len: self.len() as u64, digest: self.digest, class: self.class, tenant: self.tenant }
    }

    /// The block where it lies.
    #[must_use]
    pub fn memory(&self) -> BlockMemory {
        self.memory
    }

    /// Whether the pin still holds. After `fork` it does not in the child, where the memory may be reused at any time.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.home.is_valid(self.token)
    }

    /// Copies `out.len()` bytes from `offset` on; `false`, and nothing written, beyond the end.
    #[must_use]
    pub fn read_at(&self, offset: usize, out: &mut [u8]) -> bool {
        self.memory.read_at(offset, out)
    }

    /// Copies the whole block to `list` and gives the chunk digests of what arrived; `None` when the list is too short,
    /// not writable or in memory that does not reach the block, or the block's device failed.
    #[must_use]
    pub fn scatter(&self, list: &SgList) -> Option<Vec<u64>> {
        let fits = list.len() >= self.len() && self.memory.reaches(list) && list.is_writable();
        fits.then(|| self.memory.try_scatter(list)).flatten()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.home.release(self.token);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tier::MissReason;

    #[test]
    fn an_answer_is_one_cache_line() {
        assert_eq!(size_of::<Result<Lease, MissReason>>(), 64);
    }
}
