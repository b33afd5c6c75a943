//! Which blocks go, so that one piece of space comes free: those that are worth least of all that lie side by side.

use cascade_core::tier::Class;

use super::slabs::Slabs;

/// How many of the least recently used blocks are looked at before all are.
pub(super) const CANDIDATES: usize = 8;

/// What eviction must know of a slot: `None` for one that has to stay.
pub(super) type Worth<'a> = &'a dyn Fn(u32) -> Option<(Class, u64)>;

/// Blocks to evict, and what they are worth together.
#[derive(Debug, Default)]
pub(super) struct Window {
    pub(super) slots: Vec<u32>,
    worth: u128,
}

/// A stretch of a slab: `(offset, length, slot)`, free where there is no slot.
type Stretch = (usize, usize, Option<u32>);

fn worth_of(class: Class, touched: u64, len: usize) -> u128 {
    let weight = if class == Class::Prefix { 1 << 40 } else { 1 };
    (u128::from(touched) + 1) * len as u128 * weight
}

/// The cheapest windows of `len` bytes round the block of `slot`, which lies at `offset` of `slab`.
pub(super) fn around(
    slabs: &Slabs,
    slab: u32,
    offset: usize,
    len: usize,
    worth: Worth<'_>,
) -> Option<Window> {
    let stretches = stretches(slabs, slab, offset.saturating_sub(2 * len), offset + 3 * len);
    cheapest(&stretches, len, worth)
}

/// The cheapest window of `len` bytes anywhere.
pub(super) fn anywhere(slabs: &Slabs, len: usize, worth: Worth<'_>) -> Option<Window> {
    let windows = slabs.slabs.keys().filter_map(|slab| {
        let all = stretches(slabs, *slab, 0, slabs.slab_len(*slab));
        cheapest(&all, len, worth)
    });
    windows.min_by_key(|window| window.worth)
}

/// Whole slabs to give back, cheapest first, until the budget has room for `len` bytes in one slab.
pub(super) fn whole_slabs(slabs: &Slabs, len: usize, worth: Worth<'_>) -> Option<(Vec<u32>, Vec<u32>)> {
    let mut able: Vec<(u128, u32, Vec<u32>)> = Vec::new();
    for (number, slab) in &slabs.slabs {
        let each: Option<Vec<(u128, u32)>> = slab
            .used
            .values()
            .map(|(len, slot)| worth(*slot).map(|(class, touched)| (worth_of(class, touched, *len), *slot)))
            .collect();
        if let Some(each) = each.filter(|_| slabs.is_own(*number)) {
            able.push((
                each.iter().map(|(worth, _)| worth).sum(),
                *number,
                each.into_iter().map(|(_, slot)| slot).collect(),
            ));
        }
    }
    able.sort_unstable_by_key(|(worth, number, _)| (*worth, *number));
    let mut held = slabs.held_bytes();
    let (mut slots, mut numbers) = (Vec::new(), Vec::new());
    for (_, number, mut its) in able {
        if held + len as u64 <= slabs.budget_bytes() {
            break;
        }
        held -= slabs.slab_len(number) as u64;
        slots.append(&mut its);
        numbers.push(number);
    }
    (held + len as u64 <= slabs.budget_bytes()).then_some((slots, numbers))
}

/// Stretches of a slab that touch `from..to`, in order, free ones too.
fn stretches(slabs: &Slabs, slab: u32, from: usize, to: usize) -> Vec<Stretch> {
    let Some(found) = slabs.slabs.get(&slab) else { return Vec::new() };
    let mut all = Vec::new();
    let first = found.used.range(..=from).next_back().map_or(from, |(offset, _)| *offset);
    let mut at = first.min(from);
    for (offset, (len, slot)) in found.used.range(first..to) {
        if *offset > at {
            all.push((at, offset - at, None));
        }
        all.push((*offset, *len, Some(*slot)));
        at = offset + len;
    }
    let end = to.min(slabs.slab_len(slab));
    if end > at {
        all.push((at, end - at, None));
    }
    all
}

/// Two ends that move along the stretches; what has to stay cuts them apart.
fn cheapest(stretches: &[Stretch], len: usize, worth: Worth<'_>) -> Option<Window> {
    let value = |stretch: &Stretch| match stretch.2 {
        None => Some(0),
        Some(slot) => worth(slot).map(|(class, touched)| worth_of(class, touched, stretch.1)),
    };
    let (mut first, mut bytes, mut sum) = (0, 0, 0u128);
    let mut best: Option<(u128, usize, usize)> = None;
    for (last, stretch) in stretches.iter().enumerate() {
        let Some(more) = value(stretch) else {
            (first, bytes, sum) = (last + 1, 0, 0);
            continue;
        };
        (bytes, sum) = (bytes + stretch.1, sum + more);
        while bytes >= len {
            if best.is_none_or(|(least, ..)| sum < least) {
                best = Some((sum, first, last));
            }
            let out = &stretches[first];
            bytes -= out.1;
            sum -= value(out).unwrap_or(0);
            first += 1;
        }
    }
    let (worth, first, last) = best?;
    let slots = stretches[first..=last].iter().filter_map(|stretch| stretch.2).collect();
    Some(Window { slots, worth })
}

impl Window {
    pub(super) fn is_cheaper_than(&self, other: &Self) -> bool {
        self.worth < other.worth
    }
}
