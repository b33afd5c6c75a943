//! Reservations of the store: of the arena, with the files kept in step where a name's older block may be in them.

use std::sync::Arc;

use cascade_core::batch::Refusal;
use cascade_core::id::BlockId;
use cascade_core::reservation::{InFlight, Reservation, ReservationHome, Reserve, Sealed};
use cascade_core::tier::{Addressable, OnExisting, PutMeta};
use parking_lot::Mutex;

use crate::config::Demote;
use crate::files::Files;
use crate::moves::count::add;
use crate::moves::flights::Kind;
use crate::tiers::Tiers;

/// The arena's reservation, in the hands of the store's.
#[derive(Debug)]
enum Inner {
    Reserved(Reservation),
    InFlight(InFlight),
    Gone,
}

/// Home of one reservation of a block that replaces: the files forget the older block before this one is sealed.
#[derive(Debug)]
struct Home {
    tiers: Arc<Tiers>,
    files: Arc<Files>,
    id: BlockId,
    inner: Mutex<Inner>,
}

impl Home {
    fn take(&self) -> Inner {
        std::mem::replace(&mut *self.inner.lock(), Inner::Gone)
    }
}

impl ReservationHome for Home {
    fn seal(&self, _token: u64, digests: &[u64]) -> Sealed {
        let Inner::Reserved(reservation) = self.take() else { return Sealed::Lost };
        let flight = self.files.flights.begin_after(&self.id, Kind::Change);
        // So that what it forgets is later than all that others have put; it forgets in any case.
        self.files.is_current(&flight);
        self.tiers.take_note_back(&self.id);
        let (_, is_hidden) = self.files.forget(&self.id);
        add(&self.tiers.count.hidden, u64::from(is_hidden));
        let sealed = reservation.seal_with(digests.to_vec());
        if let Sealed::Stored(new) = sealed {
            self.tiers.forget_older(&self.files, &self.id, new.digest);
        }
        if self.files.demote == Demote::Through && !matches!(sealed, Sealed::Lost) {
            self.tiers.queue_sinking(&self.files, [self.id]);
        }
        sealed
    }

    fn abandon(&self, _token: u64) {
        drop(self.take());
    }

    fn transfer_started(&self, _token: u64) {
        if let Inner::Reserved(reservation) = self.take() {
            let started = reservation.start_transfer();
            *self.inner.lock() = started.map_or(Inner::Gone, Inner::InFlight);
        }
    }

    fn transfer_completed(&self, _token: u64) {
        if let Inner::InFlight(in_flight) = self.take() {
            let completed = in_flight.complete();
            *self.inner.lock() = completed.map_or(Inner::Gone, Inner::Reserved);
        }
    }

    fn quarantine(&self, _token: u64) {
        // Dropped in flight, which is what the arena quarantines.
        drop(self.take());
    }
}

impl Tiers {
    /// Final memory for a block. With `Keep` it is the arena's own reservation, and the next sweep copies the block down.
    pub(crate) fn reserve(self: &Arc<Self>, id: &BlockId, len: u64, meta: PutMeta) -> Reserve {
        let heat = self.learner.put(std::slice::from_ref(id), len as usize).pop();
        let reserve = self.reserve_uncounted(id, len, PutMeta { heat, ..meta });
        add(&self.count.exists, u64::from(matches!(reserve, Reserve::Exists(_))));
        reserve
    }

    fn reserve_uncounted(self: &Arc<Self>, id: &BlockId, len: u64, meta: PutMeta) -> Reserve {
        let Some(files) = self.files() else {
            if self.is_cut_off() && meta.on_existing == OnExisting::Replace {
                return Reserve::Refused(Refusal::Unavailable);
            }
            return self.arena.reserve(id, len, meta);
        };
        if meta.on_existing == OnExisting::Keep {
            return match files.meta_now(id) {
                Some(there) => Reserve::Exists(there),
                None => self.arena.reserve(id, len, meta),
            };
        }
        match self.arena.reserve(id, len, meta) {
            Reserve::Reserved(reservation) => {
                let Some(memory) = reservation.memory() else { return Reserve::Reserved(reservation) };
                let inner = Mutex::new(Inner::Reserved(reservation));
                let home = Home { tiers: Arc::clone(self), files: Arc::clone(files), id: *id, inner };
                Reserve::Reserved(Reservation::new(memory, Arc::new(home), 0))
            }
            other => other,
        }
    }
}
