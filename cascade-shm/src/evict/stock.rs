//! Room that a thread's evictions freed beyond what was asked for: its next puts find it at once, and look nowhere else. Nothing depends
//! on it: what is taken by somebody else is not free any more, and what nobody comes for is shown to all.

use crate::region::{Kind, Regions, Spot};
use crate::session::Stripe;

/// Spots of one thread.
#[derive(Debug, Default)]
pub struct Stock {
    spots: Vec<Spot>,
    /// Whether any was put or taken since the janitor looked.
    is_used: bool,
}

impl Stock {
    /// Room for `units` units of `kind`.
    pub fn take(&mut self, kind: Kind, units: usize) -> Option<Spot> {
        self.is_used = true;
        let (at, spot) = self
            .spots
            .iter_mut()
            .enumerate()
            .rev()
            .find_map(|(at, spot)| Some((at, spot.split(kind, units)?)))?;
        if self.spots[at].units() == 0 {
            self.spots.swap_remove(at);
        }
        Some(spot)
    }

    /// Adds one.
    pub fn put(&mut self, spot: Spot) {
        self.is_used = true;
        self.spots.push(spot);
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.spots.is_empty()
    }
}

/// Shows all what the stripe keeps.
pub fn give_up(stripe: &Stripe) {
    let spots = std::mem::take(&mut stripe.stock.lock().spots);
    show(stripe, &spots);
}

/// Shows all what the stripe has kept since the last call, and nobody came for.
pub fn give_up_idle(stripe: &Stripe) {
    // Whoever has the lock uses it.
    let Some(mut stock) = stripe.stock.try_lock() else { return };
    if !std::mem::take(&mut stock.is_used) {
        let spots = std::mem::take(&mut stock.spots);
        drop(stock);
        show(stripe, &spots);
    }
}

fn show(stripe: &Stripe, spots: &[Spot]) {
    if !spots.is_empty() {
        stripe.core().with_regions(|regions: &Regions<'_>| {
            spots.iter().for_each(|spot| regions.show(spot.region()));
        });
    }
}
