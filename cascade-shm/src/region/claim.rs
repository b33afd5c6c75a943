//! The right to a run of regions that is being emptied: others look for room elsewhere, so that what is freed piece by piece is
//! still free when the last piece is. A hint to allocators; nothing breaks when one comes too late to see it.

use std::ops::Range;
use std::time::Duration;

use cascade_core::sync::Ordering;

use super::Regions;
use crate::lock::{Guard, Holder};
use crate::raw::{Control, Map};

/// A claim, ended when dropped. There is one at a time.
#[derive(Debug)]
pub struct Claim<'a> {
    control: &'a Control,
    _guard: Guard<'a>,
}

impl<'a> Claim<'a> {
    /// Claims `regions` for the block in `slot`; `None` when another keeps its claim for longer than `patience`.
    pub fn take(
        map: &'a Map,
        me: Holder,
        is_dead: &dyn Fn(Holder) -> bool,
        regions: Range<usize>,
        slot: u32,
        patience: Duration,
    ) -> Option<Self> {
        let control = map.control();
        let guard = control.claim.acquire(me, is_dead, patience)?;
        control.claimant.store(u64::from(slot) + 1, Ordering::Relaxed);
        control.claimed.store((regions.start as u64) << 32 | regions.end as u64, Ordering::Release);
        Some(Self { control, _guard: guard })
    }
}

impl Regions<'_> {
    /// Ends the claim of somebody who is not there any more.
    pub fn end_dead_claim(&self) {
        let claim = &self.map.control().claim;
        if claim.holder().is_some_and(|holder| (self.is_dead)(holder)) {
            drop(Claim::take(self.map, self.me, self.is_dead, 0..0, 0, Duration::ZERO));
        }
    }

    /// The regions that the block in `slot` may not go to.
    pub fn barred(&self, slot: u32) -> Range<usize> {
        let control = self.map.control();
        let word = control.claimed.load(Ordering::Acquire);
        // Who claims holds the lock for as long. A claim that nobody holds is damage, and would keep everyone out for ever.
        if word == 0
            || !control.claim.is_held()
            || control.claimant.load(Ordering::Relaxed) == u64::from(slot) + 1
        {
            return 0..0;
        }
        (word >> 32) as usize..(word as u32) as usize
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.control.claimed.store(0, Ordering::Release);
        self.control.claimant.store(0, Ordering::Relaxed);
    }
}
