//! Gittins indices of blocks from their hazards.

use super::heat::Heat;
use super::survival::{Ages, BUCKETS, CLASSES, bucket, class, edge, width};
use super::{Survival, Tick};

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
            for (age, worth) in worth.iter_mut().enumerate() {
                *worth = gittins(hazards, age) as f32;
            }
        }
        Self { worth }
    }

    /// Worth of a block in state `heat`: uses for each tick of space, at the best moment to give up.
    #[inline]
    #[must_use]
    pub fn worth(&self, heat: Heat, now: Tick) -> f32 {
        let (worth, age) = (&self.worth[class(heat)], heat.age(now));
        let bucket = bucket(age);
        let (here, next) = (worth[bucket], worth[(bucket + 1).min(BUCKETS - 1)]);
        // Between two ages that were looked at, worth goes straight from one to the other.
        here + (next - here) * ((f64::from(age) - edge(bucket)) / width(bucket)) as f32
    }
}

/// `max over ends b > age of P(used before b) / E[ticks until used or b]`.
fn gittins(hazards: &Ages, age: usize) -> f64 {
    let (mut waiting, mut used, mut ticks, mut best) = (1.0_f64, 0.0, 0.0, 0.0_f64);
    for (bucket, hazard) in hazards.iter().enumerate().skip(age) {
        let ends = 1.0 - (-hazard * width(bucket)).exp();
        used += waiting * ends;
        ticks += waiting * ends / hazard;
        waiting *= 1.0 - ends;
        best = best.max(used / ticks);
    }
    best
}
