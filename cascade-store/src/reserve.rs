//! Reservations of the store: of the arena, with the files kept in step where a name's older block may be in them.

use std::sync::Arc;

use cascade_core::batch::{Outcome, Refusal};
use cascade_core::id::BlockId;
use cascade_core::reservation::{InFlight, Reservation, ReservationHome, Reserve, Sealed};
use cascade_core::tier::{OnExisting, PutMeta};
use parking_lot::Mutex;

use crate::config::Demote;
use crate::files::Files;
use crate::moves::count::add;
use crate::moves::flights::Kind;
use crate::put::Reach;
use crate::tiers::Tiers;

/// The arena's reservation, in the hands of the store's.
#[derive(Debug)]
enum Inner {
    Reserved(Reservation),
    InFlight(InFlight),
    Gone,
}

/// Home of one reservation of a block that replaces, or that must come further than the arena. Of one that replaces, the files
/// forget the older block before it is sealed.
#[derive(Debug)]
struct Home {
    tiers: Arc<Tiers>,
    files: Arc<Files>,
    id: BlockId,
    replaces: bool,
    reach: Reach,
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
        let sealed = if self.replaces {
            self.replace(reservation, digests)
        } else {
            reservation.seal_with(digests.to_vec())
        };
        // Without the flight, which the way down takes.
        match sealed {
            Sealed::Lost => sealed,
            _ if self.tiers.bring_down(&self.id, self.reach).is_err() => Sealed::Lost,
            _ => sealed,
        }
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

impl Home {
    fn replace(&self, reservation: Reservation, digests: &[u64]) -> Sealed {
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
        if self.files.demote == Demote::Through
            && self.reach == Reach::Found
            && !matches!(sealed, Sealed::Lost)
        {
            self.tiers.queue_sinking(&self.files, [self.id]);
        }
        sealed
    }
}

impl Tiers {
    /// Final memory for a block. One that is kept, and need not be below when it is sealed, is the arena's own reservation; the
    /// next sweep copies the block down.
    pub(crate) fn reserve(self: &Arc<Self>, id: &BlockId, len: u64, meta: PutMeta, reach: Reach) -> Reserve {
        let reach = self.files().map_or(reach, |files| reach.max(files.least));
        let heat = self.learner.put(std::slice::from_ref(id), len as usize).pop();
        let reserve = self.reserve_uncounted(id, len, PutMeta { heat, ..meta }, reach);
        add(&self.count.exists, u64::from(matches!(reserve, Reserve::Exists(_))));
        if matches!(reserve, Reserve::Reserved(_)) {
            self.tally.reserved();
        }
        match reserve {
            Reserve::Exists(there) => {
                self.bring_down(id, reach).map_or_else(Reserve::Refused, |()| Reserve::Exists(there))
            }
            other => other,
        }
    }

    /// Brings a block of the arena as far as is asked, as a put does.
    fn bring_down(&self, id: &BlockId, reach: Reach) -> Result<(), Refusal> {
        if reach == Reach::Found {
            return Ok(());
        }
        match self.after_put(&[*id], vec![Outcome::Stored], reach)[..] {
            [Outcome::Refused(why)] => Err(why),
            _ => Ok(()),
        }
    }

    fn reserve_uncounted(self: &Arc<Self>, id: &BlockId, len: u64, meta: PutMeta, reach: Reach) -> Reserve {
        let Some(files) = self.files() else {
            if reach > Reach::Found {
                return Reserve::Refused(Refusal::Unavailable);
            }
            if self.is_cut_off() && meta.on_existing == OnExisting::Replace {
                return Reserve::Refused(Refusal::Unavailable);
            }
            return self.reserve_above(id, len, meta);
        };
        let replaces = meta.on_existing == OnExisting::Replace;
        // What cannot be read now is as good as not there.
        if !replaces && let Some(there) = files.meta_now(id).filter(|_| !files.is_shut()) {
            return Reserve::Exists(there);
        }
        if !replaces && reach == Reach::Found {
            return self.reserve_above(id, len, meta);
        }
        match self.reserve_above(id, len, meta) {
            Reserve::Reserved(reservation) => {
                let Some(memory) = reservation.memory() else { return Reserve::Reserved(reservation) };
                let inner = Mutex::new(Inner::Reserved(reservation));
                let (tiers, files) = (Arc::clone(self), Arc::clone(files));
                let home = Home { tiers, files, id: *id, replaces, reach, inner };
                Reserve::Reserved(Reservation::new(memory, Arc::new(home), 0))
            }
            other => other,
        }
    }
}
