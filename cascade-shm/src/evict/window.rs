//! Windows of the data area, and what emptying one costs.

use std::ops::Range;

use cascade_core::sync::{AtomicU32, Ordering};

use super::score;
use crate::region::{Kind, Regions};
use crate::session::Stripe;
use crate::slot::{State, Word};

/// Residents of one region that are looked at, at most, to learn what emptying it costs.
const MOST_LOOKED_AT: usize = 32;

/// A run of units that would hold the block.
#[derive(Debug)]
pub struct Window {
    /// Mean worth of what its units hold.
    pub cost: f64,
    /// The regions that it lies in.
    pub regions: Range<usize>,
    /// Whether it is more than a piece of one region.
    pub is_wide: bool,
    /// Bytes of it.
    pub bytes: u64,
    place: Place,
}

/// Where a window begins, counted in units of `kind` through all regions, and how long it is.
#[derive(Clone, Copy, Debug)]
struct Place {
    kind: Kind,
    first: usize,
    need: usize,
}

/// Some random windows for the block of `len` bytes in `slot`. Each look costs misses that depend on each other (what lies there, and
/// its slot), so all samples make the same step together.
pub(super) fn sample(stripe: &Stripe, len: u64, slot: u32, samples: usize) -> Vec<Window> {
    let map = stripe.core().map();
    stripe.core().with_regions(|regions| {
        let ready = regions.ready();
        if ready == 0 {
            return Vec::new();
        }
        let (kind, barred) = (Kind::of(len), regions.barred(slot));
        let picks: Vec<(usize, usize)> = (0..samples)
            .map(|_| {
                let region = (stripe.random() % ready as u64) as usize;
                let unit = (stripe.random() % regions.units(kind) as u64) as usize;
                if let Some(resident) = map.residents(region).get(unit) {
                    crate::raw::prefetch(resident);
                }
                (region, unit)
            })
            .collect();
        let places: Vec<Place> = picks
            .into_iter()
            .filter_map(|(region, unit)| place(stripe, regions, len, ready, region, unit))
            .filter(|place| {
                let touched = place.regions(regions);
                touched.end <= barred.start || barred.end <= touched.start
            })
            .inspect(|place| prefetch_victims(stripe, regions, *place))
            .collect();
        places.into_iter().filter_map(|place| assess(stripe, regions, place)).collect()
    })
}

/// The window that begins at or before `unit` of `region`.
fn place(
    stripe: &Stripe,
    regions: &Regions<'_>,
    len: u64,
    ready: usize,
    region: usize,
    unit: usize,
) -> Option<Place> {
    let kind = Kind::of(len);
    let in_region = regions.units(kind);
    let need = len.div_ceil(kind.unit_bytes()) as usize;
    if need > in_region / 4 && kind == Kind::Large {
        // May cross into the next regions; must not reach beyond the last that is ready.
        let latest = (ready * in_region).checked_sub(need)?;
        let first = (region * in_region + begin(stripe, regions, region, unit, kind)).min(latest);
        return Some(Place { kind, first, need });
    }
    if regions.kind(region) != kind {
        // A region of the other kind changes hands as a whole.
        return Some(Place { kind, first: region * in_region, need: in_region });
    }
    let first = begin(stripe, regions, region, unit, kind).min(in_region - need);
    Some(Place { kind, first: region * in_region + first, need })
}

/// Brings the slots of the first and the last block of a window into the cache.
fn prefetch_victims(stripe: &Stripe, regions: &Regions<'_>, Place { kind, first, need }: Place) {
    let map = stripe.core().map();
    let in_region = regions.units(kind);
    for unit in [first, first + need - 1] {
        if regions.kind(unit / in_region) != kind {
            continue;
        }
        let resident = map.residents(unit / in_region)[unit % in_region].load(Ordering::Relaxed);
        if let Some(slot) = resident.checked_sub(1).and_then(|slot| map.slots().get(slot as usize)) {
            crate::raw::prefetch(slot);
        }
    }
}

/// The first unit of the block at `unit`, or of the free run that it is in: a window that begins there cuts no block.
fn begin(stripe: &Stripe, regions: &Regions<'_>, region: usize, unit: usize, kind: Kind) -> usize {
    if regions.kind(region) != kind {
        return 0;
    }
    let residents = stripe.core().map().residents(region);
    let here = residents[unit].load(Ordering::Relaxed);
    let same = |unit: &usize| residents[*unit].load(Ordering::Relaxed) == here;
    (0..unit).rev().take_while(same).last().unwrap_or(unit)
}

impl Place {
    fn regions(&self, regions: &Regions<'_>) -> Range<usize> {
        let in_region = regions.units(self.kind);
        self.first / in_region..(self.first + self.need).div_ceil(in_region)
    }
}

/// The residents of `place`, region by region; `None` where pages are not there. A region of the other kind goes as a whole,
/// also where only a part is needed.
fn parts<'a>(
    stripe: &'a Stripe,
    regions: &'a Regions<'_>,
    Place { kind, first, need }: Place,
) -> impl Iterator<Item = Option<&'a [AtomicU32]>> {
    let map = stripe.core().map();
    let in_region = regions.units(kind);
    let end = first + need;
    (first / in_region..end.div_ceil(in_region)).map(move |region| {
        let units = first.max(region * in_region)..end.min((region + 1) * in_region);
        let residents = map.residents(region);
        match regions.kind(region) {
            Kind::NotReady => None,
            Kind::Empty => Some(&residents[..0]),
            same if same == kind => Some(&residents[units.start % in_region..][..units.len()]),
            _ => Some(residents),
        }
    })
}

/// What it costs to empty `place`; `None` if a block there is being filled, as far as was looked, and it is not wide. Of many residents only some
/// are looked at, evenly spread: a whole region would cost more than the put that asks for room.
fn assess(stripe: &Stripe, regions: &Regions<'_>, place: Place) -> Option<Window> {
    let map = stripe.core().map();
    let now = stripe.core().now();
    let touched = place.regions(regions);
    let is_wide = touched.len() > 1 || place.need >= regions.units(place.kind);
    let mut worth = 0.0;
    let mut of_units = 0;
    for residents in parts(stripe, regions, place) {
        let residents = residents?;
        let step = residents.len().div_ceil(MOST_LOOKED_AT).max(1);
        let looked_at = || residents.iter().step_by(step).map(|resident| resident.load(Ordering::Relaxed));
        if step > 1 {
            looked_at()
                .filter_map(|slot| map.slots().get(slot.checked_sub(1)? as usize))
                .for_each(crate::raw::prefetch);
        }
        for slot in looked_at().filter_map(|slot| slot.checked_sub(1)) {
            let victim = map.slots().get(slot as usize)?;
            let word = victim.word();
            match word.state() {
                State::Sealed => worth += score::worth(victim, word, now) * step as f64,
                State::Retired => {}
                // Among so many blocks one is always being filled. It is waited for.
                _ if is_wide => {}
                _ => return None,
            }
        }
        of_units += residents.len();
    }
    // By unit that was looked at, so that windows of either kind compare; what is empty counts as worth nothing.
    let share = of_units as f64 / place.need as f64;
    let cost = if of_units == 0 { 0.0 } else { worth / of_units as f64 * share.min(1.0) };
    let bytes = place.need as u64 * place.kind.unit_bytes();
    Some(Window { cost, regions: touched, is_wide, bytes, place })
}

impl Window {
    /// The blocks that overlap the window; `None` if one of them is being filled.
    pub(super) fn victims(&self, stripe: &Stripe) -> Option<Vec<(u32, Word)>> {
        let map = stripe.core().map();
        stripe.core().with_regions(|regions| {
            let (mut victims, mut last) = (Vec::new(), None);
            for residents in parts(stripe, regions, self.place) {
                for resident in residents? {
                    let Some(slot) = resident.load(Ordering::Relaxed).checked_sub(1) else { continue };
                    if last.replace(slot) == Some(slot) {
                        continue;
                    }
                    let word = map.slots().get(slot as usize)?.word();
                    if !matches!(word.state(), State::Sealed | State::Retired) {
                        return None;
                    }
                    victims.push((slot, word));
                }
            }
            Some(victims)
        })
    }
}
