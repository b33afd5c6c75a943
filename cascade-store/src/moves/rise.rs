//! From files up: a block is read straight into its final place in the arena, verified, sealed, and leased.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use cascade_core::batch::{Batch, Completer, Op, Outcome, Refusal, Ticket};
use cascade_core::digest;
use cascade_core::id::BlockId;
use cascade_core::lease::Lease;
use cascade_core::memory::SgList;
use cascade_core::planted::{self, Bug};
use cascade_core::reservation::{InFlight, Reservation, Reserve, Sealed};
use cascade_core::tier::{Addressable, BlockMeta, Lookup, MissReason, OnExisting, PutMeta, Tier};
use cascade_shm::Below;

use super::count::add;
use super::flights::{Flight, Kind};
use crate::files::Files;
use crate::raw;
use crate::spans::span;
use crate::tiers::Tiers;

/// Bytes that one call reads at once, beyond one block. Less where that is more than an eighth of the arena.
const AHEAD: u64 = 128 << 20;
/// How long to wait for a block that another process brings up.
const PATIENCE: Duration = Duration::from_secs(1);
const NAP: Duration = Duration::from_micros(200);

/// Blocks that somebody wants in the arena.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) ids: Vec<BlockId>,
    pub(crate) deadline: Option<Instant>,
    pub(crate) completer: Completer,
}

/// How a call brings blocks up, beside what it brings.
#[derive(Default)]
pub(crate) struct How<'a> {
    /// When a read from files is given up; what has not begun then is not begun.
    pub(crate) deadline: Option<Instant>,
    /// Whether nobody wants the rest any more.
    pub(crate) is_cancelled: Option<&'a dyn Fn() -> bool>,
    /// Something else to do while the files read, a piece at a time; `false` when there is nothing left of it.
    pub(crate) meanwhile: Option<&'a mut dyn FnMut() -> bool>,
    /// Where the bytes of each go besides: host memory that is writable and long enough.
    pub(crate) targets: Option<&'a dyn Fn(usize) -> &'a SgList>,
}

impl How<'_> {
    /// Does the other work until the block is there, or that work is done.
    pub(crate) fn use_the_time(&mut self, ticket: &Ticket) {
        let Some(meanwhile) = &mut self.meanwhile else { return };
        while !ticket.poll() && meanwhile() {}
    }

    fn target(&self, at: usize) -> Option<&SgList> {
        self.targets.map(|of| of(at))
    }

    /// Why nothing more is to be begun.
    pub(crate) fn given_up(&self) -> Option<MissReason> {
        let is_late = self.deadline.is_some_and(|deadline| Instant::now() >= deadline);
        let is_over = is_late || self.is_cancelled.is_some_and(|is_cancelled| is_cancelled());
        is_over.then_some(MissReason::Deadline)
    }
}

/// What a block is brought up to: its lease, or why there is none.
pub(crate) type Risen = Result<Up, MissReason>;

/// A block that came up.
#[derive(Debug)]
pub(crate) struct Up {
    pub(crate) lease: Lease,
    /// Whether its bytes were copied to where the caller wants them, in the pass that verified them.
    pub(crate) is_copied: bool,
}

impl From<Lease> for Up {
    fn from(lease: Lease) -> Self {
        Self { lease, is_copied: false }
    }
}

/// A block that is being read into its reservation.
#[derive(Debug)]
struct Rising {
    at: usize,
    id: BlockId,
    meta: BlockMeta,
    ticket: Ticket,
    memory: InFlight,
    flight: Flight,
}

/// What came of beginning.
enum Begun {
    Reading(Box<Rising>),
    /// Somebody else has it in hand.
    Elsewhere,
    Done(Risen),
}

fn is_same(below: Option<BlockMeta>, digest: u64) -> bool {
    below.is_some_and(|below| below.digest == digest)
}

impl Tiers {
    /// Brings blocks up from the files, several at once, and hands each to `done` with its place in `wanted`.
    pub(crate) fn rise(
        &self,
        files: &Files,
        wanted: &[(BlockId, BlockMeta)],
        how: &mut How<'_>,
        mut done: impl FnMut(usize, Risen),
    ) {
        let size = wanted.iter().map(|(_, meta)| meta.len).sum::<u64>();
        let _span =
            (!wanted.is_empty()).then(|| span!(DEBUG, "rise", blocks = wanted.len(), bytes = size).entered());
        let ahead = AHEAD.min(self.arena.data_bytes() / 8);
        let (mut reading, mut bytes) = (VecDeque::<Box<Rising>>::new(), 0_u64);
        let mut elsewhere = Vec::new();
        for (at, (id, meta)) in wanted.iter().enumerate() {
            while bytes.saturating_add(meta.len) > ahead
                && let Some(rising) = reading.pop_front()
            {
                bytes = bytes.saturating_sub(rising.meta.len);
                how.use_the_time(&rising.ticket);
                let into = how.target(rising.at);
                done(rising.at, self.land(files, *rising, into));
            }
            if let Some(why) = how.given_up() {
                done(at, Err(why));
                continue;
            }
            match self.begin_rise(files, at, (id, *meta), how.deadline) {
                Begun::Reading(rising) => {
                    bytes += rising.meta.len;
                    reading.push_back(rising);
                }
                Begun::Elsewhere => elsewhere.push(at),
                Begun::Done(risen) => done(at, risen),
            }
        }
        for rising in reading {
            how.use_the_time(&rising.ticket);
            let into = how.target(rising.at);
            done(rising.at, self.land(files, *rising, into));
        }
        // Only now, when nobody waits for what this call has in hand.
        for at in elsewhere {
            let (id, meta) = &wanted[at];
            done(at, self.await_other(files, id, *meta));
        }
    }

    fn begin_rise(
        &self,
        files: &Files,
        at: usize,
        (id, meta): (&BlockId, BlockMeta),
        deadline: Option<Instant>,
    ) -> Begun {
        let Some(flight) = files.flights.begin(id, Kind::Rise) else { return Begun::Elsewhere };
        let mut meta = meta;
        if id.kind().replaceable() {
            // Looked up before the name was ours, or in an index that did not know of its last change yet.
            if !files.is_current(&flight) {
                return Begun::Done(Err(MissReason::Unavailable));
            }
            let Some(newest) = files.meta(id) else { return Begun::Done(self.arena.lease(id).map(Up::from)) };
            meta = newest;
        }
        let put =
            PutMeta { class: meta.class, on_existing: OnExisting::Keep, tenant: meta.tenant, heat: None };
        let reservation = match self.reserve_above(id, meta.len, put) {
            Reserve::Reserved(reservation) => reservation,
            Reserve::Exists(_) => return Begun::Done(self.arena.lease(id).map(Up::from)),
            Reserve::Refused(Refusal::Pending) => return Begun::Elsewhere,
            Reserve::Refused(_) => {
                add(&self.count.promote_refused, 1);
                return Begun::Done(Err(MissReason::Throttled));
            }
        };
        // The system fills it: until it says that it is done, nobody else may have the memory, also if we die.
        let in_flight = reservation.start_transfer();
        let Some((memory, block)) = in_flight.and_then(|memory| memory.memory().map(|block| (memory, block)))
        else {
            return Begun::Done(Err(MissReason::Unavailable));
        };
        let fetch = Op::Fetch { id: *id, into: raw::in_flight(block) };
        let ticket = files.submit(Batch { ops: vec![fetch], deadline });
        Begun::Reading(Box::new(Rising { at, id: *id, meta, ticket, memory, flight }))
    }

    /// Waits for a block, seals and leases it, and copies it to `into`. The files have verified it where it lies.
    fn land(&self, files: &Files, rising: Rising, into: Option<&SgList>) -> Risen {
        let Rising { id, meta, ticket, memory, flight, .. } = rising;
        let outcome = self.tally.phases.transfer(&*self.clock, || raw::single(raw::complete(&ticket)));
        let reservation = memory.complete().ok_or(MissReason::Unavailable)?;
        let refuse = |why| {
            add(&self.count.promote_refused, 1);
            Err(why)
        };
        match outcome {
            // The block may have been replaced since it was looked up: then this reservation does not fit it.
            Outcome::Fetched(found) if found == meta => {}
            Outcome::Miss(why) => return refuse(why),
            _ => return refuse(MissReason::Evicting),
        }
        // A newer block than the one that was looked up may be longer than the caller's memory.
        let into = into.filter(|list| list.len() as u64 >= meta.len);
        // Before anybody can see it: the bytes may have changed after the files verified them. Who wants a copy gets it in the
        // same pass.
        let digests = self.tally.phases.copy(&*self.clock, || digests_of(&reservation, into));
        let root = digest::root(id.as_bytes(), meta.len, digests.iter().copied());
        if root != meta.digest && !planted::is(Bug::TrustedRise) {
            drop(reservation);
            return refuse(MissReason::Corrupt);
        }
        let is_there = || files.catch_up_for(&id) && is_same(files.meta(&id), meta.digest);
        if !is_there() {
            drop(reservation);
            return refuse(MissReason::Evicting);
        }
        if matches!(reservation.seal_with(digests), Sealed::Lost) {
            return refuse(MissReason::Unavailable);
        }
        // Again: what is no name is not locked, and who deleted it may have looked at the arena before.
        if !is_there() {
            self.take_back(&id, meta.digest);
            return refuse(MissReason::Evicting);
        }
        // It was there: who finds it gone again has seen it leave.
        let lease = self.arena.lease(&id).map_err(|why| match why {
            MissReason::Absent => MissReason::Evicting,
            other => other,
        });
        self.arena.note_below(&id, meta.digest, Below::Risen);
        add(&self.count.promoted, 1);
        add(&self.count.promoted_bytes, meta.len);
        drop(flight);
        // Another process may have replaced it since: then the copy is of a block that the lease is not on.
        lease.map(|lease| Up { is_copied: into.is_some() && lease.meta() == meta, lease })
    }

    /// Deleted or replaced by another process while it was read: it must not come back.
    fn take_back(&self, id: &BlockId, digest: u64) {
        if self.above(id).is_some_and(|above| above.digest == digest) {
            raw::run(&self.arena, vec![Op::Delete { id: *id }]);
            add(&self.count.doubted, 1);
        }
    }

    /// The lease on a block that another thread or process has in hand.
    fn await_other(&self, files: &Files, id: &BlockId, meta: BlockMeta) -> Risen {
        let until = self.clock.now() + PATIENCE;
        loop {
            let rose = files.flights.wait(id);
            if let Ok(lease) = self.arena.lease(id) {
                add(&self.count.shared_reads, u64::from(rose));
                return Ok(lease.into());
            }
            let mut seen = [Lookup::Pending];
            self.arena.lookup(std::slice::from_ref(id), &mut seen);
            if seen[0] != Lookup::Pending {
                return match self.begin_rise(files, 0, (id, meta), None) {
                    Begun::Reading(rising) => self.land(files, *rising, None),
                    Begun::Done(risen) => risen,
                    // A process of the node that is about to change the name.
                    Begun::Elsewhere if self.clock.now() < until => {
                        self.clock.sleep(NAP);
                        continue;
                    }
                    Begun::Elsewhere => Err(MissReason::Throttled),
                };
            }
            if self.clock.now() >= until {
                return Err(MissReason::Throttled);
            }
            self.clock.sleep(NAP);
        }
    }
}

/// The digest of each chunk of a block, which is copied to `into` on the way.
fn digests_of(reservation: &Reservation, into: Option<&SgList>) -> Vec<u64> {
    let digests = reservation.memory().and_then(|memory| match into {
        Some(list) => memory.try_scatter(list),
        None => memory.try_digests(),
    });
    digests.unwrap_or_default()
}
