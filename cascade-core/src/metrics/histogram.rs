//! Durations counted in buckets that grow with them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Buckets of each doubling: a bucket is at most a quarter of its lower bound wide.
const PARTS: usize = 4;
/// Doublings from 4 ns on; what is beyond the last of them (2^39 ns, nine minutes) counts in the last bucket.
const DOUBLINGS: usize = 37;
/// Buckets in all: 0 to 3 ns have one each.
pub const BUCKETS: usize = PARTS * (DOUBLINGS + 1);

/// Counts durations, from any number of threads at once: one atomic addition to a bucket and one to the sum.
///
/// ```
/// use cascade_core::metrics::Histogram;
/// use std::time::Duration;
/// let latency = Histogram::default();
/// (1..=100).for_each(|us| latency.record(Duration::from_micros(us)));
/// let seen = latency.snapshot();
/// assert_eq!(seen.count(), 100);
/// let p99 = seen.quantile(0.99).unwrap();
/// assert!(p99 >= Duration::from_micros(99) && p99 <= Duration::from_micros(124));
/// ```
#[derive(Debug)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    sum_ns: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: std::array::from_fn(|_| AtomicU64::new(0)), sum_ns: AtomicU64::new(0) }
    }
}

impl Histogram {
    /// Counts one duration.
    #[inline]
    pub fn record(&self, took: Duration) {
        self.record_many(took, 1);
    }

    /// Counts `times` operations that took `each`.
    #[inline]
    pub fn record_many(&self, each: Duration, times: u64) {
        let ns = u64::try_from(each.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket(ns)].fetch_add(times, Ordering::Relaxed);
        self.sum_ns.fetch_add(ns.saturating_mul(times), Ordering::Relaxed);
    }

    /// What was counted until now.
    #[must_use]
    pub fn snapshot(&self) -> Distribution {
        let counts = std::array::from_fn(|at| self.buckets[at].load(Ordering::Relaxed));
        Distribution { counts, sum_ns: self.sum_ns.load(Ordering::Relaxed) }
    }
}

/// The counts of a [`Histogram`] at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Distribution {
    counts: [u64; BUCKETS],
    sum_ns: u64,
}

impl Default for Distribution {
    fn default() -> Self {
        Self { counts: [0; BUCKETS], sum_ns: 0 }
    }
}

impl Distribution {
    /// What others have counted in buckets of the same bounds ([`bucket_of`]), and the sum of the durations in nanoseconds.
    #[must_use]
    pub fn from_counts(counts: [u64; BUCKETS], sum_ns: u64) -> Self {
        Self { counts, sum_ns }
    }

    /// Durations counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// The sum of all durations.
    #[must_use]
    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.sum_ns)
    }

    /// The mean; `None` of nothing.
    #[must_use]
    pub fn mean(&self) -> Option<Duration> {
        self.sum_ns.checked_div(self.count()).map(Duration::from_nanos)
    }

    /// A duration that `share` (0 to 1) of all do not exceed: the upper bound of its bucket, so at most a quarter too long.
    /// `None` of nothing.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let count = self.count();
        let rank = ((share.clamp(0.0, 1.0) * count as f64).ceil() as u64).max(1);
        let mut below = 0_u64;
        let reached = |counted: &u64| {
            below = below.saturating_add(*counted);
            below >= rank
        };
        let at = self.counts.iter().position(reached)?;
        Some(Duration::from_nanos(bounds(at).1))
    }

    /// Lower and upper bound, both included, and count of each bucket that holds something, shortest first.
    pub fn buckets(&self) -> impl Iterator<Item = (Duration, Duration, u64)> + '_ {
        let filled = self.counts.iter().enumerate().filter(|(_, count)| **count > 0);
        filled.map(|(at, count)| {
            let (low, high) = bounds(at);
            (Duration::from_nanos(low), Duration::from_nanos(high), *count)
        })
    }

    /// Adds what `other` counted.
    pub fn add(&mut self, other: &Self) {
        self.counts
            .iter_mut()
            .zip(other.counts)
            .for_each(|(count, more)| *count = count.saturating_add(more));
        self.sum_ns = self.sum_ns.saturating_add(other.sum_ns);
    }

    /// What was counted since `earlier`, a snapshot of the same histogram.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let counts = std::array::from_fn(|at| self.counts[at].saturating_sub(earlier.counts[at]));
        Self { counts, sum_ns: self.sum_ns.saturating_sub(earlier.sum_ns) }
    }
}

/// The bucket of a duration, of [`BUCKETS`]: at most a quarter of its lower bound wide.
#[must_use]
pub fn bucket_of(took: Duration) -> usize {
    bucket(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX))
}

/// The bucket of a duration in nanoseconds.
fn bucket(ns: u64) -> usize {
    if ns < PARTS as u64 {
        return ns as usize;
    }
    let doubling = ns.ilog2() as usize;
    let part = (ns >> (doubling - 2)) as usize & (PARTS - 1);
    ((doubling - 1) * PARTS + part).min(BUCKETS - 1)
}

/// Shortest and longest duration of a bucket in nanoseconds.
fn bounds(at: usize) -> (u64, u64) {
    if at < PARTS {
        return (at as u64, at as u64);
    }
    let (doubling, part) = (at / PARTS + 1, at % PARTS);
    let width = 1 << (doubling - 2);
    let low = (PARTS + part) as u64 * width;
    (low, if at == BUCKETS - 1 { u64::MAX } else { low + width - 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_cover_every_duration_once_and_are_narrow() {
        let mut next = 0;
        for at in 0..BUCKETS {
            let (low, high) = bounds(at);
            assert_eq!(low, next, "bucket {at} begins where the one before ends");
            assert_eq!((bucket(low), bucket(high)), (at, at));
            if at < BUCKETS - 1 {
                assert!(high - low <= low / 4, "{low}..={high}");
                next = high + 1;
            }
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_never_too_short() {
        let histogram = Histogram::default();
        assert_eq!(histogram.snapshot().quantile(0.5), None);
        assert_eq!(histogram.snapshot().mean(), None);
        (1..=1000).for_each(|us| histogram.record(Duration::from_micros(us)));
        let seen = histogram.snapshot();
        for (share, true_us) in [(0.0, 1), (0.5, 500), (0.99, 990), (1.0, 1000)] {
            let found = seen.quantile(share).expect("there are some");
            let exact = Duration::from_micros(true_us);
            assert!(found >= exact && found <= exact + exact / 4, "{share}: {found:?} for {exact:?}");
        }
        assert_eq!(seen.mean(), Some(Duration::from_nanos(500_500)));
    }

    #[test]
    fn distributions_add_up_and_subtract() {
        let histogram = Histogram::default();
        histogram.record_many(Duration::from_micros(5), 3);
        let first = histogram.snapshot();
        histogram.record(Duration::from_millis(5));
        let both = histogram.snapshot();
        let mut sum = both.since(&first);
        assert_eq!(sum.count(), 1);
        sum.add(&first);
        assert_eq!(sum, both);
        assert_eq!(both.buckets().map(|(_, _, count)| count).sum::<u64>(), 4);
    }
}
