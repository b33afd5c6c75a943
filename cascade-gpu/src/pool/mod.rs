//! The memory of one device as a store of blocks: slots, space, eviction, pins.

mod evict;
mod slabs;
mod state;

use std::sync::{Arc, Weak};
use std::time::Duration;

use cascade_core::batch::{Outcome, Refusal};
use cascade_core::block::{Access, BlockMemory, DeviceAccess};
use cascade_core::clock::Clock;
use cascade_core::copy::Direction;
use cascade_core::id::BlockId;
use cascade_core::memory::{Piece, SgList};
use cascade_core::metrics::TierStats;
use cascade_core::reservation::{ReservationHome, Sealed};
use cascade_core::tier::{BlockMeta, Lookup, MissReason, PutMeta};
use parking_lot::Mutex;

use crate::device::{Event, ShareHandle, Stream};
use crate::engine::{CopyEngine, Digested};
use slabs::Slabs;
use state::State;
pub(crate) use state::{NoReservation, Token};

/// How long memory stays out of use when a transfer to it was abandoned: hardware may still write there.
const QUARANTINE_GRACE: Duration = Duration::from_secs(30);

/// How often the end of a caller's work is looked for when the pool is dropped.
const NAP: Duration = Duration::from_micros(100);

/// A block where it lies, and what it takes to give it back.
#[derive(Debug)]
pub(crate) struct Placed {
    pub(crate) memory: BlockMemory,
    pub(crate) piece: Piece,
    pub(crate) meta: BlockMeta,
    pub(crate) token: Token,
}

/// How the blocks of a pool are reached. One for each pool, and never freed: a block's memory may name it for as long as the
/// process lives.
#[derive(Debug)]
struct Reach {
    engine: Weak<CopyEngine>,
}

impl Access for Reach {
    fn copy(&self, part: &Piece, list: &SgList, direction: Direction) -> bool {
        let Some(engine) = self.engine.upgrade() else { return false };
        let (part_list, len) = (SgList::from(part.clone()), part.len());
        let done = match direction {
            Direction::Put => engine.copy(part_list, list.clone(), len, Digested::Nothing),
            Direction::Get => engine.copy(list.clone(), part_list, len, Digested::Nothing),
        };
        done.is_ok()
    }

    fn digests(&self, block: &Piece) -> Option<Vec<u64>> {
        self.engine.upgrade()?.digests(block).ok().flatten()
    }
}

/// The pool of one device.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) engine: Arc<CopyEngine>,
    pub(crate) budget_bytes: u64,
    state: Mutex<State>,
    clock: Arc<dyn Clock>,
    reach: &'static DeviceAccess,
}

impl Pool {
    pub(crate) fn new(
        engine: Arc<CopyEngine>,
        budget_bytes: u64,
        slab_bytes: usize,
        clock: Arc<dyn Clock>,
    ) -> Arc<Self> {
        let slabs = Slabs::new(engine.device(), budget_bytes, slab_bytes);
        let budget_bytes = slabs.budget_bytes();
        let state = Mutex::new(State::new(slabs, QUARANTINE_GRACE));
        let access = Box::new(Reach { engine: Arc::downgrade(&engine) });
        let reach = Box::leak(Box::new(DeviceAccess { ordinal: engine.device().info().ordinal, access }));
        Arc::new(Self { engine, budget_bytes, state, clock, reach })
    }

    pub(crate) fn lookup(&self, id: &BlockId) -> Lookup {
        if self.engine.is_lost() {
            return Lookup::Miss(MissReason::Unavailable);
        }
        self.state.lock().lookup(id)
    }

    /// Space for a block, after eviction if need be.
    pub(crate) fn reserve(&self, id: &BlockId, len: u64, meta: PutMeta) -> Result<Placed, NoReservation> {
        let mut state = self.state.lock();
        if self.engine.is_lost() {
            return Err(state.refuse(Refusal::Unavailable));
        }
        self.reap(&mut state);
        let (token, place) = state.reserve(id, len, meta, self.clock.now())?;
        let blank = BlockMeta { len, digest: 0, class: meta.class, tenant: meta.tenant };
        let placed = self.placed(&state, token, &place, blank);
        placed.ok_or_else(|| {
            state.abandon(token);
            state.refuse(Refusal::Unavailable)
        })
    }

    pub(crate) fn lease(&self, id: &BlockId) -> Result<Placed, MissReason> {
        let mut state = self.state.lock();
        if self.engine.is_lost() {
            return Err(MissReason::Unavailable);
        }
        let (token, place, meta) = state.lease(id)?;
        let placed = self.placed(&state, token, &place, meta);
        placed.ok_or_else(|| {
            state.release(token);
            MissReason::Unavailable
        })
    }

    fn placed(&self, state: &State, token: Token, place: &slabs::Extent, meta: BlockMeta) -> Option<Placed> {
        let len = usize::try_from(meta.len).ok()?;
        let slab = state.slabs.memory(place)?;
        let memory = slab.block(place.offset, len, self.reach)?;
        Some(Placed { memory, piece: slab.piece(place.offset, len)?, meta, token })
    }

    pub(crate) fn release(&self, token: Token) {
        self.state.lock().release(token);
    }

    /// Releases when all that `stream` has queued now is over. Where no event is to be had it waits for that here; a device that
    /// failed runs nothing any more.
    pub(crate) fn release_after(&self, token: Token, stream: Stream) {
        let device = self.engine.device();
        match device.record(stream) {
            Ok(event) => self.state.lock().releasing.push((event, token)),
            Err(_) => {
                drop(device.finish(stream));
                self.release(token);
            }
        }
    }

    /// What other processes open the memory round a block with, and where in it the block lies.
    pub(crate) fn share(&self, id: &BlockId) -> Option<(ShareHandle, u64, BlockMeta)> {
        let mut state = self.state.lock();
        let (token, place, meta) = state.lease(id).ok()?;
        let slab = state.slabs.memory(&place).cloned();
        state.release(token);
        drop(state);
        Some((slab?.share()?, place.offset as u64, meta))
    }

    pub(crate) fn is_leased(&self, token: Token) -> bool {
        !self.engine.is_lost() && self.state.lock().is_pinned(token)
    }

    pub(crate) fn delete(&self, id: &BlockId) -> Outcome {
        self.state.lock().delete(id)
    }

    pub(crate) fn clear(&self) {
        self.state.lock().clear();
    }

    pub(crate) fn drop_corrupt(&self, token: Token) {
        self.state.lock().drop_corrupt(token);
    }

    pub(crate) fn count_out(&self, bytes: u64) {
        self.state.lock().stats.bytes_out += bytes;
    }

    pub(crate) fn refuse(&self, why: Refusal) -> Outcome {
        self.state.lock().refuse(why);
        Outcome::Refused(why)
    }

    pub(crate) fn stats(&self) -> TierStats {
        let mut state = self.state.lock();
        self.reap(&mut state);
        state.snapshot()
    }

    /// Gives slabs without a block back to the device; their bytes.
    pub(crate) fn trim(&self) -> u64 {
        let mut state = self.state.lock();
        self.reap(&mut state);
        state.slabs.trim()
    }

    /// Takes back the pins whose streams have come so far.
    fn reap(&self, state: &mut State) {
        let device = self.engine.device();
        let mut left: Vec<(Event, Token)> = Vec::new();
        for (event, token) in std::mem::take(&mut state.releasing) {
            // A device that failed runs nothing any more.
            if device.is_done(event) == Ok(false) {
                left.push((event, token));
            } else {
                device.end_event(event);
                state.release(token);
            }
        }
        state.releasing = left;
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // Streams of the caller's may still read what was released behind their work.
        let device = self.engine.device();
        for (event, _) in std::mem::take(&mut self.state.get_mut().releasing) {
            while device.is_done(event) == Ok(false) {
                std::thread::sleep(NAP);
            }
            device.end_event(event);
        }
    }
}

impl ReservationHome for Pool {
    fn seal(&self, token: u64, digests: &[u64]) -> Sealed {
        self.state.lock().seal(Token::from_bits(token), digests)
    }

    fn abandon(&self, token: u64) {
        self.state.lock().abandon(Token::from_bits(token));
    }

    // The slot of a reservation belongs to the reservation until it is sealed or abandoned: nothing to note.
    fn transfer_started(&self, _token: u64) {}

    fn transfer_completed(&self, _token: u64) {}

    fn quarantine(&self, token: u64) {
        self.state.lock().quarantine(Token::from_bits(token), self.clock.now());
    }
}
