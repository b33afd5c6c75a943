//! Distributions of times.

use std::time::Duration;

/// Sorted times.
pub struct Times(Vec<Duration>);

impl Times {
    pub fn new(mut times: Vec<Duration>) -> Self {
        assert!(!times.is_empty());
        times.sort_unstable();
        Self(times)
    }

    /// Milliseconds that `share` of all take at most.
    pub fn quantile(&self, share: f64) -> f64 {
        let rank = (self.0.len() as f64 * share).ceil() as usize;
        self.0[rank.clamp(1, self.0.len()) - 1].as_secs_f64() * 1e3
    }

    pub fn max(&self) -> f64 {
        self.quantile(1.0)
    }

    /// Prints the distribution.
    pub fn print(&self, what: &str) {
        let [p50, p90, p99] = [0.5, 0.9, 0.99].map(|share| self.quantile(share));
        let n = self.0.len();
        println!(
            "{what}: n {n}, p50 {p50:.2} ms, p90 {p90:.2} ms, p99 {p99:.2} ms, max {:.2} ms",
            self.max()
        );
    }
}
