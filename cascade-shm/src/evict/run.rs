//! Blocks side by side in the index: ids are hashes, so neighbours there have nothing else in common and are a sample of all blocks. Their
//! slots are cache lines that follow each other, which arrive many times faster than slots at random.

use cascade_core::sync::Ordering;

use super::window::below;
use crate::index::{BUCKET_SLOTS, used};
use crate::session::Stripe;

/// Buckets that are looked through for each that would do if all were full, at most: an index is half empty, or nearly empty where blocks
/// are longer than was foreseen.
const SPARSE: usize = 8;

/// Adds the numbers of `most` used slots, or some more or less, from a random bucket on, and brings them into the cache.
pub(super) fn draw(stripe: &Stripe, most: usize, slots: &mut Vec<u32>) {
    let map = stripe.core().map();
    let (tags, enough) = (map.tags(), slots.len() + most);
    let first = below(tags.len(), stripe.random());
    let buckets = (first..tags.len()).chain(0..first);
    for bucket in buckets.take(most * SPARSE / BUCKET_SLOTS) {
        for number in used(tags[bucket].load(Ordering::Relaxed)) {
            let slot = bucket * BUCKET_SLOTS + number;
            crate::raw::prefetch(&map.slots()[slot]);
            slots.push(slot as u32);
        }
        if slots.len() >= enough {
            return;
        }
    }
}
