//! A model of the contract, *may forget, never wrong*, and random sequences of steps to hold a tier against it.
//!
//! The model knows of each block which version was acknowledged last. Contents are derived from key and version, so any
//! byte that a tier returns can be judged:
//!
//! * a hit must show exactly the version acknowledged last (I1, I2), and nothing that was deleted, forgotten or never sealed;
//! * a block that is missing must be paid for by a counted eviction (I3), over a clean reopen too where the tier is persistent;
//! * an operation that was cancelled did nothing, and a block that was damaged is a miss, or comes from another tier;
//! * a lease keeps its bytes whatever happens to its block;
//! * no more bytes are in use than the capacity (I4), and none when all is deleted and released (I5);
//! * after a crash a block may be gone, unless the subject vouches for it, but never wrong.
//!
//! ```
//! use std::sync::Arc;
//! use cascade_core::memory_tier::MemoryTier;
//! use cascade_core::testing::oracle::{self, HalfPut, Step, Subject, Survival};
//! use cascade_core::tier::Addressable;
//!
//! struct Memory(Arc<MemoryTier>);
//! impl Subject for Memory {
//!     fn tier(&self) -> Arc<dyn Addressable> { self.0.clone() }
//!     fn reopen(&mut self) { self.0 = Arc::new(MemoryTier::new(1 << 20)); }
//!     fn crash(&mut self, _: &HalfPut) -> Survival { self.reopen(); Survival::Unknown }
//! }
//! let steps = [Step::Put { key: 1, len: 100 }, Step::Reopen, Step::Get { key: 1 }];
//! oracle::run(&steps, &mut Memory(Arc::new(MemoryTier::new(1 << 20)))).unwrap();
//! ```

mod model;
mod run;
mod step;

pub use run::{check, run};
pub use step::{Step, steps};

use std::sync::Arc;

use crate::id::BlockId;
use crate::tier::Addressable;

/// A block that a process had reserved and filled in part, but not sealed, when it died.
#[derive(Clone, Debug)]
pub struct HalfPut {
    /// Which block.
    pub id: BlockId,
    /// Length of the block in bytes.
    pub len: usize,
    /// What had been written, from the first byte on; shorter than the block.
    pub written: Arc<[u8]>,
}

/// What must be left after a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survival {
    /// Every block may be there or not.
    Unknown,
    /// Every acknowledged block is there, but for those that the dead process evicted and counted.
    Intact {
        /// Evictions counted by the handle that died.
        evictions: u64,
    },
}

/// A tier that can be closed, opened again and lost: what a tier's own test implements.
///
/// It begins empty, holds at least 1 MiB, and nobody else uses it. All leases are released before it is reopened or crashes.
pub trait Subject {
    /// The handle that is open now.
    fn tier(&self) -> Arc<dyn Addressable>;

    /// Closes cleanly and opens again: the same store where the tier is persistent, an empty one where it is not.
    fn reopen(&mut self);

    /// Spoils a byte of the block where it lies and is read from; whether that could be done. Nobody leases it.
    fn damage(&mut self, _id: &BlockId) -> bool {
        false
    }

    /// Ends without closing, while somebody has reserved and partly filled `half`, and opens again.
    fn crash(&mut self, half: &HalfPut) -> Survival;
}

#[cfg(test)]
mod tests;
