//! Room that others do not see: what a thread has freed for its next puts. Hidden is only that it is there; who finds it may have it.

use cascade_core::sync::Ordering;

use super::{Kind, Regions};

/// Who is to find room that is being freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Everyone who looks for room.
    All,
    /// Who frees it: the summary of its region does not speak of it.
    Nobody,
}

/// A run of free units, unless somebody took it meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spot {
    region: u32,
    unit: u32,
    units: u32,
    kind: Kind,
}

impl Spot {
    /// So many units of `kind` from `unit` of `region` on.
    #[must_use]
    pub fn new(region: usize, unit: usize, units: usize, kind: Kind) -> Self {
        Self { region: region as u32, unit: unit as u32, units: units as u32, kind }
    }

    /// Its region.
    #[must_use]
    pub fn region(&self) -> usize {
        self.region as usize
    }

    /// Its first unit.
    #[must_use]
    pub fn unit(&self) -> usize {
        self.unit as usize
    }

    /// Its units.
    #[must_use]
    pub fn units(&self) -> usize {
        self.units as usize
    }

    /// Takes the first `units` units of `kind` off it; `None` where there are not as many.
    pub fn split(&mut self, kind: Kind, units: usize) -> Option<Self> {
        if self.kind != kind || self.units() < units {
            return None;
        }
        let first = Self { units: units as u32, ..*self };
        (self.unit, self.units) = (self.unit + units as u32, self.units - units as u32);
        Some(first)
    }
}

impl Regions<'_> {
    /// Lets everyone look for room in `region` again. A hint: it may be lost to somebody who writes the summary at once.
    pub fn show(&self, region: usize) {
        let Some(summary) = self.map.summaries().get(region) else { return };
        let old = summary.load(Ordering::Relaxed);
        let kind = Kind::from_summary(old);
        if matches!(kind, Kind::Small | Kind::Large) {
            let all = kind.bits() << 62 | self.units(kind) as u64;
            if old != all {
                let _ = summary.compare_exchange(old, all, Ordering::Relaxed, Ordering::Relaxed);
            }
        }
    }

    /// [`Regions::show`] for every region.
    pub fn show_all(&self) {
        (0..self.ready()).for_each(|region| self.show(region));
    }
}
