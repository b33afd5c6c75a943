//! Layers change nothing while there is nothing to do, and do what they say when there is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cascade_core::Result;
use cascade_core::batch::{Batch, Completer, Op, Outcome, Refusal, Ticket, ticket};
use cascade_core::clock::ManualClock;
use cascade_core::id::BlockId;
use cascade_core::layer::{
    BreakerConfig, BreakerLayer, BreakerState, Layer, MeterLayer, ThrottleLayer, VerifyLayer, stack,
};
use cascade_core::memory::{HostBuffer, Piece};
use cascade_core::memory_tier::MemoryTier;
use cascade_core::metrics::TierStats;
use cascade_core::testing::conformance;
use cascade_core::testing::fault::{Fault, FaultLayer};
use cascade_core::tier::{Capability, Lookup, MissReason, PutMeta, Tier};
use parking_lot::Mutex;

fn over_memory(layers: &[&dyn Layer]) {
    conformance::tier(&|capacity_bytes| stack(Arc::new(MemoryTier::new(capacity_bytes)), layers));
}

#[test]
fn a_meter_conforms() {
    let meter = MeterLayer::default();
    over_memory(&[&meter]);
    let metered = meter.metered();
    assert!(metered.count("stored") > 100 && metered.count("fetched") > 100, "{metered:?}");
    let fetches: u64 = metered.outcomes.iter().filter(|(name, _)| **name == "fetched").map(|(_, n)| n).sum();
    assert!(metered.fetch.count() >= fetches && metered.bytes_out > 0 && metered.store.count() > 0);
}

#[test]
fn verification_conforms() {
    let verify = VerifyLayer::default();
    over_memory(&[&verify]);
    assert!(verify.verified() > 100 && verify.corrupt() == 0 && verify.unverified() == 0);
}

#[test]
fn a_wide_throttle_conforms() {
    let throttle = ThrottleLayer::new(1 << 60, 1 << 60);
    over_memory(&[&throttle]);
    assert_eq!(throttle.throttled(), 0);
}

#[test]
fn a_closed_breaker_conforms() {
    let breaker = BreakerLayer::new(BreakerConfig::default());
    over_memory(&[&breaker]);
    assert_eq!(breaker.breaker().stats().opened, 0);
}

#[test]
fn all_of_them_together_conform() {
    let (verify, meter) = (VerifyLayer::default(), MeterLayer::default());
    let (throttle, fault) = (ThrottleLayer::new(1 << 60, 1 << 60), FaultLayer::new(1));
    let breaker = BreakerLayer::new(BreakerConfig::default());
    over_memory(&[&fault, &verify, &throttle, &breaker, &meter]);
    assert!(meter.metered().count("stored") > 100);
}

fn id(number: u8) -> BlockId {
    BlockId::content(&[number])
}

fn put(tier: &dyn Tier, number: u8, len: usize) -> Outcome {
    let from = Piece::shared(vec![number; len].into()).into();
    one(tier, Op::Store { id: id(number), from, meta: PutMeta::default() })
}

fn get(tier: &dyn Tier, number: u8, len: usize) -> (Outcome, Vec<u8>) {
    let mut buffer = HostBuffer::zeroed(len);
    let outcome = one(tier, Op::Fetch { id: id(number), into: buffer.piece().into() });
    (outcome, buffer.bytes_mut().map(|bytes| bytes.to_vec()).unwrap_or_default())
}

fn one(tier: &dyn Tier, op: Op) -> Outcome {
    let outcomes = tier.submit(Batch::new(vec![op])).wait(Instant::now() + Duration::from_secs(60));
    outcomes.and_then(|outcomes| outcomes.first().copied()).unwrap_or(Outcome::Cancelled)
}

#[test]
fn damage_on_the_way_is_a_miss_and_never_a_hit() {
    let fault = FaultLayer::new(5).rate(500, Fault::FlipBit);
    let verify = VerifyLayer::default();
    let tier = stack(Arc::new(MemoryTier::new(1 << 20)), &[&fault, &verify]);
    let mut missed = 0;
    for number in 0..100 {
        assert_eq!(put(&*tier, number, 3000), Outcome::Stored);
        // Longer than the block: what is behind it has no part in its digest.
        let (outcome, bytes) = get(&*tier, number, 3001);
        match outcome {
            Outcome::Fetched(_) => assert!(bytes[..3000].iter().all(|byte| *byte == number)),
            other => {
                assert_eq!(other, Outcome::Miss(MissReason::Corrupt));
                assert_eq!(get(&*tier, number, 3000).0, Outcome::Miss(MissReason::Absent), "it was dropped");
                missed += 1;
            }
        }
    }
    assert!(missed > 20 && verify.corrupt() == missed, "{missed}");
}

#[test]
fn a_throttle_lets_a_burst_through_and_then_so_much_a_second() {
    let clock = Arc::new(ManualClock::default());
    let throttle = ThrottleLayer::on_clock(1000, 3000, Arc::clone(&clock) as _);
    let tier = throttle.wrap(Arc::new(MemoryTier::new(1 << 20)));
    let throttled = Outcome::Refused(Refusal::Throttled);
    let puts: Vec<_> = (0..4).map(|number| put(&*tier, number, 1000)).collect();
    assert_eq!(puts, [Outcome::Stored, Outcome::Stored, Outcome::Stored, throttled]);
    assert_eq!(get(&*tier, 0, 1000).0, Outcome::Miss(MissReason::Throttled));
    clock.advance(Duration::from_secs(1));
    assert!(matches!(get(&*tier, 0, 1000).0, Outcome::Fetched(_)));
    clock.advance(Duration::from_secs(60));
    assert_eq!(put(&*tier, 10, 9000), Outcome::Stored, "longer than the burst: when the bucket is full");
    clock.advance(Duration::from_secs(6));
    assert_eq!(put(&*tier, 11, 1), throttled, "its tokens are waited for");
    clock.advance(Duration::from_secs(1));
    assert_eq!(put(&*tier, 11, 1), Outcome::Stored);
    assert_eq!(throttle.throttled(), 3);
    assert_eq!(one(&*tier, Op::Delete { id: id(11) }), Outcome::Deleted, "moves no bytes");
}

fn quick() -> (Arc<ManualClock>, BreakerLayer) {
    let clock = Arc::new(ManualClock::default());
    let seconds = Duration::from_secs;
    let config = BreakerConfig { failures: 3, window: seconds(10), timeout: seconds(5), rest: seconds(2) };
    (Arc::clone(&clock), BreakerLayer::on_clock(config, clock))
}

#[test]
fn a_breaker_opens_after_failures_and_closes_when_a_probe_succeeds() {
    let (clock, layer) = quick();
    let sick = Fault::Miss(MissReason::Unavailable);
    let fault = (0..5).fold(FaultLayer::new(0), |fault, n| fault.nth(n, sick));
    let tier = stack(Arc::new(MemoryTier::new(1 << 20)), &[&fault, &layer]);
    let unavailable = Outcome::Miss(MissReason::Unavailable);
    // One failure is older than the window when the others come.
    assert_eq!(get(&*tier, 0, 1).0, unavailable);
    clock.advance(Duration::from_secs(11));
    for state in [BreakerState::Closed, BreakerState::Closed, BreakerState::Open] {
        assert_eq!(get(&*tier, 0, 1).0, unavailable);
        assert_eq!(layer.breaker().state(), state);
    }
    // Nothing reaches the tier now.
    assert_eq!(put(&*tier, 1, 1), Outcome::Refused(Refusal::Unavailable));
    let mut answers = [Lookup::Pending];
    tier.lookup(&[id(1)], &mut answers);
    assert_eq!((answers[0], fault.injected()), (Lookup::Miss(MissReason::Unavailable), 4));
    clock.advance(Duration::from_secs(2));
    assert_eq!(layer.breaker().state(), BreakerState::HalfOpen);
    assert_eq!(get(&*tier, 0, 1).0, unavailable, "the probe fails");
    assert_eq!((layer.breaker().state(), fault.injected()), (BreakerState::Open, 5));
    clock.advance(Duration::from_secs(2));
    assert_eq!(put(&*tier, 1, 1), Outcome::Stored, "the next one does not");
    assert_eq!(layer.breaker().state(), BreakerState::Closed);
    assert!(matches!(get(&*tier, 1, 1).0, Outcome::Fetched(_)));
    let stats = layer.breaker().stats();
    assert_eq!((stats.opened, stats.failures, stats.probes, stats.kept_out), (2, 5, 2, 2));
}

#[test]
fn a_probe_that_its_client_gives_up_says_nothing_of_the_tier() {
    let (clock, layer) = quick();
    let sick = Fault::Miss(MissReason::Unavailable);
    let fault = (0..3).fold(FaultLayer::new(0), |fault, n| fault.nth(n, sick));
    let fault = fault.nth(3, Fault::Miss(MissReason::Deadline));
    let tier = stack(Arc::new(MemoryTier::new(1 << 20)), &[&fault, &layer]);
    (0..3).for_each(|_| drop(get(&*tier, 0, 1)));
    clock.advance(Duration::from_secs(2));
    let op = Op::Fetch { id: id(1), into: HostBuffer::zeroed(1).piece().into() };
    let impatient =
        Batch { deadline: Some(Instant::now() + Duration::from_millis(1)), ..Batch::new(vec![op]) };
    drop(tier.submit(impatient).wait(Instant::now() + Duration::from_secs(60)));
    assert_eq!(layer.breaker().state(), BreakerState::HalfOpen, "the next one is to tell");
    assert_eq!(put(&*tier, 1, 1), Outcome::Stored);
    assert_eq!(layer.breaker().state(), BreakerState::Closed);
}

/// Answers nothing while it hangs.
#[derive(Debug)]
struct Hanging {
    inner: MemoryTier,
    hangs: AtomicBool,
    asked: Mutex<Vec<(Batch, Completer)>>,
}

impl Tier for Hanging {
    fn capability(&self) -> Capability {
        self.inner.capability()
    }

    fn lookup(&self, ids: &[BlockId], out: &mut [Lookup]) {
        self.inner.lookup(ids, out);
    }

    fn submit(&self, batch: Batch) -> Ticket {
        if !self.hangs.load(Ordering::Relaxed) {
            return self.inner.submit(batch);
        }
        let (ticket, completer) = ticket(batch.ops.len());
        self.asked.lock().push((batch, completer));
        ticket
    }

    fn flush(&self, deadline: Instant) -> Result<()> {
        self.inner.flush(deadline)
    }

    fn stats(&self) -> TierStats {
        self.inner.stats()
    }
}

#[test]
fn a_breaker_opens_when_batches_hang_and_lets_one_through_at_a_time() {
    let (clock, layer) = quick();
    let hanging = Arc::new(Hanging {
        inner: MemoryTier::new(1 << 20),
        hangs: AtomicBool::new(true),
        asked: Mutex::default(),
    });
    let tier = layer.wrap(Arc::clone(&hanging) as _);
    let fetch = || {
        let op = Op::Fetch { id: id(1), into: HostBuffer::zeroed(1).piece().into() };
        tier.submit(Batch::new(vec![op]))
    };
    let hung: Vec<Ticket> = (0..3).map(|_| fetch()).collect();
    clock.advance(Duration::from_secs(6));
    assert_eq!(
        layer.breaker().state(),
        BreakerState::Open,
        "three have taken too long, though none has ended"
    );
    assert!(fetch().poll() && hung.iter().all(|ticket| !ticket.poll()));
    assert!(
        hanging.asked.lock().iter().all(|(batch, _)| batch.deadline.is_some()),
        "each has a deadline below"
    );
    clock.advance(Duration::from_secs(2));
    let probe = fetch();
    assert!(!probe.poll() && fetch().poll(), "one is let through, and no other beside it");
    clock.advance(Duration::from_secs(6));
    assert_eq!(layer.breaker().state(), BreakerState::Open, "the probe hangs too");
    // What hung ends at last; that does not close it, and is not counted twice.
    hanging.hangs.store(false, Ordering::Relaxed);
    hanging.asked.lock().clear();
    assert!(probe.poll() && hung.iter().all(Ticket::poll));
    assert_eq!((layer.breaker().state(), layer.breaker().stats().failures), (BreakerState::Open, 4));
    clock.advance(Duration::from_secs(2));
    assert_eq!(put(&*tier, 1, 1), Outcome::Stored);
    assert_eq!(layer.breaker().state(), BreakerState::Closed);
}
