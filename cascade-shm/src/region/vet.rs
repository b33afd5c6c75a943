//! Damage in a region's tables, looked for once by each session before it first allocates there: handing out units that a
//! block already has would put one block's bytes under another's lease.

use std::sync::atomic::{AtomicU64, Ordering as Local};

use cascade_core::sync::Ordering;

use super::span::Piece;
use super::{Kind, Regions, bits};
use crate::slot::State;

/// What a session knows of the regions' tables.
#[derive(Debug)]
pub struct Vetted {
    sound: Box<[AtomicU64]>,
    contradictory: Box<[AtomicU64]>,
}

impl Vetted {
    /// Nothing is known of `regions` regions.
    #[must_use]
    pub fn none(regions: usize) -> Self {
        let words = || (0..regions.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Self { sound: words(), contradictory: words() }
    }

    fn has(words: &[AtomicU64], region: usize) -> bool {
        words.get(region / 64).is_some_and(|word| word.load(Local::Relaxed) >> (region % 64) & 1 == 1)
    }

    fn add(words: &[AtomicU64], region: usize) {
        if let Some(word) = words.get(region / 64) {
            word.fetch_or(1 << (region % 64), Local::Relaxed);
        }
    }

    fn remove(words: &[AtomicU64], region: usize) {
        if Self::has(words, region)
            && let Some(word) = words.get(region / 64)
        {
            word.fetch_and(!(1 << (region % 64)), Local::Relaxed);
        }
    }

    /// A block of a contradictory region is gone: it may be worth another look.
    pub(super) fn look_again(&self, region: usize) {
        Self::remove(&self.contradictory, region);
    }
}

impl Regions<'_> {
    /// Whether `region` may be allocated from: its tables agree with each other and with the slots that they name, if need
    /// be after they were derived anew. Where the slots contradict each other nothing more is put. Only under its lock.
    pub(super) fn is_usable(&self, region: usize) -> bool {
        if Vetted::has(&self.vetted.sound, region) {
            return true;
        }
        if Vetted::has(&self.vetted.contradictory, region) {
            return false;
        }
        if !self.is_sound(region) {
            self.rebuild(region);
            if !self.is_sound(region) {
                Vetted::add(&self.vetted.contradictory, region);
                return false;
            }
        }
        Vetted::add(&self.vetted.sound, region);
        true
    }

    /// Derives regions anew whose pages exist while their summary says that they do not, which only damage does: nobody would look
    /// for room, or for something to evict, in them. Whether there were any.
    pub fn revive(&self) -> bool {
        let is_lost = |region: &usize| self.kind(*region) == Kind::NotReady;
        let revived = (0..self.ready()).filter(is_lost).filter(|region| {
            let Some(_guard) = self.lock(*region) else { return false };
            let is_lost = is_lost(region);
            if is_lost {
                self.open(*region);
                self.rebuild(*region);
            }
            is_lost
        });
        revived.count() > 0
    }

    /// Whether bitmap, residents and summary agree, and each run of units is that of the block that its slot says. A block
    /// that is in neither table is not noticed: that would need a look at every slot.
    fn is_sound(&self, region: usize) -> bool {
        let kind = self.kind(region);
        let (bitmap, residents) = (self.map.bitmap(region), self.map.residents(region));
        let mut unit = 0;
        while let Some(resident) = residents.get(unit) {
            match resident.load(Ordering::Relaxed).checked_sub(1) {
                None if bits::is_set(bitmap, unit) => return false,
                None => unit += 1,
                Some(slot) => match self.run_of(region, kind, slot) {
                    Some(piece) if piece.unit == unit && self.is_filled(piece, slot) => unit += piece.units,
                    _ => return false,
                },
            }
        }
        true
    }

    /// The units of `region` that the block in `slot` has, if it can be there.
    fn run_of(&self, region: usize, kind: Kind, slot: u32) -> Option<Piece> {
        let place = self.map.slots().get(slot as usize)?;
        let extent = place.steady_extent().filter(|extent| self.is_sane(*extent))?;
        let is_there = !matches!(place.word().state(), State::Free | State::Writing);
        let mut pieces = self.pieces(extent);
        pieces.find(|piece| piece.region == region).filter(|_| is_there && Kind::of(extent.len) == kind)
    }

    fn is_filled(&self, piece: Piece, slot: u32) -> bool {
        let (bitmap, residents) = (self.map.bitmap(piece.region), self.map.residents(piece.region));
        (piece.unit..piece.unit + piece.units).all(|unit| {
            let resident = residents.get(unit).map(|resident| resident.load(Ordering::Relaxed));
            bits::is_set(bitmap, unit) && resident == Some(slot + 1)
        })
    }
}
