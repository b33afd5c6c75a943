//! Windows of the data area, and what emptying one costs.

use cascade_core::sync::Ordering;

use super::score;
use crate::region::{Kind, Regions};
use crate::session::Stripe;
use crate::slot::{State, Word};

/// A run of units that would hold the block, and the blocks that are in its way.
#[derive(Debug)]
pub struct Window {
    /// Worth of the victims for each byte of the window.
    pub cost: f64,
    /// The region where it begins.
    pub region: usize,
    /// The blocks that overlap it.
    pub victims: Vec<(u32, Word)>,
}

/// Where a window begins, counted in units of `kind` through all regions, and how long it is.
#[derive(Clone, Copy)]
struct Place {
    kind: Kind,
    first: usize,
    need: usize,
}

/// Some random windows for a block of `len` bytes. Each look costs misses that depend on each other (what lies there, and
/// its slot), so all samples make the same step together.
pub(super) fn sample(stripe: &Stripe, len: u64, samples: usize) -> Vec<Window> {
    let map = stripe.core().map();
    stripe.core().with_regions(|regions| {
        let ready = regions.ready();
        if ready == 0 {
            return Vec::new();
        }
        let kind = Kind::of(len);
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

/// What it costs to empty `need` units from `first` on (counted through all regions); `None` if a block there is being filled.
fn assess(stripe: &Stripe, regions: &Regions<'_>, Place { kind, first, need }: Place) -> Option<Window> {
    let map = stripe.core().map();
    let now = stripe.core().now();
    let in_region = regions.units(kind);
    let (mut worth, mut victims) = (0.0, Vec::new());
    let mut last = None;
    let mut at = first;
    while at < first + need {
        let region = at / in_region;
        let stop = (first + need).min((region + 1) * in_region);
        let whole = at.is_multiple_of(in_region) && stop == (region + 1) * in_region;
        let units = match regions.kind(region) {
            Kind::NotReady => return None,
            Kind::Empty => 0..0,
            same if same == kind => at % in_region..at % in_region + (stop - at),
            // Of a region of the other kind, all goes or nothing.
            _ if whole => 0..map.residents(region).len(),
            _ => return None,
        };
        for resident in &map.residents(region)[units] {
            let Some(slot) = resident.load(Ordering::Relaxed).checked_sub(1) else { continue };
            if last.replace(slot) == Some(slot) {
                continue;
            }
            let victim = map.slots().get(slot as usize)?;
            let word = victim.word();
            match word.state() {
                State::Sealed => worth += score::worth(victim, word, now) * victim.extent()?.len as f64,
                State::Retired => {}
                _ => return None,
            }
            victims.push((slot, word));
        }
        at = stop;
    }
    Some(Window {
        cost: worth / (need as u64 * kind.unit_bytes()) as f64,
        region: first / in_region,
        victims,
    })
}
