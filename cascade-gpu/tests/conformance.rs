//! The conformance suite and the oracle over the tier on simulated devices.

#![allow(clippy::unwrap_used, reason = "clippy sees helpers of an integration test as library code")]

use std::sync::Arc;

use cascade_core::testing::conformance;
use cascade_core::testing::oracle::{self, HalfPut, Subject, Survival};
use cascade_core::tier::Addressable;
use cascade_gpu::device::Device;
use cascade_gpu::engine;
use cascade_gpu::sim::SimDevice;
use cascade_gpu::tier::{GpuTier, Options};

/// Small staging, so that blocks of some MiB go through in several windows.
fn options(budget_bytes: u64, slab_bytes: usize) -> Options {
    let engine = engine::Options { staging_bytes: 192 << 10, calibrate: false, ..engine::Options::default() };
    Options { budget_bytes, slab_bytes, engine }
}

fn tier(capacity_bytes: u64, slabs: u64) -> Arc<dyn Addressable> {
    let device: Arc<dyn Device> = SimDevice::new(2 * capacity_bytes);
    let slab_bytes = usize::try_from(capacity_bytes / slabs).unwrap();
    Arc::new(GpuTier::new(&[device], &options(capacity_bytes, slab_bytes)).unwrap())
}

#[test]
fn one_slab_conforms() {
    conformance::addressable(&|capacity_bytes| tier(capacity_bytes, 1));
}

#[test]
fn several_slabs_conform() {
    conformance::addressable(&|capacity_bytes| tier(capacity_bytes, 4));
}

/// A tier in memory: a reopen or crash loses everything.
struct Forgetful(Arc<dyn Addressable>);

impl Subject for Forgetful {
    fn tier(&self) -> Arc<dyn Addressable> {
        Arc::clone(&self.0)
    }

    fn reopen(&mut self) {
        self.0 = tier(1 << 20, 2);
    }

    fn crash(&mut self, _half: &HalfPut) -> Survival {
        self.reopen();
        Survival::Unknown
    }
}

#[test]
fn the_tier_keeps_to_the_model() {
    oracle::check(300, || Box::new(Forgetful(tier(1 << 20, 2))));
}
