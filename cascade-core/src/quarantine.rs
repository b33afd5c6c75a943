//! Extents that hardware may still write to: kept out of use, bounded and counted.

use std::collections::VecDeque;
use std::time::Duration;

/// A bounded list of extents, each released after a grace period.
#[derive(Debug)]
pub struct Quarantine<T> {
    items: VecDeque<(Duration, u64, T)>,
    bytes: u64,
    grace: Duration,
    limit_bytes: u64,
}

impl<T> Quarantine<T> {
    /// Keeps extents for `grace`; reports itself full beyond `limit_bytes`.
    #[must_use]
    pub fn new(grace: Duration, limit_bytes: u64) -> Self {
        Self { items: VecDeque::new(), bytes: 0, grace, limit_bytes }
    }

    /// Adds an extent of `bytes` at time `now`. It is always taken: an extent in doubt is never reused early.
    pub fn push(&mut self, now: Duration, bytes: u64, item: T) {
        self.items.push_back((now + self.grace, bytes, item));
        self.bytes += bytes;
    }

    /// Whether the bound is reached: start no further transfer until something is released.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.bytes >= self.limit_bytes
    }

    /// The next extent whose grace period is over at `now`.
    pub fn pop_expired(&mut self, now: Duration) -> Option<T> {
        let (until, _, _) = self.items.front()?;
        if *until > now {
            return None;
        }
        let (_, bytes, item) = self.items.pop_front()?;
        self.bytes -= bytes;
        Some(item)
    }

    /// Bytes kept out of use.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extents_come_back_after_the_grace_period_only() {
        let mut quarantine = Quarantine::new(Duration::from_secs(10), 100);
        quarantine.push(Duration::from_secs(1), 60, "a");
        assert!(!quarantine.is_full());
        quarantine.push(Duration::from_secs(2), 60, "b");
        assert!(quarantine.is_full());
        assert_eq!(quarantine.pop_expired(Duration::from_secs(10)), None);
        assert_eq!(quarantine.pop_expired(Duration::from_secs(11)), Some("a"));
        assert_eq!(quarantine.pop_expired(Duration::from_secs(11)), None);
        assert_eq!(quarantine.bytes(), 60);
    }
}
