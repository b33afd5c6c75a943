//! What a rank offers to the others: the seam to the tier that holds its blocks, of which this crate knows nothing more.

use std::fmt::Debug;
use std::sync::Arc;

use cascade_core::id::BlockId;
use cascade_core::tier::{Addressable, BlockMeta};

use crate::directory::Owner;
use crate::fabric::Window;

/// Bytes that say of a block in a window what it is: read together with it, judged by the home of who reads.
pub const HEAD_BYTES: usize = 64;

/// Where a visible block lies in the window of its home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Length, digest, class and tenant.
    pub meta: BlockMeta,
    /// Number of its slot.
    pub slot: u32,
    /// How many blocks that slot has held.
    pub generation: u64,
    /// First byte of the payload, from the start of the window: a multiple of 4 KiB.
    pub offset: u64,
}

/// The tier of a rank's node, as the fabric needs it. All ranks of a job must have the same kind of home.
pub trait Home: Send + Sync + Debug {
    /// Name of the node: ranks that say the same can map each other's memory.
    fn node(&self) -> String;

    /// How a rank of the same node finds this home: at most 400 bytes; given to its [`Home::neighbour`].
    fn share(&self) -> String;

    /// Changes whenever the memory was made anew.
    fn incarnation(&self) -> u64;

    /// The memory that others read: heads and payloads.
    fn window(&self) -> Window;

    /// Where the heads begin in the window, in bytes: head `n` is at this plus `n` times [`HEAD_BYTES`].
    fn heads_at(&self) -> u64;

    /// The tier itself.
    fn tier(&self) -> &dyn Addressable;

    /// Where a visible block lies.
    fn place(&self, id: &BlockId) -> Option<Place>;

    /// Whether a head that was read out of a window of another rank says that `id` is visible there, as `owner` names it.
    fn judge(&self, head: &[u8; HEAD_BYTES], id: &BlockId, owner: &Owner) -> bool;

    /// Blocks that became visible since the last call with the same `seen`, which begins empty: whoever put them.
    fn news(&self, seen: &mut Vec<u64>, found: &mut dyn FnMut(BlockId, Place));

    /// The tier of another rank of this node, mapped; `None` where that cannot be.
    fn neighbour(&self, share: &str) -> Option<Arc<dyn Addressable>>;
}
