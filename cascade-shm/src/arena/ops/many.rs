//! Leases by the batch: cache lines are fetched ahead, and one fence serves many pins.

use std::sync::Arc;

use cascade_core::id::BlockId;
use cascade_core::lease::Lease;
use cascade_core::sync::{Ordering, fence};
use cascade_core::tier::{Addressable, MissReason};

use super::{Event, LOOKAHEAD, grant, occupy};
use crate::arena::Arena;
use crate::evict;
use crate::index::{Found, Index, Key};
use crate::ledger::Entry;
use crate::protocol::{self, Pin};
use crate::session::{Cell, Stripe};
use crate::slot::Word;

type Answer = Result<Lease, MissReason>;

/// A pin that is announced and not yet confirmed.
struct Announced<'a> {
    at: usize,
    stripe: &'a Arc<Stripe>,
    cell: Cell<'a>,
    number: u32,
    word: Word,
}

pub(super) fn lease(arena: &Arena, ids: &[BlockId]) -> Vec<Answer> {
    let (Some(own), Some(session)) = (arena.stripe(), arena.session()) else {
        return ids.iter().map(|_| Err(MissReason::Unavailable)).collect();
    };
    let all = session.stripes();
    let (before, from) = all.split_at(own.number().min(all.len()));
    let mut stripes = from.iter().chain(before).peekable();
    let index = own.core().index();
    let mut answers = Vec::with_capacity(ids.len());
    let mut keys = Vec::with_capacity(LOOKAHEAD);
    let mut announced = Vec::with_capacity(LOOKAHEAD);
    for ids in ids.chunks(LOOKAHEAD) {
        look_ahead(&index, ids, &mut keys);
        let base = answers.len();
        for (at, key) in keys.iter().enumerate() {
            answers.push(match index.find(key) {
                Found::Sealed(number, word) => match take(&mut stripes) {
                    Some((stripe, cell)) => {
                        Entry::pin(number).store(cell.entry());
                        announced.push(Announced { at, stripe, cell, number, word });
                        // Confirmed below, or asked for again.
                        Err(MissReason::Evicting)
                    }
                    None => Err(MissReason::Throttled),
                },
                Found::Pending | Found::Absent => Err(MissReason::Absent),
                Found::Evicting(..) => arena.lease(&ids[at]),
            });
        }
        // As in `announce_pin`, once for all of them.
        fence(Ordering::SeqCst);
        for pin in announced.drain(..) {
            let at = pin.at;
            answers[base + at] = confirm(&index, pin, &ids[at]).unwrap_or_else(|| arena.lease(&ids[at]));
        }
    }
    let missed = answers.iter().filter(|answer| answer.is_err()).count();
    (0..missed).for_each(|_| own.counters.count(Event::Miss));
    answers
}

fn look_ahead(index: &Index<'_>, ids: &[BlockId], keys: &mut Vec<Key>) {
    keys.clear();
    keys.extend(ids.iter().map(|id| index.key(id)));
    keys.iter().for_each(|key| index.prefetch(key));
    keys.iter().for_each(|key| index.prefetch_slots(key));
}

/// A free entry of the first stripe that has one.
fn take<'a>(
    stripes: &mut std::iter::Peekable<impl Iterator<Item = &'a Arc<Stripe>>>,
) -> Option<(&'a Arc<Stripe>, Cell<'a>)> {
    while let Some(stripe) = stripes.peek().copied() {
        if let Some(cell) = stripe.take() {
            return Some((stripe, cell));
        }
        stripes.next();
    }
    None
}

/// The lease of an announced pin; `None` when the block moved on meanwhile and must be looked for again.
fn confirm(index: &Index<'_>, pin: Announced<'_>, id: &BlockId) -> Option<Answer> {
    let Announced { stripe, cell, number, word, .. } = pin;
    match protocol::confirm(index, number, word, cell.entry()) {
        Pin::Held => Some(occupy(stripe, cell, number, word).and_then(|pinned| grant(stripe, id, pinned))),
        Pin::Gone => None,
        Pin::Reclaim(retired) => {
            evict::reclaim_retired(stripe, number, retired, cell);
            None
        }
    }
}
