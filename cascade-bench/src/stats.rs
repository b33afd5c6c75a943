//! Medians and percentiles of repeated measurements.

use serde::{Deserialize, Serialize};

/// Smallest, middle and largest of the repetitions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Smallest.
    pub min: f64,
    /// Middle; mean of the two in the middle when their number is even.
    pub median: f64,
    /// Largest.
    pub max: f64,
}

impl Spread {
    /// Of `samples`; `None` when there is none.
    #[must_use]
    pub fn of(samples: &[f64]) -> Option<Self> {
        let sorted = sorted(samples);
        Some(Self { min: *sorted.first()?, median: median(&sorted), max: *sorted.last()? })
    }
}

/// Percentiles of single operations, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Half of the operations took at most this.
    pub p50: f64,
    /// 99 of 100.
    pub p99: f64,
    /// 999 of 1,000. With fewer operations than that, the slowest.
    pub p999: f64,
}

impl Latency {
    /// Of durations in microseconds; `None` when there is none.
    #[must_use]
    pub fn of(samples_us: &[f64]) -> Option<Self> {
        let sorted = sorted(samples_us);
        let at = |share| percentile(&sorted, share);
        Some(Self { p50: at(0.5)?, p99: at(0.99)?, p999: at(0.999)? })
    }
}

/// The smallest sample that at least `share` (0 to 1) of all samples do not exceed (nearest rank); `None` of nothing.
#[must_use]
pub fn percentile(sorted: &[f64], share: f64) -> Option<f64> {
    // The tolerance keeps 0.999 * 1000 at rank 999 in spite of rounding.
    let rank = (share * sorted.len() as f64 - 1e-9).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied()
}

fn sorted(samples: &[f64]) -> Vec<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { f64::midpoint(sorted[middle - 1], sorted[middle]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_odd_and_even_numbers() {
        let odd = Spread::of(&[3.0, 1.0, 2.0]).unwrap();
        assert_eq!(odd, Spread { min: 1.0, median: 2.0, max: 3.0 });
        assert_eq!(Spread::of(&[4.0, 1.0, 2.0, 3.0]).unwrap().median, 2.5);
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn percentiles_are_nearest_ranks() {
        let samples: Vec<f64> = (1..=1000).rev().map(f64::from).collect();
        let latency = Latency::of(&samples).unwrap();
        assert_eq!(latency, Latency { p50: 500.0, p99: 990.0, p999: 999.0 });
        assert_eq!(Latency::of(&[7.0]).unwrap(), Latency { p50: 7.0, p99: 7.0, p999: 7.0 });
        assert_eq!(Latency::of(&[]), None);
    }
}
