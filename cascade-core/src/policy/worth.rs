//! Gittins indices of blocks from their hazards.

use super::heat::Heat;
use super::survival::{Ages, BUCKETS, CLASSES, bucket, class, edge, width};
use super::{Survival, Tick};

/// What each step of depth takes from the worth of a block: less than half in all, so that it decides among blocks of about the same
/// worth. Samples see few blocks of one chain; with less, chains that wait equally long are broken anywhere.
const BY_DEPTH: f32 = 1.0 / 64.0;

/// Worth of each class of blocks at each age. Only its order matters.
#[derive(Clone, Debug)]
pub struct WorthTable {
    worth: Box<[[f32; BUCKETS]; CLASSES]>,
}

impl Default for WorthTable {
    /// Of one who has seen nothing: less the older, whatever the class.
    fn default() -> Self {
        Survival::default().worth()
    }
}

impl WorthTable {
    pub(super) fn new(hazards: &[Ages; CLASSES]) -> Self {
        let mut worth = Box::new([[0.0; BUCKETS]; CLASSES]);
        for (worth, hazards) in worth.iter_mut().zip(hazards) {
            let steps: Steps = std::array::from_fn(|bucket| {
                let ends = 1.0 - (-hazards[bucket] * width(bucket)).exp();
                (ends, ends / hazards[bucket])
            });
            for (age, worth) in worth.iter_mut().enumerate() {
                *worth = gittins(&steps, age) as f32;
            }
        }
        Self { worth }
    }

    /// The table in so many words, four values in each: the upper half of a float, which keeps two digits and the order.
    pub const WORDS: usize = (CLASSES * BUCKETS).div_ceil(4);

    /// For memory that others read; see [`WorthTable::look_up`].
    pub fn words(&self) -> impl Iterator<Item = u64> {
        let short = |worth: &f32| u64::from(worth.to_bits() >> 16);
        let values: Vec<u64> = self.worth.iter().flatten().map(short).collect();
        let words: Vec<u64> = values
            .chunks(4)
            .map(|four| four.iter().rev().fold(0, |word, value| word << 16 | value))
            .collect();
        words.into_iter()
    }

    /// [`WorthTable::worth`] from [`WorthTable::words`]: `word` gives one by its number. Finite whatever the words are.
    #[inline]
    pub fn look_up(heat: Heat, now: Tick, word: impl Fn(usize) -> u64) -> f32 {
        interpolated(heat, now, |class, bucket| {
            let at = class * BUCKETS + bucket;
            let worth = f32::from_bits(((word(at / 4) >> (at % 4 * 16)) as u32) << 16);
            if worth.is_finite() { worth.clamp(0.0, 1e9) } else { 0.0 }
        })
    }

    /// Worth of a block in state `heat`: uses for each tick of space, at the best moment to give up.
    #[inline]
    #[must_use]
    pub fn worth(&self, heat: Heat, now: Tick) -> f32 {
        interpolated(heat, now, |class, bucket| self.worth[class][bucket])
    }
}

/// Between two ages that were looked at, worth goes straight from one to the other.
#[inline]
fn interpolated(heat: Heat, now: Tick, worth: impl Fn(usize, usize) -> f32) -> f32 {
    let (class, age) = (class(heat), heat.age(now));
    let bucket = bucket(age);
    let (here, next) = (worth(class, bucket), worth(class, (bucket + 1).min(BUCKETS - 1)));
    let worth = here + (next - here) * ((f64::from(age) - edge(bucket)) / width(bucket)) as f32;
    // A block whose chain is broken before it is worth nothing: of those that are worth about the same the deepest goes first.
    worth * (1.0 - BY_DEPTH * heat.depth() as f32)
}

/// For each age: which share of the blocks that wait is used within it, and how long all wait in it.
type Steps = [(f64, f64); BUCKETS];

/// `max over ends b > age of P(used before b) / E[ticks until used or b]`.
fn gittins(steps: &Steps, age: usize) -> f64 {
    let (mut waiting, mut used, mut ticks, mut best) = (1.0_f64, 0.0, 0.0, 0.0_f64);
    for (ends, waits) in &steps[age..] {
        used += waiting * ends;
        ticks += waiting * waits;
        waiting *= 1.0 - ends;
        best = best.max(used / ticks);
    }
    best
}
