//! Which blocks are on their way between tiers: one move at a time for each id, so that a file is read once for many readers, and
//! no old version comes back over a newer one. For names, whose blocks are replaced, this holds among all processes of the node.

use std::collections::HashMap;
use std::sync::Arc;

use cascade_core::id::BlockId;
use cascade_core::planted::{self, Bug};
use parking_lot::{Condvar, Mutex};

use super::changes::Changes;
use super::node::Locks;

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

/// The moves of one arena.
#[derive(Debug, Default)]
pub(crate) struct Flights {
    busy: Mutex<HashMap<BlockId, Kind>>,
    ended: Condvar,
    locks: Option<Locks>,
    changes: Changes,
}

/// The right to move one block; given back when dropped.
#[derive(Debug)]
pub(crate) struct Flight {
    id: BlockId,
    kind: Kind,
    home: Arc<Flights>,
    /// Whoever had the name before may not have ended what it did.
    is_doubtful: bool,
}

impl Flights {
    /// Moves that other processes of the node hear of.
    pub(crate) fn with_locks(locks: Locks, changes: Changes) -> Self {
        Self { locks: Some(locks), changes, ..Self::default() }
    }

    /// What the processes of the node count of their changes.
    pub(crate) fn changes(&self) -> &Changes {
        &self.changes
    }

    fn flight(self: &Arc<Self>, id: &BlockId, kind: Kind) -> Flight {
        let is_doubtful = self.locks_for(id).is_some()
            && if kind == Kind::Rise { self.changes.is_doubtful(id) } else { self.changes.begin(id) };
        Flight { id: *id, kind, home: Arc::clone(self), is_doubtful }
    }

    pub(crate) fn locks(&self) -> Option<&Locks> {
        self.locks.as_ref()
    }

    /// The locks, where other processes may not touch `id` meanwhile. What stands under other ids never changes.
    fn locks_for(&self, id: &BlockId) -> Option<&Locks> {
        self.locks().filter(|_| id.kind().replaceable() && !planted::is(Bug::NoNameLock))
    }

    /// Begins, if nothing happens to the block.
    pub(crate) fn begin(self: &Arc<Self>, id: &BlockId, kind: Kind) -> Option<Flight> {
        let mut busy = self.busy.lock();
        if busy.contains_key(id) || self.locks_for(id).is_some_and(|locks| !locks.try_name(id)) {
            return None;
        }
        busy.insert(*id, kind);
        Some(self.flight(id, kind))
    }

    /// Begins once nothing else happens to the block. Who holds one flight must not wait for another. A process that holds the
    /// block for too long, since it is stopped, is not waited for: what it copies it looks at again.
    pub(crate) fn begin_after(self: &Arc<Self>, id: &BlockId, kind: Kind) -> Flight {
        let mut busy = self.busy.lock();
        while busy.contains_key(id) {
            self.ended.wait(&mut busy);
        }
        busy.insert(*id, kind);
        drop(busy);
        if let Some(locks) = self.locks_for(id) {
            locks.name(id);
        }
        self.flight(id, kind)
    }

    /// Waits until nothing happens to the block; whether it rose meanwhile.
    pub(crate) fn wait(&self, id: &BlockId) -> bool {
        let (mut busy, mut rose) = (self.busy.lock(), false);
        while let Some(kind) = busy.get(id) {
            rose |= *kind == Kind::Rise;
            self.ended.wait(&mut busy);
        }
        drop(busy);
        if let Some(locks) = self.locks_for(id) {
            locks.wait_name(id);
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

impl Flight {
    pub(crate) fn id(&self) -> &BlockId {
        &self.id
    }

    pub(crate) fn is_doubtful(&self) -> bool {
        self.is_doubtful
    }

    pub(crate) fn changes(&self) -> &Changes {
        &self.home.changes
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        // Before another thread can begin: the lock is the process's.
        if let Some(locks) = self.home.locks_for(&self.id) {
            if self.kind != Kind::Rise {
                self.home.changes.end(&self.id);
            }
            locks.release_name(&self.id);
        }
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
