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

/// What a process logs, for the others to read later.
#[derive(Clone, Copy, Debug)]
enum Event {
    Put(Record),
    /// What has a smaller sequence is deleted.
    Forget(u64),
    /// The record with this sequence is there no more.
    Drop(u64),
}

#[derive(Debug, Default)]
struct State {
    records: BTreeMap<BlockId, Record>,
    log: Vec<(BlockId, Event)>,
    sequence: u64,
    stats: TierStats,
}

/// What one process knows of the directory.
#[derive(Debug, Default)]
struct Index {
    records: BTreeMap<BlockId, Record>,
    forgotten: BTreeMap<BlockId, u64>,
    /// Events that it has read.
    read: usize,
}

impl Index {
    fn apply(&mut self, id: BlockId, event: Event) {
        let known = self.records.get(&id).map(|record| record.sequence);
        match event {
            Event::Put(record) => {
                let is_forgotten = self.forgotten.get(&id).is_some_and(|at| *at > record.sequence);
                if !is_forgotten && known.is_none_or(|known| known < record.sequence) {
                    self.records.insert(id, record);
                }
            }
            Event::Forget(sequence) => {
                let newest = self.forgotten.entry(id).or_default();
                *newest = sequence.max(*newest);
                if known.is_some_and(|known| known < sequence) {
                    self.records.remove(&id);
                }
            }
            Event::Drop(sequence) => {
                if known == Some(sequence) {
                    self.records.remove(&id);
                }
            }
        }
    }
}

/// Clones are one opening of the directory.
#[derive(Clone, Debug)]
pub(super) struct SimBottom {
    world: Arc<World>,
    bytes: MemoryTier,
    state: Arc<Mutex<State>>,
    index: Arc<Mutex<Index>>,
}

/// Where the bytes of a record are: those of an older one stay there when it is replaced or deleted.
fn place(id: &BlockId, sequence: u64) -> BlockId {
    BlockId::content(&[&id.as_bytes()[..], &sequence.to_le_bytes()].concat())
}

impl SimBottom {
    pub(super) fn new(world: Arc<World>) -> Self {
        Self { world, bytes: MemoryTier::new(1 << 30), state: Arc::default(), index: Arc::default() }
    }

    /// The same directory opened by another process, which knows what is there now.
    pub(super) fn opened(&self) -> Self {
        let state = self.state.lock();
        let (records, read) = (state.records.clone(), state.log.len());
        let index = Arc::new(Mutex::new(Index { records, read, ..Index::default() }));
        drop(state);
        Self { index, ..self.clone() }
    }

    /// What others have done up to now is read.
    fn read_on(&self) {
        let (state, mut index) = (self.state.lock(), self.index.lock());
        for (id, event) in state.log.iter().skip(index.read) {
            index.apply(*id, *event);
        }
        index.read = state.log.len();
    }

    /// Whether a block is there of which this process does not know yet.
    pub(super) fn is_behind(&self, id: &BlockId) -> bool {
        self.known(id).is_none() && self.meta(id).is_some()
    }

    /// Whether this process takes a block for there which others have lost.
    pub(super) fn is_misled(&self, id: &BlockId) -> bool {
        self.known(id).is_some() && self.meta(id).is_none()
    }

    /// Notes an event, which this process knows of at once.
    fn log(&self, state: &mut State, id: BlockId, event: Event) {
        state.log.push((id, event));
        self.index.lock().apply(id, event);
    }

    /// What this process knows of a block.
    fn known(&self, id: &BlockId) -> Option<Record> {
        self.index.lock().records.get(id).copied()
    }

    fn next(state: &mut State) -> u64 {
        state.sequence += 1;
        state.sequence
    }

    /// A record and its bytes go for good.
    fn lose_record(&self, id: BlockId, sequence: u64) {
        raw::run(&self.bytes, vec![Op::Delete { id: place(&id, sequence) }]);
        let mut state = self.state.lock();
        if state.records.get(&id).is_some_and(|record| record.sequence == sequence) {
            state.records.remove(&id);
        }
        self.log(&mut state, id, Event::Drop(sequence));
    }

    fn used(&self) -> u64 {
        self.state.lock().records.values().map(|record| record.meta.len).sum()
    }

    /// The node goes down: what nothing has made durable is gone.
    pub(super) fn lose(&self) {
        let state = self.state.lock();
        let gone = state.records.iter().filter(|(_, record)| !record.is_durable);
        let gone: Vec<(BlockId, u64)> = gone.map(|(id, record)| (*id, record.sequence)).collect();
        drop(state);
        for (id, sequence) in gone {
            self.lose_record(id, sequence);
            self.world.excuse(&id, Excuse::Lost);
        }
    }

    /// What is there, whoever knows of it.
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
        let there = self.known(&id).map(|record| record.meta);
        if there.is_some_and(|there| meta.on_existing == OnExisting::Keep || there.digest == digest) {
            return Outcome::Exists;
        }
        if self.world.faults.lock().full {
            return self.refuse(Refusal::Full);
        }
        let len = from.len() as u64;
        self.make_room(&id, len);
        let sequence = Self::next(&mut self.state.lock());
        let kept = PutMeta { on_existing: OnExisting::Keep, ..meta };
        let store = Op::Store { id: place(&id, sequence), from: from.clone(), meta: kept };
        let stored = raw::single(raw::run(&self.bytes, vec![store]));
        assert_eq!(stored, Outcome::Stored);
        let is_damaged = self.world.once_in(80);
        let mut state = self.state.lock();
        let meta = BlockMeta { len, digest, class: meta.class, tenant: meta.tenant };
        let record = Record { meta, sequence, is_durable: false, is_damaged };
        state.records.insert(id, record);
        self.log(&mut state, id, Event::Put(record));
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
            let oldest = oldest.min_by_key(|(_, record)| record.sequence);
            let (oldest, sequence) = oldest.map(|(id, record)| (*id, record.sequence)).unwrap();
            state.stats.evictions += 1;
            drop(state);
            self.lose_record(oldest, sequence);
            self.world.excuse(&oldest, Excuse::GivenUp);
        }
    }

    fn fetch(&self, id: BlockId, into: &SgList) -> Outcome {
        // Whoever gets has memory that it keeps; a reservation is lent.
        let is_rising = into.pieces().first().is_some_and(|piece| !piece.is_kept());
        if self.world.strikes(|faults| faults.reads) {
            return Outcome::Miss(MissReason::Unavailable);
        }
        let Some(record) = self.known(&id) else { return Outcome::Miss(MissReason::Absent) };
        if record.is_damaged {
            let is_newest =
                self.state.lock().records.get(&id).is_some_and(|newest| newest.sequence == record.sequence);
            self.lose_record(id, record.sequence);
            self.state.lock().stats.corrupt += 1;
            if is_newest {
                self.world.excuse(&id, Excuse::Damaged);
            }
            return Outcome::Miss(MissReason::Corrupt);
        }
        if is_rising && self.world.once_in(12) && self.spoil(record.meta.len, into) {
            // Other bytes arrive than were verified: memory that was written to by another, a device that lies.
            self.world.note(|| format!("    what rises for {} is spoilt", short(&id)));
            return Outcome::Fetched(record.meta);
        }
        let fetch = Op::Fetch { id: place(&id, record.sequence), into: into.clone() };
        if is_rising {
            // What is no name is not locked: until its deletion is noticed it is there for others.
            self.world.in_hand.lock().push(id);
        }
        match raw::single(raw::run(&self.bytes, vec![fetch])) {
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
        let is_known = self.known(&id).is_some();
        let mut state = self.state.lock();
        state.records.remove(&id);
        let sequence = Self::next(&mut state);
        self.log(&mut state, id, Event::Forget(sequence));
        drop(state);
        if !is_known {
            return Outcome::Miss(MissReason::Absent);
        }
        self.world.note(|| format!("    files forget {}", short(&id)));
        Outcome::Deleted
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
        // A thread of its own reads what others have logged, soon or late.
        if self.world.once_in(12) {
            self.read_on();
        }
        for (id, answer) in ids.iter().zip(out) {
            *answer =
                self.known(id).map_or(Lookup::Miss(MissReason::Absent), |record| Lookup::Hit(record.meta));
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
        self.index.lock().records.keys().copied().collect()
    }

    fn file_stats(&self) -> PfsStats {
        PfsStats::default()
    }

    fn catch_up(&self) -> bool {
        self.world.touch();
        let is_read = !self.world.strikes(|faults| faults.reads);
        if is_read {
            self.read_on();
        }
        is_read
    }
}
