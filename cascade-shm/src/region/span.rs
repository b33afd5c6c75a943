//! Blocks that are large against a region: runs of units that may cross from one region into the next.

use super::{Kind, Regions, Tenancy, bits};
use crate::slot::Extent;

/// The part of an extent within one region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) region: usize,
    pub(super) unit: usize,
    pub(super) units: usize,
}

impl Regions<'_> {
    /// The parts of `extent`, in ascending order of regions.
    pub(super) fn pieces(&self, extent: Extent) -> impl Iterator<Item = Piece> + use<> {
        let unit_bytes = Kind::of(extent.len).unit_bytes();
        let in_region = self.map.geometry().region_bytes / unit_bytes;
        let mut unit = extent.offset / unit_bytes;
        let end = unit + extent.len.div_ceil(unit_bytes);
        std::iter::from_fn(move || {
            if unit >= end {
                return None;
            }
            let region = unit / in_region;
            let stop = end.min((region + 1) * in_region);
            let piece = Piece {
                region: region as usize,
                unit: (unit % in_region) as usize,
                units: (stop - unit) as usize,
            };
            unit = stop;
            Some(piece)
        })
    }

    pub(super) fn allocate_span(&self, len: u64, whose: Tenancy, start: usize) -> Option<Extent> {
        let units = len.div_ceil(Kind::Large.unit_bytes()) as usize;
        let ready = self.ready();
        // From `start` to the end, then from the beginning: a run never wraps.
        [start.min(ready)..ready, 0..ready]
            .into_iter()
            .flat_map(|range| self.candidate_spans(range, units, whose.slot))
            .find_map(|first_unit| self.take_span(first_unit, len, whose))
    }

    /// Where, at a glance and without locks, runs of `units` free units begin.
    fn candidate_spans(&self, regions: std::ops::Range<usize>, units: usize, slot: u32) -> Vec<usize> {
        let in_region = self.units(Kind::Large);
        let barred = self.barred(slot);
        let mut found = Vec::new();
        let (mut run_start, mut run_len) = (0, 0);
        for region in regions {
            let free: Vec<(usize, usize)> = match self.kind(region) {
                _ if barred.contains(&region) => Vec::new(),
                Kind::Empty => vec![(0, in_region)],
                Kind::Large => bits::free_runs(self.map.bitmap(region), in_region).collect(),
                Kind::Small | Kind::NotReady => Vec::new(),
            };
            for (unit, len) in free {
                let at = region * in_region + unit;
                if run_start + run_len != at || run_len == 0 {
                    (run_start, run_len) = (at, 0);
                }
                run_len += len;
                if run_len >= units {
                    found.push(run_start);
                    run_len = 0;
                }
            }
        }
        found
    }

    /// Locks the regions of the span, looks again, and gives it to the slot.
    fn take_span(&self, first_unit: usize, len: u64, whose: Tenancy) -> Option<Extent> {
        let kind = Kind::Large;
        let extent = Extent { offset: first_unit as u64 * kind.unit_bytes(), len };
        let guards = self.lock_extent(extent)?;
        crate::kill::point("alloc.locked");
        if !self.pieces(extent).all(|piece| self.is_usable(piece.region)) {
            return None;
        }
        let free = self.pieces(extent).all(|piece| match self.kind(piece.region) {
            Kind::Empty => true,
            Kind::Large => bits::free_runs(self.map.bitmap(piece.region), self.units(kind))
                .any(|(start, run)| start <= piece.unit && piece.unit + piece.units <= start + run),
            Kind::Small | Kind::NotReady => false,
        });
        if !free {
            return None;
        }
        for piece in self.pieces(extent) {
            self.mark(piece.region, kind, piece.unit, piece.units, whose.slot);
        }
        crate::kill::point("alloc.marked");
        self.give(extent, whose);
        drop(guards);
        Some(extent)
    }
}
