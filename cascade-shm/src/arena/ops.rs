//! `Tier` and `Addressable` for the arena.

use std::sync::Arc;
use std::sync::atomic::Ordering as Local;
use std::time::Instant;

use cascade_core::Result;
use cascade_core::batch::{Batch, Op, Outcome, Refusal, Ticket};
use cascade_core::block::BlockMemory;
use cascade_core::digest;
use cascade_core::id::BlockId;
use cascade_core::lease::{Lease, LeaseHome};
use cascade_core::memory::SgList;
use cascade_core::metrics::TierStats;
use cascade_core::planted::{self, Bug};
use cascade_core::reservation::{Reservation, ReservationHome, Reserve, Sealed};
use cascade_core::tier::{Addressable, BlockMeta, Capability, Lookup, MissReason, OnExisting, PutMeta, Tier};

use super::Arena;
use crate::evict;
use crate::grow;
use crate::index::{Claim, Found, Index, Key};
use crate::ledger::Entry;
use crate::protocol::{self, Pin, WhenPinned};
use crate::region::{Kind, Regions, Tenancy};
use crate::seal::{self, meta_of};
use crate::session::{Cell, Core, Event, Stripe};
use crate::slot::{Extent, Now, Slot, State, Word};

mod ahead;
mod many;

use ahead::Ahead;

/// Attempts at an operation that others keep interfering with.
const ATTEMPTS: usize = 64;

/// A pinned block: the cell holds the pin.
struct Pinned<'a> {
    cell: Cell<'a>,
    memory: BlockMemory,
    meta: BlockMeta,
    slot: &'a Slot,
    place: (u32, Word),
}

/// The time that blocks are looked at: of eviction, and of verification.
#[derive(Clone, Copy)]
struct Clock {
    now: Now,
    epoch: u8,
}

impl Clock {
    fn of(core: &Core) -> Self {
        Self { now: core.now(), epoch: core.epoch() }
    }
}

/// Pins the block of `key`, whose cache lines are on their way: all that needs none of them is done first.
fn pin<'a>(stripe: &'a Stripe, key: &Key, clock: Clock) -> std::result::Result<Pinned<'a>, MissReason> {
    let core = stripe.core();
    let index = core.index();
    let mut spare = stripe.take();
    for _ in 0..ATTEMPTS {
        let (number, word) = match find_decided(core, key) {
            Found::Sealed(number, word) => (number, word),
            Found::Evicting(..) => return Err(MissReason::Evicting),
            Found::Pending | Found::Absent => return Err(MissReason::Absent),
        };
        let Some(cell) = spare.take().or_else(|| stripe.take()) else { return Err(MissReason::Throttled) };
        match protocol::pin(&index, number, word, cell.entry()) {
            Pin::Held => {}
            Pin::Gone => continue,
            Pin::Reclaim(retired) => {
                evict::reclaim_retired(stripe, number, retired, cell);
                continue;
            }
        }
        return occupy(stripe, cell, number, word, clock);
    }
    Err(MissReason::Evicting)
}

/// What a pinned slot says of its block.
fn occupy<'a>(
    stripe: &'a Stripe,
    cell: Cell<'a>,
    number: u32,
    word: Word,
    clock: Clock,
) -> std::result::Result<Pinned<'a>, MissReason> {
    let core = stripe.core();
    let Some(slot) = core.index().slot(number) else { return Err(MissReason::Absent) };
    let block = slot.extent().and_then(|extent| core.map().block(extent));
    let (Some(memory), Some(meta)) = (block, meta_of(slot, word)) else {
        drop(cell);
        drop_corrupt(stripe, number, word);
        return Err(MissReason::Corrupt);
    };
    slot.touch(clock.now);
    Ok(Pinned { cell, memory, meta, slot, place: (number, word) })
}

/// [`Index::find_settled`], recovering dead owners where one may have died over the block.
fn find_decided(core: &Core, key: &Key) -> Found {
    match core.index().find_settled(key) {
        Found::Evicting(..) => {
            crate::recover::dead_owners(core);
            core.index().find_settled(key)
        }
        found => found,
    }
}

/// Forgets a block whose bytes are not what was put.
pub(super) fn drop_corrupt(stripe: &Stripe, number: u32, word: Word) {
    stripe.counters.count(Event::Corrupt);
    let index = stripe.core().index();
    if let Some(now) = index.slot(number).map(Slot::word)
        && now.generation() == word.generation()
    {
        let id = index.slot(number).map(Slot::id);
        evict::evict(stripe, &[(number, now)], WhenPinned::Retire);
        if let Some(id) = id {
            stripe.core().left(&id, crate::trail::Left::Damaged);
        }
    }
}

/// Whether the block matches its digest, looking only where no one has looked since an owner died.
fn verified(id: &BlockId, pinned: &Pinned<'_>, epoch: u8) -> bool {
    if pinned.slot.verified_epoch() == epoch || planted::is(Bug::SkipDigest) {
        return true;
    }
    let root = digest::root(id.as_bytes(), pinned.meta.len, pinned.memory.digests().into_iter());
    if root == pinned.meta.digest {
        pinned.slot.set_verified(epoch);
    }
    root == pinned.meta.digest
}

/// The lease on a pinned block, once its bytes are known to be right.
fn grant(
    stripe: &Stripe,
    id: &BlockId,
    pinned: Pinned<'_>,
    epoch: u8,
) -> std::result::Result<Granted, MissReason> {
    if !verified(id, &pinned, epoch) {
        let place = pinned.place;
        stripe.release(pinned.cell.keep());
        drop_corrupt(stripe, place.0, place.1);
        return Err(MissReason::Corrupt);
    }
    count_hit(stripe, pinned.slot);
    crate::kill::point("lease.held");
    Ok(Granted { memory: pinned.memory, meta: pinned.meta, token: pinned.cell.keep() })
}

/// What a lease is made of, but for its home.
struct Granted {
    memory: BlockMemory,
    meta: BlockMeta,
    token: u64,
}

impl Granted {
    #[inline]
    fn at(self, home: Arc<Stripe>) -> Lease {
        Lease::new(self.memory, self.meta, home, self.token)
    }
}

/// Counts a hit on the pinned block of `slot`.
fn count_hit(stripe: &Stripe, slot: &Slot) {
    stripe.counters.count(Event::Hit(1));
    if slot.is_risen() {
        stripe.counters.count(Event::HitRisen(1));
    }
}

fn fetch(
    stripe: &Stripe,
    id: &BlockId,
    key: &Key,
    into: &SgList,
) -> std::result::Result<BlockMeta, MissReason> {
    let pinned = pin(stripe, key, Clock::of(stripe.core()))?;
    let place = pinned.place;
    let answer = copy_out(id, &pinned, into);
    if answer.is_ok() {
        count_hit(stripe, pinned.slot);
    }
    // As a lease: a block that was deleted or replaced under this pin goes with it.
    stripe.release(pinned.cell.keep());
    match answer {
        Ok(meta) => {
            stripe.counters.count(Event::Out(meta.len));
        }
        Err(MissReason::Corrupt) => drop_corrupt(stripe, place.0, place.1),
        Err(_) => {}
    }
    answer
}

/// Copies a pinned block, verified on the private destination.
fn copy_out(id: &BlockId, pinned: &Pinned<'_>, into: &SgList) -> std::result::Result<BlockMeta, MissReason> {
    let meta = pinned.meta;
    if (into.len() as u64) < meta.len || !into.is_host() || !into.is_writable() {
        return Err(MissReason::Destination);
    }
    // A mismatch is read once more: a flipped bit on the way is not a damaged block.
    for _ in 0..2 {
        let digests = pinned.memory.scatter(into);
        let root = digest::root(id.as_bytes(), meta.len, digests.into_iter());
        if root == meta.digest || planted::is(Bug::SkipDigest) {
            return Ok(meta);
        }
    }
    Err(MissReason::Corrupt)
}

/// A lookup's answer, with what the slot says read while its generation stood.
fn look(index: &Index<'_>, key: &Key) -> Lookup {
    let answers = (0..ATTEMPTS).find_map(|_| found(index, index.find(key)));
    answers.unwrap_or(Lookup::Miss(MissReason::Evicting))
}

/// The answer for what was found; `None` when it moved on meanwhile.
#[inline]
fn found(index: &Index<'_>, found: Found) -> Option<Lookup> {
    match found {
        Found::Pending => Some(Lookup::Pending),
        Found::Evicting(..) => Some(Lookup::Miss(MissReason::Evicting)),
        Found::Absent => Some(Lookup::Miss(MissReason::Absent)),
        Found::Sealed(number, word) => {
            let slot = index.slot(number)?;
            let meta = meta_of(slot, word)?;
            cascade_core::sync::fence(cascade_core::sync::Ordering::Acquire);
            (slot.word().generation() == word.generation()).then_some(Lookup::Hit(meta))
        }
    }
}

fn delete(stripe: &Stripe, id: &BlockId) -> Outcome {
    let index = stripe.core().index();
    let key = index.key(id);
    for _ in 0..ATTEMPTS {
        let (number, word) = match find_decided(stripe.core(), &key) {
            Found::Sealed(number, word) => (number, word),
            // Its owner is stopped over it: the block may yet come back, so it is not absent.
            Found::Evicting(..) => return Outcome::Miss(MissReason::Evicting),
            Found::Pending | Found::Absent => return Outcome::Miss(MissReason::Absent),
        };
        evict::evict(stripe, &[(number, word)], WhenPinned::Retire);
        let gone = index.slot(number).map(Slot::word);
        if gone.is_some_and(|now| now.generation() != word.generation() || now.state() != State::Sealed) {
            return Outcome::Deleted;
        }
    }
    Outcome::Miss(MissReason::Evicting)
}

impl Arena {
    fn reserve_on(&self, stripe: &Arc<Stripe>, id: &BlockId, len: u64, meta: PutMeta) -> Reserve {
        let core = stripe.core();
        if len == 0 {
            return Reserve::Refused(Refusal::Empty);
        }
        if len > grow::limit(core) * core.map().geometry().region_bytes {
            return Reserve::Refused(Refusal::TooLarge);
        }
        if let Some(session) = self.session() {
            seal::release_quarantine(core, session.stripes());
        }
        if core.quarantine.is_full() {
            return Reserve::Refused(Refusal::Throttled);
        }
        let Some(cell) = stripe.take() else { return Reserve::Refused(Refusal::Throttled) };
        let (number, word) = match claim(stripe, &cell, id, meta) {
            Ok(claimed) => claimed,
            Err(answer) => return answer,
        };
        crate::kill::point("put.reserved");
        let whose = Tenancy { slot: number, tenant: meta.tenant, past: core.now().known(meta.heat) };
        let Some(memory) = self.allocate(stripe, len, whose) else {
            let freeing = word.with(State::Freeing, word.owner());
            if core.index().slot(number).is_some_and(|slot| slot.advance(word, freeing)) {
                evict::finish_free(stripe, number, freeing, cell);
            }
            return Reserve::Refused(Refusal::Full);
        };
        crate::kill::point("put.allocated");
        stripe.set_replaces(cell.number(), meta.on_existing == OnExisting::Replace);
        let home = Arc::clone(stripe) as Arc<dyn ReservationHome>;
        Reserve::Reserved(Reservation::new(memory, home, cell.keep()))
    }

    /// Room for `len` bytes: what this thread has freed before, else what is free, else new pages, else what evicting frees.
    fn allocate(&self, stripe: &Stripe, len: u64, whose: Tenancy) -> Option<BlockMemory> {
        let core = stripe.core();
        let mut start = stripe.hint.load(Local::Relaxed);
        let (mut evictions, mut room, mut is_all_shown) = (0..ATTEMPTS, None, false);
        loop {
            let seen = grow::ready(core);
            let found = core.with_regions(|regions| {
                let ready = regions.ready().max(1);
                from_stock(stripe, regions, len, whose)
                    .or_else(|| regions.allocate(len, whose, start % ready))
            });
            if let Some(extent) = found {
                let region = extent.offset / core.map().geometry().region_bytes;
                stripe.hint.store(region as usize, Local::Relaxed);
                return core.map().block(extent);
            }
            // While pages are missing, wait for them rather than drop a block.
            if grow::step(core, &self.inner.file, seen) {
                continue;
            }
            // One claim at a time: the last goes before the next is made.
            drop(room.take());
            if let Some(made) = evictions.next().and_then(|_| evict::make_room(stripe, len, whose.slot)) {
                start = made.region;
                room = Some(made);
            } else if is_all_shown {
                return None;
            } else {
                // What others keep for their next puts, before a block is refused.
                core.with_regions(|regions| regions.show_all());
                is_all_shown = true;
            }
        }
    }

    /// Runs `work` on this thread's stripe, and on the others while it answers that all entries are in use.
    pub(super) fn on_stripe<T>(
        &self,
        mut work: impl FnMut(Arc<Stripe>) -> T,
        is_throttled: impl Fn(&T) -> bool,
    ) -> Option<T> {
        let first = self.stripe()?;
        let number = first.number();
        let mut answer = work(first);
        if is_throttled(&answer) {
            for stripe in self.session()?.stripes().iter().filter(|stripe| stripe.number() != number) {
                answer = work(Arc::clone(stripe));
                if !is_throttled(&answer) {
                    break;
                }
            }
        }
        Some(answer)
    }

    fn store(&self, id: &BlockId, from: &SgList, meta: PutMeta) -> Outcome {
        if !from.is_host() {
            return Outcome::Refused(Refusal::Memory);
        }
        let mut reservation = match self.reserve(id, from.len() as u64, meta) {
            Reserve::Reserved(reservation) => reservation,
            Reserve::Exists(_) => return Outcome::Exists,
            Reserve::Refused(why) => return Outcome::Refused(why),
        };
        if !reservation.gather(from) {
            return Outcome::Refused(Refusal::Memory);
        }
        match reservation.seal() {
            Sealed::Stored(_) => Outcome::Stored,
            Sealed::Exists(_) => Outcome::Exists,
            Sealed::Lost => Outcome::Refused(Refusal::Unavailable),
        }
    }

    fn run(&self, op: &Op) -> Outcome {
        match op {
            Op::Store { id, from, meta } => self.store(id, from, *meta),
            Op::Fetch { id, into } => {
                let key = self.ask(id);
                let work = |stripe: Arc<Stripe>| fetch(&stripe, id, &key, into);
                let fetched = self.on_stripe(work, |answer| answer == &Err(MissReason::Throttled));
                match fetched.unwrap_or(Err(MissReason::Unavailable)) {
                    Ok(meta) => Outcome::Fetched(meta),
                    Err(why) => self.missed(why),
                }
            }
            Op::Delete { id } => {
                self.stripe().map_or(Outcome::Miss(MissReason::Unavailable), |stripe| delete(&stripe, id))
            }
        }
    }

    /// A lease whose miss the caller counts.
    fn lease_uncounted(&self, id: &BlockId) -> std::result::Result<Lease, MissReason> {
        let throttled =
            |answer: &std::result::Result<Lease, MissReason>| matches!(answer, Err(MissReason::Throttled));
        let key = self.ask(id);
        let work = |stripe: Arc<Stripe>| {
            let clock = Clock::of(stripe.core());
            let granted = grant(&stripe, id, pin(&stripe, &key, clock)?, clock.epoch)?;
            Ok(granted.at(stripe))
        };
        self.on_stripe(work, throttled).unwrap_or(Err(MissReason::Unavailable))
    }

    /// Where `id` may stand; the cache lines that a look at it needs are on their way from here on.
    #[inline]
    fn ask(&self, id: &BlockId) -> Key {
        let index = Index::new(self.inner.map.slots(), self.inner.map.tags());
        let key = index.key(id);
        index.prefetch_alone(&key);
        key
    }

    fn missed(&self, why: MissReason) -> Outcome {
        self.count(Event::Miss(1));
        Outcome::Miss(why)
    }

    fn count(&self, event: Event) {
        if let Some(stripe) = self.stripe() {
            stripe.counters.count(event);
        }
    }

    /// Forgets every block of the arena, for all processes. Leases stay good.
    pub fn clear(&self) {
        let Some(stripe) = self.stripe() else { return };
        for (number, slot) in self.inner.map.slots().iter().enumerate() {
            let word = slot.word();
            if word.state() == State::Sealed {
                evict::evict(&stripe, &[(number as u32, word)], WhenPinned::Retire);
            }
        }
    }
}

/// Room for `len` bytes where this thread's evictions have made it.
fn from_stock(stripe: &Stripe, regions: &Regions<'_>, len: u64, whose: Tenancy) -> Option<Extent> {
    let kind = Kind::of(len);
    let units = usize::try_from(len.div_ceil(kind.unit_bytes())).ok()?;
    loop {
        let spot = stripe.stock.lock().take(kind, units)?;
        let given = regions.allocate_at(spot, len, whose);
        if given.is_some() {
            return given;
        }
        // Somebody found it: what is left of it is for all.
        regions.show(spot.region());
    }
}

/// Claims a slot for `id`; the cell says so before it is done.
fn claim(
    stripe: &Stripe,
    cell: &Cell<'_>,
    id: &BlockId,
    meta: PutMeta,
) -> std::result::Result<(u32, Word), Reserve> {
    let core = stripe.core();
    let index = core.index();
    let key = index.key(id);
    index.prefetch_alone(&key);
    let replace = meta.on_existing == OnExisting::Replace;
    for _ in 0..ATTEMPTS {
        match index.find_settled(&key) {
            Found::Sealed(number, word) if !replace => {
                let Some(meta) = index.slot(number).and_then(|slot| meta_of(slot, word)) else { continue };
                return Err(Reserve::Exists(meta));
            }
            Found::Pending | Found::Evicting(..) => {
                crate::recover::dead_owners(core);
                match index.find_settled(&key) {
                    Found::Pending | Found::Evicting(..) => return Err(Reserve::Refused(Refusal::Pending)),
                    Found::Sealed(..) | Found::Absent => continue,
                }
            }
            Found::Sealed(..) | Found::Absent => {}
        }
        let Some((number, free)) = index.free_slot(&key) else {
            if evict::relieve_buckets(stripe, &key) {
                continue;
            }
            return Err(Reserve::Refused(Refusal::Full));
        };
        Entry::intent(number).store(cell.entry());
        crate::kill::point("claim.intent");
        match index.claim(&key, number, free, meta.class, core.row(), replace) {
            Some(Claim::Ours(word)) => return Ok((number, word)),
            Some(Claim::Pending) => return Err(Reserve::Refused(Refusal::Pending)),
            Some(Claim::Exists) | None => {}
        }
    }
    Err(Reserve::Refused(Refusal::Throttled))
}

impl Tier for Arena {
    fn capability(&self) -> Capability {
        let geometry = self.inner.map.geometry();
        Capability {
            name: "shm",
            capacity_bytes: geometry.data_bytes,
            max_block_bytes: geometry.data_bytes,
            persistent: true,
            shared: true,
            device: false,
            one_sided: true,
        }
    }

    fn lookup(&self, ids: &[BlockId], out: &mut [Lookup]) {
        assert_eq!(ids.len(), out.len(), "one answer for each id");
        let index = Index::new(self.inner.map.slots(), self.inner.map.tags());
        if let ([id], [answer]) = (ids, &mut *out) {
            // The lists of a batch cost as much as the lookup.
            *answer = look(&index, &self.ask(id));
            return;
        }
        for (answer, (key, candidates)) in out.iter_mut().zip(Ahead::new(index, ids)) {
            *answer = match found(&index, index.find_among(&key, candidates)) {
                Some(Lookup::Hit(meta)) => Lookup::Hit(meta),
                // The tags were read a while ago.
                _ => look(&index, &key),
            };
        }
    }

    fn submit(&self, batch: Batch) -> Ticket {
        let late = |op: &Op| match op {
            Op::Store { .. } => Outcome::Refused(Refusal::Deadline),
            Op::Fetch { .. } | Op::Delete { .. } => Outcome::Miss(MissReason::Deadline),
        };
        let passed = || batch.deadline.is_some_and(|deadline| Instant::now() >= deadline);
        Ticket::ready(batch.ops.iter().map(|op| if passed() { late(op) } else { self.run(op) }).collect())
    }

    fn flush(&self, _deadline: Instant) -> Result<()> {
        // A put is complete when `submit` returns, and shared memory outlives the process: there is nothing to wait for.
        Ok(())
    }

    fn stats(&self) -> TierStats {
        self.gather_stats()
    }
}

impl Addressable for Arena {
    fn reserve(&self, id: &BlockId, len: u64, meta: PutMeta) -> Reserve {
        let throttled = |answer: &Reserve| matches!(answer, Reserve::Refused(Refusal::Throttled));
        let answer = self
            .on_stripe(|stripe| self.reserve_on(&stripe, id, len, meta), throttled)
            .unwrap_or(Reserve::Refused(Refusal::Unavailable));
        match &answer {
            Reserve::Reserved(_) => {}
            Reserve::Exists(_) => self.count(Event::Exists),
            Reserve::Refused(_) => self.count(Event::Refused),
        }
        answer
    }

    fn lease(&self, id: &BlockId) -> std::result::Result<Lease, MissReason> {
        let answer = self.lease_uncounted(id);
        if answer.is_err() {
            self.count(Event::Miss(1));
        }
        answer
    }

    fn lease_batch(&self, ids: &[BlockId]) -> Vec<std::result::Result<Lease, MissReason>> {
        many::lease(self, ids)
    }
}
