//! Puts: into the arena, and down from there; into files where the arena has no room.

use std::time::{Duration, Instant};

use cascade_core::batch::{Op, Outcome, Refusal};
use cascade_core::id::BlockId;
use cascade_core::memory::SgList;
use cascade_core::planted::{self, Bug};
use cascade_core::reservation::{Reserve, Sealed};
use cascade_core::tier::{Addressable, Class, Lookup, MissReason, OnExisting, PutMeta, Tier};

use crate::config::Demote;
use crate::files::Files;
use crate::moves::changes::What;
use crate::moves::count::add;
use crate::moves::demoter::Request;
use crate::moves::flights::Kind;
use crate::raw;
use crate::spans::span;
use crate::tiers::Tiers;

/// How long a put that only the files have room for waits until they take it.
const SPILL_PATIENCE: Duration = Duration::from_secs(60);
const NAP: Duration = Duration::from_millis(1);

/// How far a block must have come before its put is acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// It can be found: in the arena, or in files where the arena has no room. It survives the process.
    #[default]
    Found,
    /// It is, and is queued on its way to files, whatever `demote` says. `Throttled` when too many wait.
    Queued,
    /// It is in files, where other nodes find it. It survives the arena.
    Files,
    /// It is in files and on the medium, whatever `pfs_durability` says. It survives a loss of power.
    Durable,
}

/// What a put says of a block beside its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Put {
    /// Eviction class.
    pub class: Class,
    /// Index of the tenant for quotas; 0 where there is one tenant.
    pub tenant: u16,
    /// When the put returns. A block that could not come so far is `Refused` with the reason, although it may be in the arena;
    /// without a tier of files, every reach beyond the first is refused as `Unavailable`.
    pub reach: Reach,
}

impl Put {
    /// A block of a shared prefix, which outlives ordinary ones.
    #[must_use]
    pub fn prefix() -> Self {
        Self { class: Class::Prefix, ..Self::default() }
    }

    /// The same, acknowledged when it has come so far.
    #[must_use]
    pub fn until(mut self, reach: Reach) -> Self {
        self.reach = reach;
        self
    }

    /// What this says of the block `id` to a tier: names are replaced, chain and content ids are kept.
    #[must_use]
    pub fn meta(self, id: &BlockId) -> PutMeta {
        let on_existing = if id.kind().replaceable() { OnExisting::Replace } else { OnExisting::Keep };
        PutMeta { class: self.class, on_existing, tenant: self.tenant, heat: None }
    }
}

/// A block to be put.
pub(crate) type Block = (BlockId, SgList, PutMeta);

fn store_op((id, from, meta): &Block) -> Op {
    Op::Store { id: *id, from: from.clone(), meta: *meta }
}

impl Tiers {
    /// Stores blocks; an outcome for each.
    pub(crate) fn put(&self, blocks: Vec<Block>, reach: Reach) -> Vec<Outcome> {
        let span = span!(DEBUG, "put", blocks = blocks.len(), stored = tracing::field::Empty).entered();
        let reach = self.files().map_or(reach, |files| reach.max(files.least));
        let started = self.clock.now();
        let mut blocks = blocks;
        let bytes = blocks.iter().map(|(_, from, _)| from.len()).sum();
        let ids: Vec<BlockId> = blocks.iter().map(|(id, ..)| *id).collect();
        let heats = self.learner.put(&ids, bytes);
        blocks.iter_mut().zip(heats).for_each(|((.., meta), heat)| meta.heat = Some(heat));
        let outcomes = self.put_uncounted(blocks, reach);
        let (now, stored) = (self.clock.now(), outcomes.len() as u64);
        if let Some(warning) = self.tally.put(stored, now, now.saturating_sub(started)) {
            eprintln!("{warning}");
            tracing::warn!(target: "cascade", "{warning}");
        }
        let new = ids
            .iter()
            .zip(&outcomes)
            .filter(|(id, outcome)| id.kind().replaceable() && **outcome == Outcome::Stored);
        self.pins.unpin_if_any(new.map(|(id, _)| id));
        span.record("stored", outcomes.iter().filter(|outcome| **outcome == Outcome::Stored).count());
        let there = outcomes.iter().filter(|outcome| **outcome == Outcome::Exists).count();
        add(&self.count.exists, there as u64);
        let is_elsewhere = |outcome: &&Outcome| **outcome == Outcome::Refused(Refusal::Pending);
        add(&self.count.put_elsewhere, outcomes.iter().filter(is_elsewhere).count() as u64);
        outcomes
    }

    fn put_uncounted(&self, blocks: Vec<Block>, reach: Reach) -> Vec<Outcome> {
        if blocks.iter().all(|(_, from, _)| from.is_host()) {
            return self.put_host(blocks, reach);
        }
        let put = |block: Block| {
            let is_host = block.1.is_host();
            if is_host {
                raw::single(self.put_host(vec![block], reach))
            } else {
                self.put_device(&block, reach, None)
            }
        };
        blocks.into_iter().map(put).collect()
    }

    fn put_host(&self, blocks: Vec<Block>, reach: Reach) -> Vec<Outcome> {
        let Some(files) = self.files() else {
            if reach > Reach::Found {
                return vec![Outcome::Refused(Refusal::Unavailable); blocks.len()];
            }
            if !self.is_cut_off() {
                let blocks: Vec<&Block> = blocks.iter().collect();
                return self.put_above(&blocks);
            }
            let ops = blocks.iter().map(store_op);
            let put = |(op, (.., meta)): (Op, &Block)| match meta.on_existing {
                // The files would still have the older block.
                OnExisting::Replace => Outcome::Refused(Refusal::Unavailable),
                OnExisting::Keep => raw::single(raw::run(&self.arena, vec![op])),
            };
            return ops.zip(&blocks).map(put).collect();
        };
        let ids: Vec<BlockId> = blocks.iter().map(|(id, ..)| *id).collect();
        let mut below = vec![Lookup::Pending; ids.len()];
        files.lookup(&ids, &mut below);
        // Another process may have deleted what the index still tells of.
        if below.iter().any(Lookup::is_hit) {
            let fixed: Vec<BlockId> = ids.iter().filter(|id| What::of(id) == What::Others).copied().collect();
            let is_current = files.is_current_for(&fixed);
            files.lookup(&ids, &mut below);
            if !is_current {
                below.fill(Lookup::Miss(MissReason::Unavailable));
            }
        }
        let mut outcomes = vec![None; blocks.len()];
        let mut plain = Vec::new();
        for (at, (block, below)) in blocks.iter().zip(below).enumerate() {
            match block.2.on_existing {
                OnExisting::Replace => outcomes[at] = Some(self.replace(files, block)),
                // What cannot be read now is as good as not there.
                OnExisting::Keep if below.is_hit() && !files.is_shut() => {
                    outcomes[at] = Some(Outcome::Exists)
                }
                OnExisting::Keep => plain.push(at),
            }
        }
        let stored = self.put_above(&plain.iter().map(|at| &blocks[*at]).collect::<Vec<_>>());
        let (mut lacking, mut refused) = (Vec::new(), Vec::new());
        for (at, outcome) in plain.into_iter().zip(stored) {
            outcomes[at] = Some(outcome);
            if is_lack(outcome) {
                lacking.push(at);
                refused.push((&blocks[at], outcome));
            }
        }
        for (at, outcome) in lacking.into_iter().zip(self.spill_all(files, &refused)) {
            outcomes[at] = Some(outcome);
        }
        let outcomes: Vec<Outcome> = outcomes
            .into_iter()
            .map(|outcome| outcome.unwrap_or(Outcome::Refused(Refusal::Unavailable)))
            .collect();
        self.go_on(files, &ids, outcomes, reach)
    }

    /// Stores blocks in the arena. Soft pins of this store give way before one is refused for want of room.
    fn put_above(&self, blocks: &[&Block]) -> Vec<Outcome> {
        let mut outcomes = raw::run(&self.arena, blocks.iter().map(|block| store_op(block)).collect());
        loop {
            let places: Vec<usize> = (0..blocks.len()).filter(|at| is_crowded(outcomes[*at])).collect();
            let bytes = places.iter().map(|at| blocks[*at].1.len() as u64).sum();
            if places.is_empty() || !self.pins.give_way(bytes) {
                return outcomes;
            }
            let again = raw::run(&self.arena, places.iter().map(|at| store_op(blocks[*at])).collect());
            places.into_iter().zip(again).for_each(|(at, outcome)| outcomes[at] = outcome);
        }
    }

    /// Room in the arena; soft pins of this store give way before it is refused.
    pub(crate) fn reserve_above(&self, id: &BlockId, len: u64, meta: PutMeta) -> Reserve {
        loop {
            match self.arena.reserve(id, len, meta) {
                Reserve::Refused(why) if is_crowded(Outcome::Refused(why)) && self.pins.give_way(len) => {}
                reserve => return reserve,
            }
        }
    }

    /// What follows a put: the way down, waited for as far as is asked.
    pub(crate) fn after_put(&self, ids: &[BlockId], outcomes: Vec<Outcome>, reach: Reach) -> Vec<Outcome> {
        match self.files() {
            Some(files) => self.go_on(files, ids, outcomes, reach),
            None => outcomes,
        }
    }

    /// The same, with files.
    fn go_on(
        &self,
        files: &Files,
        ids: &[BlockId],
        mut outcomes: Vec<Outcome>,
        reach: Reach,
    ) -> Vec<Outcome> {
        let done = |outcome: &Outcome| matches!(outcome, Outcome::Stored | Outcome::Exists);
        if reach == Reach::Queued {
            let places: Vec<usize> = (0..ids.len()).filter(|at| done(&outcomes[*at])).collect();
            let queued = places.iter().map(|at| Request::Put(ids[*at]));
            // Those that there is no room for are the last.
            let refused = files.sink.push(queued).len();
            add(&self.count.demote_deferred, refused as u64);
            let deferred = places.iter().skip(places.len().saturating_sub(refused));
            deferred.for_each(|at| outcomes[*at] = Outcome::Refused(Refusal::Throttled));
            return outcomes;
        }
        if reach == Reach::Found {
            let stored = ids.iter().zip(&outcomes).filter(|(_, outcome)| **outcome == Outcome::Stored);
            match files.demote {
                Demote::Through => self.queue_sinking(files, stored.map(|(id, _)| *id)),
                Demote::Selective => {
                    let stored: Vec<BlockId> = stored.map(|(id, _)| *id).collect();
                    let prefix = stored.iter().filter(|id| self.is_prefix(id)).copied();
                    self.queue_sinking(files, prefix);
                    let known = ids.iter().zip(&outcomes).filter(|(_, outcome)| done(outcome));
                    self.queue_sinking(files, files.sighted(known.map(|(id, _)| *id)));
                }
                Demote::Back | Demote::Off => {}
            }
            return outcomes;
        }
        let places: Vec<usize> = (0..ids.len()).filter(|at| done(&outcomes[*at])).collect();
        let sinking: Vec<BlockId> = places.iter().map(|at| ids[*at]).collect();
        let mut sunk = self.sink_now(files, &sinking);
        if reach == Reach::Durable && sunk.iter().any(Result::is_ok) && !make_durable(files) {
            sunk.fill(Err(Refusal::Unavailable));
        }
        for (at, sunk) in places.into_iter().zip(sunk) {
            if let Err(why) = sunk {
                outcomes[at] = Outcome::Refused(why);
            }
        }
        outcomes
    }

    /// Whether the arena has a block, of a shared prefix.
    fn is_prefix(&self, id: &BlockId) -> bool {
        self.above(id).is_some_and(|meta| meta.class == Class::Prefix)
    }

    /// Hands blocks of the arena to the demoter.
    pub(crate) fn queue_sinking(&self, files: &Files, ids: impl IntoIterator<Item = BlockId>) {
        let mut ids = ids.into_iter().peekable();
        if ids.peek().is_none() {
            return;
        }
        let refused = files.sink.push(ids.map(Request::Put)).len();
        add(&self.count.demote_deferred, refused as u64);
    }

    /// Puts a block that replaces another. The files forget the older one before the new one can be seen, so that it never
    /// comes back when the new one is evicted: this is the one put that waits for a file system, and only where an older
    /// block is, or may be, in files.
    fn replace(&self, files: &Files, block: &Block) -> Outcome {
        let (id, from, meta) = block;
        let flight = files.flights.begin_after(id, Kind::Change);
        // Where that cannot be known, an older block may be there.
        let below = if files.is_current(&flight) { files.find(id) } else { Lookup::Pending };
        let mut above = [Lookup::Pending];
        self.arena.lookup(std::slice::from_ref(id), &mut above);
        let newest = match (above[0], below) {
            (Lookup::Hit(meta), _) | (Lookup::Miss(_) | Lookup::Pending, Lookup::Hit(meta)) => Some(meta),
            _ => None,
        };
        if newest.is_some_and(|newest| {
            newest.len == from.len() as u64 && Some(newest.digest) == raw::root_of(id, from)
        }) {
            return Outcome::Exists;
        }
        if newest.is_none() && below != Lookup::Pending {
            let outcome = raw::single(self.put_above(&[block]));
            return if is_lack(outcome) { self.spill(files, block, outcome) } else { outcome };
        }
        let mut reservation = match self.reserve_above(id, from.len() as u64, *meta) {
            Reserve::Reserved(reservation) => reservation,
            Reserve::Exists(_) => return Outcome::Exists,
            Reserve::Refused(why) if is_lack(Outcome::Refused(why)) => {
                return self.spill(files, block, Outcome::Refused(why));
            }
            Reserve::Refused(why) => return Outcome::Refused(why),
        };
        if !reservation.gather(from) {
            return Outcome::Refused(Refusal::Memory);
        }
        // First, so that the older block is copied again if this process is killed before the newer one is sealed.
        self.take_note_back(id);
        let (_, is_hidden) = if planted::is(Bug::LateForget) { (false, false) } else { files.forget(id) };
        add(&self.count.hidden, u64::from(is_hidden));
        match reservation.seal() {
            Sealed::Stored(new) => {
                self.forget_older(files, id, new.digest);
                Outcome::Stored
            }
            // Another process stored the same bytes meanwhile; the files have forgotten them, and get them again.
            Sealed::Exists(same) => {
                self.arena.note_below(id, same.digest, cascade_shm::Below::Absent);
                Outcome::Exists
            }
            Sealed::Lost => Outcome::Refused(Refusal::Unavailable),
        }
    }

    /// Until a block was sealed, another process could copy the one before it once more: it must not come back.
    pub(crate) fn forget_older(&self, files: &Files, id: &BlockId, digest: u64) {
        let is_older = files.meta(id).is_some_and(|below| below.digest != digest);
        if is_older && self.above(id).is_some_and(|above| above.digest == digest) {
            let (_, is_hidden) = files.forget(id);
            add(&self.count.hidden, u64::from(is_hidden));
            self.take_note_back(id);
        }
    }

    /// [`Tiers::spill_all`] of one block.
    fn spill(&self, files: &Files, block: &Block, refusal: Outcome) -> Outcome {
        self.spill_all(files, &[(block, refusal)]).pop().unwrap_or(refusal)
    }

    /// Stores blocks in files that the arena refused, each for its reason, together, and waits for them. The caller holds the
    /// flight of a block that replaces.
    fn spill_all(&self, files: &Files, blocks: &[(&Block, Outcome)]) -> Vec<Outcome> {
        let until = self.clock.now() + SPILL_PATIENCE;
        let mut outcomes = vec![Outcome::Refused(Refusal::Throttled); blocks.len()];
        let mut left: Vec<usize> = (0..blocks.len()).collect();
        while !left.is_empty() {
            let stored = raw::run(files, left.iter().map(|at| store_op(blocks[*at].0)).collect());
            left.iter().zip(stored).for_each(|(at, outcome)| outcomes[*at] = outcome);
            left.retain(|at| outcomes[*at] == Outcome::Refused(Refusal::Throttled));
            if left.is_empty() || self.clock.now() >= until {
                break;
            }
            self.clock.sleep(NAP);
        }
        let settle = |(outcome, (block, refusal)): (Outcome, &(&Block, Outcome))| {
            self.spilled(files, block, outcome, *refusal)
        };
        outcomes.into_iter().zip(blocks).map(settle).collect()
    }

    /// What a put comes to whose block the arena refused with `refusal`, and the files answered with `outcome`.
    fn spilled(&self, files: &Files, block: &Block, outcome: Outcome, refusal: Outcome) -> Outcome {
        let (id, from, _) = block;
        match outcome {
            Outcome::Stored => {
                add(&self.count.spilled, 1);
                add(&self.count.spilled_bytes, from.len() as u64);
                files.stored(id);
                if What::of(id) == What::Names {
                    files.changed(What::Names);
                }
                // An older block of the name would be found before this one.
                raw::run(&self.arena, vec![Op::Delete { id: *id }]);
                Outcome::Stored
            }
            Outcome::Exists => Outcome::Exists,
            // Too large for the arena, and no room or no medium below: the latter is what may change.
            Outcome::Refused(Refusal::Full) => outcome,
            Outcome::Refused(Refusal::Unavailable) if refusal == Outcome::Refused(Refusal::TooLarge) => {
                outcome
            }
            _ => refusal,
        }
    }
}

/// Whether the arena refused for want of room, which the files may have.
fn is_lack(outcome: Outcome) -> bool {
    use Refusal::{Full, Throttled, TooLarge, Unavailable};
    matches!(outcome, Outcome::Refused(Full | TooLarge | Throttled | Unavailable))
}

/// Whether the arena refused a block that it would have room for if less of it were pinned.
fn is_crowded(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Refused(Refusal::Full | Refusal::Throttled))
}

/// Makes durable what the files have.
fn make_durable(files: &Files) -> bool {
    files.flush(Instant::now() + SPILL_PATIENCE).is_ok()
}
