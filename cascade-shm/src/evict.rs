//! Making room: windows of the data area are sampled, and the one whose blocks are worth least is emptied. Victims lie side
//! by side, so what is freed is in one piece.

mod run;
mod score;
pub mod shared;
pub mod stock;
mod window;

use std::time::Duration;

use cascade_core::planted::{self, Bug};
use cascade_core::sync::Wait;

use crate::index::Key;
use crate::ledger::Entry;
use crate::protocol::{self, WhenPinned};
use crate::region::{Claim, Notice};
use crate::session::{Cell, Core, Event, Stripe};
use crate::slot::{Slot, State, Word};
use crate::trail::Left;

pub use score::Judge;
use window::Victims;
pub use window::{Pick, Window};

/// Blocks evicted under one scan of the ledgers.
const BATCH: usize = 16;
/// Random windows looked at together, sixteen for each that goes: with half as many, 10,000 blocks fall below LRU. A model makes do with
/// fewer, since it follows every load.
const SAMPLES: usize = if cfg!(any(loom, shuttle)) { 16 } else { 64 };
/// Windows emptied at one look.
const EMPTIED: usize = 4;
/// Windows that are left for the next look, the cheapest of those seen.
const POOL: usize = 64;
/// Of those, looked at again next time.
const AGAIN: usize = 8;
/// What one look frees beyond the block that asked for room, at most.
const AHEAD_BYTES: u64 = 4 << 20;
/// How long to wait for another's claim before going on without one.
const CLAIM_PATIENCE: Duration = Duration::from_millis(500);
/// Sleep while everything is claimed for another.
const CLAIM_NAP: Duration = Duration::from_millis(20);
/// How long to wait, in all, for blocks that are being filled where a whole region is to be emptied.
const FILL_PATIENCE: Duration = Duration::from_millis(100);
/// Attempts that pass over windows in which something is being filled: a large block is filled for long, and most often there
/// are others.
const UNWAITED: usize = 2;
/// Windows tried before giving up.
const ATTEMPTS: usize = 12;
/// Attempts at which no window goes that holds a prefix block, while such blocks are within their share.
const SPARING: usize = 8;

/// What prefix blocks are to those who look for room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Prefix {
    /// Blocks like others: there are more of them than their share.
    Alike,
    /// Not to go.
    Spared,
    /// To go after all others, and as few as may be: where room is wanted, they are everywhere.
    Last,
}

impl Prefix {
    fn at(attempt: usize, protects: bool) -> Self {
        match (protects, attempt < SPARING) {
            (false, _) => Self::Alike,
            (true, true) => Self::Spared,
            (true, false) => Self::Last,
        }
    }
}

/// What is wanted of one look.
struct Wanted {
    /// Bytes.
    enough: u64,
    /// Whose they are to be.
    slot: u32,
    prefix: Prefix,
}

/// A window that is to go, and exactly what is in it.
struct Chosen {
    window: Window,
    /// `None`: something in it is being filled, and it is wide.
    victims: Option<Victims>,
}

/// Room that was made: the region to look in, and the right to it where it is more than a piece of one.
#[derive(Debug)]
pub struct Room<'a> {
    /// Where it begins.
    pub region: usize,
    _claim: Option<Claim<'a>>,
}

/// Evicts until about `len` bytes in one piece are free somewhere, for the block in `slot`. `None`: everything that was looked
/// at is pinned or being filled.
pub fn make_room(stripe: &Stripe, len: u64, slot: u32) -> Option<Room<'_>> {
    let core = stripe.core();
    // One patience for all windows: what is being filled may be the caller's own, and is not done while it waits here.
    let mut patience = Wait::new(FILL_PATIENCE);
    let protects = window::protects(stripe, SAMPLES);
    let judge = Judge::new(core, protects);
    for attempt in 0..ATTEMPTS {
        let mut pool = std::mem::take(&mut *stripe.pool.lock());
        let again: Vec<Pick> = pool.drain(..pool.len().min(AGAIN)).collect();
        let mut windows = window::sample(stripe, (len, slot), &again, SAMPLES << (attempt / 4), judge);
        let is_any = !windows.is_empty();
        // For small blocks one look pays for several: the puts that follow find room at once.
        let enough = len + AHEAD_BYTES.min(core.map().geometry().data_bytes / 256);
        let wanted = Wanted { enough, slot, prefix: Prefix::at(attempt, protects) };
        let patience = (attempt >= UNWAITED).then_some(&mut patience);
        let room = empty_cheapest(stripe, &mut windows, &wanted, patience);
        keep_rest(stripe, pool, &windows);
        if let Some(room) = room {
            return Some(room);
        }
        let is_barred = core.with_regions(|regions| {
            regions.end_dead_claim();
            // Damage: there may be regions where nobody has looked.
            !regions.revive() && !regions.barred(slot).is_empty()
        });
        if !is_any && is_barred {
            // All that there is is claimed for another block: it will be there again.
            std::thread::sleep(CLAIM_NAP);
        }
        // The dead may pin what is in the way.
        crate::recover::dead_owners(core);
    }
    None
}

/// Takes the cheapest of `windows` out of them and empties them, until enough bytes are free or as many as may be at one look.
fn empty_cheapest<'a>(
    stripe: &'a Stripe,
    windows: &mut Vec<Window>,
    wanted: &Wanted,
    mut patience: Option<&mut Wait>,
) -> Option<Room<'a>> {
    // What is pinned looks cheap again and again: go on to the next windows rather than give up.
    loop {
        let (mut chosen, mut bytes) = (Vec::<Chosen>::with_capacity(EMPTIED), 0);
        while bytes < wanted.enough && chosen.len() < EMPTIED {
            let Some(next) = take_cheapest(stripe, windows, wanted.prefix) else { break };
            let window = next.window;
            if window.is_wide && chosen.is_empty() {
                if let Some(room) = empty_wide(stripe, &next, wanted, patience.as_deref_mut()) {
                    return Some(room);
                }
            } else if window.is_wide {
                windows.push(window);
                break;
            } else if !chosen.iter().any(|other| window.overlaps(&other.window)) {
                bytes += window.bytes();
                chosen.push(next);
            }
        }
        if chosen.is_empty() {
            return None;
        }
        if let Some(first) = empty(stripe, &chosen) {
            return Some(Room { region: first.pick.region(), _claim: None });
        }
    }
}

/// Takes out the cheapest window. What a window costs was found by looking at some of what it holds; here all of it is known, and
/// a prefix block that was overlooked is found before it goes.
fn take_cheapest(stripe: &Stripe, windows: &mut Vec<Window>, prefix: Prefix) -> Option<Chosen> {
    loop {
        let costs = windows.iter().map(|window| window.cost).enumerate();
        let (at, _) = costs.min_by(|a, b| a.1.total_cmp(&b.1))?;
        let mut window = windows.swap_remove(at);
        let victims = window.victims(stripe);
        let prefix_units = victims.as_ref().map_or(0, |victims| victims.prefix_units);
        if victims.is_none() && !window.is_wide || prefix == Prefix::Spared && prefix_units > 0 {
            continue;
        }
        if prefix == Prefix::Last && prefix_units > 0 && !window.is_exact {
            window.hold_prefix(prefix_units);
            windows.push(window);
            continue;
        }
        return Some(Chosen { window, victims });
    }
}

/// Leaves the cheapest of what was seen to the next look of this stripe. `pool` begins with the cheapest.
fn keep_rest(stripe: &Stripe, mut pool: Vec<Pick>, rest: &[Window]) {
    for pick in rest.iter().filter(|window| !window.is_wide).map(|window| window.pick) {
        let is_full = pool.len() >= POOL;
        if is_full && pool.last().is_some_and(|last| last.cost() <= pick.cost())
            || pool.iter().any(|other| other.is_at(&pick))
        {
            continue;
        }
        if is_full {
            pool.pop();
        }
        let at = pool.partition_point(|other| other.cost() <= pick.cost());
        pool.insert(at, pick);
    }
    *stripe.pool.lock() = pool;
}

/// Empties a window of whole regions under a claim, so that others do not take what is freed of it before all is.
fn empty_wide<'a>(
    stripe: &'a Stripe,
    Chosen { window, victims }: &Chosen,
    wanted: &Wanted,
    mut patience: Option<&mut Wait>,
) -> Option<Room<'a>> {
    let core = stripe.core();
    match victims {
        None if patience.is_none() => return None,
        Some(victims) if is_any_pinned(core, &victims.blocks) => return None,
        _ => {}
    }
    let is_dead = |holder| core.is_dead(holder);
    let regions = core.with_regions(|regions| window.regions(regions));
    let claim =
        Claim::take(core.map(), core.holder(), &is_dead, regions.clone(), wanted.slot, CLAIM_PATIENCE);
    crate::kill::point("evict.claimed");
    // Somebody who did not see the claim in time may put something there again.
    for _ in 0..ATTEMPTS {
        let Victims { blocks: victims, prefix_units, .. } = settled(stripe, window, patience.as_deref_mut())?;
        if wanted.prefix == Prefix::Spared && prefix_units > 0 {
            // It came while we waited.
            return None;
        }
        if victims.is_empty() {
            return Some(Room { region: regions.start, _claim: claim });
        }
        if is_any_pinned(core, &victims) {
            return None;
        }
        evict(stripe, &victims, WhenPinned::Keep);
    }
    None
}

/// The blocks of `window` once none is being filled or freed; `None` when that takes too long.
fn settled(stripe: &Stripe, window: &Window, mut patience: Option<&mut Wait>) -> Option<Victims> {
    loop {
        if let Some(victims) = window.victims(stripe) {
            return Some(victims);
        }
        if !patience.as_mut().is_some_and(|patience| patience.again()) {
            return None;
        }
    }
}

/// Whether anyone pins one of the `victims`: better known before the others are gone for nothing.
fn is_any_pinned(core: &Core, victims: &[(u32, Word)]) -> bool {
    let mut slots: Vec<u32> = victims.iter().map(|(slot, _)| *slot).collect();
    slots.sort_unstable();
    let pins = core.ledger_cells().map(|(_, cell)| Entry::load(cell)).filter(|entry| entry.is_pin());
    pins.filter_map(Entry::slot).any(|slot| slots.binary_search(&slot).is_ok())
}

/// Evicts every block of the windows `chosen`, all under as few scans as may be; gives the first of which none stays. What is freed is the
/// stripe's to use, unless blocks reach beyond their window.
fn empty<'a>(stripe: &Stripe, chosen: &'a [Chosen]) -> Option<&'a Window> {
    let mut first = None;
    let found = || chosen.iter().filter_map(|chosen| Some((&chosen.window, chosen.victims.as_ref()?)));
    // What others keep of the room that was made before is shown when more is made than is used.
    if !stripe.stock.lock().is_empty() {
        stock::give_up(stripe);
    }
    for (reaches_out, notice) in [(false, Notice::Nobody), (true, Notice::All)] {
        let some = || found().filter(|(_, victims)| victims.reach_out == reaches_out);
        let victims: Vec<(u32, Word)> = some().flat_map(|(_, victims)| &victims.blocks).copied().collect();
        let gone = evict_each(stripe, &victims, WhenPinned::Keep, notice);
        let mut start = 0;
        for (window, victims) in some() {
            let end = start + victims.blocks.len();
            let is_empty = gone[start..end].iter().all(|gone| *gone);
            start = end;
            if is_empty {
                first = first.or(Some(window));
            }
            match notice {
                Notice::Nobody if is_empty => {
                    stripe.stock.lock().put(stripe.core().with_regions(|regions| window.spot(regions)))
                }
                Notice::Nobody => stripe.core().with_regions(|regions| regions.show(window.pick.region())),
                Notice::All => {}
            }
        }
    }
    first
}

/// Evicts the `victims` that nobody pins; gives how many are gone.
pub fn evict(stripe: &Stripe, victims: &[(u32, Word)], when_pinned: WhenPinned) -> usize {
    evict_each(stripe, victims, when_pinned, Notice::All).iter().filter(|gone| **gone).count()
}

/// Evicts the `victims` that nobody pins; says of each whether it is gone.
fn evict_each(
    stripe: &Stripe,
    victims: &[(u32, Word)],
    when_pinned: WhenPinned,
    notice: Notice,
) -> Vec<bool> {
    let mut gone = vec![false; victims.len()];
    let mut at = 0;
    while at < victims.len() {
        let some = at..victims.len().min(at + BATCH);
        let tried = evict_some(stripe, &victims[some.clone()], (when_pinned, notice), &mut gone[some]);
        if tried == 0 {
            break;
        }
        at += tried;
    }
    gone
}

/// Evicts the first of the `victims` under one scan, as many as there are ledger entries for; gives how many it tried, and notes
/// which of them are `gone`.
fn evict_some(
    stripe: &Stripe,
    victims: &[(u32, Word)],
    (when_pinned, notice): (WhenPinned, Notice),
    gone: &mut [bool],
) -> usize {
    let core = stripe.core();
    let index = core.index();
    let mut begun: Vec<(usize, u32, Word, Cell<'_>)> = Vec::with_capacity(victims.len());
    let mut tried = 0;
    for (slot, word) in victims {
        let Some(cell) = stripe.take_spare() else { break };
        Entry::intent(*slot).store(cell.entry());
        if let Some(word) = protocol::begin_evict(&index, *slot, *word, core.row()) {
            begun.push((tried, *slot, word, cell));
        }
        tried += 1;
    }
    crate::kill::point("evict.begun");
    let slots: Vec<u32> = begun.iter().map(|(_, slot, ..)| *slot).collect();
    let pinned = protocol::pinned(&slots, core.ledger_cells().map(|(_, cell)| cell));
    crate::kill::point("evict.scanned");
    for ((at, slot, word, cell), pinned) in begun.into_iter().zip(pinned) {
        let was_sealed = word.state() == State::Evicting;
        let decided = protocol::decide(&index, slot, word, pinned, when_pinned);
        match decided.state() {
            State::Freeing => {
                crate::kill::point("evict.freeing");
                let was_kept = index.slot(slot).is_some_and(Slot::is_kept);
                let id = index.slot(slot).map(Slot::id);
                free(stripe, slot, decided, cell, notice);
                gone[at] = true;
                if let Some(id) = id.filter(|_| was_sealed) {
                    core.left(&id, reason(when_pinned, was_kept));
                }
                let counted = !planted::is(Bug::UncountedEviction);
                if counted && was_sealed && when_pinned == WhenPinned::Keep {
                    stripe.counters.count(Event::Evicted(1));
                    if was_kept {
                        stripe.counters.count(Event::EvictedKept);
                    }
                    stripe.say_evicted();
                }
            }
            State::Retired => {
                if let Some(slot) = index.slot(slot).filter(|_| was_sealed) {
                    core.left(&slot.id(), Left::Deleted);
                }
                crate::kill::point("retire.decided");
                // The last pin may have gone while we decided, when its holder did not yet see the block retired.
                reclaim_retired(stripe, slot, decided, cell);
            }
            _ => drop(cell),
        }
    }
    tried
}

fn reason(when_pinned: WhenPinned, was_kept: bool) -> Left {
    match (when_pinned, was_kept) {
        (WhenPinned::Keep, true) => Left::EvictedKept,
        (WhenPinned::Keep, false) => Left::Evicted,
        _ => Left::Deleted,
    }
}

/// Gives extent and slot back. If a stopped process keeps the region locked, the entry stays in the ledger, and the slot
/// waits: until a later put or recovery finds the region open, or until we die and are recovered.
pub fn finish_free(stripe: &Stripe, slot: u32, freeing: Word, cell: Cell<'_>) {
    free(stripe, slot, freeing, cell, Notice::All);
}

fn free(stripe: &Stripe, slot: u32, freeing: Word, cell: Cell<'_>, notice: Notice) {
    let core = stripe.core();
    if !core.with_regions(|regions| regions.free_for(&core.index(), slot, freeing, notice)) {
        core.waiting.push(stripe.number(), cell.keep() as u32);
    }
}

/// Frees a retired block if its last pin is gone; `cell` holds the intent.
pub fn reclaim_retired(stripe: &Stripe, slot: u32, retired: Word, cell: Cell<'_>) {
    let core = stripe.core();
    let cells = || core.ledger_cells().map(|(_, cell)| cell);
    if let Some(freeing) = protocol::reclaim(&core.index(), slot, retired, core.row(), cells) {
        finish_free(stripe, slot, freeing, cell);
    }
}

/// Evicts the least worthy block of the two buckets of `key`, when they have no free slot.
pub fn relieve_buckets(stripe: &Stripe, key: &Key) -> bool {
    let core = stripe.core();
    let index = core.index();
    let judge = Judge::new(core, true);
    let mut victims: Vec<(f64, (u32, Word))> = index
        .neighbours(key)
        .filter_map(|number| {
            let slot = index.slot(number)?;
            let word = slot.word();
            (word.state() == State::Sealed).then(|| (judge.worth(slot, word), (number, word)))
        })
        .collect();
    victims.sort_by(|a, b| a.0.total_cmp(&b.0));
    victims.iter().any(|(_, victim)| evict(stripe, &[*victim], WhenPinned::Keep) == 1)
}
