//! From reservation to visible block, or back to free space.

use std::sync::Arc;

use cascade_core::digest;
use cascade_core::planted::{self, Bug};
use cascade_core::reservation::Sealed;
use cascade_core::sync::Ordering;
use cascade_core::tier::BlockMeta;

use crate::index::Found;
use crate::layout::CHUNK_BYTES;
use crate::ledger::Entry;
use crate::protocol::{self, WhenPinned};
use crate::session::{Cell, Core, Event, Stripe};
use crate::slot::{Extent, Slot, State, Word};

/// Looks for the old block of a name and hides it, this many times at most while others touch it too.
const REPLACE_ATTEMPTS: usize = 64;

/// What the slot of a sealed block says. Consistent only while the block's generation stands.
#[must_use]
pub fn meta_of(slot: &Slot, word: Word) -> Option<BlockMeta> {
    let extent = slot.extent()?;
    Some(BlockMeta { len: extent.len, digest: slot.root(), class: word.class(), tenant: slot.tenant() })
}

fn owned<'a>(stripe: &'a Stripe, cell: &Cell<'_>) -> Option<(u32, &'a Slot, Word)> {
    let number = Entry::load(cell.entry()).slot()?;
    let slot = stripe.core().map().slots().get(number as usize)?;
    let word = slot.word();
    let ours =
        word.owner() == stripe.core().row() && matches!(word.state(), State::Reserved | State::InFlight);
    ours.then_some((number, slot, word))
}

/// Makes the block of reservation `token` visible.
pub(crate) fn seal(stripe: &Stripe, token: u64, digests: &[u64]) -> Sealed {
    let cell = stripe.reclaim(token);
    let Some((number, slot, word)) = owned(stripe, &cell) else { return Sealed::Lost };
    let Some(extent) = slot.extent() else { return Sealed::Lost };
    let root = digest::root(slot.id().as_bytes(), extent.len, digests.iter().copied());
    write_digests(stripe, extent, digests);
    crate::kill::point("seal.digests");
    slot.set_root(root);
    slot.set_verified(stripe.core().epoch());
    crate::kill::point("seal.before");
    let sealed = if stripe.replaces(cell.number()) {
        replace(stripe, number, word, root, extent.len)
    } else if slot.advance(word, word.with(State::Sealed, 0)) {
        Replaced::Done
    } else {
        Replaced::Failed
    };
    match sealed {
        Replaced::Done => {}
        Replaced::Equal(old) => {
            free_reserved(stripe, number, slot, word, cell);
            stripe.counters.count(Event::Exists);
            return Sealed::Exists(old);
        }
        Replaced::Failed => {
            free_reserved(stripe, number, slot, word, cell);
            stripe.counters.count(Event::Refused);
            return Sealed::Lost;
        }
    }
    crate::kill::point("seal.after");
    drop(cell);
    stripe.counters.count(Event::Put(extent.len));
    stripe.say_put(extent.len);
    Sealed::Stored(BlockMeta { len: extent.len, digest: root, class: word.class(), tenant: slot.tenant() })
}

fn write_digests(stripe: &Stripe, extent: Extent, digests: &[u64]) {
    // A block of one chunk shares its 64 KiB with others; its root says all that the chunk digest would.
    if extent.len <= CHUNK_BYTES {
        return;
    }
    let first = (extent.offset / CHUNK_BYTES) as usize;
    let table = stripe.core().map().digests();
    if let Some(places) = table.get(first..first + digests.len()) {
        for (place, digest) in places.iter().zip(digests) {
            place.store(*digest, Ordering::Relaxed);
        }
    }
}

/// What became of a seal that may replace.
enum Replaced {
    /// Sealed; what was there before is gone.
    Done,
    /// An equal block is there; nothing was changed.
    Equal(BlockMeta),
    /// Somebody keeps the old block in transition; nothing was changed.
    Failed,
}

/// Seals `number` in place of the sealed block of the same id: the old one is hidden first and gone after, so that no one
/// sees it again once the new one was seen.
fn replace(stripe: &Stripe, number: u32, word: Word, root: u64, len: u64) -> Replaced {
    let core = stripe.core();
    let index = core.index();
    let Some(mine) = index.slot(number) else { return Replaced::Failed };
    let key = index.key(&mine.id());
    for _ in 0..REPLACE_ATTEMPTS {
        let (old, old_word) = match index.find_settled(&key) {
            Found::Sealed(old, old_word) => (old, old_word),
            Found::Evicting(..) => {
                // Its owner may have died over it.
                crate::recover::dead_owners(core);
                continue;
            }
            // Nobody else can be filling the id: the claim is ours.
            Found::Pending | Found::Absent => {
                let done = mine.advance(word, word.with(State::Sealed, 0));
                return if done { Replaced::Done } else { Replaced::Failed };
            }
        };
        let equal = index.slot(old).and_then(|slot| meta_of(slot, old_word));
        if let Some(meta) = equal.filter(|meta| (meta.digest, meta.len) == (root, len)) {
            return Replaced::Equal(meta);
        }
        let Some(cell) = stripe.take_spare() else { return Replaced::Failed };
        Entry::replacing(old).store(cell.entry());
        if planted::is(Bug::SealBeforeHide) {
            let _ = mine.advance(word, word.with(State::Sealed, 0));
        }
        let Some(begun) = protocol::begin_evict(&index, old, old_word, core.row()) else { continue };
        crate::kill::point("replace.hidden");
        let done = mine.advance(word, word.with(State::Sealed, 0));
        crate::kill::point("replace.sealed");
        retire(stripe, old, begun, cell);
        return if done { Replaced::Done } else { Replaced::Failed };
    }
    Replaced::Failed
}

fn retire(stripe: &Stripe, old: u32, begun: Word, cell: Cell<'_>) {
    let core = stripe.core();
    let index = core.index();
    let pinned = protocol::pinned(&[old], core.ledger_cells().map(|(_, cell)| cell)).contains(&true);
    let decided = protocol::decide(&index, old, begun, pinned, WhenPinned::Retire);
    crate::kill::point("retire.decided");
    match decided.state() {
        State::Retired => crate::evict::reclaim_retired(stripe, old, decided, cell),
        State::Freeing => crate::evict::finish_free(stripe, old, decided, cell),
        _ => drop(cell),
    }
}

/// Gives the space of reservation `token` back.
pub(crate) fn abandon(stripe: &Stripe, token: u64) {
    let cell = stripe.reclaim(token);
    if let Some((number, slot, word)) = owned(stripe, &cell) {
        free_reserved(stripe, number, slot, word, cell);
    }
}

fn free_reserved(stripe: &Stripe, number: u32, slot: &Slot, word: Word, cell: Cell<'_>) {
    let freeing = word.with(State::Freeing, word.owner());
    if slot.advance(word, freeing) {
        crate::evict::finish_free(stripe, number, freeing, cell);
    }
}

/// Keeps the space of reservation `token` out of use for the grace period: hardware may still write there. The slot is
/// `Freeing` meanwhile, which nobody sees, so the id can be put again at once.
pub(crate) fn quarantine(stripe: &Stripe, token: u64) {
    let cell = stripe.reclaim(token);
    let Some((_, slot, word)) = owned(stripe, &cell) else { return };
    if planted::is(Bug::NoQuarantine) {
        return abandon(stripe, token);
    }
    let len = slot.extent().map_or(0, |extent| extent.len);
    if slot.advance(word, word.with(State::Freeing, word.owner())) {
        crate::kill::point("quarantine.freeing");
        let now = cascade_core::clock::Clock::now(&stripe.core().clock);
        stripe.core().quarantine.push(now, len, (stripe.number(), cell.number()));
        cell.keep();
        crate::kill::point("quarantine.kept");
    }
}

/// Tries once more to free the slot that has waited for longest for a region that a stopped process keeps locked.
pub(crate) fn free_waiting(core: &Core, stripes: &[Arc<Stripe>]) {
    let Some((home, cell)) = core.waiting.pop() else { return };
    if let Some(home) = stripes.get(home) {
        end_quarantine(home, u64::from(cell));
    }
}

/// Gives back what transfers that were abandoned a grace period ago held, and one slot that waits for a region.
pub(crate) fn release_quarantine(core: &Core, stripes: &[Arc<Stripe>]) {
    free_waiting(core, stripes);
    let now = || cascade_core::clock::Clock::now(&core.clock);
    while let Some((home, cell)) = core.quarantine.pop_expired(now) {
        if let Some(home) = stripes.get(home) {
            end_quarantine(home, u64::from(cell));
        }
    }
}

/// Gives the space back that [`quarantine`] kept under `token`.
fn end_quarantine(stripe: &Stripe, token: u64) {
    let cell = stripe.reclaim(token);
    let Some(number) = Entry::load(cell.entry()).slot() else { return };
    let Some(word) = stripe.core().index().slot(number).map(Slot::word) else { return };
    if (word.state(), word.owner()) == (State::Freeing, stripe.core().row()) {
        crate::kill::point("quarantine.ended");
        crate::evict::finish_free(stripe, number, word, cell);
    }
}
