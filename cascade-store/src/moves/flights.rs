//! Which blocks are on their way between tiers: one at a time for each id, so that a file is read once for many readers, and no
//! old version comes back over a newer one.

use std::collections::HashMap;
use std::sync::Arc;

use cascade_core::id::BlockId;
use parking_lot::{Condvar, Mutex};

/// What is happening to a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It is copied to a tier below.
    Sink,
    /// It is brought up from a tier below.
    Rise,
    /// It is being replaced or deleted, in every tier.
    Change,
}

#[derive(Debug, Default)]
pub(crate) struct Flights {
    busy: Mutex<HashMap<BlockId, Kind>>,
    ended: Condvar,
}

/// The right to move one block; given back when dropped.
#[derive(Debug)]
pub(crate) struct Flight {
    id: BlockId,
    home: Arc<Flights>,
}

impl Flights {
    /// Begins, if nothing happens to the block.
    pub(crate) fn begin(self: &Arc<Self>, id: &BlockId, kind: Kind) -> Option<Flight> {
        let mut busy = self.busy.lock();
        if busy.contains_key(id) {
            return None;
        }
        busy.insert(*id, kind);
        Some(Flight { id: *id, home: Arc::clone(self) })
    }

    /// Begins once nothing else happens to the block. Who holds one flight must not wait for another.
    pub(crate) fn begin_after(self: &Arc<Self>, id: &BlockId, kind: Kind) -> Flight {
        let mut busy = self.busy.lock();
        while busy.contains_key(id) {
            self.ended.wait(&mut busy);
        }
        busy.insert(*id, kind);
        Flight { id: *id, home: Arc::clone(self) }
    }

    /// Waits until nothing happens to the block; whether it rose meanwhile.
    pub(crate) fn wait(&self, id: &BlockId) -> bool {
        let (mut busy, mut rose) = (self.busy.lock(), false);
        while let Some(kind) = busy.get(id) {
            rose |= *kind == Kind::Rise;
            self.ended.wait(&mut busy);
        }
        rose
    }

    /// Waits until everything that is under way now has ended.
    pub(crate) fn wait_all(&self) {
        let under_way: Vec<BlockId> = self.busy.lock().keys().copied().collect();
        for id in under_way {
            self.wait(&id);
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.home.busy.lock().remove(&self.id);
        self.home.ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_move_at_a_time_for_each_block() {
        let flights = Arc::new(Flights::default());
        let (a, b) = (BlockId::named("a"), BlockId::named("b"));
        let rise = flights.begin(&a, Kind::Rise);
        assert!(rise.is_some() && flights.begin(&a, Kind::Sink).is_none());
        assert!(flights.begin(&b, Kind::Sink).is_some());
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| flights.wait(&a));
            let changing = scope.spawn(|| drop(flights.begin_after(&a, Kind::Change)));
            std::thread::sleep(std::time::Duration::from_millis(20));
            drop(rise);
            assert!(waiting.join().unwrap());
            changing.join().unwrap();
        });
        assert!(flights.begin(&a, Kind::Sink).is_some());
    }
}
