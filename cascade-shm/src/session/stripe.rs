//! A stripe: 64 ledger entries, used by one thread as long as there are stripes enough. It is the home of leases and
//! reservations: a token is the number of the entry that holds the block.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64 as LocalU64, Ordering};

use cascade_core::lease::LeaseHome;
use cascade_core::planted::{self, Bug};
use cascade_core::reservation::{ReservationHome, Sealed};
use cascade_core::sync::AtomicU64;

use parking_lot::Mutex;

use super::{Core, Counters};
use crate::evict::Pick;
use crate::evict::stock::Stock;
use crate::layout::{STRIPE_ENTRIES, STRIPE_LEASES};
use crate::ledger::Entry;
use crate::protocol;
use crate::seal;
use crate::slot::State;

/// The entries that leases and reservations may hold.
const HOLDABLE: u64 = (1 << STRIPE_LEASES) - 1;

/// Looks that the share of prefix blocks is a mean of.
const PREFIX_SAMPLES: u64 = 256;
/// Looks at no prefix block that every stripe begins with: as long as little was seen, they are protected.
const PREFIX_PRIOR: u64 = 64;

/// Ledger entries of one thread, and what it counts.
#[derive(Debug)]
pub struct Stripe {
    core: Arc<Core>,
    number: usize,
    used: LocalU64,
    replaces: [AtomicU8; STRIPE_ENTRIES],
    random: LocalU64,
    /// Share of prefix blocks in what eviction looked at lately, as the bits of a float.
    prefix_share: LocalU64,
    /// Looks that were made for it.
    prefix_looks: LocalU64,
    /// Bytes put, and blocks evicted, that the arena was not told of yet.
    unsaid: [LocalU64; 2],
    /// Windows that eviction looked at and left.
    pub pool: Mutex<Vec<Pick>>,
    /// Room that eviction made for the next puts.
    pub stock: Mutex<Stock>,
    /// The region where this thread last found room.
    pub hint: std::sync::atomic::AtomicUsize,
    /// Counters of what was done through this stripe.
    pub counters: Counters,
}

/// An entry taken from a stripe; given back when dropped, unless kept.
#[derive(Debug)]
pub struct Cell<'a> {
    stripe: &'a Stripe,
    number: u32,
    keep: bool,
}

/// Entries taken from a stripe together, none of which holds anything yet. What is not handed out goes back when dropped.
#[derive(Debug)]
pub struct Held<'a> {
    stripe: &'a Stripe,
    mask: u64,
}

impl Iterator for Held<'_> {
    type Item = u32;

    /// Hands one out: from here on it is the caller's to give back, by way of [`Stripe::reclaim`].
    #[inline]
    fn next(&mut self) -> Option<u32> {
        let number = (self.mask != 0).then(|| self.mask.trailing_zeros())?;
        self.mask &= self.mask - 1;
        Some(number)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if self.mask != 0 {
            self.stripe.used.fetch_and(!self.mask, Ordering::Release);
        }
    }
}

/// The `most` lowest bits of `mask`.
fn lowest(mask: u64, most: usize) -> u64 {
    let mut rest = mask;
    for _ in 0..most.min(64) {
        rest &= rest.wrapping_sub(1);
    }
    mask & !rest
}

impl Stripe {
    pub(super) fn new(core: Arc<Core>, number: usize) -> Self {
        let seed = 0x9e37_79b9_7f4a_7c15_u64
            .wrapping_mul(number as u64 + 1)
            .wrapping_add(u64::from(core.holder().generation) << 16 | u64::from(core.row()));
        let first_region = number * 37 + usize::from(core.row()) * 11;
        Self {
            core,
            number,
            used: LocalU64::new(0),
            replaces: [const { AtomicU8::new(0) }; STRIPE_ENTRIES],
            random: LocalU64::new(seed),
            prefix_share: LocalU64::new(0),
            prefix_looks: LocalU64::new(PREFIX_PRIOR),
            unsaid: [const { LocalU64::new(0) }; 2],
            pool: Mutex::new(Vec::new()),
            stock: Mutex::default(),
            // Threads and processes start far apart, so that they do not meet at one region's lock.
            hint: std::sync::atomic::AtomicUsize::new(first_region),
            counters: Counters::default(),
        }
    }

    /// What all stripes of the session share.
    #[inline]
    pub fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// A random number (xorshift): for sampling, not for secrets.
    pub fn random(&self) -> u64 {
        let mut x = self.random.load(Ordering::Relaxed);
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.random.store(x, Ordering::Relaxed);
        x.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// The share of the arena that prefix blocks have, as far as eviction has seen lately.
    pub fn prefix_share(&self) -> f64 {
        f64::from_bits(self.prefix_share.load(Ordering::Relaxed))
    }

    /// Notes whether a random place of the arena is a prefix block's.
    pub fn saw_prefix(&self, is_prefix: bool) {
        let looks = (self.prefix_looks.load(Ordering::Relaxed) + 1).min(PREFIX_SAMPLES);
        let (mean, seen) = (self.prefix_share(), f64::from(u8::from(is_prefix)));
        self.prefix_looks.store(looks, Ordering::Relaxed);
        self.prefix_share.store((mean + (seen - mean) / looks as f64).to_bits(), Ordering::Relaxed);
    }

    /// Takes a free entry for a lease or a reservation; `None` when as many as may be are held.
    #[inline]
    pub fn take(&self) -> Option<Cell<'_>> {
        self.take_by(|free| (free & HOLDABLE != 0).then(|| (free & HOLDABLE).trailing_zeros()))
    }

    /// Takes a free entry for a moment's work; `None` when others of this stripe are at such work too.
    #[inline]
    pub fn take_spare(&self) -> Option<Cell<'_>> {
        self.take_by(|free| (free != 0).then(|| 63 - free.leading_zeros()))
    }

    #[inline]
    fn take_by(&self, choose: impl Fn(u64) -> Option<u32>) -> Option<Cell<'_>> {
        let mut used = self.used.load(Ordering::Relaxed);
        loop {
            let number = choose(!used)?;
            let taken = used | 1 << number;
            match self.used.compare_exchange_weak(used, taken, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => {
                    self.announce();
                    return Some(Cell { stripe: self, number, keep: false });
                }
                Err(now) => used = now,
            }
        }
    }

    /// Takes up to `most` free entries for leases at once.
    pub fn take_many(&self, most: usize) -> Held<'_> {
        let mut used = self.used.load(Ordering::Relaxed);
        loop {
            let free = HOLDABLE & !used;
            let taken = lowest(free, most);
            if taken == 0 {
                return Held { stripe: self, mask: 0 };
            }
            match self.used.compare_exchange_weak(used, used | taken, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => {
                    self.announce();
                    return Held { stripe: self, mask: taken };
                }
                Err(now) => used = now,
            }
        }
    }

    /// The stripe counts in scans from its first use on.
    #[inline]
    fn announce(&self) {
        self.core.map().owners()[self.core.row() as usize].use_stripe(self.number);
    }

    /// The entry of `number` in shared memory.
    #[inline]
    pub fn cell(&self, number: u32) -> &AtomicU64 {
        &self.core.map().ledger(self.core.row())
            [self.number * STRIPE_ENTRIES + number as usize % STRIPE_ENTRIES]
    }

    /// An entry that a token names again.
    pub fn reclaim(&self, token: u64) -> Cell<'_> {
        Cell { stripe: self, number: token as u32 % STRIPE_ENTRIES as u32, keep: false }
    }

    /// Notes whether the reservation in entry `number` may replace a sealed block.
    pub fn set_replaces(&self, number: u32, replaces: bool) {
        self.replaces[number as usize].store(u8::from(replaces), Ordering::Relaxed);
    }

    /// See [`Stripe::set_replaces`].
    pub fn replaces(&self, number: u32) -> bool {
        self.replaces[number as usize].load(Ordering::Relaxed) == 1
    }
}

impl Cell<'_> {
    /// The entry in shared memory.
    #[inline]
    pub fn entry(&self) -> &AtomicU64 {
        self.stripe.cell(self.number)
    }

    /// Its number in the stripe.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Leaves the entry in use: its number is now a token.
    #[inline]
    pub fn keep(mut self) -> u64 {
        self.keep = true;
        u64::from(self.number)
    }
}

impl Drop for Cell<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        Entry::EMPTY.store(self.entry());
        self.stripe.used.fetch_and(!(1 << self.number), Ordering::Release);
    }
}

impl LeaseHome for Stripe {
    #[inline]
    fn release(&self, token: u64) {
        if !self.core.is_ours() || planted::is(Bug::LeakedPin) {
            return;
        }
        let cell = self.reclaim(token);
        let Some(slot) = Entry::load(cell.entry()).slot() else { return };
        let index = self.core.index();
        if let Some(retired) = protocol::unpin(&index, slot, cell.entry()) {
            crate::kill::point("unpin.retired");
            crate::evict::reclaim_retired(self, slot, retired, cell);
        }
    }

    fn is_valid(&self, _token: u64) -> bool {
        self.core.is_ours()
    }
}

impl Stripe {
    fn move_reserved(&self, token: u64, from: State, to: State) {
        let Some(slot) =
            Entry::load(self.reclaim_ref(token)).slot().and_then(|slot| self.core.index().slot(slot))
        else {
            return;
        };
        let word = slot.word();
        if word.state() == from && word.owner() == self.core.row() {
            slot.advance(word, word.with(to, self.core.row()));
        }
    }

    fn reclaim_ref(&self, token: u64) -> &AtomicU64 {
        self.cell(token as u32)
    }
}

impl ReservationHome for Stripe {
    fn seal(&self, token: u64, digests: &[u64]) -> Sealed {
        if self.core.is_ours() { seal::seal(self, token, digests) } else { Sealed::Lost }
    }

    fn abandon(&self, token: u64) {
        if self.core.is_ours() {
            seal::abandon(self, token);
        }
    }

    fn transfer_started(&self, token: u64) {
        self.move_reserved(token, State::Reserved, State::InFlight);
        crate::kill::point("flight.started");
    }

    fn transfer_completed(&self, token: u64) {
        self.move_reserved(token, State::InFlight, State::Reserved);
        crate::kill::point("flight.completed");
    }

    fn quarantine(&self, token: u64) {
        if self.core.is_ours() {
            seal::quarantine(self, token);
        }
    }
}

impl Stripe {
    /// Counts a put of `len` bytes for the whole arena, sooner or later.
    pub fn say_put(&self, len: u64) {
        if self.unsaid[0].fetch_add(len, Ordering::Relaxed) + len >= self.core.unsaid_bytes() {
            self.say_all();
        }
    }

    /// Counts an eviction for the whole arena; heard of with the next puts.
    pub fn say_evicted(&self) {
        self.unsaid[1].fetch_add(1, Ordering::Relaxed);
    }

    /// Tells the arena what it was not told of.
    pub fn say_all(&self) {
        let control = self.core.map().control();
        for (unsaid, said) in self.unsaid.iter().zip([&control.put_bytes, &control.evictions]) {
            let rest = unsaid.swap(0, Ordering::Relaxed);
            if rest > 0 {
                said.fetch_add(rest, cascade_core::sync::Ordering::Relaxed);
            }
        }
    }

    /// Its number in the session.
    pub fn number(&self) -> usize {
        self.number
    }
}
