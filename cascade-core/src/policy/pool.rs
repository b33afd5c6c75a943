//! The worst blocks seen in samples: what makes few samples nearly as good as a look at all.

use super::Standing;

/// Random blocks looked at for each that goes.
pub const SAMPLES: usize = 64;
/// Candidates kept from one look to the next.
pub const POOL: usize = 64;

/// A block that may go, in the order in which they do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// The lowest goes first.
    pub standing: Standing,
    /// Of the same standing, the least worth.
    pub worth: f32,
    /// Of the same worth, the oldest: ticks since its last touch.
    pub age: u32,
    /// Of the same age, the deepest in its chain.
    pub depth: u32,
    /// Which it is.
    pub slot: u32,
}

impl Candidate {
    fn goes_before(&self, other: &Self) -> std::cmp::Ordering {
        (self.standing.cmp(&other.standing))
            .then(self.worth.total_cmp(&other.worth))
            .then(other.age.cmp(&self.age))
            .then(other.depth.cmp(&self.depth))
    }
}

/// The [`POOL`] candidates that are to go first.
#[derive(Clone, Debug, Default)]
pub struct Pool {
    candidates: Vec<Candidate>,
}

impl Pool {
    /// Looks at all candidates again: `now` gives what one is now, or `None` when it may not go; gives those.
    pub fn refresh(&mut self, mut now: impl FnMut(u32) -> Option<Candidate>) -> Vec<u32> {
        let mut gone = Vec::new();
        self.candidates.retain_mut(|candidate| match now(candidate.slot) {
            Some(fresh) => {
                *candidate = fresh;
                true
            }
            None => {
                gone.push(candidate.slot);
                false
            }
        });
        gone
    }

    /// Adds a candidate that is not in the pool.
    pub fn add(&mut self, candidate: Candidate) {
        self.candidates.push(candidate);
    }

    /// Takes the one that goes first, and drops those that are too many: `dropped` hears of each.
    pub fn take(&mut self, mut dropped: impl FnMut(u32)) -> Option<Candidate> {
        let first = (0..self.candidates.len())
            .min_by(|a, b| self.candidates[*a].goes_before(&self.candidates[*b]))?;
        let first = self.candidates.swap_remove(first);
        if self.candidates.len() > POOL {
            self.candidates.select_nth_unstable_by(POOL, Candidate::goes_before);
            self.candidates.drain(POOL..).for_each(|candidate| dropped(candidate.slot));
        }
        Some(first)
    }
}
