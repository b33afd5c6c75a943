//! The region tables against the slots that they are derived from.

use cascade_core::sync::Ordering;

use super::{Kind, Regions, bits};
use crate::slot::State;

impl Regions<'_> {
    /// Units that the tables and the slots disagree on, or that two slots claim. Exact only while nobody else is at work.
    pub fn disagreements(&self) -> u64 {
        let mut wrong = 0;
        let mut holders: Vec<Vec<u32>> =
            (0..self.ready()).map(|_| vec![0; self.units(Kind::Small)]).collect();
        for (number, slot) in self.map.slots().iter().enumerate() {
            if matches!(slot.word().state(), State::Free | State::Writing) {
                continue;
            }
            let Some(extent) = slot.extent() else { continue };
            if !self.is_sane(extent) {
                wrong += 1;
                continue;
            }
            let kind = Kind::of(extent.len);
            for piece in self.pieces(extent) {
                wrong += u64::from(piece.region >= self.ready() || self.kind(piece.region) != kind);
                let Some(units) = holders.get_mut(piece.region) else { continue };
                for unit in &mut units[piece.unit..piece.unit + piece.units] {
                    wrong += u64::from(*unit != 0);
                    *unit = number as u32 + 1;
                }
            }
        }
        for (region, units) in holders.iter().enumerate() {
            let bitmap = self.map.bitmap(region);
            for (unit, (holder, resident)) in units.iter().zip(self.map.residents(region)).enumerate() {
                let is_used = bits::is_set(bitmap, unit);
                let resident = resident.load(Ordering::Relaxed);
                wrong += u64::from(is_used != (*holder != 0) || resident != *holder);
            }
        }
        wrong
    }
}
