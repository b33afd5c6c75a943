//! The in-memory tier: the smallest complete tier, the model of the others, and the first to pass the conformance suite.

mod raw;
mod state;

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::Result;
use crate::batch::{Batch, Op, Outcome, Refusal, Ticket};
use crate::clock::{Clock, SystemClock};
use crate::id::BlockId;
use crate::lease::{Lease, LeaseHome};
use crate::memory::SgList;
use crate::metrics::TierStats;
use crate::reservation::{Reservation, ReservationHome, Reserve, Sealed};
use crate::tier::{Addressable, BlockMeta, Capability, Lookup, MissReason, PutMeta, Tier};
use state::State;

/// How long memory stays out of use when a transfer to it was abandoned.
const QUARANTINE_GRACE: Duration = Duration::from_secs(30);

#[derive(Debug)]
struct Home {
    state: Mutex<State>,
    clock: Arc<dyn Clock>,
    capacity_bytes: u64,
}

/// A tier in this process's own memory, least recently used out first, ordinary blocks before prefix blocks.
#[derive(Clone, Debug)]
pub struct MemoryTier {
    home: Arc<Home>,
}

impl MemoryTier {
    /// A tier of `capacity_bytes` of payload.
    #[must_use]
    pub fn new(capacity_bytes: u64) -> Self {
        Self::with_clock(capacity_bytes, Arc::new(SystemClock::default()))
    }

    /// The same, with a clock of the caller's (it times the quarantine).
    #[must_use]
    pub fn with_clock(capacity_bytes: u64, clock: Arc<dyn Clock>) -> Self {
        let state = State::new(capacity_bytes, QUARANTINE_GRACE);
        Self { home: Arc::new(Home { state: Mutex::new(state), clock, capacity_bytes }) }
    }

    fn fetch(&self, id: &BlockId, into: &SgList) -> Outcome {
        let lease = match self.lease(id) {
            Ok(lease) => lease,
            Err(reason) => return Outcome::Miss(reason),
        };
        let Some(digests) = lease.scatter(into) else {
            return Outcome::Miss(MissReason::Destination);
        };
        let meta = lease.meta();
        if crate::digest::root(id.as_bytes(), meta.len, digests.iter().copied()) == meta.digest {
            self.home.state.lock().stats.bytes_out += meta.len;
            return Outcome::Fetched(meta);
        }
        self.home.state.lock().drop_corrupt(id, meta.digest);
        Outcome::Miss(MissReason::Corrupt)
    }

    fn store(&self, id: &BlockId, from: &SgList, meta: PutMeta) -> Outcome {
        if !from.is_host() {
            return self.home.state.lock().refuse(Refusal::Memory);
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
            Op::Fetch { id, into } => self.fetch(id, into),
            Op::Store { id, from, meta } => self.store(id, from, *meta),
            Op::Delete { id } => self.home.state.lock().delete(id),
        }
    }
}

impl Tier for MemoryTier {
    fn capability(&self) -> Capability {
        Capability {
            name: "memory",
            capacity_bytes: self.home.capacity_bytes,
            max_block_bytes: self.home.capacity_bytes,
            persistent: false,
            shared: false,
            device: false,
            one_sided: false,
        }
    }

    fn lookup(&self, ids: &[BlockId], out: &mut [Lookup]) {
        assert_eq!(ids.len(), out.len(), "one answer for each id");
        let state = self.home.state.lock();
        for (id, answer) in ids.iter().zip(out) {
            *answer = state.lookup(id);
        }
    }

    fn submit(&self, batch: Batch) -> Ticket {
        let late = |op: &Op| match op {
            Op::Store { .. } => self.home.state.lock().refuse(Refusal::Deadline),
            Op::Fetch { .. } | Op::Delete { .. } => Outcome::Miss(MissReason::Deadline),
        };
        let passed = || batch.deadline.is_some_and(|deadline| Instant::now() >= deadline);
        Ticket::ready(batch.ops.iter().map(|op| if passed() { late(op) } else { self.run(op) }).collect())
    }

    fn flush(&self, _deadline: Instant) -> Result<()> {
        // Every put is complete when `submit` returns, and memory is as durable as it gets.
        Ok(())
    }

    fn stats(&self) -> TierStats {
        self.home.state.lock().snapshot()
    }
}

impl Addressable for MemoryTier {
    fn reserve(&self, id: &BlockId, len: u64, meta: PutMeta) -> Reserve {
        let now = self.home.clock.now();
        match self.home.state.lock().reserve(id, len, meta, now) {
            Ok((memory, token)) => {
                let home = Arc::clone(&self.home) as Arc<dyn ReservationHome>;
                Reserve::Reserved(Reservation::new(memory, home, token))
            }
            Err(state::NoReservation::Exists(meta)) => Reserve::Exists(meta),
            Err(state::NoReservation::Refused(why)) => Reserve::Refused(why),
        }
    }

    fn lease(&self, id: &BlockId) -> std::result::Result<Lease, MissReason> {
        let (memory, meta, token): (_, BlockMeta, _) = self.home.state.lock().lease(id)?;
        Ok(Lease::new(memory, meta, Arc::clone(&self.home) as Arc<dyn LeaseHome>, token))
    }
}

impl LeaseHome for Home {
    fn release(&self, token: u64) {
        self.state.lock().release(token);
    }

    fn is_valid(&self, token: u64) -> bool {
        self.state.lock().is_leased(token)
    }
}

impl ReservationHome for Home {
    fn seal(&self, token: u64, digests: &[u64]) -> Sealed {
        self.state.lock().seal(token, digests)
    }

    fn abandon(&self, token: u64) {
        self.state.lock().abandon(token);
    }

    // The memory of a reservation belongs to the reservation until it is sealed or abandoned: nothing to note.
    fn transfer_started(&self, _token: u64) {}

    fn transfer_completed(&self, _token: u64) {}

    fn quarantine(&self, token: u64) {
        self.state.lock().quarantine(token, self.clock.now());
    }
}

#[cfg(test)]
mod tests;
