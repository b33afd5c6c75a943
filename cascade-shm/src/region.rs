//! Regions: which units of the data area are used. Derived from the slots, and rebuilt from them when a holder of a region's
//! lock dies.

mod audit;
mod bits;
mod claim;
mod show;
mod span;
mod vet;

use std::time::Duration;

use cascade_core::planted::{self, Bug};
use cascade_core::sync::{AtomicU32, Ordering};

use crate::index::Index;
use crate::layout::{CHUNK_BYTES, PAGE_BYTES};
use crate::lock::{Guard, Holder};
use crate::raw::Map;
use crate::session::Waiting;
use crate::slot::{Extent, State, Word};
use span::Piece;

pub use claim::Claim;
pub use show::{Notice, Spot};
pub use vet::Vetted;

/// How long to wait for a region: far longer than a running owner holds its lock, and short enough to go elsewhere when the
/// owner is stopped.
const PATIENCE: Duration = Duration::from_millis(50);

/// What the units of a region are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Pages do not exist yet.
    NotReady,
    /// No block: may become either.
    Empty,
    /// Units of 4 KiB, for blocks of at most 64 KiB.
    Small,
    /// Units of 64 KiB.
    Large,
}

impl Kind {
    /// What the word of a summary says.
    #[must_use]
    pub fn from_summary(word: u64) -> Self {
        match word >> 62 {
            0 => Self::NotReady,
            1 => Self::Empty,
            2 => Self::Small,
            _ => Self::Large,
        }
    }

    fn bits(self) -> u64 {
        match self {
            Self::NotReady => 0,
            Self::Empty => 1,
            Self::Small => 2,
            Self::Large => 3,
        }
    }

    /// The kind of region that a block of `len` bytes lives in.
    #[must_use]
    pub fn of(len: u64) -> Self {
        if len <= CHUNK_BYTES { Self::Small } else { Self::Large }
    }

    /// Bytes of a unit.
    #[must_use]
    pub fn unit_bytes(self) -> u64 {
        if self == Self::Small { PAGE_BYTES } else { CHUNK_BYTES }
    }
}

/// The allocator, as one owner uses it.
#[derive(Clone, Copy)]
pub struct Regions<'a> {
    map: &'a Map,
    me: Holder,
    is_dead: &'a dyn Fn(Holder) -> bool,
    waiting: &'a Waiting,
    vetted: &'a Vetted,
}

/// Whom an extent is for.
#[derive(Clone, Copy, Debug)]
pub struct Tenancy {
    /// Its slot.
    pub slot: u32,
    /// Index of the tenant.
    pub tenant: u16,
    /// The past that its slot gets.
    pub past: u32,
}

impl<'a> Regions<'a> {
    /// The allocator of `map`, used by `me`, who knows of its tables what `vetted` says.
    #[must_use]
    pub fn new(
        map: &'a Map,
        me: Holder,
        is_dead: &'a dyn Fn(Holder) -> bool,
        waiting: &'a Waiting,
        vetted: &'a Vetted,
    ) -> Self {
        Self { map, me, is_dead, waiting, vetted }
    }

    /// Number of regions whose pages exist.
    #[must_use]
    pub fn ready(&self) -> usize {
        let ready = self.map.control().ready_regions.load(Ordering::Acquire);
        (ready as usize).min(self.map.geometry().regions())
    }

    /// What `region` is, at a glance.
    #[must_use]
    pub fn kind(&self, region: usize) -> Kind {
        Kind::from_summary(self.map.summaries()[region].load(Ordering::Relaxed))
    }

    /// Units of `kind` in a region.
    #[must_use]
    pub fn units(&self, kind: Kind) -> usize {
        (self.map.geometry().region_bytes / kind.unit_bytes()) as usize
    }

    fn set_summary(&self, region: usize, kind: Kind, longest: usize) {
        let word = kind.bits() << 62 | longest as u64;
        let summary = &self.map.summaries()[region];
        // Everyone who looks for room reads the line.
        if summary.load(Ordering::Relaxed) != word {
            summary.store(word, Ordering::Relaxed);
        }
    }

    /// Announces that the pages of `region` exist.
    pub fn open(&self, region: usize) {
        self.set_summary(region, Kind::Empty, self.units(Kind::Small));
    }

    /// Finds room for `len` bytes and gives it to the slot; `start` is the region to look at first.
    pub fn allocate(&self, len: u64, whose: Tenancy, start: usize) -> Option<Extent> {
        let kind = Kind::of(len);
        let units = len.div_ceil(kind.unit_bytes()) as usize;
        if kind == Kind::Large && units > self.units(kind) / 4 {
            return self.allocate_span(len, whose, start);
        }
        let (ready, barred) = (self.ready(), self.barred(whose.slot));
        let order =
            || (0..ready).map(|step| (start + step) % ready).filter(|region| !barred.contains(region));
        let fitting = order()
            .filter(|region| self.may_hold(*region, kind, units))
            .chain(order().filter(|region| self.kind(*region) == Kind::Empty));
        let mut busy = Vec::new();
        for region in fitting {
            // Whom another keeps out waits only when no other region is open.
            let Some(_guard) = self.map.region_locks()[region].try_acquire(self.me) else {
                busy.push(region);
                continue;
            };
            let given = self.allocate_in(region, None, units, len, whose);
            if given.is_some() {
                return given;
            }
        }
        busy.into_iter().find_map(|region| {
            let _guard = self.lock(region)?;
            self.allocate_in(region, None, units, len, whose)
        })
    }

    /// Gives the slot the room at `spot`, if it is still free.
    pub fn allocate_at(&self, spot: Spot, len: u64, whose: Tenancy) -> Option<Extent> {
        let (region, units) = (spot.region(), spot.units());
        if region >= self.ready() || self.barred(whose.slot).contains(&region) {
            return None;
        }
        let _guard = self.lock(region)?;
        self.allocate_in(region, Some(spot.unit()), units, len, whose)
    }

    fn may_hold(&self, region: usize, kind: Kind, units: usize) -> bool {
        let word = self.map.summaries()[region].load(Ordering::Relaxed);
        Kind::from_summary(word) == kind && word & 0xffff_ffff >= units as u64
    }

    /// Room in `region`, at unit `at` or wherever there is some. Only under its lock.
    fn allocate_in(
        &self,
        region: usize,
        at: Option<usize>,
        units: usize,
        len: u64,
        whose: Tenancy,
    ) -> Option<Extent> {
        crate::kill::point("alloc.locked");
        // What the region is holds once its tables are known to be sound, and not before.
        if !self.is_usable(region) {
            return None;
        }
        let (kind, now) = (Kind::of(len), self.kind(region));
        if now != kind && now != Kind::Empty {
            return None;
        }
        let (bitmap, in_region) = (self.map.bitmap(region), self.units(kind));
        let found = match at {
            Some(unit) if bits::is_free(bitmap, in_region, unit, units) => Ok(unit),
            Some(_) => return None,
            None => bits::find_run(bitmap, in_region, units),
        };
        match found {
            Ok(unit) => {
                let extent = Extent { offset: self.offset(region, unit, kind), len };
                self.mark(region, kind, unit, units, whose.slot);
                crate::kill::point("alloc.marked");
                self.give(extent, whose);
                Some(extent)
            }
            Err(longest) => {
                self.set_summary(region, now, longest);
                None
            }
        }
    }

    fn give(&self, extent: Extent, whose: Tenancy) {
        if let Some(slot) = self.map.slots().get(whose.slot as usize) {
            slot.set_extent(extent, whose.tenant, whose.past);
        }
    }

    fn offset(&self, region: usize, unit: usize, kind: Kind) -> u64 {
        region as u64 * self.map.geometry().region_bytes + unit as u64 * kind.unit_bytes()
    }

    /// Takes the lock of `region`, rebuilding it if its holder died; `None` if a living holder keeps it.
    fn lock(&self, region: usize) -> Option<Guard<'a>> {
        if self.waiting.is_shunned(region) {
            // Who shuns it does not ask whether its holder is dead either: that is for the next who waits, and for recovery.
            return self.map.region_locks()[region].try_acquire(self.me);
        }
        let guard = self.lock_patiently(region);
        if guard.is_none() {
            self.waiting.shun(region);
        }
        guard
    }

    fn lock_patiently(&self, region: usize) -> Option<Guard<'a>> {
        let guard = self.map.region_locks()[region].acquire(self.me, self.is_dead, PATIENCE)?;
        Some(self.whole(region, guard))
    }

    /// `region`, just locked, as the slots say it is.
    fn whole(&self, region: usize, guard: Guard<'a>) -> Guard<'a> {
        if guard.recovered() && !planted::is(Bug::NoRebuild) {
            self.rebuild(region);
        }
        guard
    }

    /// Rebuilds the regions whose lock `dead` holds, and ends its claim.
    pub fn repair(&self, dead: Holder) {
        if self.map.control().claim.holder() == Some(dead) {
            // Taking it and giving it up ends it.
            drop(Claim::take(self.map, self.me, self.is_dead, 0..0, 0, PATIENCE));
        }
        for (region, lock) in self.map.region_locks().iter().enumerate() {
            // Taking it rebuilds the region; if we cannot, someone else is at it already.
            if lock.holder() == Some(dead)
                && let Ok(guard) = lock.try_take(self.me, &|holder| holder == dead)
            {
                drop(self.whole(region, guard));
            }
        }
        // What it had freed for its next puts.
        self.show_all();
    }

    /// Locks every region that `extent` touches, in ascending order.
    fn lock_extent(&self, extent: Extent) -> Option<Vec<Guard<'a>>> {
        self.pieces(extent).map(|piece| self.lock(piece.region)).collect()
    }

    fn mark(&self, region: usize, kind: Kind, unit: usize, units: usize, slot: u32) {
        for resident in &self.map.residents(region)[unit..unit + units] {
            resident.store(slot + 1, Ordering::Relaxed);
        }
        crate::kill::point("alloc.half");
        bits::set(self.map.bitmap(region), unit, units, true);
        // What is left is at most what was the longest run: keep the bound.
        let longest = match self.kind(region) {
            Kind::Empty => self.units(kind),
            _ => self.longest(region),
        };
        self.set_summary(region, kind, longest);
    }

    fn longest(&self, region: usize) -> usize {
        (self.map.summaries()[region].load(Ordering::Relaxed) & 0xffff_ffff) as usize
    }

    /// Clears the units of a piece that are those of `slot`: where a damaged slot names units of another block, that one
    /// keeps them.
    fn unmark(&self, piece: Piece, kind: Kind, slot: u32, notice: Notice) {
        let (bitmap, residents) = (self.map.bitmap(piece.region), self.map.residents(piece.region));
        let run = &residents[piece.unit..piece.unit + piece.units];
        let is_its = |resident: &AtomicU32| resident.load(Ordering::Relaxed) == slot + 1;
        let left = planted::is(Bug::LostBitmapClear);
        if run.iter().all(is_its) {
            bits::set(bitmap, piece.unit, piece.units, left);
        } else {
            let its = (piece.unit..).zip(run).filter(|(_, resident)| is_its(resident));
            its.for_each(|(unit, _)| bits::set(bitmap, unit, 1, left));
        }
        crate::kill::point("free.half");
        run.iter()
            .filter(|resident| is_its(resident))
            .for_each(|resident| resident.store(0, Ordering::Relaxed));
        let empty = bitmap.iter().all(|word| word.load(Ordering::Relaxed) == 0);
        let longest = match notice {
            Notice::All => self.units(kind),
            Notice::Nobody => self.longest(piece.region),
        };
        self.set_summary(piece.region, if empty { Kind::Empty } else { kind }, longest);
        self.vetted.look_again(piece.region);
    }

    /// Takes the extent of a slot that the caller owns in state `Freeing`, and ends the slot's life. `false` when a region
    /// stays locked: the slot then stays `Freeing`, to be tried again.
    #[must_use]
    pub fn free(&self, index: &Index<'_>, slot: u32, freeing: Word) -> bool {
        self.free_for(index, slot, freeing, Notice::All)
    }

    /// [`Regions::free`], where `notice` says who may look for room there.
    #[must_use]
    pub fn free_for(&self, index: &Index<'_>, slot: u32, freeing: Word, notice: Notice) -> bool {
        let Some(place) = index.slot(slot) else { return false };
        if let Some(extent) = place.extent().filter(|extent| self.is_sane(*extent)) {
            let Some(guards) = self.lock_extent(extent) else { return false };
            crate::kill::point("free.locked");
            place.clear_extent();
            crate::kill::point("free.cleared");
            // A rebuild just done for a dead holder saw the extent; taking it out again is the same work either way.
            for piece in self.pieces(extent) {
                self.unmark(piece, Kind::of(extent.len), slot, notice);
            }
            drop(guards);
            crate::kill::point("free.unlocked");
        } else {
            place.clear_extent();
        }
        index.release(slot, freeing);
        true
    }

    /// Whether an extent read from shared memory can be one that we wrote.
    fn is_sane(&self, extent: Extent) -> bool {
        let end = extent.offset.checked_add(extent.len);
        extent.len > 0
            && end.is_some_and(|end| end <= self.map.geometry().data_bytes)
            && extent.offset.is_multiple_of(Kind::of(extent.len).unit_bytes())
    }

    /// Bytes of the data area in use.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        (0..self.ready())
            .map(|region| bits::count(self.map.bitmap(region)) * self.kind(region).unit_bytes())
            .sum()
    }

    /// Derives `region` from the slots. Only under its lock.
    fn rebuild(&self, region: usize) {
        if self.kind(region) == Kind::NotReady {
            return;
        }
        bits::set(self.map.bitmap(region), 0, self.units(Kind::Small), false);
        for resident in self.map.residents(region) {
            resident.store(0, Ordering::Relaxed);
        }
        self.set_summary(region, Kind::Empty, self.units(Kind::Small));
        crate::kill::point("rebuild.cleared");
        for (number, slot) in self.map.slots().iter().enumerate() {
            if matches!(slot.word().state(), State::Free | State::Writing) {
                continue;
            }
            let Some(extent) = slot.steady_extent().filter(|extent| self.is_sane(*extent)) else { continue };
            for piece in self.pieces(extent).filter(|piece| piece.region == region) {
                self.mark(region, Kind::of(extent.len), piece.unit, piece.units, number as u32);
            }
        }
    }
}
