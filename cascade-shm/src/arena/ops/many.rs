//! Leases by the batch: cache lines are fetched ahead, one fence serves many pins, and answers are made where they stay.

use std::sync::Arc;

use cascade_core::id::BlockId;
use cascade_core::lease::{Lease, LeaseHome};
use cascade_core::sync::{Ordering, fence};
use cascade_core::tier::MissReason;

use super::ahead::Ahead;
use super::{Clock, Event, grant, occupy};
use crate::arena::Arena;
use crate::evict;
use crate::index::{Candidates, Found, Index, Key};
use crate::ledger::Entry;
use crate::protocol::{self, Pin};
use crate::seal::meta_of;
use crate::session::{Held, Stripe};
use crate::slot::Word;

/// Pins that one fence serves.
const FENCED: usize = 32;

type Answer = Result<Lease, MissReason>;

/// Ledger entries for a batch, taken from one stripe after the other, many at a time.
struct Supply<'a> {
    held: Option<(&'a Arc<Stripe>, Held<'a>)>,
    rest: std::iter::Chain<std::slice::Iter<'a, Arc<Stripe>>, std::slice::Iter<'a, Arc<Stripe>>>,
    wanted: usize,
}

impl<'a> Supply<'a> {
    fn new(stripes: &'a [Arc<Stripe>], own: usize, wanted: usize) -> Self {
        let (before, from) = stripes.split_at(own.min(stripes.len()));
        Self { held: None, rest: from.iter().chain(before), wanted }
    }

    /// A free entry; it is the caller's to give back.
    #[inline]
    fn take(&mut self) -> Option<(&'a Arc<Stripe>, u32)> {
        loop {
            if let Some((stripe, held)) = &mut self.held
                && let Some(number) = held.next()
            {
                self.wanted -= 1;
                return Some((stripe, number));
            }
            let stripe = self.rest.next()?;
            self.held = Some((stripe, stripe.take_many(self.wanted)));
        }
    }
}

/// What one look at the index and one entry made of an id.
#[derive(Clone, Copy)]
enum Step<'a> {
    /// A pin is announced in this entry of the stripe, and not yet confirmed.
    Announced(&'a Arc<Stripe>, u32, u32, Word),
    Missed(MissReason),
    /// To be asked for alone.
    Again,
}

pub(super) fn lease(arena: &Arena, ids: &[BlockId]) -> Vec<Answer> {
    let (Some(own), Some(session)) = (arena.stripe(), arena.session()) else {
        return ids.iter().map(|_| Err(MissReason::Unavailable)).collect();
    };
    let index = own.core().index();
    let clock = Clock::of(own.core());
    let mut supply = Supply::new(session.stripes(), own.number(), ids.len());
    let mut answers = Vec::with_capacity(ids.len());
    let mut ahead = Ahead::new(index, ids);
    let mut steps = [Step::Again; FENCED];
    let mut granted = 0;
    for ids in ids.chunks(FENCED) {
        for (step, (key, candidates)) in steps[..ids.len()].iter_mut().zip(&mut ahead) {
            *step = announce(&index, &key, candidates, &mut supply);
        }
        crate::kill::point("batch.announced");
        // As in `announce_pin`, once for all of them.
        fence(Ordering::SeqCst);
        for (step, id) in steps.iter().zip(ids) {
            match *step {
                Step::Announced(stripe, entry, number, word) => {
                    match fast(&index, stripe, entry, number, word, clock) {
                        Some(lease) => {
                            granted += 1;
                            answers.push(Ok(lease));
                        }
                        None => answers.push(slow(arena, &index, (stripe, entry), (number, word), id)),
                    }
                }
                Step::Missed(why) => answers.push(Err(why)),
                Step::Again => answers.push(arena.lease_uncounted(id)),
            }
        }
    }
    own.counters.count(Event::Hit(granted));
    let missed = answers.iter().filter(|answer| answer.is_err()).count();
    own.counters.count(Event::Miss(missed as u64));
    answers
}

#[inline]
fn announce<'a>(index: &Index<'_>, key: &Key, candidates: Candidates, supply: &mut Supply<'a>) -> Step<'a> {
    let found = match index.find_among(key, candidates) {
        Found::Sealed(number, word) => Found::Sealed(number, word),
        // The tags were read a while ago.
        _ => index.find(key),
    };
    match found {
        Found::Sealed(number, word) => match supply.take() {
            Some((stripe, entry)) => {
                Entry::pin(number).store(stripe.cell(entry));
                Step::Announced(stripe, entry, number, word)
            }
            None => Step::Missed(MissReason::Throttled),
        },
        Found::Pending | Found::Absent => Step::Missed(MissReason::Absent),
        Found::Evicting(..) => Step::Again,
    }
}

/// The lease of an announced pin, if the block still stands and its bytes are known to be right; else nothing was done.
#[inline]
fn fast(
    index: &Index<'_>,
    stripe: &Arc<Stripe>,
    entry: u32,
    number: u32,
    word: Word,
    clock: Clock,
) -> Option<Lease> {
    let slot = index.slot(number)?;
    if !protocol::stands(slot, word) || slot.verified_epoch() != clock.epoch {
        return None;
    }
    let memory = stripe.core().map().block(slot.extent()?)?;
    let meta = meta_of(slot, word)?;
    slot.touch(clock.now);
    if slot.is_risen() {
        stripe.counters.count(Event::HitRisen(1));
    }
    Some(Lease::new(memory, meta, Arc::clone(stripe) as Arc<dyn LeaseHome>, u64::from(entry)))
}

/// Everything that [`fast`] leaves: a block to be verified, or one that moved on and is looked for again.
#[cold]
fn slow(
    arena: &Arena,
    index: &Index<'_>,
    (stripe, entry): (&Arc<Stripe>, u32),
    (number, word): (u32, Word),
    id: &BlockId,
) -> Answer {
    let cell = stripe.reclaim(u64::from(entry));
    match protocol::confirm(index, number, word, cell.entry()) {
        Pin::Held => {
            let clock = Clock::of(stripe.core());
            let pinned = occupy(stripe, cell, number, word, clock)?;
            return Ok(grant(stripe, id, pinned, clock.epoch)?.at(Arc::clone(stripe)));
        }
        Pin::Gone => drop(cell),
        Pin::Reclaim(retired) => evict::reclaim_retired(stripe, number, retired, cell),
    }
    arena.lease_uncounted(id)
}
