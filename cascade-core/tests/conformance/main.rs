//! The conformance suite and the oracle over the tiers and layers of this crate, and the proof that both find bugs.

mod broken;
mod layers;

use std::panic::catch_unwind;
use std::sync::Arc;

use broken::{Broken, Bug};
use cascade_core::layer::Layer;
use cascade_core::memory_tier::MemoryTier;
use cascade_core::testing::conformance;
use cascade_core::testing::fault::{Fault, FaultLayer};
use cascade_core::testing::oracle::{self, HalfPut, Subject, Survival};
use cascade_core::tier::Addressable;

const MIB: u64 = 1 << 20;

#[test]
fn memory_tier_conforms() {
    conformance::addressable(&|capacity_bytes| Arc::new(MemoryTier::new(capacity_bytes)));
}

#[test]
fn fault_layer_without_faults_conforms() {
    conformance::tier(&|capacity_bytes| FaultLayer::new(0).wrap(Arc::new(MemoryTier::new(capacity_bytes))));
}

#[test]
fn fault_layer_that_only_delays_conforms() {
    let late = Fault::Delay(std::time::Duration::from_micros(200));
    let layer = FaultLayer::new(3).rate(20, late);
    conformance::tier(&|capacity_bytes| layer.wrap(Arc::new(MemoryTier::new(capacity_bytes))));
    assert!(layer.injected() > 100, "{} delays", layer.injected());
}

#[test]
fn a_layer_that_damages_what_it_delivers_is_caught() {
    let layer = FaultLayer::new(3).rate(500, Fault::FlipBit);
    let found =
        conformance::tier_report(&|capacity_bytes| layer.wrap(Arc::new(MemoryTier::new(capacity_bytes))));
    let caught = |check| found.iter().any(|broken| broken.check == check && broken.rule.contains("(I1)"));
    assert!(caught("round trip of every size") && caught("four threads"), "{found:?}");
}

/// A tier in memory: a reopen or crash loses everything.
struct Forgetful<F: Fn() -> Arc<dyn Addressable>> {
    make: F,
    tier: Arc<dyn Addressable>,
}

impl<F: Fn() -> Arc<dyn Addressable> + 'static> Forgetful<F> {
    fn boxed(make: F) -> Box<dyn Subject> {
        Box::new(Self { tier: make(), make })
    }
}

impl<F: Fn() -> Arc<dyn Addressable>> Subject for Forgetful<F> {
    fn tier(&self) -> Arc<dyn Addressable> {
        Arc::clone(&self.tier)
    }

    fn reopen(&mut self) {
        self.tier = (self.make)();
    }

    fn crash(&mut self, _half: &HalfPut) -> Survival {
        self.reopen();
        Survival::Unknown
    }
}

#[test]
fn memory_tier_keeps_to_the_model() {
    oracle::check(2000, || Forgetful::boxed(|| Arc::new(MemoryTier::new(MIB))));
}

#[test]
fn the_suite_catches_every_planted_bug() {
    for bug in Bug::ALL {
        let found =
            conformance::addressable_report(&|capacity_bytes| Arc::new(Broken::new(capacity_bytes, bug)));
        let checks: Vec<&str> = found.iter().map(|broken| broken.check).collect();
        assert!(
            checks.contains(&bug.caught_by()),
            "{bug:?} must fail `{}`, failed {checks:?}",
            bug.caught_by()
        );
    }
    // Without a bug the same wrapper passes: it is the bugs that are caught.
    conformance::addressable(&|capacity_bytes| Arc::new(Broken::without_bug(capacity_bytes)));
}

#[test]
fn the_suite_panics_with_the_name_of_the_check() {
    let panic = catch_unwind(|| {
        conformance::addressable(&|capacity_bytes| Arc::new(Broken::new(capacity_bytes, Bug::KeepsOldBytes)));
    });
    let message = *panic.expect_err("a stale tier fails").downcast::<String>().expect("a formatted message");
    assert!(
        message.contains("\nreplace by another length: after Replace by another length (I2): other bytes"),
        "{message}"
    );
}

#[test]
fn the_oracle_catches_the_planted_bugs_of_one_thread() {
    for bug in [Bug::KeepsOldBytes, Bug::FreesUnderLease, Bug::LosesUncounted, Bug::LeaksLeases] {
        let caught = catch_unwind(|| {
            oracle::check(300, || Forgetful::boxed(move || Arc::new(Broken::new(MIB, bug))));
        });
        let message = *caught.expect_err("the model must notice").downcast::<String>().expect("a message");
        let steps = message.matches("key").count();
        assert!(steps < 12, "{bug:?} shrinks to a short sequence: {message}");
    }
}
