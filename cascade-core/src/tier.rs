//! The trait that every tier implements, and the values it answers with.

use std::fmt::Debug;
use std::time::Instant;

use crate::Result;
use crate::batch::{Batch, Ticket};
use crate::id::BlockId;
use crate::lease::Lease;
use crate::metrics::TierStats;
use crate::policy::Heat;
use crate::reservation::Reserve;

/// How long a block should outlive others under pressure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// Evicted first.
    #[default]
    Ordinary,
    /// A shared prefix (a system prompt, a common document): outlives ordinary blocks, within a bound.
    Prefix,
}

impl Class {
    /// The three bits that a slot or header stores.
    #[must_use]
    pub fn to_bits(self) -> u8 {
        match self {
            Self::Ordinary => 0,
            Self::Prefix => 1,
        }
    }

    /// From stored bits; what a newer version may have written reads as ordinary.
    #[must_use]
    pub fn from_bits(bits: u8) -> Self {
        if bits == 1 { Self::Prefix } else { Self::Ordinary }
    }
}

/// What a put on an id that is already stored does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnExisting {
    /// The first seal wins (chain and content ids): the put answers `Exists` and copies nothing.
    #[default]
    Keep,
    /// Different bytes replace the block, equal bytes answer `Exists` (name ids).
    Replace,
}

/// What a put says of a block beside its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PutMeta {
    /// Eviction class.
    pub class: Class,
    /// What to do when the id is stored already.
    pub on_existing: OnExisting,
    /// Index of the tenant for quotas; 0 where there is one tenant.
    pub tenant: u16,
    /// What is known of the block's past, for eviction; `None`: it is new.
    pub heat: Option<Heat>,
}

/// What a tier knows of a stored block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockMeta {
    /// Payload length in bytes.
    pub len: u64,
    /// Root digest over id, length and chunk digests ([`crate::digest::root`]).
    pub digest: u64,
    /// Eviction class.
    pub class: Class,
    /// Index of the tenant.
    pub tenant: u16,
}

/// Why a block is not to be had. A miss is a value: an engine recomputes and goes on.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MissReason {
    /// Not stored here.
    Absent,
    /// Stored, and just being evicted or replaced.
    Evicting,
    /// The bytes did not match their digest; the block is dropped.
    Corrupt,
    /// The destination holds fewer bytes than the block, or cannot be written; nothing was written.
    Destination,
    /// No ledger entry, buffer or descriptor was free.
    Throttled,
    /// The deadline passed.
    Deadline,
    /// The tier, device or peer is gone.
    Unavailable,
}

impl MissReason {
    /// The name as metrics, logs and Python write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Evicting => "evicting",
            Self::Corrupt => "corrupt",
            Self::Destination => "destination",
            Self::Throttled => "throttled",
            Self::Deadline => "deadline",
            Self::Unavailable => "unavailable",
        }
    }
}

/// Answer of a lookup; never blocks, never raises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// Sealed here.
    Hit(BlockMeta),
    /// Being written or fetched by someone: worth asking again.
    Pending,
    /// Not here, and why.
    Miss(MissReason),
}

impl Lookup {
    /// Whether this is a hit.
    #[must_use]
    pub fn is_hit(&self) -> bool {
        matches!(self, Self::Hit(_))
    }
}

/// What a tier can do, as a value to decide by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capability {
    /// Short name: `memory`, `shm`, `gpu`, `mpi`, `pfs`.
    pub name: &'static str,
    /// Bytes of payload that it may hold.
    pub capacity_bytes: u64,
    /// The largest block that it can take, in bytes.
    pub max_block_bytes: u64,
    /// Survives the end of the process that wrote it.
    pub persistent: bool,
    /// Other processes of the node see its blocks.
    pub shared: bool,
    /// Its blocks live in device memory.
    pub device: bool,
    /// Others can read it without its taking part.
    pub one_sided: bool,
}

/// A tier: batch-first, so that none is bent to another's shape.
pub trait Tier: Send + Sync + Debug {
    /// What this tier can do.
    fn capability(&self) -> Capability;

    /// Asks for each of `ids`; `out` has the same length. Never blocks. Panics when the lengths differ.
    fn lookup(&self, ids: &[BlockId], out: &mut [Lookup]);

    /// Hands over a batch; the ticket completes with an outcome for each operation, in order.
    fn submit(&self, batch: Batch) -> Ticket;

    /// Returns when what was acknowledged before is as durable as the tier is set to make it.
    ///
    /// # Errors
    /// `Deadline` when it passed, `System` when the medium failed.
    fn flush(&self, deadline: Instant) -> Result<()>;

    /// Counters since this handle was opened, and gauges of now.
    fn stats(&self) -> TierStats;
}

/// A tier whose blocks have an address: HBM, arena, memory.
pub trait Addressable: Tier {
    /// Final memory for a block of `len` bytes, to be filled in place and sealed.
    fn reserve(&self, id: &BlockId, len: u64, meta: PutMeta) -> Reserve;

    /// Pins a block and gives its address, without a copy.
    ///
    /// # Errors
    /// The reason, as a value, when there is nothing to pin.
    fn lease(&self, id: &BlockId) -> std::result::Result<Lease, MissReason>;

    /// [`Addressable::lease`] for many ids at once.
    fn lease_batch(&self, ids: &[BlockId]) -> Vec<std::result::Result<Lease, MissReason>> {
        ids.iter().map(|id| self.lease(id)).collect()
    }
}
