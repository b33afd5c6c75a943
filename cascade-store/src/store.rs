//! The store over its tiers.

use std::time::Instant;

use cascade_core::Result;
use cascade_core::batch::{Outcome, Refusal};
use cascade_core::id::BlockId;
use cascade_core::lease::Lease;
use cascade_core::metrics::TierStats;
use cascade_core::reservation::Reserve;
use cascade_core::tier::{Addressable, BlockMeta, Class, Lookup, MissReason, OnExisting, PutMeta, Tier};
use cascade_shm::Arena;

use crate::config::StoreConfig;
use crate::raw;

/// What a put says of a block beside its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Put {
    /// Eviction class.
    pub class: Class,
    /// Index of the tenant for quotas; 0 where there is one tenant.
    pub tenant: u16,
}

impl Put {
    /// A block of a shared prefix, which outlives ordinary ones.
    #[must_use]
    pub fn prefix() -> Self {
        Self { class: Class::Prefix, ..Self::default() }
    }
}

/// A store embedded in this process. Clones share it.
#[derive(Clone, Debug)]
pub struct Store {
    arena: Arena,
    config: StoreConfig,
}

impl Store {
    /// Opens the tiers that `config` names, making what is not there.
    ///
    /// # Errors
    /// As [`Arena::open`].
    pub fn open(config: &StoreConfig) -> Result<Self> {
        let arena = Arena::open(&config.arena())?;
        Ok(Self { arena, config: config.clone() })
    }

    /// What is in force: every setting, its value and where it came from, as TOML.
    #[must_use]
    pub fn in_force(&self) -> String {
        self.config.in_force(&self.arena)
    }

    /// The arena, for what only tier 2 can do.
    #[must_use]
    pub fn arena(&self) -> &Arena {
        &self.arena
    }

    fn meta(id: &BlockId, put: Put) -> PutMeta {
        let on_existing = if id.kind().replaceable() { OnExisting::Replace } else { OnExisting::Keep };
        PutMeta { class: put.class, on_existing, tenant: put.tenant }
    }

    /// Stores `bytes`: `Stored`, `Exists`, or `Refused` with the reason.
    #[must_use]
    pub fn put(&self, id: &BlockId, bytes: &[u8], put: Put) -> Outcome {
        raw::single(self.put_batch(&[(*id, bytes)], put))
    }

    /// Stores many blocks; an outcome for each, in order.
    #[must_use]
    pub fn put_batch(&self, blocks: &[(BlockId, &[u8])], put: Put) -> Vec<Outcome> {
        let blocks: Vec<_> = blocks.iter().map(|(id, bytes)| (*id, *bytes, Self::meta(id, put))).collect();
        raw::store(&self.arena, &blocks)
    }

    /// Copies a block into the front of `out`.
    ///
    /// # Errors
    /// The reason for a miss; `Destination`, and nothing written, when `out` is shorter than the block.
    pub fn get(&self, id: &BlockId, out: &mut [u8]) -> std::result::Result<BlockMeta, MissReason> {
        match raw::single(raw::fetch(&self.arena, &mut [(*id, out)])) {
            Outcome::Fetched(meta) => Ok(meta),
            Outcome::Miss(why) => Err(why),
            _ => Err(MissReason::Unavailable),
        }
    }

    /// Copies many blocks; an answer for each, in order.
    #[must_use]
    pub fn get_batch(
        &self,
        wanted: &mut [(BlockId, &mut [u8])],
    ) -> Vec<std::result::Result<BlockMeta, MissReason>> {
        let answer = |outcome| match outcome {
            Outcome::Fetched(meta) => Ok(meta),
            Outcome::Miss(why) => Err(why),
            _ => Err(MissReason::Unavailable),
        };
        raw::fetch(&self.arena, wanted).into_iter().map(answer).collect()
    }

    /// Pins a block and gives its address, without a copy.
    ///
    /// # Errors
    /// The reason for a miss.
    pub fn lease(&self, id: &BlockId) -> std::result::Result<Lease, MissReason> {
        self.arena.lease(id)
    }

    /// Final memory for a block, to be filled in place and sealed.
    #[must_use]
    pub fn reserve(&self, id: &BlockId, len: u64, put: Put) -> Reserve {
        self.arena.reserve(id, len, Self::meta(id, put))
    }

    /// What is known of each id; never blocks.
    #[must_use]
    pub fn lookup(&self, ids: &[BlockId]) -> Vec<Lookup> {
        let mut out = vec![Lookup::Pending; ids.len()];
        self.arena.lookup(ids, &mut out);
        out
    }

    /// Whether a block is there.
    #[must_use]
    pub fn contains(&self, id: &BlockId) -> bool {
        let mut out = [Lookup::Pending];
        self.arena.lookup(std::slice::from_ref(id), &mut out);
        out[0].is_hit()
    }

    /// How many of a chain's ids hit before the first that does not.
    #[must_use]
    pub fn longest_prefix(&self, ids: &[BlockId]) -> usize {
        self.lookup(ids).iter().take_while(|answer| answer.is_hit()).count()
    }

    /// Forgets a block; whether it was there.
    #[must_use]
    pub fn delete(&self, id: &BlockId) -> bool {
        raw::single(raw::delete(&self.arena, &[*id])) == Outcome::Deleted
    }

    /// Forgets every block, for all processes that share the arena.
    pub fn clear(&self) {
        self.arena.clear();
    }

    /// Returns when what was put before is as durable as the store is set to make it.
    ///
    /// # Errors
    /// `Deadline` when it passed first.
    pub fn flush(&self, deadline: Instant) -> Result<()> {
        self.arena.flush(deadline)
    }

    /// Counters of this handle and gauges of the arena.
    #[must_use]
    pub fn stats(&self) -> TierStats {
        self.arena.stats()
    }
}

/// The name of an outcome, as metrics, logs and Python write it.
#[must_use]
pub fn outcome_name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Stored => "stored",
        Outcome::Exists => "exists",
        Outcome::Fetched(_) => "fetched",
        Outcome::Deleted => "deleted",
        Outcome::Cancelled => "cancelled",
        Outcome::Miss(why) => why.name(),
        Outcome::Refused(why) => Refusal::name(why),
    }
}
