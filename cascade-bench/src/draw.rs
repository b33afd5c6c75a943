//! Random draws of the workloads: repeatable from a seed, and without a library, so that a workload stays what it was.

use crate::units::format_size;

/// A sequence of random numbers (splitmix64).
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// The sequence of `seed`; near seeds give unrelated sequences.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A number from 0 on and less than `end`, which is not 0.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        (u128::from(self.bits()) * u128::from(end) >> 64) as u64
    }

    /// A number from 0 on and less than 1.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A number of the standard normal distribution (Box and Muller).
    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }
}

/// Sizes whose logarithm is normally distributed; those outside of the bounds are drawn again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct LogNormal {
    /// Half of the sizes are smaller, before the bounds are applied.
    pub(crate) median_bytes: u64,
    /// Standard deviation of the natural logarithm.
    pub(crate) sigma: f64,
    /// Smallest size.
    pub(crate) least_bytes: u64,
    /// Largest size.
    pub(crate) most_bytes: u64,
}

impl LogNormal {
    /// A size in bytes.
    pub(crate) fn draw(&self, random: &mut Random) -> u64 {
        loop {
            let size = self.median_bytes as f64 * (self.sigma * random.normal()).exp();
            if (self.least_bytes as f64..=self.most_bytes as f64).contains(&size) {
                return size as u64;
            }
        }
    }

    /// The parameters, for people.
    pub(crate) fn text(&self) -> String {
        format!(
            "log-normal, median {}, sigma {}, {} to {}",
            format_size(self.median_bytes),
            self.sigma,
            format_size(self.least_bytes),
            format_size(self.most_bytes)
        )
    }
}

/// Ranks from 0 on, rank `r` with a probability in proportion to `1 / (r + 1)^s`.
#[derive(Clone, Debug)]
pub(crate) struct Zipf {
    /// Probability of each rank and all before it.
    cumulative: Vec<f64>,
}

impl Zipf {
    /// Over `ranks` ranks (at least one).
    pub(crate) fn new(ranks: usize, s: f64) -> Self {
        let mut sum = 0.0;
        let mut cumulative: Vec<f64> = (1..=ranks.max(1))
            .map(|rank| {
                sum += (rank as f64).powf(-s);
                sum
            })
            .collect();
        cumulative.iter_mut().for_each(|share| *share /= sum);
        Self { cumulative }
    }

    /// A rank.
    pub(crate) fn draw(&self, random: &mut Random) -> usize {
        let place = random.unit();
        self.cumulative.partition_point(|share| *share <= place).min(self.cumulative.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_the_stated_median_and_spread_and_keep_to_the_bounds() {
        let sizes = LogNormal { median_bytes: 64 << 10, sigma: 1.5, least_bytes: 1, most_bytes: 1 << 40 };
        let mut random = Random::new(1);
        let logs: Vec<f64> = (0..100_000).map(|_| (sizes.draw(&mut random) as f64).ln()).collect();
        let mean = logs.iter().sum::<f64>() / logs.len() as f64;
        let variance = logs.iter().map(|log| (log - mean).powi(2)).sum::<f64>() / logs.len() as f64;
        assert!((mean - 65_536_f64.ln()).abs() < 0.02, "{mean}");
        assert!((variance.sqrt() - 1.5).abs() < 0.02, "{variance}");

        let bounded = LogNormal { least_bytes: 32 << 10, most_bytes: 128 << 10, ..sizes };
        let drawn: Vec<u64> = (0..10_000).map(|_| bounded.draw(&mut random)).collect();
        assert!(drawn.iter().all(|size| (32 << 10..=128 << 10).contains(size)));
        // Symmetric bounds around the median keep it.
        let above = drawn.iter().filter(|size| **size > 64 << 10).count();
        assert!((4_800..5_200).contains(&above), "{above} of 10000 above the median");
    }

    #[test]
    fn zipf_ranks_come_as_often_as_the_law_says() {
        let (ranks, s, draws) = (1000, 0.99, 400_000_u32);
        let zipf = Zipf::new(ranks, s);
        let mut random = Random::new(2);
        let mut counts = vec![0_u32; ranks];
        (0..draws).for_each(|_| counts[zipf.draw(&mut random)] += 1);
        let harmonic: f64 = (1..=ranks).map(|rank| (rank as f64).powf(-s)).sum();
        for rank in [0, 1, 9, 99] {
            let expected = f64::from(draws) * ((rank + 1) as f64).powf(-s) / harmonic;
            let found = f64::from(counts[rank]);
            // Five standard deviations of a count.
            assert!((found - expected).abs() < 5.0 * expected.sqrt(), "rank {rank}: {found}, {expected}");
        }
        let last: u32 = counts[900..].iter().sum();
        assert!(last > 0, "the tail is drawn too");
    }

    #[test]
    fn draws_repeat_and_stay_in_range() {
        let (mut a, mut b) = (Random::new(7), Random::new(7));
        assert!((0..1000).all(|_| a.bits() == b.bits()));
        assert!((0..1000).all(|_| a.below(3) < 3 && a.unit() < 1.0));
        assert!((0..100).all(|_| Zipf::new(1, 0.99).draw(&mut a) == 0));
    }
}
