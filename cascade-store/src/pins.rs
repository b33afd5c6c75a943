//! Pins that a store holds for its user: leases in its own hands, so that they need no place in a slot, and end with the process.
//!
//! A hard pin keeps its block in the arena until it is unpinned or its time is over. A soft one does so too, but gives way, the one
//! with least time left first, before a block of this store is refused for want of room. Neither may fill the arena: what all
//! processes pin in it, leases included, stays within [`SHARE`], or nothing more is pinned.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cascade_core::id::BlockId;
use cascade_core::lease::Lease;
use cascade_core::tier::{Lookup, MissReason, Tier};
use parking_lot::{Condvar, Mutex};

use crate::observed::try_for;
use crate::spans::span;
use crate::tiers::Tiers;

/// The share of the arena, as a divisor, that may be pinned: the rest is enough for what must move through it.
const SHARE: u64 = 2;
/// The share of soft pins, as a divisor, that give way together: a few rounds find the room that one block needs.
const AT_ONCE: u64 = 4;
/// How long who lacks room waits for the table.
const PATIENCE: Duration = Duration::from_millis(10);

/// What a pin is to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pin {
    /// Whether it gives way when this store lacks room.
    pub is_soft: bool,
    /// How long it lasts; `None`: until it is unpinned, or the store is closed.
    pub lasts: Option<Duration>,
}

impl Pin {
    /// A pin that never gives way.
    #[must_use]
    pub fn hard() -> Self {
        Self::default()
    }

    /// A pin that gives way when this store lacks room.
    #[must_use]
    pub fn soft() -> Self {
        Self { is_soft: true, lasts: None }
    }

    /// The same, for so long.
    #[must_use]
    pub fn lasting(self, time: Duration) -> Self {
        Self { lasts: Some(time), ..self }
    }
}

/// What became of a pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pinned {
    /// It holds.
    Pinned,
    /// This store held one already, which is now as asked for.
    Renewed,
    /// More of the arena than may be would be pinned.
    Full,
    /// The block is not there, or cannot be brought into the arena.
    Miss(MissReason),
}

impl Pinned {
    /// The name as Python writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pinned => "pinned",
            Self::Renewed => "renewed",
            Self::Full => "full",
            Self::Miss(why) => why.name(),
        }
    }
}

/// Pins that a store holds now, and what became of others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PinStats {
    /// Hard pins.
    pub hard: u64,
    /// Soft pins.
    pub soft: u64,
    /// Bytes of their blocks.
    pub bytes: u64,
    /// Pins whose time was over.
    pub expired: u64,
    /// Soft pins that gave way to a block.
    pub gave_way: u64,
    /// Pins that were refused, since too much is pinned.
    pub refused: u64,
}

impl PinStats {
    /// Name and value of every field.
    #[must_use]
    pub fn fields(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("hard", self.hard),
            ("soft", self.soft),
            ("bytes", self.bytes),
            ("expired", self.expired),
            ("gave_way", self.gave_way),
            ("refused", self.refused),
        ]
    }
}

#[derive(Debug)]
struct Held {
    lease: Lease,
    is_soft: bool,
    until: Option<Instant>,
}

#[derive(Debug, Default)]
struct Table {
    held: HashMap<BlockId, Held>,
    counted: PinStats,
    is_closed: bool,
    watcher: Option<JoinHandle<()>>,
}

impl Table {
    fn expire(&mut self, now: Instant) {
        let before = self.held.len();
        self.held.retain(|_, held| held.until.is_none_or(|until| until > now));
        self.counted.expired += (before - self.held.len()) as u64;
    }

    fn next_end(&self) -> Option<Instant> {
        self.held.values().filter_map(|held| held.until).min()
    }
}

#[derive(Debug, Default)]
struct Shared {
    /// Whether anything was ever pinned.
    is_any: AtomicBool,
    table: Mutex<Table>,
    changed: Condvar,
}

/// The pins of one store.
#[derive(Debug)]
pub(crate) struct Pins {
    shared: Arc<Shared>,
    pid: u32,
}

impl Default for Pins {
    fn default() -> Self {
        Self { shared: Arc::default(), pid: std::process::id() }
    }
}

impl Pins {
    /// In a forked child the leases are not valid, and the lock may be held by a thread that is not there.
    fn table(&self) -> Option<&Mutex<Table>> {
        (std::process::id() == self.pid).then_some(&self.shared.table)
    }

    /// Lets go of blocks; whether each was pinned.
    pub(crate) fn unpin(&self, ids: &[BlockId]) -> Vec<bool> {
        let Some(table) = self.table() else { return vec![false; ids.len()] };
        let mut table = table.lock();
        ids.iter().map(|id| table.held.remove(id).is_some()).collect()
    }

    /// Lets go of blocks that are replaced or deleted; costs nothing where nothing is pinned.
    pub(crate) fn unpin_if_any<'a>(&self, ids: impl Iterator<Item = &'a BlockId>) {
        let Some(table) = self.table().filter(|_| self.shared.is_any.load(Ordering::Relaxed)) else { return };
        let mut table = table.lock();
        ids.for_each(|id| drop(table.held.remove(id)));
    }

    /// Lets go of every block.
    pub(crate) fn unpin_all(&self) -> u64 {
        let held = self.table().map(|table| std::mem::take(&mut table.lock().held));
        held.map_or(0, |held| held.len() as u64)
    }

    /// Soft pins give way to blocks of so many bytes; whether any did.
    pub(crate) fn give_way(&self, bytes: u64) -> bool {
        if !self.shared.is_any.load(Ordering::Relaxed) {
            return false;
        }
        let Some(mut table) = self.table().and_then(|table| try_for(table, PATIENCE)) else { return false };
        let mut soft: Vec<_> = table.held.iter().filter(|(_, held)| held.is_soft).collect();
        // Those without an end last.
        soft.sort_by_key(|(_, held)| (held.until.is_none(), held.until));
        let all: u64 = soft.iter().map(|(_, held)| held.lease.len() as u64).sum();
        let (enough, mut freed) = (bytes.max(all / AT_ONCE), 0);
        let is_needed = |(_, held): &&(&BlockId, &Held)| {
            let is_needed = freed < enough;
            freed += held.lease.len() as u64;
            is_needed
        };
        let going: Vec<BlockId> = soft.iter().take_while(is_needed).map(|(id, _)| **id).collect();
        going.iter().for_each(|id| drop(table.held.remove(id)));
        table.counted.gave_way += going.len() as u64;
        !going.is_empty()
    }

    pub(crate) fn stats(&self) -> PinStats {
        let Some(table) = self.table().and_then(|table| try_for(table, PATIENCE)) else {
            return PinStats::default();
        };
        let soft = table.held.values().filter(|held| held.is_soft).count() as u64;
        PinStats {
            hard: table.held.len() as u64 - soft,
            soft,
            bytes: table.held.values().map(|held| held.lease.len() as u64).sum(),
            ..table.counted
        }
    }

    /// Starts, once, the thread that ends pins whose time is over. Without it they end when somebody lacks room or pins.
    fn watch(&self, table: &mut Table) {
        if table.watcher.is_none() {
            let shared = Arc::downgrade(&self.shared);
            let thread = std::thread::Builder::new().name("cascade-pins".to_owned());
            table.watcher = thread.spawn(move || watch(&shared)).ok();
        }
        self.shared.changed.notify_all();
    }
}

/// Ends pins in time, until the store is closed.
fn watch(shared: &Weak<Shared>) {
    while let Some(shared) = shared.upgrade() {
        let mut table = shared.table.lock();
        if table.is_closed {
            return;
        }
        table.expire(Instant::now());
        match table.next_end() {
            Some(end) => drop(shared.changed.wait_until(&mut table, end)),
            None => shared.changed.wait(&mut table),
        }
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        let Some(table) = self.table() else {
            // The locks and threads of a process that this one was forked from.
            std::mem::forget(Arc::clone(&self.shared));
            return;
        };
        let mut table = table.lock();
        table.is_closed = true;
        let (held, watcher) = (std::mem::take(&mut table.held), table.watcher.take());
        drop(table);
        self.shared.changed.notify_all();
        drop(held);
        // It never panics; and if it did, there is nothing to tell anyone here.
        drop(watcher.map(JoinHandle::join));
    }
}

impl Tiers {
    /// Pins blocks in the arena, brought up where they are not there; an answer for each, in order.
    pub(crate) fn pin(&self, ids: &[BlockId], pin: Pin) -> Vec<Pinned> {
        let Some(table) = self.pins.table() else {
            return vec![Pinned::Miss(MissReason::Unavailable); ids.len()];
        };
        let _span = span!(DEBUG, "pin", blocks = ids.len()).entered();
        let until = pin.lasts.and_then(|time| Instant::now().checked_add(time));
        self.forget_stale_pins();
        let (mut answers, mut left) = (vec![Pinned::Full; ids.len()], Vec::new());
        {
            let mut table = table.lock();
            table.expire(Instant::now());
            for (at, id) in ids.iter().enumerate() {
                match table.held.get_mut(id) {
                    Some(held) => {
                        (held.is_soft, held.until) = (pin.is_soft, until);
                        answers[at] = Pinned::Renewed;
                    }
                    None => left.push(at),
                }
            }
        }
        let taken = self.within_the_share(ids, left, &mut answers);
        let wanted: Vec<BlockId> = taken.iter().map(|at| ids[*at]).collect();
        let leases = if wanted.is_empty() { Vec::new() } else { self.lease_batch(&wanted) };
        self.pins.shared.is_any.store(true, Ordering::Relaxed);
        let mut table = table.lock();
        for (at, lease) in taken.into_iter().zip(leases) {
            answers[at] = match lease {
                Ok(lease) => {
                    let held = Held { lease, is_soft: pin.is_soft, until };
                    let before = table.held.insert(ids[at], held);
                    if before.is_some() { Pinned::Renewed } else { Pinned::Pinned }
                }
                Err(why) => Pinned::Miss(why),
            };
        }
        table.counted.refused += answers.iter().filter(|answer| **answer == Pinned::Full).count() as u64;
        if table.held.values().any(|held| held.until.is_some()) {
            self.pins.watch(&mut table);
        }
        answers
    }

    /// Of the places `left`, those whose blocks may still be pinned; what is nowhere is answered.
    fn within_the_share(&self, ids: &[BlockId], left: Vec<usize>, answers: &mut [Pinned]) -> Vec<usize> {
        let asked: Vec<BlockId> = left.iter().map(|at| ids[*at]).collect();
        let mut room = (self.arena.data_bytes() / SHARE).saturating_sub(self.arena.pinned_bytes());
        let mut taken = Vec::new();
        for (at, found) in left.into_iter().zip(self.chain.locate(&asked)) {
            match found.answer {
                Lookup::Hit(meta) if meta.len <= room => {
                    room -= meta.len;
                    taken.push(at);
                }
                Lookup::Hit(_) => {}
                Lookup::Pending => answers[at] = Pinned::Miss(MissReason::Absent),
                Lookup::Miss(why) => answers[at] = Pinned::Miss(why),
            }
        }
        taken
    }

    /// Lets go of blocks that another process has deleted or replaced: their memory is only kept by the pin.
    fn forget_stale_pins(&self) {
        let Some(table) = self.pins.table() else { return };
        let mut table = table.lock();
        let ids: Vec<BlockId> = table.held.keys().copied().collect();
        let mut seen = vec![Lookup::Pending; ids.len()];
        self.arena.lookup(&ids, &mut seen);
        for (id, seen) in ids.iter().zip(seen) {
            let is_same = |digest| table.held.get(id).is_some_and(|held| held.lease.meta().digest == digest);
            let is_stale = match seen {
                Lookup::Hit(meta) => !is_same(meta.digest),
                Lookup::Miss(why) => why == MissReason::Absent,
                Lookup::Pending => false,
            };
            if is_stale {
                table.held.remove(id);
            }
        }
    }
}
