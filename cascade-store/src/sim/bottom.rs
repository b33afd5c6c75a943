//! The files of a simulation: a tier that is slow, full, failing or damaged when the dice say so, and loses what is not durable with its node.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cascade_core::batch::{Batch, Op, Outcome, Refusal, Ticket};
use cascade_core::id::BlockId;
use cascade_core::memory::{Piece, SgList};
use cascade_core::memory_tier::MemoryTier;
use cascade_core::metrics::TierStats;
use cascade_core::tier::{BlockMeta, Capability, Lookup, MissReason, OnExisting, PutMeta, Tier};
use cascade_core::{Error, ErrorKind, Result};
use cascade_pfs::PfsStats;
use parking_lot::Mutex;

use super::world::{Excuse, World, short};
use crate::raw;
use crate::seam::Bottom;

pub(super) const CAPACITY: u64 = 160 << 10;

#[derive(Clone, Copy, Debug)]
struct Record {
    meta: BlockMeta,
    /// The order of the records: the oldest go first.
    sequence: u64,
    is_durable: bool,
    /// Its bytes rotted; whoever reads them finds out.
    is_damaged: bool,
}

#[derive(Debug, Default)]
struct State {
    records: BTreeMap<BlockId, Record>,
    sequence: u64,
    stats: TierStats,
}

/// Clones are one directory.
#[derive(Clone, Debug)]
pub(super) struct SimBottom {
    world: Arc<World>,
    bytes: MemoryTier,
    state: Arc<Mutex<State>>,
}

impl SimBottom {
    pub(super) fn new(world: Arc<World>) -> Self {
        Self { world, bytes: MemoryTier::new(1 << 30), state: Arc::default() }
    }

    fn used(&self) -> u64 {
        self.state.lock().records.values().map(|record| record.meta.len).sum()
    }

    /// The node goes down: what nothing has made durable is gone.
    pub(super) fn lose(&self) {
        let mut state = self.state.lock();
        let gone: Vec<BlockId> =
            state.records.iter().filter(|(_, record)| !record.is_durable).map(|(id, _)| *id).collect();
        for id in &gone {
            state.records.remove(id);
        }
        drop(state);
        gone.iter().for_each(|id| self.world.excuse(id, Excuse::Lost));
    }

    pub(super) fn meta(&self, id: &BlockId) -> Option<BlockMeta> {
        self.state.lock().records.get(id).map(|record| record.meta)
    }

    fn refuse(&self, why: Refusal) -> Outcome {
        self.state.lock().stats.refused += 1;
        Outcome::Refused(why)
    }

    fn store(&self, id: BlockId, from: &SgList, meta: PutMeta) -> Outcome {
        if self.world.strikes(|faults| faults.slow) {
            self.world.clock.advance(Duration::from_millis(self.world.below(3000)));
        }
        if self.world.strikes(|faults| faults.writes) {
            return self.refuse(Refusal::Unavailable);
        }
        let Some(digest) = raw::root_of(&id, from) else { return self.refuse(Refusal::Memory) };
        let there = self.meta(&id);
        if there.is_some_and(|there| meta.on_existing == OnExisting::Keep || there.digest == digest) {
            return Outcome::Exists;
        }
        if self.world.faults.lock().full {
            return self.refuse(Refusal::Full);
        }
        let len = from.len() as u64;
        self.make_room(&id, len);
        raw::run(&self.bytes, vec![Op::Delete { id }]);
        let meta_kept = PutMeta { on_existing: OnExisting::Keep, ..meta };
        let stored =
            raw::single(raw::run(&self.bytes, vec![Op::Store { id, from: from.clone(), meta: meta_kept }]));
        assert_eq!(stored, Outcome::Stored);
        let is_damaged = self.world.once_in(80);
        let mut state = self.state.lock();
        state.sequence += 1;
        let meta = BlockMeta { len, digest, class: meta.class, tenant: meta.tenant };
        let sequence = state.sequence;
        state.records.insert(id, Record { meta, sequence, is_durable: false, is_damaged });
        state.stats.puts += 1;
        drop(state);
        self.world
            .note(|| format!("    files have {}{}", short(&id), if is_damaged { ", rotten" } else { "" }));
        let used = self.used();
        assert!(used <= CAPACITY, "{used} bytes in files of {CAPACITY} (I4)");
        Outcome::Stored
    }

    fn make_room(&self, id: &BlockId, len: u64) {
        let old = self.meta(id).map_or(0, |meta| meta.len);
        while self.used() - old + len > CAPACITY {
            let mut state = self.state.lock();
            let oldest = state.records.iter().filter(|(other, _)| *other != id);
            let oldest = oldest.min_by_key(|(_, record)| record.sequence).map(|(id, _)| *id).unwrap();
            state.records.remove(&oldest);
            state.stats.evictions += 1;
            drop(state);
            self.world.excuse(&oldest, Excuse::GivenUp);
        }
    }

    fn fetch(&self, id: BlockId, into: &SgList) -> Outcome {
        // Whoever gets has memory that it keeps; a reservation is lent.
        let is_rising = into.pieces().first().is_some_and(|piece| !piece.is_kept());
        if self.world.strikes(|faults| faults.reads) {
            return Outcome::Miss(MissReason::Unavailable);
        }
        let Some(record) = self.state.lock().records.get(&id).copied() else {
            return Outcome::Miss(MissReason::Absent);
        };
        if record.is_damaged {
            let mut state = self.state.lock();
            state.records.remove(&id);
            state.stats.corrupt += 1;
            drop(state);
            self.world.excuse(&id, Excuse::Damaged);
            return Outcome::Miss(MissReason::Corrupt);
        }
        if is_rising && self.world.once_in(12) && self.spoil(record.meta.len, into) {
            // Other bytes arrive than were verified: memory that was written to by another, a device that lies.
            self.world.note(|| format!("    what rises for {} is spoilt", short(&id)));
            return Outcome::Fetched(record.meta);
        }
        match raw::single(raw::run(&self.bytes, vec![Op::Fetch { id, into: into.clone() }])) {
            Outcome::Fetched(_) => Outcome::Fetched(record.meta),
            other => other,
        }
    }

    fn spoil(&self, len: u64, into: &SgList) -> bool {
        let id = BlockId::named("what is not wanted");
        let from = Piece::shared(vec![0xA5; usize::try_from(len).unwrap()].into()).into();
        let store = Op::Store { id, from, meta: PutMeta::default() };
        let fetch = Op::Fetch { id, into: into.clone() };
        let outcomes = raw::run(&self.bytes, vec![Op::Delete { id }, store, fetch]);
        matches!(outcomes[2], Outcome::Fetched(_))
    }

    fn delete(&self, id: BlockId) -> Outcome {
        if let Some(there) = self.meta(&id)
            && self.world.strikes(|faults| faults.deletes)
        {
            self.world.note(|| format!("    files cannot forget {}", short(&id)));
            self.world.unordered.lock().entry(id).or_default().insert(there.digest);
            return Outcome::Miss(MissReason::Unavailable);
        }
        if !id.kind().replaceable() && self.world.unordered.lock().contains_key(&id) {
            // What failed before is done now, also to what another process has put since.
            self.world.excuse(&id, Excuse::LateDelete);
        }
        match self.state.lock().records.remove(&id) {
            Some(_) => {
                self.world.note(|| format!("    files forget {}", short(&id)));
                Outcome::Deleted
            }
            None => Outcome::Miss(MissReason::Absent),
        }
    }
}

impl Tier for SimBottom {
    fn capability(&self) -> Capability {
        Capability {
            name: "pfs",
            capacity_bytes: CAPACITY,
            max_block_bytes: CAPACITY,
            persistent: true,
            shared: true,
            device: false,
            one_sided: false,
        }
    }

    fn lookup(&self, ids: &[BlockId], out: &mut [Lookup]) {
        self.world.touch();
        for (id, answer) in ids.iter().zip(out) {
            *answer = self.meta(id).map_or(Lookup::Miss(MissReason::Absent), Lookup::Hit);
        }
    }

    fn submit(&self, batch: Batch) -> Ticket {
        let one = |op: Op| {
            self.world.touch();
            let outcome = match op {
                Op::Store { id, from, meta } => {
                    *self.world.hot.lock() = Some(id);
                    self.store(id, &from, meta)
                }
                Op::Fetch { id, into } => self.fetch(id, &into),
                Op::Delete { id } => self.delete(id),
            };
            // Another may act between what was done and the answer.
            self.world.touch();
            outcome
        };
        Ticket::ready(batch.ops.into_iter().map(one).collect())
    }

    fn flush(&self, _deadline: Instant) -> Result<()> {
        self.world.touch();
        if self.world.strikes(|faults| faults.writes) {
            return Err(Error::new(ErrorKind::System, "the medium of a simulation"));
        }
        self.state.lock().records.values_mut().for_each(|record| record.is_durable = true);
        Ok(())
    }

    fn stats(&self) -> TierStats {
        let state = self.state.lock();
        TierStats { capacity_bytes: CAPACITY, blocks: state.records.len() as u64, ..state.stats }
    }
}

impl Bottom for SimBottom {
    fn ids(&self) -> Vec<BlockId> {
        self.state.lock().records.keys().copied().collect()
    }

    fn file_stats(&self) -> PfsStats {
        PfsStats::default()
    }
}
