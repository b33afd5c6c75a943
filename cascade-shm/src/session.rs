//! A session: one owner row, and the ledger stripes that its threads hold blocks in.

mod counters;
mod kept;
mod stripe;
mod waiting;

use std::fs::File;
use std::sync::Arc;

use cascade_core::planted::{self, Bug};
use cascade_core::sync::{AtomicU64, Ordering};
use cascade_core::{Error, ErrorKind, Result};

use crate::config::Eviction;
use crate::evict::{shared, stock};
use crate::index::Index;
use crate::layout::STRIPE_ENTRIES;
use crate::ledger::Entry;
use crate::lock::Holder;
use crate::owner::RowState;
use crate::process::{self, ForkGuard};
use crate::raw::Map;
use crate::recover;
use crate::region::{Regions, Vetted};
use crate::slot::{Meaning, Now};
use kept::Kept;

pub use counters::{Counters, Event};
pub use stripe::{Cell, Held, Stripe};
pub use waiting::Waiting;

/// What eviction goes by: what the arena says of its blocks, and what this process makes of that.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rule {
    /// What slots mean.
    pub meaning: Meaning,
    /// What goes first.
    pub eviction: Eviction,
}

/// What a session's stripes share.
#[derive(Debug)]
pub struct Core {
    map: Arc<Map>,
    lock: ForkGuard,
    holder: Holder,
    /// Slots that could not be freed, because a stopped process keeps a region locked.
    pub(crate) waiting: Waiting,
    /// Slots that hardware may still write to.
    pub(crate) quarantine: Kept,
    pub(crate) clock: cascade_core::clock::SystemClock,
    /// What left, for people who ask why.
    pub(crate) trail: std::sync::OnceLock<crate::trail::Trail>,
    vetted: Vetted,
    rule: Rule,
    /// Bytes put for each tick of the eviction clock.
    tick_bytes: u64,
}

/// What a thread puts before it says so in the arena, at most: the 64th part of a tick, and no more than people would miss.
const UNSAID_BYTES: u64 = 1 << 20;

/// An owner row in use by this process.
#[derive(Debug)]
pub struct Session {
    core: Arc<Core>,
    stripes: Vec<Arc<Stripe>>,
}

impl Session {
    /// Joins the arena: recovers what dead owners left, and takes a row.
    ///
    /// # Errors
    /// `NoSpace` when every row has a living owner.
    pub fn join(map: &Arc<Map>, rule: Rule, open: &dyn Fn() -> Result<File>) -> Result<Self> {
        crate::kill::point("attach.before_row");
        let lock = ForkGuard::new(open()?);
        let last = (map.geometry().owners - 1) as u16;
        if map.owners().iter().all(|owner| owner.state().0 == RowState::Free) {
            // Nobody has watched over the bytes since the last owner went: each is verified before it is leased, and nobody can
            // have a claim on regions.
            recover::next_epoch(map);
            map.control().claimed.store(0, Ordering::Relaxed);
        }
        let row = match take_row(map, &lock, 0..last) {
            Some(row) => row,
            None => {
                recover_with_last_row(map, open, last)?;
                take_row(map, &lock, 0..last).ok_or_else(|| full(last))?
            }
        };
        let session = Self::new(Arc::clone(map), lock, row, rule);
        crate::kill::point("attach.joined");
        session.recover();
        if !cfg!(any(loom, shuttle)) {
            session.core().with_regions(|regions| regions.revive());
        }
        Ok(session)
    }

    fn new(map: Arc<Map>, lock: ForkGuard, row: u16, rule: Rule) -> Self {
        // A free row's ledger is empty, unless it was damaged: pins that nobody holds would keep blocks for ever.
        for cell in map.ledger(row).iter().filter(|cell| Entry::load(cell) != Entry::EMPTY) {
            Entry::EMPTY.store(cell);
        }
        let generation = map.owners()[row as usize].join(process::current());
        let vetted = Vetted::none(map.geometry().regions());
        let stripes = map.geometry().ledger_entries as usize / STRIPE_ENTRIES;
        let limit_bytes = map.geometry().data_bytes / 4;
        let grace = crate::kill::QUARANTINE;
        let tick_bytes = (map.geometry().data_bytes / rule.meaning.ticks()).max(1);
        let core = Arc::new(Core {
            waiting: Waiting::new(map.geometry().regions()),
            map,
            lock,
            holder: Holder { row, generation },
            quarantine: Kept::new(grace, limit_bytes),
            clock: cascade_core::clock::SystemClock::default(),
            trail: std::sync::OnceLock::new(),
            vetted,
            rule,
            tick_bytes,
        });
        let stripes = (0..stripes).map(|number| Arc::new(Stripe::new(Arc::clone(&core), number))).collect();
        Self { core, stripes }
    }

    /// Recovers what dead owners left. Cheap when there are none.
    pub fn recover(&self) {
        recover::dead_owners(&self.core);
        (0..self.core.waiting.len()).for_each(|_| crate::seal::free_waiting(&self.core, &self.stripes));
    }

    /// The stripes.
    pub fn stripes(&self) -> &[Arc<Stripe>] {
        &self.stripes
    }

    /// What the stripes share.
    pub fn core(&self) -> &Arc<Core> {
        &self.core
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.core.is_ours() {
            for stripe in &self.stripes {
                stripe.say_all();
                stock::give_up(stripe);
            }
        }
    }
}

fn full(rows: u16) -> Error {
    let what = format!(
        "all {rows} owner rows of the arena have living owners: close a process, or make the arena with more `owners`"
    );
    Error::new(ErrorKind::NoSpace, what)
}

/// A free row whose file lock is ours.
fn take_row(map: &Map, lock: &ForkGuard, rows: std::ops::Range<u16>) -> Option<u16> {
    for row in rows {
        let is_free = || map.owners()[row as usize].state().0 == RowState::Free;
        if is_free() && process::lock_row(lock, row) {
            crate::kill::point("attach.locked");
            if is_free() {
                return Some(row);
            }
            process::unlock_row(lock, row);
        }
    }
    None
}

/// Recovers dead owners when no row is free, from the row that is kept for this.
fn recover_with_last_row(map: &Arc<Map>, open: &dyn Fn() -> Result<File>, last: u16) -> Result<()> {
    let lock = ForkGuard::new(open()?);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(2);
    while !process::lock_row(&lock, last) {
        if std::time::Instant::now() >= deadline {
            return Err(full(last));
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    crate::kill::point("attach.last_row");
    Session::new(Arc::clone(map), lock, last, Rule::default()).recover();
    Ok(())
}

impl Core {
    /// The mapping.
    pub fn map(&self) -> &Map {
        &self.map
    }

    /// Who we are in locks and states.
    pub fn holder(&self) -> Holder {
        self.holder
    }

    /// The row, as states write it.
    pub fn row(&self) -> u16 {
        self.holder.row
    }

    /// Whether this process is the one that joined.
    #[inline]
    pub fn is_ours(&self) -> bool {
        self.lock.is_ours() || planted::is(Bug::NoForkCheck)
    }

    /// The index.
    #[inline]
    pub fn index(&self) -> Index<'_> {
        Index::new(self.map.slots(), self.map.tags())
    }

    /// Notes that the block of `id` left.
    pub fn left(&self, id: &cascade_core::id::BlockId, why: crate::trail::Left) {
        if let Some(trail) = self.trail.get().filter(|_| self.is_ours()) {
            trail.note(id, why);
        }
    }

    /// Whether `holder` is certainly dead.
    pub fn is_dead(&self, holder: Holder) -> bool {
        if holder == self.holder {
            return false;
        }
        let Some(row) = self.map.owners().get(holder.row as usize) else { return true };
        if !row.is_current(holder) {
            return true;
        }
        !process::is_row_locked(&self.lock, holder.row) || process::is_gone(row.process())
    }

    /// Runs `work` with the allocator.
    pub fn with_regions<T>(&self, work: impl FnOnce(&Regions<'_>) -> T) -> T {
        let is_dead = |holder| self.is_dead(holder);
        work(&Regions::new(&self.map, self.holder, &is_dead, &self.waiting, &self.vetted))
    }

    /// Every ledger entry in use by any owner. Dead owners' entries are in it until they are recovered.
    pub fn ledger_cells(&self) -> impl Iterator<Item = (u16, &AtomicU64)> {
        let limit = self.map.geometry().ledger_entries as usize;
        self.map.owners().iter().enumerate().flat_map(move |(row, owner)| {
            let used = if owner.state().0 == RowState::Live {
                owner.stripes().saturating_mul(STRIPE_ENTRIES)
            } else {
                0
            };
            let row = row as u16;
            self.map.ledger(row)[..used.min(limit)].iter().map(move |cell| (row, cell))
        })
    }

    /// The time of the eviction clock.
    #[inline]
    pub fn now(&self) -> Now {
        let put = self.map.control().put_bytes.load(Ordering::Relaxed);
        let now = Now::at((put / self.tick_bytes) as u32, self.rule.meaning);
        if shared::is_there(&self.map) { now } else { now.counting() }
    }

    /// Bytes that a thread may put before it says so. All threads of a node write to that counter, and all readers of the clock
    /// read it.
    pub fn unsaid_bytes(&self) -> u64 {
        (self.tick_bytes / 64).min(UNSAID_BYTES)
    }

    /// What eviction goes by.
    pub fn rule(&self) -> Rule {
        self.rule
    }

    /// The epoch of verification, 1..=63.
    pub fn epoch(&self) -> u8 {
        (self.map.control().epoch.load(Ordering::Acquire) % 63) as u8 + 1
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        if !self.is_ours() {
            return;
        }
        let ledger = self.map.ledger(self.row());
        let holds = ledger.iter().any(|cell| Entry::load(cell) != Entry::EMPTY);
        // What could not be given back (memory that hardware may still write) is left to recovery, which sees an owner that
        // does not live but never left.
        if !holds {
            crate::kill::point("leave.emptied");
            self.map.owners()[self.row() as usize].leave(self.holder.generation);
        }
    }
}
