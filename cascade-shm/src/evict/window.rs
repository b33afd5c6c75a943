//! Windows of the data area, and what emptying one costs.

use std::ops::Range;

use cascade_core::sync::{AtomicU32, Ordering};

use cascade_core::policy::Shares;
use cascade_core::tier::Class;

use super::{run, score, score::Judge};
use crate::region::{Kind, Regions, Spot};
use crate::session::Stripe;
use crate::slot::{Slot, State, Word};

/// Residents of one region that are looked at, at most, to learn what emptying it costs.
const MOST_LOOKED_AT: usize = 32;
/// How much less a region's blocks must be worth than others before it changes hands, which drops young and old ones together
/// and leaves it nearly empty.
const CHANGE: f64 = 4.0;
/// Regions drawn for each one that is looked into, at most: a kind with a tenth of the arena is found.
const DRAWS: usize = 10;
/// One window of so many is drawn at random wherever the others are from: what the index does not tell of is free room.
const LEAST_RANDOM: usize = 8;
/// Windows for each unit that is looked at for the share of prefix blocks, where they are far from their bound and where they are not.
const FOR_SHARE: [usize; 2] = [8, 2];

/// A run of units that would hold the block.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Mean worth of what its units hold.
    pub cost: f64,
    /// Whether it is more than a piece of one region.
    pub is_wide: bool,
    /// Where it was found.
    pub pick: Pick,
    place: Place,
    /// Whether it is one block, and no more than that.
    is_alike: bool,
    /// Whether the cost says what prefix blocks it holds, all looked at.
    pub(super) is_exact: bool,
}

/// A place to look for a window, and what was seen there.
#[derive(Clone, Copy, Debug)]
pub struct Pick {
    region: u32,
    unit: u32,
    /// The slot of the one block that it was, as far as it was one.
    slot: Option<u32>,
    cost: f64,
}

impl Pick {
    /// The region that it begins in.
    pub(super) fn region(&self) -> usize {
        self.region as usize
    }

    /// What it cost when it was looked at.
    pub(super) fn cost(&self) -> f64 {
        self.cost
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

/// One look for room: what is asked for, and how the arena stands.
struct Look<'a> {
    stripe: &'a Stripe,
    regions: &'a Regions<'a>,
    judge: Judge<'a>,
    len: u64,
    kind: Kind,
    need: usize,
    /// Units of `kind` in a region.
    in_region: usize,
    ready: usize,
}

/// Some random windows for the block of `len` bytes in `slot`, and those at the places `again`. Each look costs misses that depend on each other (what lies there, and
/// its slot), so all samples make the same step together. `judge` says what blocks are worth.
pub(super) fn sample(
    stripe: &Stripe,
    (len, slot): (u64, u32),
    again: &[Pick],
    samples: usize,
    judge: Judge<'_>,
) -> Vec<Window> {
    stripe.core().with_regions(|regions| {
        let (ready, kind) = (regions.ready(), Kind::of(len));
        if ready == 0 {
            return Vec::new();
        }
        let look = Look {
            stripe,
            regions,
            judge,
            len,
            kind,
            need: len.div_ceil(kind.unit_bytes()) as usize,
            in_region: regions.units(kind),
            ready,
        };
        look.windows(again, samples, &regions.barred(slot))
    })
}

/// Whether prefix blocks are within their share, as far as looks at random units tell, some more of which are made.
pub(super) fn protects(stripe: &Stripe, samples: usize) -> bool {
    let bound = Shares::default().prefix;
    let is_near = stripe.prefix_share() > bound / 2.0;
    let looks = samples / FOR_SHARE[usize::from(is_near)];
    stripe.core().with_regions(|regions| look_at_share(stripe, regions, looks));
    stripe.prefix_share() <= bound
}

/// Looks at random units of what is ready, whatever kind of region they are in: a share of bytes, not of blocks, nor of those
/// that are as long as what is put now.
fn look_at_share(stripe: &Stripe, regions: &Regions<'_>, looks: usize) {
    let (map, ready) = (stripe.core().map(), regions.ready());
    let draw = || {
        let random = stripe.random();
        let region = below(ready, random >> 32);
        map.residents(region).get(below(regions.units(regions.kind(region)), random))
    };
    let drawn: Vec<_> =
        (0..looks).map(|_| draw().inspect(|resident| crate::raw::prefetch(*resident))).collect();
    let slot = |resident: Option<&AtomicU32>| {
        map.slots().get(resident?.load(Ordering::Relaxed).checked_sub(1)? as usize)
    };
    let slots: Vec<_> = drawn
        .into_iter()
        .map(|resident| slot(resident).inspect(|slot| crate::raw::prefetch(*slot)))
        .collect();
    for slot in slots {
        stripe.saw_prefix(slot.is_some_and(|slot| is_prefix(slot.word())));
    }
}

fn is_prefix(word: Word) -> bool {
    word.state() == State::Sealed && word.class() == Class::Prefix
}

/// A number below `bound` from 32 random bits.
pub(super) fn below(bound: usize, bits: u64) -> usize {
    ((bits & 0xffff_ffff) * bound as u64 >> 32) as usize
}

/// A place that is looked at: region, and unit in it.
type Drawn = (usize, usize);

impl Look<'_> {
    /// All windows of this look. Blocks that are as long as what is looked for are found side by side in the index, which costs a fraction
    /// of a look at a random place; as many of the windows as they are of all blocks there, so that others count for what they are.
    fn windows(&self, again: &[Pick], samples: usize, barred: &Range<usize>) -> Vec<Window> {
        let mut windows = Vec::with_capacity(again.len() + samples);
        let (mut slots, mut places) =
            (Vec::with_capacity(again.len() + samples), Vec::with_capacity(samples));
        self.again(again, &mut slots, &mut places);
        let seen_before = slots.len();
        self.draw(samples / LEAST_RANDOM, &mut places);
        if !self.is_wide() {
            run::draw(self.stripe, samples, &mut slots);
        }
        let mut alike = 0;
        for (at, number) in slots.iter().enumerate() {
            let window =
                self.map().slots().get(*number as usize).and_then(|slot| self.of_slot(slot, *number));
            let is_new = at >= seen_before;
            if let Some(window) = window.filter(|window| !is_new || window.is_alike) {
                alike += usize::from(is_new);
                self.add(window, barred, &mut windows);
            }
        }
        self.draw((samples - samples / LEAST_RANDOM).saturating_sub(alike), &mut places);
        self.at_places(&places, barred, &mut windows);
        windows
    }

    fn map(&self) -> &crate::raw::Map {
        self.stripe.core().map()
    }

    /// Whether what is looked for takes whole regions, or may cross from one to the next.
    fn is_wide(&self) -> bool {
        self.need >= self.in_region || self.kind == Kind::Large && self.need > self.in_region / 4
    }

    /// What was seen before: slots where it was one block, else places.
    fn again(&self, picks: &[Pick], slots: &mut Vec<u32>, places: &mut Vec<Drawn>) {
        for pick in picks {
            let (region, unit) = (pick.region as usize, pick.unit as usize);
            match pick.slot.filter(|_| !self.is_wide()) {
                Some(number) => {
                    self.map().slots().get(number as usize).into_iter().for_each(crate::raw::prefetch);
                    slots.push(number);
                }
                None if region < self.ready && unit < self.in_region => self.place_at(region, unit, places),
                None => {}
            }
        }
    }

    /// Adds a place, and brings what is said of it into the cache.
    fn place_at(&self, region: usize, unit: usize, places: &mut Vec<Drawn>) {
        if let Some(resident) = self.map().residents(region).get(unit) {
            crate::raw::prefetch(resident);
        }
        places.push((region, unit));
    }

    /// Adds random units, at most a quarter of them in regions of the other kind.
    /// Where most of the arena is of the other kind, looks at random would mostly find regions that can only go as a whole, and one
    /// small block would push out tens of megabytes of young ones.
    fn draw(&self, samples: usize, places: &mut Vec<Drawn>) {
        let (mut others, most) = (0, places.len() + samples);
        for _ in 0..samples * DRAWS {
            let random = self.stripe.random();
            let region = below(self.ready, random >> 32);
            if self.regions.kind(region) != self.kind {
                others += 1;
                if others > samples.div_ceil(4) {
                    continue;
                }
            }
            self.place_at(region, below(self.in_region, random), places);
            if places.len() >= most {
                return;
            }
        }
    }

    /// The number of the slot whose block has `unit` of `region`.
    fn resident(&self, region: usize, unit: usize) -> Option<(u32, &Slot)> {
        let number = self.map().residents(region).get(unit)?.load(Ordering::Relaxed).checked_sub(1)?;
        Some((number, self.map().slots().get(number as usize)?))
    }

    /// The windows at `places`.
    fn at_places(&self, places: &[Drawn], barred: &Range<usize>, windows: &mut Vec<Window>) {
        // What is here, and what the last unit of a window from here on has.
        for (region, unit) in places {
            for unit in [*unit, unit + self.need - 1] {
                self.resident(*region, unit).into_iter().for_each(|(_, slot)| crate::raw::prefetch(slot));
            }
        }
        let mut others = Vec::new();
        for (region, unit) in places.iter().copied() {
            let block =
                if self.regions.kind(region) == self.kind { self.resident(region, unit) } else { None };
            let is_of = |window: &Window| window.pick.region() == region && window.pick.unit as usize <= unit;
            let window = block.and_then(|(number, slot)| self.of_slot(slot, number)).filter(is_of);
            if let Some(window) = window {
                self.add(window, barred, windows);
            } else if let Some(place) = place(self.stripe, self.regions, self.len, self.ready, region, unit) {
                prefetch_victims(self.stripe, self.regions, place);
                others.push(place);
            }
        }
        for place in others {
            if let Some(window) = assess(self.stripe, self.regions, place, &self.judge) {
                self.add(window, barred, windows);
            }
        }
    }

    fn add(&self, window: Window, barred: &Range<usize>, windows: &mut Vec<Window>) {
        if !barred.is_empty() {
            let touched = window.regions(self.regions);
            if touched.start < barred.end && barred.start < touched.end {
                return;
            }
        }
        windows.push(window);
    }

    /// The window at the beginning of the block in `slot`, where it is at least as long as what is looked for: most blocks of an arena
    /// are of one length. What the slot says is a hint; what goes is what the residents say then.
    fn of_slot(&self, slot: &Slot, number: u32) -> Option<Window> {
        let word = slot.word();
        let extent = slot.extent().filter(|_| word.state() == State::Sealed && !self.is_wide())?;
        let unit_bytes = self.kind.unit_bytes();
        let first = (extent.offset / unit_bytes) as usize;
        let (region, begin) = (first / self.in_region, first % self.in_region);
        let is_there = region < self.ready && begin + self.need <= self.in_region;
        let units = extent.len.div_ceil(unit_bytes);
        // A part of a large block goes at the price of all of it, as for a window that begins there.
        if !is_there || self.regions.kind(region) != self.kind || units < self.need as u64 {
            return None;
        }
        let cost = self.judge.worth(slot, word);
        let pick = Pick { region: region as u32, unit: begin as u32, slot: Some(number), cost };
        let place = Place { kind: self.kind, first, need: self.need };
        Some(Window {
            cost,
            is_wide: false,
            pick,
            place,
            is_alike: units == self.need as u64,
            is_exact: false,
        })
    }
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
    let mut cost = 0.0;
    for part in parts(stripe, regions, place) {
        let part = part?;
        cost += part.share * mean_worth(stripe, &part, is_wide, judge)?;
    }
    let in_region = regions.units(place.kind);
    let pick =
        Pick { region: touched.start as u32, unit: (place.first % in_region) as u32, slot: None, cost };
    Some(Window { cost, is_wide, pick, place, is_alike: false, is_exact: false })
}

/// Mean worth of what the units of `part` hold, so that windows of either kind compare. Of many residents only some are looked at,
/// evenly spread: a whole region would cost more than the put that asks for room. What is chosen is looked at as a whole
/// ([`Victims::prefix_units`]).
fn mean_worth(stripe: &Stripe, part: &Part<'_>, is_wide: bool, judge: &Judge<'_>) -> Option<f64> {
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
    let (mut worth, mut held, mut last) = (0.0, 0_usize, (0, 0.0));
    for resident in looked_at().chain(is_sparse.then(any).flatten()).filter(|slot| *slot != 0) {
        if last.0 != resident {
            let victim = map.slots().get(resident as usize - 1)?;
            let word = victim.word();
            last = match word.state() {
                State::Sealed => (resident, judge.worth(victim, word)),
                State::Retired => (resident, 0.0),
                // Among so many blocks one is always being filled. It is waited for.
                _ if is_wide => (resident, 0.0),
                _ => return None,
            };
        }
        (worth, held) = (worth + last.1, held + 1);
    }
    // What is empty counts as worth nothing. Not so in a region of the other kind: what it holds speaks for its free room as
    // well, or one that has just changed hands, nearly empty, would look cheap enough to change back at once, again and again.
    let looks = looked_at().len().max(1);
    let (of, change) = if part.is_other { (held.max(1), CHANGE) } else { (looks, 1.0) };
    Some(change * worth / of as f64)
}

impl Window {
    /// The regions that it lies in.
    pub(super) fn regions(&self, regions: &Regions<'_>) -> Range<usize> {
        self.place.regions(regions)
    }

    /// Says that so many units of prefix blocks go with it: more than any number of others, and the less of them the better.
    pub(super) fn hold_prefix(&mut self, units: u64) {
        (self.cost, self.is_exact) = (score::PREFIX * units as f64 + self.cost.min(score::PREFIX), true);
    }

    /// Bytes of it.
    pub(super) fn bytes(&self) -> u64 {
        self.place.need as u64 * self.place.kind.unit_bytes()
    }

    /// Whether a unit of one is a unit of the other.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        let (a, b) = (&self.place, &other.place);
        a.first < b.first + b.need && b.first < a.first + a.need
    }

    /// Where it is, once it is empty.
    pub(super) fn spot(&self, regions: &Regions<'_>) -> Spot {
        let Place { kind, first, need } = self.place;
        Spot::new(self.pick.region(), first % regions.units(kind), need, kind)
    }

    /// The blocks that overlap the window; `None` if one of them is being filled.
    pub(super) fn victims(&self, stripe: &Stripe) -> Option<Victims> {
        let map = stripe.core().map();
        let unit_bytes = self.place.kind.unit_bytes();
        let bytes =
            self.place.first as u64 * unit_bytes..(self.place.first + self.place.need) as u64 * unit_bytes;
        stripe.core().with_regions(|regions| {
            let (mut blocks, mut last, mut reach_out) = (Vec::new(), None, self.is_wide);
            let mut prefix_units = 0;
            for part in parts(stripe, regions, self.place) {
                for resident in part?.residents {
                    let Some(slot) = resident.load(Ordering::Relaxed).checked_sub(1) else { continue };
                    if last.replace(slot) == Some(slot) {
                        continue;
                    }
                    let block = map.slots().get(slot as usize)?;
                    let word = block.word();
                    if !matches!(word.state(), State::Sealed | State::Retired) {
                        return None;
                    }
                    // A hint, as all that is told apart by it.
                    let is_within = block.extent().is_some_and(|extent| {
                        let end = extent.offset.saturating_add(extent.len.next_multiple_of(unit_bytes));
                        bytes.start <= extent.offset && end <= bytes.end
                    });
                    reach_out |= !is_within;
                    if is_prefix(word) {
                        prefix_units += block.extent().map_or(1, |extent| extent.len.div_ceil(unit_bytes));
                    }
                    blocks.push((slot, word));
                }
            }
            Some(Victims { blocks, reach_out, prefix_units })
        })
    }
}

/// The blocks of a window.
#[derive(Debug)]
pub(super) struct Victims {
    pub(super) blocks: Vec<(u32, Word)>,
    /// Whether emptying it frees more than the window.
    pub(super) reach_out: bool,
    /// Units of prefix blocks among them.
    pub(super) prefix_units: u64,
}
