//! The tier of files as the store uses it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use cascade_core::Result;
use cascade_core::batch::{Batch, Op, Outcome, Ticket};
use cascade_core::id::BlockId;
use cascade_core::layer::BreakerState;
use cascade_core::metrics::TierStats;
use cascade_core::planted::{self, Bug};
use cascade_core::tier::{BlockMeta, Capability, Class, Lookup, MissReason, Tier};
use cascade_pfs::PfsConfig;
use parking_lot::Mutex;

use crate::config::Demote;
use crate::moves::changes::What;
use crate::moves::demoter::Request;
use crate::moves::flights::{Flight, Flights, Kind};
use crate::moves::queue::Queue;
use crate::moves::rise::Wanted;
use crate::moves::seen::{Seen, Sightings};
use crate::put::Reach;
use crate::raw;
use crate::seam::BottomTier;

/// Requests that wait for a background thread, at most.
const WAITING: usize = 1 << 16;

/// Old blocks that could not be forgotten when they had to be: the file system failed. They are not to be seen again. Each by its
/// digest, where that is known: what another process stores under the id meanwhile is a newer one.
#[derive(Debug, Default)]
struct Hidden {
    ids: Mutex<HashMap<BlockId, Option<u64>>>,
    count: AtomicUsize,
}

impl Hidden {
    /// Whether the block that the files have under `id` now is to be seen no more.
    fn has(&self, id: &BlockId, there: &BlockMeta) -> bool {
        self.count.load(Ordering::Acquire) > 0
            && self.ids.lock().get(id).is_some_and(|old| old.is_none_or(|old| old == there.digest))
    }

    fn change(&self, change: impl FnOnce(&mut HashMap<BlockId, Option<u64>>)) {
        let mut ids = self.ids.lock();
        change(&mut ids);
        self.count.store(ids.len(), Ordering::Release);
    }
}

/// The tier of files, and what the store keeps about it.
#[derive(Debug)]
pub(crate) struct Files {
    pub(crate) tier: BottomTier,
    pub(crate) config: PfsConfig,
    pub(crate) demote: Demote,
    /// How far every put must have come, at least.
    pub(crate) least: Reach,
    pub(crate) flights: Arc<Flights>,
    pub(crate) seen: Seen,
    /// What goes down where only some blocks do.
    sightings: Sightings,
    /// For the demoter.
    pub(crate) sink: Queue<Request>,
    /// For the thread that prefetches.
    pub(crate) rise: Queue<Wanted>,
    hidden: Hidden,
    /// What the node's counts of changes were when the index was up to date last, and one more: 0 is never.
    known: [AtomicU64; 2],
    /// The process whose threads serve the queues.
    pid: u32,
}

impl Files {
    pub(crate) fn new(tier: BottomTier, config: PfsConfig, demote: Demote) -> Self {
        Self {
            tier,
            config,
            demote,
            least: Reach::Found,
            flights: Arc::default(),
            seen: Seen::default(),
            sightings: Sightings::default(),
            sink: Queue::new(WAITING),
            rise: Queue::new(WAITING),
            hidden: Hidden::default(),
            known: Default::default(),
            pid: std::process::id(),
        }
    }

    /// With moves that other stores, and other processes of the node, hear of.
    pub(crate) fn moving_with(self, flights: Arc<Flights>) -> Self {
        Self { flights, ..self }
    }

    /// The same, with puts acknowledged when they have come so far, at least.
    pub(crate) fn acknowledging(self, least: Reach) -> Self {
        Self { least, ..self }
    }

    /// Whether this process was forked from the one that opened the store: it has the arena, and no files.
    pub(crate) fn is_forked(&self) -> bool {
        std::process::id() != self.pid
    }

    /// Whether the file system is given a rest: nothing can be read or written.
    pub(crate) fn is_shut(&self) -> bool {
        self.tier.breaker().is_some_and(|breaker| breaker.state() == BreakerState::Open)
    }

    /// Notes that blocks were put or used; those that are to go down for it now.
    pub(crate) fn sighted(&self, ids: impl IntoIterator<Item = BlockId>) -> Vec<BlockId> {
        if self.demote != Demote::Selective {
            return Vec::new();
        }
        ids.into_iter().filter(|id| self.sightings.see(id) == 2).collect()
    }

    /// Whether a block that only the arena has is to be copied.
    pub(crate) fn selects(&self, id: &BlockId, class: Class) -> bool {
        self.demote != Demote::Selective || class == Class::Prefix || self.sightings.count(id) >= 2
    }

    /// Whether the index tells of everything that the processes of this node have done to such blocks; it is read on if something was
    /// done since it was last, or if `anyway`.
    pub(crate) fn catch_up(&self, what: What, anyway: bool) -> bool {
        if planted::is(Bug::StaleIndex) {
            return true;
        }
        let changes = self.flights.changes();
        let now = [What::Names, What::Others].map(|what| changes.count(what).map(|count| count + 1));
        let known = self.known[what as usize].load(Ordering::Acquire);
        if !anyway && now[what as usize] == Some(known) {
            return true;
        }
        if !self.tier.catch_up() {
            return false;
        }
        for (known, now) in self.known.iter().zip(now) {
            known.fetch_max(now.unwrap_or(0), Ordering::AcqRel);
        }
        true
    }

    /// The same for a block that is about to be moved or changed.
    pub(crate) fn is_current(&self, flight: &Flight) -> bool {
        self.catch_up(What::of(flight.id()), flight.is_doubtful() || self.is_in_doubt(flight.id()))
    }

    /// The same for one block.
    pub(crate) fn catch_up_for(&self, id: &BlockId) -> bool {
        self.catch_up(What::of(id), self.is_in_doubt(id))
    }

    /// Whether the deletion of a block that is no name began and has not ended: its process is at it, or was killed before it could
    /// count what it did. Of names the flights know.
    fn is_in_doubt(&self, id: &BlockId) -> bool {
        What::of(id) == What::Others && self.flights.changes().is_doubtful(id)
    }

    /// Deletes blocks in files, and tells the other processes of the node. Who is killed in between leaves them in doubt.
    fn delete_told(&self, ids: &[BlockId]) -> Vec<Outcome> {
        let changes = self.flights.changes();
        for id in ids {
            changes.begin(id);
        }
        let outcomes = raw::run(&self.tier, ids.iter().map(|id| Op::Delete { id: *id }).collect());
        for what in [What::Names, What::Others] {
            if ids.iter().any(|id| What::of(id) == what) {
                self.changed(what);
            }
        }
        ids.iter().for_each(|id| changes.end(id));
        outcomes
    }

    /// What the files have under an id, and have not been told to forget by another process.
    pub(crate) fn meta_now(&self, id: &BlockId) -> Option<BlockMeta> {
        self.meta(id).filter(|_| self.catch_up_for(id)).and_then(|_| self.meta(id))
    }

    /// Whether the index tells of what was done to these blocks: names that were changed, and others that were deleted.
    pub(crate) fn is_current_for(&self, ids: &[BlockId]) -> bool {
        let current = |what| {
            let mut of_it = ids.iter().filter(|id| What::of(id) == what).peekable();
            of_it.peek().is_none() || self.catch_up(what, of_it.any(|id| self.is_in_doubt(id)))
        };
        current(What::Names) && current(What::Others)
    }

    /// Tells the other processes of the node that something was changed in files. The own index knows of it.
    pub(crate) fn changed(&self, what: What) {
        if let Some(before) = self.flights.changes().changed(what) {
            let known = &self.known[what as usize];
            let _ = known.compare_exchange(before + 1, before + 2, Ordering::AcqRel, Ordering::Relaxed);
        }
    }

    /// What the files have under an id.
    pub(crate) fn find(&self, id: &BlockId) -> Lookup {
        let mut out = [Lookup::Pending];
        self.lookup(std::slice::from_ref(id), &mut out);
        out[0]
    }

    pub(crate) fn meta(&self, id: &BlockId) -> Option<BlockMeta> {
        if let Lookup::Hit(meta) = self.find(id) { Some(meta) } else { None }
    }

    /// What the files have, hidden or not.
    pub(crate) fn tier_meta(&self, id: &BlockId) -> Option<BlockMeta> {
        let mut out = [Lookup::Pending];
        self.tier.lookup(std::slice::from_ref(id), &mut out);
        if let Lookup::Hit(meta) = out[0] { Some(meta) } else { None }
    }

    /// Forgets a block for good; whether one was visible. What the file system does not let be forgotten now is hidden from
    /// this process, and tried again; the second value is then true.
    pub(crate) fn forget(&self, id: &BlockId) -> (bool, bool) {
        let (there, was_visible) = (self.tier_meta(id), self.meta(id).is_some());
        match raw::single(self.delete_told(std::slice::from_ref(id))) {
            Outcome::Deleted => (true, false),
            Outcome::Miss(MissReason::Absent) => (false, false),
            _ => {
                self.hide([(*id, there)]);
                (was_visible, true)
            }
        }
    }

    /// Forgets blocks, many at once; how many had to be hidden.
    pub(crate) fn forget_all(&self, ids: &[BlockId]) -> u64 {
        let there: Vec<Option<BlockMeta>> = ids.iter().map(|id| self.tier_meta(id)).collect();
        let outcomes = self.delete_told(ids);
        let is_gone =
            |outcome: &Outcome| matches!(outcome, Outcome::Deleted | Outcome::Miss(MissReason::Absent));
        let left = ids.iter().zip(there).zip(&outcomes).filter(|(_, outcome)| !is_gone(outcome));
        self.hide(left.map(|((id, there), _)| (*id, there)))
    }

    /// Shows blocks no more; how many. Which they are the index may not tell yet, where another process has just copied them down,
    /// and one that is hidden without its digest takes every newer one of its id with it: so it is read on, once for all.
    fn hide(&self, blocks: impl IntoIterator<Item = (BlockId, Option<BlockMeta>)>) -> u64 {
        let mut blocks = blocks.into_iter().peekable();
        if blocks.peek().is_none() {
            return 0;
        }
        let (is_current, mut count) = (self.catch_up(What::Names, true), 0);
        let now = |id: &BlockId| is_current.then(|| self.tier_meta(id)).flatten();
        self.hidden.change(|ids| {
            for (id, there) in blocks {
                ids.insert(id, now(&id).or(there).map(|there| there.digest));
                count += 1;
            }
        });
        count
    }

    /// A new block was stored under an id: what was hidden is older, and gone.
    pub(crate) fn stored(&self, id: &BlockId) {
        if self.hidden.count.load(Ordering::Acquire) > 0 {
            self.hidden.change(|ids| {
                ids.remove(id);
            });
        }
    }

    /// Tries again to forget what is hidden. `unnote` takes back what the arena notes of a copy: other processes, from which nothing
    /// is hidden, take what is there for one of what they have put since.
    pub(crate) fn forget_hidden(&self, unnote: impl Fn(&BlockId)) {
        if self.hidden.count.load(Ordering::Acquire) == 0 {
            return;
        }
        let mut ids: Vec<BlockId> = self.hidden.ids.lock().keys().copied().collect();
        // In one order for one seed of a simulation.
        ids.sort_unstable();
        for id in ids {
            let _flight = self.flights.begin_after(&id, Kind::Change);
            // Whatever was counted: another process may have copied a newer block down since, which is no change and is to stay.
            if !self.catch_up(What::of(&id), true) {
                return;
            }
            let still = self.tier_meta(&id).is_some_and(|there| self.hidden.has(&id, &there));
            if !still {
                self.stored(&id);
            }
            if still {
                // Also before, should this process be killed between the two.
                unnote(&id);
            }
            let outcome = still.then(|| raw::single(self.delete_told(&[id])));
            if outcome == Some(Outcome::Deleted) {
                unnote(&id);
            }
            if matches!(outcome, Some(Outcome::Deleted | Outcome::Miss(MissReason::Absent))) {
                self.stored(&id);
            } else if still {
                return;
            }
        }
    }
}

/// The files as the chain shows them: what cannot be read now is not there.
#[derive(Debug)]
pub(crate) struct Shown(pub(crate) Arc<Files>);

impl Tier for Shown {
    fn capability(&self) -> Capability {
        self.0.capability()
    }

    fn lookup(&self, ids: &[BlockId], out: &mut [Lookup]) {
        self.0.lookup(ids, out);
        if !self.0.is_forked() && self.0.is_shut() {
            let hits = out.iter_mut().filter(|answer| answer.is_hit());
            hits.for_each(|answer| *answer = Lookup::Miss(MissReason::Unavailable));
        }
    }

    fn submit(&self, batch: Batch) -> Ticket {
        self.0.submit(batch)
    }

    fn flush(&self, deadline: Instant) -> Result<()> {
        self.0.flush(deadline)
    }

    fn stats(&self) -> TierStats {
        self.0.stats()
    }
}

impl Tier for Files {
    fn capability(&self) -> Capability {
        self.tier.capability()
    }

    fn lookup(&self, ids: &[BlockId], out: &mut [Lookup]) {
        self.tier.lookup(ids, out);
        if !self.is_forked() && self.hidden.count.load(Ordering::Acquire) > 0 {
            for (id, answer) in ids.iter().zip(out) {
                if matches!(answer, Lookup::Hit(there) if self.hidden.has(id, there)) {
                    *answer = Lookup::Miss(MissReason::Absent);
                }
            }
        }
    }

    fn submit(&self, batch: Batch) -> Ticket {
        self.tier.submit(batch)
    }

    fn flush(&self, deadline: Instant) -> Result<()> {
        self.tier.flush(deadline)
    }

    fn stats(&self) -> TierStats {
        self.tier.stats()
    }
}
