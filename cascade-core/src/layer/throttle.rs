//! A bound on bytes a second.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::{Layer, as_inner, bytes_of, not_done, pass_on};
use crate::batch::{Batch, Refusal, Ticket};
use crate::clock::{Clock, SystemClock};
use crate::tier::{MissReason, Tier};

#[derive(Debug)]
struct Bucket {
    /// May be negative after an operation longer than the bucket.
    tokens: f64,
    filled: Duration,
}

/// Lets so many bytes a second through a tier, after a burst; beyond them the answer is `Throttled`, at once. An operation that is
/// longer than the burst goes when the bucket is full, and those after it wait for its tokens too. Clones share the bucket.
#[derive(Clone, Debug)]
pub struct ThrottleLayer {
    bytes_per_second: f64,
    burst_bytes: f64,
    clock: Arc<dyn Clock>,
    bucket: Arc<Mutex<Bucket>>,
    throttled: Arc<AtomicU64>,
}

impl ThrottleLayer {
    /// `bytes_per_second` in the long run, `burst_bytes` at once.
    #[must_use]
    pub fn new(bytes_per_second: u64, burst_bytes: u64) -> Self {
        Self::on_clock(bytes_per_second, burst_bytes, Arc::new(SystemClock::default()))
    }

    /// The same by a clock of the caller's.
    #[must_use]
    pub fn on_clock(bytes_per_second: u64, burst_bytes: u64, clock: Arc<dyn Clock>) -> Self {
        let burst_bytes = burst_bytes as f64;
        let bucket = Bucket { tokens: burst_bytes, filled: clock.now() };
        Self {
            bytes_per_second: bytes_per_second as f64,
            burst_bytes,
            clock,
            bucket: Arc::new(Mutex::new(bucket)),
            throttled: Arc::default(),
        }
    }

    /// Operations that were answered `Throttled`.
    #[must_use]
    pub fn throttled(&self) -> u64 {
        self.throttled.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: u64) -> bool {
        let mut bucket = self.bucket.lock();
        let now = self.clock.now();
        let gained = now.saturating_sub(bucket.filled).as_secs_f64() * self.bytes_per_second;
        (bucket.tokens, bucket.filled) = ((bucket.tokens + gained).min(self.burst_bytes), now);
        let wanted = bytes as f64;
        let is_in = bucket.tokens >= wanted.min(self.burst_bytes);
        if is_in {
            bucket.tokens -= wanted;
        } else {
            self.throttled.fetch_add(1, Ordering::Relaxed);
        }
        is_in
    }
}

impl Layer for ThrottleLayer {
    fn wrap(&self, inner: Arc<dyn Tier>) -> Arc<dyn Tier> {
        Arc::new(Throttle { inner, layer: self.clone() })
    }
}

#[derive(Debug)]
struct Throttle {
    inner: Arc<dyn Tier>,
    layer: ThrottleLayer,
}

impl Tier for Throttle {
    as_inner!();
    as_inner!(lookup);

    fn submit(&self, batch: Batch) -> Ticket {
        pass_on(&*self.inner, batch, |op| {
            let bytes = bytes_of(op);
            let is_in = bytes == 0 || self.layer.take(bytes);
            (!is_in).then(|| not_done(op, MissReason::Throttled, Refusal::Throttled))
        })
    }
}
