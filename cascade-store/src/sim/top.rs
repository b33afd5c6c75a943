//! The arena of a simulation: a tier in memory, and what an arena notes of copies below.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use cascade_core::Result;
use cascade_core::batch::{Batch, Op, Outcome, Ticket};
use cascade_core::id::BlockId;
use cascade_core::lease::Lease;
use cascade_core::memory_tier::MemoryTier;
use cascade_core::metrics::TierStats;
use cascade_core::reservation::Reserve;
use cascade_core::tier::{Addressable, BlockMeta, Capability, Lookup, MissReason, PutMeta, Tier};
use cascade_shm::{Below, BelowStats, Cold, Fill, Noted, Survey};
use parking_lot::Mutex;

use super::world::{Excuse, World, short};
use crate::seam::Top;

pub(super) const CAPACITY: u64 = 48 << 10;

#[derive(Clone, Copy, Debug)]
struct Note {
    meta: BlockMeta,
    is_kept: bool,
    is_risen: bool,
}

#[derive(Debug)]
struct State {
    tier: MemoryTier,
    /// Blocks that were seen, and what is noted of them.
    known: BTreeMap<BlockId, Note>,
    /// Every id that there was ever a block of, or a reservation.
    seen: BTreeSet<BlockId>,
    below: BelowStats,
    /// Evictions of arenas that are gone.
    evictions_before: u64,
}

/// Clones are one arena.
#[derive(Clone, Debug)]
pub(super) struct SimTop {
    world: Arc<World>,
    state: Arc<Mutex<State>>,
    path: Arc<PathBuf>,
}

impl SimTop {
    pub(super) fn new(world: Arc<World>, path: PathBuf) -> Self {
        let state = State {
            tier: MemoryTier::with_clock(CAPACITY, world.clock.clone()),
            known: BTreeMap::new(),
            seen: BTreeSet::new(),
            below: BelowStats::default(),
            evictions_before: 0,
        };
        Self { world, state: Arc::new(Mutex::new(state)), path: Arc::new(path) }
    }

    fn tier(&self) -> MemoryTier {
        self.state.lock().tier.clone()
    }

    /// Holds what is noted against what is there: what was sealed since, and what was evicted.
    fn sync(&self) {
        let mut state = self.state.lock();
        let state = &mut *state;
        for id in &state.seen {
            // A block that replaces is sealed without a call.
            if let Lookup::Hit(meta) = look(&state.tier, id) {
                see(&mut state.known, *id, meta);
            }
        }
        let known = std::mem::take(&mut state.known);
        for (id, note) in known {
            if look(&state.tier, &id).is_hit() {
                state.known.insert(id, note);
            } else if note.is_kept {
                state.below.kept_evictions += 1;
            } else {
                self.world.excuse(&id, Excuse::Evicted);
            }
        }
        let used = state.tier.stats().used_bytes;
        assert!(used <= CAPACITY, "{used} bytes in an arena of {CAPACITY} (I4)");
    }

    /// Everything is gone, and with it what nobody had copied.
    pub(super) fn lose(&self) {
        self.sync();
        let mut state = self.state.lock();
        state.evictions_before += state.tier.stats().evictions;
        state.tier = MemoryTier::with_clock(CAPACITY, self.world.clock.clone());
        let known = std::mem::take(&mut state.known);
        drop(state);
        known.keys().for_each(|id| self.world.excuse(id, Excuse::Lost));
    }

    /// What is there now.
    pub(super) fn blocks(&self) -> Vec<(BlockId, BlockMeta)> {
        self.sync();
        self.state.lock().known.iter().map(|(id, note)| (*id, note.meta)).collect()
    }
}

fn look(tier: &MemoryTier, id: &BlockId) -> Lookup {
    let mut out = [Lookup::Pending];
    tier.lookup(std::slice::from_ref(id), &mut out);
    out[0]
}

/// A block that is there: as it was noted, if it is the same.
fn see(known: &mut BTreeMap<BlockId, Note>, id: BlockId, meta: BlockMeta) {
    let new = Note { meta, is_kept: false, is_risen: false };
    let note = known.entry(id).or_insert(new);
    if note.meta.digest != meta.digest {
        *note = new;
    }
}

impl Tier for SimTop {
    fn capability(&self) -> Capability {
        self.tier().capability()
    }

    fn lookup(&self, ids: &[BlockId], out: &mut [Lookup]) {
        self.world.touch();
        self.sync();
        self.tier().lookup(ids, out);
    }

    fn submit(&self, batch: Batch) -> Ticket {
        let one = |op: Op| {
            self.world.touch();
            self.sync();
            let (id, is_delete) = match &op {
                Op::Fetch { id, .. } | Op::Store { id, .. } => (*id, false),
                Op::Delete { id } => (*id, true),
            };
            let tier = self.tier();
            let outcome = crate::raw::single(crate::raw::run(&tier, vec![op]));
            let mut state = self.state.lock();
            if is_delete {
                state.known.remove(&id);
            }
            if let (Outcome::Stored, Lookup::Hit(meta)) = (outcome, look(&tier, &id)) {
                // Stored anew, also when the same bytes were there and are just evicted.
                state.known.insert(id, Note { meta, is_kept: false, is_risen: false });
                state.seen.insert(id);
            }
            drop(state);
            self.sync();
            outcome
        };
        Ticket::ready(batch.ops.into_iter().map(one).collect())
    }

    fn flush(&self, _deadline: Instant) -> Result<()> {
        Ok(())
    }

    fn stats(&self) -> TierStats {
        self.sync();
        let state = self.state.lock();
        let stats = state.tier.stats();
        TierStats { evictions: stats.evictions + state.evictions_before, ..stats }
    }
}

impl Addressable for SimTop {
    fn reserve(&self, id: &BlockId, len: u64, meta: PutMeta) -> Reserve {
        self.world.touch();
        self.sync();
        let answer = self.tier().reserve(id, len, meta);
        self.sync();
        if let Reserve::Reserved(_) = &answer {
            self.state.lock().seen.insert(*id);
            *self.world.hot.lock() = Some(*id);
        }
        answer
    }

    fn lease(&self, id: &BlockId) -> std::result::Result<Lease, MissReason> {
        self.world.touch();
        self.sync();
        let lease = self.tier().lease(id);
        let mut state = self.state.lock();
        let is_risen = lease.is_ok() && state.known.get(id).is_some_and(|note| note.is_risen);
        state.below.risen_hits += u64::from(is_risen);
        lease
    }
}

impl Top for SimTop {
    fn path(&self) -> &Path {
        &self.path
    }

    fn data_bytes(&self) -> u64 {
        CAPACITY
    }

    fn fill(&self) -> Fill {
        Fill { used_bytes: self.tier().stats().used_bytes, capacity_bytes: CAPACITY }
    }

    fn survey(&self, most_bytes: u64) -> Survey {
        self.world.touch();
        self.sync();
        let mut survey = Survey::default();
        for (id, note) in &self.state.lock().known {
            if note.is_kept {
                survey.kept_bytes += note.meta.len;
            } else {
                if survey.alone_bytes < most_bytes {
                    survey.cold.push(Cold { id: *id, meta: note.meta, worth: 0.0 });
                }
                survey.alone_bytes += note.meta.len;
            }
        }
        survey
    }

    fn kept(&self) -> Vec<(BlockId, u64)> {
        self.sync();
        let state = self.state.lock();
        let kept = state.known.iter().filter(|(_, note)| note.is_kept);
        kept.map(|(id, note)| (*id, note.meta.digest)).collect()
    }

    fn lease_to_copy(&self, id: &BlockId) -> std::result::Result<Lease, MissReason> {
        *self.world.hot.lock() = Some(*id);
        self.world.in_hand.lock().push(*id);
        self.world.touch();
        self.sync();
        self.tier().lease(id)
    }

    fn note_below(&self, id: &BlockId, digest: u64, below: Below) -> Noted {
        self.world.touch();
        self.sync();
        if self.world.once_in(40) {
            return Noted::Unknown;
        }
        let noted = match self.state.lock().known.get_mut(id).filter(|note| note.meta.digest == digest) {
            None => Noted::Another,
            Some(note) => {
                note.is_kept = below != Below::Absent;
                note.is_risen |= below == Below::Risen;
                Noted::Done
            }
        };
        self.world.note(|| format!("    {} is noted {below:?}: {noted:?}", short(id)));
        noted
    }

    fn below_stats(&self) -> BelowStats {
        self.state.lock().below
    }

    fn clear(&self) {
        let ids: Vec<BlockId> = self.state.lock().known.keys().copied().collect();
        crate::raw::run(self, ids.into_iter().map(|id| Op::Delete { id }).collect());
    }
}
