//! Windows of the data area, and what emptying one costs.

use std::ops::Range;

use cascade_core::sync::{AtomicU32, Ordering};

use cascade_core::policy::Shares;
use cascade_core::tier::Class;

use super::score::Judge;
use crate::region::{Kind, Regions};
use crate::session::Stripe;
use crate::slot::{State, Word};

/// Residents of one region that are looked at, at most, to learn what emptying it costs.
const MOST_LOOKED_AT: usize = 32;
/// How much less a region's blocks must be worth than others before it changes hands, which drops young and old ones together
/// and leaves it nearly empty.
const CHANGE: f64 = 4.0;
/// Regions drawn for each one that is looked into, at most: a kind with a tenth of the arena is found.
const DRAWS: usize = 10;

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
    /// Where it was found.
    pub pick: Pick,
    place: Place,
    /// How much of it is prefix blocks, 0 to 1.
    prefix: f64,
}

/// A place to look for a window, and what was seen there.
#[derive(Clone, Copy, Debug)]
pub struct Pick {
    region: u32,
    unit: u32,
    cost: f64,
}

impl Pick {
    /// By what it cost when it was looked at.
    pub(super) fn cmp_cost(&self, other: &Self) -> std::cmp::Ordering {
        self.cost.total_cmp(&other.cost)
    }

    /// By where it is.
    pub(super) fn cmp_place(&self, other: &Self) -> std::cmp::Ordering {
        (self.region, self.unit).cmp(&(other.region, other.unit))
    }

    /// Whether both are at the same place.
    pub(super) fn is_at(&self, other: &Self) -> bool {
        (self.region, self.unit) == (other.region, other.unit)
    }
}

/// Where a window begins, counted in units of `kind` through all regions, and how long it is.
#[derive(Clone, Copy, Debug)]
struct Place {
    kind: Kind,
    first: usize,
    need: usize,
}

/// Some random windows for the block of `len` bytes in `slot`, and those at the places `again`. Each look costs misses that depend on each other (what lies there, and
/// its slot), so all samples make the same step together.
pub(super) fn sample(stripe: &Stripe, len: u64, slot: u32, again: &[Pick], samples: usize) -> Vec<Window> {
    let map = stripe.core().map();
    stripe.core().with_regions(|regions| {
        let ready = regions.ready();
        if ready == 0 {
            return Vec::new();
        }
        let (kind, barred) = (Kind::of(len), regions.barred(slot));
        let again = again.iter().map(|pick| (pick.region as usize, pick.unit as usize));
        let again: Vec<(usize, usize)> =
            again.filter(|(region, unit)| *region < ready && *unit < regions.units(kind)).collect();
        let random = pick_regions(stripe, regions, kind, samples)
            .map(|region| (region, (stripe.random() % regions.units(kind) as u64) as usize));
        let picks: Vec<(usize, usize)> = again.iter().copied().chain(random).collect();
        for (region, unit) in &picks {
            if let Some(resident) = map.residents(*region).get(*unit) {
                crate::raw::prefetch(resident);
            }
        }
        let places: Vec<(usize, Place)> = picks
            .into_iter()
            .enumerate()
            .filter_map(|(at, (region, unit))| Some((at, place(stripe, regions, len, ready, region, unit)?)))
            .filter(|(_, place)| {
                let touched = place.regions(regions);
                touched.end <= barred.start || barred.end <= touched.start
            })
            .inspect(|(_, place)| prefetch_victims(stripe, regions, *place))
            .collect();
        let judge = Judge::new(stripe.core(), stripe.prefix_share() <= Shares::default().prefix);
        let mut windows = Vec::with_capacity(places.len());
        for (at, place) in places {
            let Some(window) = assess(stripe, regions, place, &judge) else { continue };
            if at >= again.len() {
                stripe.saw_prefix(window.prefix);
            }
            windows.push(window);
        }
        windows
    })
}

/// Random regions, at most a quarter of them of the other kind. Where most of the arena is of the other kind, looks at random would
/// mostly find regions that can only go as a whole, and one small block would push out tens of megabytes of young ones.
fn pick_regions(
    stripe: &Stripe,
    regions: &Regions<'_>,
    kind: Kind,
    samples: usize,
) -> impl Iterator<Item = usize> {
    let ready = regions.ready() as u64;
    let mut others = 0;
    (0..samples * DRAWS)
        .map(move |_| (stripe.random() % ready) as usize)
        .filter(move |region| {
            let is_other = regions.kind(*region) != kind;
            others += usize::from(is_other);
            !is_other || others <= samples / 4
        })
        .take(samples)
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

/// What of a window lies in one region.
struct Part<'a> {
    residents: &'a [AtomicU32],
    /// Whether the region is of the other kind, and goes as a whole.
    is_other: bool,
    /// What goes, against the length of the window.
    share: f64,
}

/// The parts of `place`, region by region; `None` where pages are not there. A region of the other kind goes as a whole, also
/// where only a part is needed.
fn parts<'a>(
    stripe: &'a Stripe,
    regions: &'a Regions<'_>,
    Place { kind, first, need }: Place,
) -> impl Iterator<Item = Option<Part<'a>>> {
    let map = stripe.core().map();
    let in_region = regions.units(kind);
    let end = first + need;
    (first / in_region..end.div_ceil(in_region)).map(move |region| {
        let units = first.max(region * in_region)..end.min((region + 1) * in_region);
        let all = map.residents(region);
        let (residents, is_other, goes) = match regions.kind(region) {
            Kind::NotReady => return None,
            Kind::Empty => (&all[..0], false, 0),
            same if same == kind => (&all[units.start % in_region..][..units.len()], false, units.len()),
            // There are entries for small units; of large ones there are fewer.
            other => (&all[..regions.units(other)], true, in_region),
        };
        Some(Part { residents, is_other, share: goes as f64 / need as f64 })
    })
}

/// What it costs to empty `place`; `None` if a block there is being filled, as far as was looked, and it is not wide.
fn assess(stripe: &Stripe, regions: &Regions<'_>, place: Place, judge: &Judge<'_>) -> Option<Window> {
    let touched = place.regions(regions);
    let is_wide = touched.len() > 1 || place.need >= regions.units(place.kind);
    let (mut cost, mut prefix) = (0.0, 0.0);
    for part in parts(stripe, regions, place) {
        let part = part?;
        let (worth, of_prefix) = mean_worth(stripe, &part, is_wide, judge)?;
        (cost, prefix) = (cost + part.share * worth, prefix + part.share * of_prefix);
    }
    let bytes = place.need as u64 * place.kind.unit_bytes();
    let in_region = regions.units(place.kind);
    let pick = Pick { region: touched.start as u32, unit: (place.first % in_region) as u32, cost };
    Some(Window { cost, regions: touched, is_wide, bytes, pick, place, prefix: prefix.min(1.0) })
}

/// Mean worth of what the units of `part` hold, so that windows of either kind compare, and which share of it is prefix blocks. Of many
/// residents only some are looked at, evenly spread: a whole region would cost more than the put that asks for room.
fn mean_worth(stripe: &Stripe, part: &Part<'_>, is_wide: bool, judge: &Judge<'_>) -> Option<(f64, f64)> {
    let map = stripe.core().map();
    let step = part.residents.len().div_ceil(MOST_LOOKED_AT).max(1);
    let load = |resident: &AtomicU32| resident.load(Ordering::Relaxed);
    let looked_at = || part.residents.iter().step_by(step).map(load);
    if step > 1 {
        looked_at()
            .filter_map(|slot| map.slots().get(slot.checked_sub(1)? as usize))
            .for_each(crate::raw::prefetch);
    }
    // Room is found from a region's beginning on, so that this is short.
    let any = || part.residents.iter().map(load).find(|slot| *slot != 0);
    let is_sparse = part.is_other && looked_at().all(|slot| slot == 0);
    let (mut worth, mut prefix, mut held, mut last) = (0.0, 0_usize, 0_usize, (0, 0.0, 0));
    for resident in looked_at().chain(is_sparse.then(any).flatten()).filter(|slot| *slot != 0) {
        if last.0 != resident {
            let victim = map.slots().get(resident as usize - 1)?;
            let word = victim.word();
            let is_prefix = usize::from(word.class() == Class::Prefix);
            last = match word.state() {
                State::Sealed => (resident, judge.worth(victim, word), is_prefix),
                State::Retired => (resident, 0.0, 0),
                // Among so many blocks one is always being filled. It is waited for.
                _ if is_wide => (resident, 0.0, 0),
                _ => return None,
            };
        }
        (worth, prefix, held) = (worth + last.1, prefix + last.2, held + 1);
    }
    // What is empty counts as worth nothing. Not so in a region of the other kind: what it holds speaks for its free room as
    // well, or one that has just changed hands, nearly empty, would look cheap enough to change back at once, again and again.
    let looks = looked_at().len().max(1);
    let (of, change) = if part.is_other { (held.max(1), CHANGE) } else { (looks, 1.0) };
    Some((change * worth / of as f64, prefix as f64 / looks as f64))
}

impl Window {
    /// The blocks that overlap the window; `None` if one of them is being filled.
    pub(super) fn victims(&self, stripe: &Stripe) -> Option<Vec<(u32, Word)>> {
        let map = stripe.core().map();
        stripe.core().with_regions(|regions| {
            let (mut victims, mut last) = (Vec::new(), None);
            for part in parts(stripe, regions, self.place) {
                for resident in part?.residents {
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
