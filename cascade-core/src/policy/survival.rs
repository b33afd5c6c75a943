//! How long blocks stay unused before they are used again: counts, and hazards with little evidence shrunk to more.

use super::heat::{Heat, Kind};
use super::worth::WorthTable;

/// Half octaves of age that are told apart: all of 16 bits.
pub(super) const BUCKETS: usize = 34;
/// Uses that are told apart: 0, 1, 2, 3-4, 5-8, more.
const USES: usize = 6;
/// Classes of blocks.
pub(super) const CLASSES: usize = USES * Kind::COUNT;
/// Evidence is trusted when it exceeds this many blocks: those of one request go together, and say little more than one.
const PRIOR: f64 = 64.0;
/// Hazard times age where nothing was seen: every second block is used again within a tripled age.
const PRIOR_HAZARD: f64 = 0.5;

/// Half octave of `age`: 0, 1, 2-2, 3-4, 5-6, ...
#[inline]
pub(super) fn bucket(age: u32) -> usize {
    let next = age.saturating_add(1);
    let octave = next.ilog2();
    let half = if octave == 0 { 0 } else { next >> (octave - 1) & 1 };
    ((2 * octave + half) as usize).min(BUCKETS - 1)
}

/// First age of `bucket`, in ticks.
#[inline]
pub(super) fn edge(bucket: usize) -> f64 {
    let octave = (1_u64 << (bucket / 2)) as f64;
    (if bucket % 2 == 1 { 1.5 * octave } else { octave }) - 1.0
}

#[inline]
pub(super) fn width(bucket: usize) -> f64 {
    edge(bucket + 1) - edge(bucket)
}

#[inline]
pub(super) fn class(heat: Heat) -> usize {
    let uses = match heat.uses() {
        few @ 0..=2 => few as usize,
        3..=4 => 3,
        5..=8 => 4,
        _ => 5,
    };
    uses * Kind::COUNT + heat.kind().index()
}

/// A value for each bucket of age.
pub(super) type Ages = [f64; BUCKETS];

/// Counts of one class of blocks.
#[derive(Clone, Copy, Debug)]
struct Counts {
    /// Blocks used again at this age.
    uses: Ages,
    /// Blocks whose wait ended at this age, in use or out of sight.
    ends: Ages,
    /// Ticks that those spent in this last bucket of theirs.
    rests: Ages,
}

impl Counts {
    const NONE: Self = Self { uses: [0.0; BUCKETS], ends: [0.0; BUCKETS], rests: [0.0; BUCKETS] };

    fn add(&mut self, other: &Self) {
        let all = |from: &mut Ages, of: &Ages| from.iter_mut().zip(of).for_each(|(a, b)| *a += b);
        all(&mut self.uses, &other.uses);
        all(&mut self.ends, &other.ends);
        all(&mut self.rests, &other.rests);
    }

    /// Block-ticks spent at each age.
    fn exposures(&self) -> Ages {
        let (mut exposures, mut beyond) = ([0.0; BUCKETS], 0.0);
        for bucket in (0..BUCKETS).rev() {
            exposures[bucket] = self.rests[bucket] + beyond * width(bucket);
            beyond += self.ends[bucket];
        }
        exposures
    }

    /// Hazards, shrunk to those of `base` scaled as a whole to what was seen of this class.
    fn hazards(&self, base: &Ages) -> Ages {
        let exposures = self.exposures();
        let expected: f64 = exposures.iter().zip(base).map(|(ticks, hazard)| ticks * hazard).sum();
        let seen: f64 = self.uses.iter().sum();
        let scale = (seen + PRIOR) / (expected + PRIOR);
        std::array::from_fn(|bucket| {
            (self.uses[bucket] + PRIOR) / (exposures[bucket] + PRIOR / (base[bucket] * scale))
        })
    }

    /// Hazards, shrunk at each age to a fall by `1 / age` from the age before.
    fn hazards_of_all(&self) -> Ages {
        let exposures = self.exposures();
        let middle = |bucket: usize| f64::midpoint(edge(bucket), edge(bucket + 1)) + 1.0;
        let mut hazards = [0.0; BUCKETS];
        for bucket in 0..BUCKETS {
            let prior = match bucket.checked_sub(1) {
                None => PRIOR_HAZARD / middle(0),
                Some(before) => hazards[before] * middle(before) / middle(bucket),
            };
            hazards[bucket] = (self.uses[bucket] + PRIOR) / (exposures[bucket] + PRIOR / prior);
        }
        hazards
    }
}

/// What was seen of the waits of blocks, class by class.
#[derive(Clone, Debug)]
pub struct Survival {
    classes: Box<[Counts; CLASSES]>,
}

impl Default for Survival {
    fn default() -> Self {
        Self { classes: Box::new([Counts::NONE; CLASSES]) }
    }
}

impl Survival {
    /// A block in state `heat` was used again `age` ticks after its last touch (`is_use`), or went out of sight then.
    pub fn end(&mut self, heat: Heat, age: u32, is_use: bool) {
        self.wait(heat, age, 1.0);
        if is_use {
            self.classes[class(heat)].uses[bucket(age)] += 1.0;
        }
    }

    /// `blocks` blocks in state `heat` have waited for `age` ticks.
    pub fn wait(&mut self, heat: Heat, age: u32, blocks: f64) {
        let (counts, bucket) = (&mut self.classes[class(heat)], bucket(age));
        counts.ends[bucket] += blocks;
        // The moment lies somewhere within its tick.
        counts.rests[bucket] += blocks * (f64::from(age) - edge(bucket)).max(0.5);
    }

    /// Waits that were seen, faded.
    #[must_use]
    pub fn evidence(&self) -> f64 {
        self.classes.iter().flat_map(|counts| &counts.ends).sum()
    }

    /// Forgets a share of everything: what is new weighs more.
    pub fn fade(&mut self, keep: f64) {
        for counts in self.classes.iter_mut() {
            for ages in [&mut counts.uses, &mut counts.ends, &mut counts.rests] {
                ages.iter_mut().for_each(|count| *count *= keep);
            }
        }
    }

    /// Worth of every class at every age.
    #[must_use]
    pub fn worth(&self) -> WorthTable {
        let mut all = Counts::NONE;
        self.classes.iter().for_each(|counts| all.add(counts));
        let of_all = all.hazards_of_all();
        let mut hazards = [[0.0; BUCKETS]; CLASSES];
        for uses in 0..USES {
            let kinds = uses * Kind::COUNT..(uses + 1) * Kind::COUNT;
            let mut alike = Counts::NONE;
            self.classes[kinds.clone()].iter().for_each(|counts| alike.add(counts));
            let of_alike = alike.hazards(&of_all);
            for class in kinds {
                hazards[class] = self.classes[class].hazards(&of_alike);
            }
        }
        WorthTable::new(&hazards)
    }
}
