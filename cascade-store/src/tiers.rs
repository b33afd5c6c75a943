//! The tiers of one store, and what goes through all of them: fetch, lease, delete.

use std::sync::Arc;
use std::time::Duration;

use cascade_core::batch::{Op, Outcome, Refusal};
use cascade_core::clock::Clock;
use cascade_core::id::BlockId;
use cascade_core::lease::Lease;
use cascade_core::planted::{self, Bug};
use cascade_core::tier::{Addressable, Lookup, MissReason, Tier};
use parking_lot::Mutex;

use crate::chain::{Chain, Level, Located, Rung};
use crate::counters::{Board, Followed};
use crate::files::{Files, Shown};
use crate::gpu::Gpu;
use crate::learn::Learner;
use crate::moves::changes::What;
use crate::moves::count::{Count, add};
use crate::moves::flights::Kind;
use crate::moves::rise::How;
use crate::observed::try_for;
use crate::pins::Pins;
use crate::raw;
use crate::remote::{Came, Elsewhere};
use crate::seam::TopTier;
use crate::spans::span;
use crate::tally::{Part, Parts, Tally};

/// A fetch promotes while less than this share of the arena, in percent, is in use.
const ROOMY_PERCENT: u64 = 90;
/// How old the answer to "is there room" may be.
const FILL_AGE: Duration = Duration::from_millis(10);
/// How often a block that is replaced meanwhile is tried to be taken out of the arena.
const DEMOTE_ATTEMPTS: usize = 4;
/// How long a fetch waits to know whether there is room.
const ROOMY_PATIENCE: Duration = Duration::from_micros(200);

#[derive(Debug)]
pub(crate) struct Tiers {
    pub(crate) arena: TopTier,
    pub(crate) chain: Chain,
    pub(crate) count: Count,
    pub(crate) tally: Tally,
    followed: Followed,
    pub(crate) pins: Pins,
    pub(crate) clock: Arc<dyn Clock>,
    /// Hears of every request, for the arena's eviction.
    pub(crate) learner: Learner,
    files: Option<Arc<Files>>,
    gpu: Option<Arc<Gpu>>,
    elsewhere: Option<Arc<Elsewhere>>,
    /// Whether there was room in the arena, and when that was asked.
    roomy: Mutex<Option<(Duration, bool)>>,
}

/// What a fetch or lease gives.
pub(crate) type Answer<T> = Result<T, MissReason>;

impl Tiers {
    pub(crate) fn new(arena: TopTier, files: Option<Arc<Files>>, clock: Arc<dyn Clock>) -> Self {
        let mut rungs = vec![Rung { level: Level::Arena, tier: Arc::new(arena.clone()) }];
        if let Some(files) = &files {
            rungs.push(Rung { level: Level::Files, tier: Arc::new(Shown(Arc::clone(files))) });
        }
        let (chain, board) = (Chain::new(rungs), Board::default());
        let (count, followed) = (Count::on(&board), Followed::on(&board));
        let learner = Learner::default();
        let (tally, roomy) = (Tally::on(&board), Mutex::new(None));
        let pins = Pins::default();
        let (gpu, elsewhere) = (None, None);
        Self { arena, chain, count, tally, followed, pins, clock, learner, files, gpu, elsewhere, roomy }
    }

    /// The same, with somebody who learns from requests.
    pub(crate) fn learning(self, learner: Learner) -> Self {
        Self { learner, ..self }
    }

    /// The same, which count for the node too.
    pub(crate) fn counting(self, board: &Board) -> Self {
        Self { count: Count::on(board), tally: Tally::on(board), followed: Followed::on(board), ..self }
    }

    /// Tells the node what the tiers have counted by themselves. Without files there is nothing of it.
    pub(crate) fn tell(&self) {
        if let Some(files) = self.files() {
            self.followed.follow(self.arena.below_stats(), &files.tier.stats());
        }
    }

    /// The same with devices above them.
    pub(crate) fn below(mut self, gpu: Option<Arc<Gpu>>) -> Self {
        if let Some(gpu) = &gpu {
            self.chain.put_above(Rung { level: Level::Device, tier: Arc::clone(gpu) as Arc<dyn Tier> });
        }
        Self { gpu, ..self }
    }

    /// The same with other nodes beside its own.
    pub(crate) fn beside(mut self, elsewhere: Option<Arc<Elsewhere>>) -> Self {
        if let Some(elsewhere) = &elsewhere {
            let tier = Arc::clone(elsewhere) as Arc<dyn Tier>;
            self.chain.put_below_arena(Rung { level: Level::Remote, tier });
        }
        Self { elsewhere, ..self }
    }

    /// Other nodes; none in a forked child.
    pub(crate) fn elsewhere(&self) -> Option<&Arc<Elsewhere>> {
        self.elsewhere.as_ref().filter(|elsewhere| !elsewhere.is_forked())
    }

    /// What the tiers of this node, and the files, have.
    pub(crate) fn locate_here(&self, ids: &[BlockId]) -> Vec<Located> {
        self.chain.locate_in(ids, |level| level != Level::Remote)
    }

    /// The tier of devices; none in a forked child.
    pub(crate) fn gpu(&self) -> Option<&Arc<Gpu>> {
        self.gpu.as_ref().filter(|gpu| !gpu.is_forked())
    }

    /// The tier of files; none in a forked child.
    pub(crate) fn files(&self) -> Option<&Arc<Files>> {
        self.files.as_ref().filter(|files| !files.is_forked())
    }

    /// Whether this process was forked from one that has files, of which it can tell nothing and to which it can say nothing.
    pub(crate) fn is_cut_off(&self) -> bool {
        self.files.as_ref().is_some_and(|files| files.is_forked())
    }

    /// Whether a block that is fetched from files goes up: there is room anyway, or it was fetched before.
    pub(crate) fn is_worth_a_place(&self, files: &Files, id: &BlockId) -> bool {
        let again = files.seen.again(id);
        again || self.is_roomy()
    }

    fn is_roomy(&self) -> bool {
        let (roomy, now) = (try_for(&self.roomy, ROOMY_PATIENCE), self.clock.now());
        let Some(mut roomy) = roomy else { return false };
        if let Some((at, is_roomy)) = *roomy
            && now.saturating_sub(at) < FILL_AGE
        {
            return is_roomy;
        }
        let fill = self.arena.fill();
        let is_roomy = fill.used_bytes < fill.capacity_bytes / 100 * ROOMY_PERCENT;
        *roomy = Some((now, is_roomy));
        is_roomy
    }

    /// Pins a block in the arena, brought up from files where it is not there.
    pub(crate) fn lease(&self, id: &BlockId) -> Answer<Lease> {
        let mut leased = self.lower(std::slice::from_ref(id), vec![self.arena.lease(id)]);
        leased.pop().unwrap_or(Err(MissReason::Unavailable))
    }

    /// [`Tiers::lease`] for many.
    pub(crate) fn lease_batch(&self, ids: &[BlockId]) -> Vec<Answer<Lease>> {
        let span = span!(DEBUG, "lease", blocks = ids.len(), hits = tracing::field::Empty).entered();
        let leases = self.lower(ids, self.arena.lease_batch(ids));
        span.record("hits", leases.iter().filter(|lease| lease.is_ok()).count());
        leases
    }

    /// Completes what the arena could lease by what the files have.
    fn lower(&self, ids: &[BlockId], mut leases: Vec<Answer<Lease>>) -> Vec<Answer<Lease>> {
        let above = parts(&leases);
        let (mut below, mut took) = (Part::default(), None);
        add(&self.count.arena_hits, above.blocks);
        let asked = self.clock.now();
        let came = if above.blocks < ids.len() as u64 { self.bring(ids, None) } else { Came::default() };
        for (at, lease) in leases.iter_mut().enumerate().filter(|(at, _)| came.has(*at)) {
            *lease = self.arena.lease(&ids[at]);
        }
        let mut before = parts(&leases);
        let remote = before.without(above);
        add(&self.count.remote_hits, remote.blocks);
        if remote.blocks > 0 {
            took = Some(self.clock.now().saturating_sub(asked));
        }
        if let Some(files) = self.files() {
            let used = ids.iter().zip(&leases).filter(|(_, lease)| lease.is_ok()).map(|(id, _)| *id);
            self.queue_sinking(files, files.sighted(used));
        }
        if above.blocks < ids.len() as u64 {
            self.lease_from_devices(ids, &mut leases);
            before = parts(&leases);
        }
        if before.blocks < ids.len() as u64
            && let Some(files) = self.files()
        {
            let started = self.clock.now();
            self.lease_below(files, ids, &mut leases);
            let all = parts(&leases);
            below = all.without(before);
            took = Some(took.unwrap_or_default() + self.clock.now().saturating_sub(started));
        }
        self.tally.served(Parts { arena: above, remote, files: below }, took);
        leases.iter_mut().enumerate().for_each(|(at, lease)| came.explain(at, lease));
        leases.iter().filter_map(|lease| lease.as_ref().err()).for_each(|why| self.count.missed(*why));
        self.learner.fetch(ids);
        leases
    }

    fn lease_below(&self, files: &Files, ids: &[BlockId], leases: &mut [Answer<Lease>]) {
        let left: Vec<usize> = (0..ids.len()).filter(|at| leases[*at].is_err()).collect();
        let asked: Vec<BlockId> = left.iter().map(|at| ids[*at]).collect();
        let mut found = vec![Lookup::Pending; asked.len()];
        let is_current = files.is_current_for(&asked);
        files.lookup(&asked, &mut found);
        if !is_current {
            found.fill(Lookup::Miss(MissReason::Unavailable));
        }
        let (mut places, mut rising) = (Vec::new(), Vec::new());
        for (at, found) in left.into_iter().zip(found) {
            match found {
                Lookup::Hit(meta) => {
                    places.push(at);
                    rising.push((ids[at], meta));
                }
                Lookup::Miss(why) if matches!(leases[at], Err(MissReason::Absent)) => leases[at] = Err(why),
                Lookup::Miss(_) | Lookup::Pending => {}
            }
        }
        self.rise(files, &rising, &mut How::default(), |nth, risen| {
            add(&self.count.file_hits, u64::from(risen.is_ok()));
            leases[places[nth]] = risen.map(|up| up.lease);
        });
    }

    /// Forgets blocks in every tier: whether each was there, or why that could not be found out.
    pub(crate) fn delete(&self, ids: &[BlockId]) -> Vec<Outcome> {
        let _span = span!(DEBUG, "delete", blocks = ids.len()).entered();
        let above = self.forget_on_devices(ids);
        self.pins.unpin_if_any(ids.iter());
        let below = self.delete_below(ids);
        // A block may have come up between the two; one that comes up after this finds that it is gone below.
        self.forget_on_devices(ids);
        let either = |(above, below)| if above { Outcome::Deleted } else { below };
        above.into_iter().zip(below).map(either).collect()
    }

    fn delete_below(&self, ids: &[BlockId]) -> Vec<Outcome> {
        let Some(files) = self.files() else {
            if self.is_cut_off() {
                return vec![Outcome::Miss(MissReason::Unavailable); ids.len()];
            }
            return raw::run(&self.arena, ids.iter().map(|id| Op::Delete { id: *id }).collect());
        };
        // What is forgotten must be later than what others have put. Where that cannot be known, the files forget nothing anyway.
        if ids.iter().any(|id| What::of(id) == What::Others) {
            files.catch_up(What::Others, true);
        }
        let delete = |id: &BlockId| {
            let flight = files.flights.begin_after(id, Kind::Change);
            files.is_current(&flight);
            let above = raw::single(raw::run(&self.arena, vec![Op::Delete { id: *id }]));
            let (was_below, is_hidden) =
                if planted::is(Bug::DeleteAbove) { (false, false) } else { files.forget(id) };
            add(&self.count.hidden, u64::from(is_hidden));
            // Another process may have brought it up between the two; who does so after this finds that something was forgotten.
            raw::run(&self.arena, vec![Op::Delete { id: *id }]);
            if is_hidden {
                // It is hidden from this process alone: another may still read it, and bring it up again.
                return Outcome::Miss(MissReason::Unavailable);
            }
            if was_below && above != Outcome::Miss(MissReason::Evicting) { Outcome::Deleted } else { above }
        };
        ids.iter().map(delete).collect()
    }

    /// Copies blocks to files and takes them out of the arena: for each `Stored` when only the files have it now.
    pub(crate) fn demote(&self, ids: &[BlockId]) -> Vec<Outcome> {
        let _span = span!(DEBUG, "demote", blocks = ids.len()).entered();
        let Some(files) = self.files() else {
            return vec![Outcome::Refused(Refusal::Unavailable); ids.len()];
        };
        self.lower_all(ids);
        let leave = |(id, mut sunk): (&BlockId, Result<(), Refusal>)| {
            for _ in 0..DEMOTE_ATTEMPTS {
                if let Some(outcome) = self.leave_arena(files, id, sunk) {
                    return outcome;
                }
                // It was replaced in between: the new block goes down too.
                sunk = self.sink_now(files, std::slice::from_ref(id)).pop().unwrap_or(Ok(()));
            }
            Outcome::Refused(Refusal::Pending)
        };
        ids.iter().zip(self.sink_now(files, ids)).map(leave).collect()
    }

    /// Takes a block out of the arena if the files have the very same; `None` when they have another, or none any more.
    fn leave_arena(&self, files: &Files, id: &BlockId, sunk: Result<(), Refusal>) -> Option<Outcome> {
        let flight = files.flights.begin_after(id, Kind::Change);
        if !files.is_current(&flight) {
            return Some(Outcome::Refused(Refusal::Unavailable));
        }
        let mut above = [Lookup::Pending];
        self.arena.lookup(std::slice::from_ref(id), &mut above);
        match (above[0], files.meta(id), sunk) {
            (Lookup::Hit(above), Some(below), _) if above.digest == below.digest => {
                raw::run(&self.arena, vec![Op::Delete { id: *id }]);
                // Changed by a process that did not wait for us: what went may have been the only one.
                add(&self.count.doubted, u64::from(files.meta(id).is_none()));
                Some(Outcome::Stored)
            }
            (Lookup::Hit(_) | Lookup::Pending, _, Err(why)) => Some(Outcome::Refused(why)),
            (Lookup::Hit(_) | Lookup::Pending, _, Ok(())) => None,
            (Lookup::Miss(_), Some(_), _) => Some(Outcome::Stored),
            (Lookup::Miss(_), None, _) => Some(Outcome::Miss(MissReason::Absent)),
        }
    }

    /// Forgets every block that any tier has.
    pub(crate) fn clear(&self) {
        self.clear_devices();
        self.pins.unpin_all();
        self.clear_below();
        // As for `delete`: what came up meanwhile.
        self.clear_devices();
    }

    fn clear_below(&self) {
        self.arena.clear();
        let Some(files) = self.files() else { return };
        // What was on its way up or down has arrived then; what is queued finds nothing in the arena any more.
        files.flights.wait_all();
        files.catch_up(What::Names, true);
        let ids = files.tier.ids();
        let hidden = files.forget_all(&ids);
        add(&self.count.hidden, hidden);
        self.arena.clear();
    }
}

fn parts(leases: &[Answer<Lease>]) -> Part {
    let mut part = Part::default();
    leases.iter().flatten().for_each(|lease| part.add(lease.len() as u64));
    part
}
