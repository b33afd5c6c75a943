//! The tier and its copy engine on a GPU. Ignored where there is none: `cargo xtask gpu-kit` carries this program to one.

#![allow(clippy::unwrap_used, reason = "clippy sees helpers of an integration test as library code")]

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use cascade_core::batch::{Batch, Op, Outcome};
use cascade_core::memory::{HostBuffer, Piece, SgList};
use cascade_core::testing::bytes::{content, id};
use cascade_core::testing::conformance;
use cascade_core::tier::{Addressable, PutMeta, Tier};
use cascade_gpu::cuda;
use cascade_gpu::device::{Device, Hbm};
use cascade_gpu::engine::{self, CopyEngine, Digested, Way};
use cascade_gpu::tier::{GpuTier, Options};
use common::{digests, pages, registered};

const MIB: usize = 1 << 20;

/// The first GPU, after a block went in and out: what the driver loads at first is not counted later.
fn device() -> Arc<dyn Device> {
    let device = cuda::open(0).unwrap();
    let engine = CopyEngine::new(&device, options(0, 0).engine).unwrap();
    let hbm = Arc::new(Hbm::new(&device, 1 << 20).unwrap());
    for way in [Way::Kernel { ctas: 1 }, Way::Dma] {
        engine.force(Some(way));
        let from = Piece::shared(content(0, 0, 1 << 20));
        engine.copy(pages(&hbm, 4096, 256), from.into(), 1 << 20, Digested::Destination).unwrap();
    }
    device
}

fn options(budget_bytes: u64, slab_bytes: usize) -> Options {
    let engine = engine::Options { staging_bytes: 192 << 10, calibrate: false, ..engine::Options::default() };
    Options { budget_bytes, slab_bytes, engine }
}

fn conforms(device: &Arc<dyn Device>, slabs: u64) {
    conformance::addressable(&|capacity_bytes| {
        let slab_bytes = usize::try_from(capacity_bytes / slabs).unwrap();
        let devices = [Arc::clone(device)];
        Arc::new(GpuTier::new(&devices, &options(capacity_bytes, slab_bytes)).unwrap())
            as Arc<dyn Addressable>
    });
}

#[test]
#[ignore = "needs a GPU"]
fn the_tier_conforms_and_leaves_nothing() {
    let device = device();
    // The driver keeps some memory for streams that it had once, so the first run is not counted.
    conforms(&device, 1);
    let before = device.free_bytes().unwrap();
    for slabs in [1, 4, 4] {
        conforms(&device, slabs);
    }
    let after = device.free_bytes().unwrap();
    assert!(after + (4 << 20) >= before, "{before} bytes were free before, {after} after");
}

#[test]
#[ignore = "needs a GPU"]
fn digests_of_the_device_are_those_of_the_cpu() {
    let device = device();
    let engine = CopyEngine::new(&device, options(0, 0).engine).unwrap();
    let hbm = Arc::new(Hbm::new(&device, 64 * MIB).unwrap());
    let bytes = content(5, 1, 64 * MIB);
    let whole = Piece::shared(Arc::clone(&bytes));
    for len in [1, 7, 8, 9, 511, 4096, 65_535, 65_536, 65_537, 100_001, MIB + 3, 64 * MIB] {
        let (to, from) = (hbm.piece(0, len).unwrap(), whole.part(0, len).unwrap());
        let got = engine.copy(to.into(), from.into(), len, Digested::Destination).unwrap();
        assert_eq!(got.unwrap(), digests(&bytes[..len]), "{len} bytes");
    }
}

#[test]
#[ignore = "needs a GPU"]
fn digests_on_the_way_are_those_of_the_cpu() {
    let device = device();
    let engine = CopyEngine::new(&device, options(0, 0).engine).unwrap();
    let hbm = Arc::new(Hbm::new(&device, 64 * MIB).unwrap());
    let bytes = content(6, 1, 64 * MIB);
    let (_keep, whole) = registered(&engine, &bytes);
    let mut back = HostBuffer::zeroed(64 * MIB);
    let into = back.piece();
    assert!(engine.registry().add_in_background(&into, Arc::new(back.clone())));
    engine.registry().finish().unwrap();
    let lens = [16, 32, 496, 512, 528, 4096, 4112, 65_520, 65_536, 65_552, MIB + 48, 24 * MIB + 16, 64 * MIB];
    let ways = [Way::Move { ctas: 32 }, Way::Relay { ctas: 32 }, Way::Dma, Way::Tail { ctas: 32 }];
    for (way, len) in ways.into_iter().flat_map(|way| lens.map(|len| (way, len))) {
        engine.force(Some(way));
        let expected = digests(&bytes[..len]);
        let part = |whole: &Piece| SgList::from(whole.part(0, len).unwrap());
        let there = || SgList::from(hbm.piece(0, len).unwrap());
        let got = engine.copy(there(), part(&whole), len, Digested::Destination).unwrap();
        assert_eq!(got.as_ref(), Some(&expected), "{len} bytes in by {way}");
        let lying = engine.digests(&hbm.piece(0, len).unwrap()).unwrap();
        assert_eq!(lying.as_ref(), Some(&expected), "{len} bytes as they lie");
        let got = engine.copy(part(&into), there(), len, Digested::Source).unwrap();
        assert_eq!(got.as_ref(), Some(&expected), "{len} bytes out by {way}");
    }
    drop((engine, into));
    assert!(back.bytes_mut().unwrap() == &*bytes);
}

#[test]
#[ignore = "needs a GPU"]
fn scattered_pages_go_both_ways_by_every_way() {
    let device = device();
    let engine = CopyEngine::new(&device, engine::Options::default()).unwrap();
    println!("calibrated: {}", engine.ways());
    let mut ways = vec![None, Some(Way::Dma), Some(Way::Kernel { ctas: 1 }), Some(Way::Kernel { ctas: 32 })];
    ways.extend([Some(Way::Move { ctas: 1 }), Some(Way::Move { ctas: 32 })]);
    ways.extend([Some(Way::Relay { ctas: 5 }), Some(Way::Relay { ctas: 32 })]);
    ways.extend(device.info().has_batched_copies.then_some(Some(Way::Batch)));
    for way in ways {
        for (page_bytes, count) in
            [(32_768, 130), (4096, 1025), (18_432, 122), (520, 1000), (1001, 500), (12, 99)]
        {
            let len = page_bytes * count;
            let hbm = Arc::new(Hbm::new(&device, len).unwrap());
            let bytes = content(page_bytes as u64, 1, len);
            let walks = page_bytes % 8 == 0 && page_bytes >= 512;
            // Small buffers may share a page of the CPU, which is registered once.
            for is_registered in [len >= 4 * MIB, false] {
                let fresh = CopyEngine::new(&device, options(0, 0).engine).unwrap();
                fresh.force(way);
                let (from, into): (SgList, HostBuffer) = if is_registered {
                    (registered(&fresh, &bytes).1.into(), HostBuffer::zeroed(len))
                } else {
                    (Piece::shared(Arc::clone(&bytes)).into(), HostBuffer::zeroed(len))
                };
                let got =
                    fresh.copy(pages(&hbm, page_bytes, count), from, len, Digested::Destination).unwrap();
                assert_eq!(got, walks.then(|| digests(&bytes)), "{page_bytes} x {count} in by {way:?}");
                let piece = into.piece();
                if is_registered {
                    assert!(fresh.registry().add_in_background(&piece, Arc::new(into.clone())));
                    fresh.registry().finish().unwrap();
                }
                let got = fresh
                    .copy(piece.clone().into(), pages(&hbm, page_bytes, count), len, Digested::Source)
                    .unwrap();
                assert_eq!(got, walks.then(|| digests(&bytes)), "{page_bytes} x {count} out by {way:?}");
                drop((fresh, piece));
                let mut into = into;
                assert!(into.bytes_mut().unwrap() == &*bytes, "{page_bytes} x {count} by {way:?}");
            }
        }
    }
}

#[test]
#[ignore = "needs a GPU"]
fn pageable_memory_of_any_size_goes_both_ways() {
    let device = device();
    let tier = GpuTier::new(&[device], &Options::new(1 << 30)).unwrap();
    for (key, len) in (0..).zip([1, 5, 4095, 65_537, MIB - 1, 8 * MIB, 16 * MIB + 1, 100 * MIB + 7]) {
        let bytes = content(key, 1, len);
        let from = Piece::shared(Arc::clone(&bytes)).into();
        let mut buffer = HostBuffer::zeroed(len);
        let store = Op::Store { id: id(key), from, meta: PutMeta::default() };
        let fetch = Op::Fetch { id: id(key), into: buffer.piece().into() };
        let outcomes =
            tier.submit(Batch::new(vec![store, fetch])).wait(Instant::now() + Duration::from_secs(60));
        assert!(matches!(outcomes.unwrap()[..], [Outcome::Stored, Outcome::Fetched(_)]), "{len} bytes");
        assert!(buffer.bytes_mut().unwrap() == &*bytes, "{len} bytes");
    }
}

#[test]
#[ignore = "needs a GPU"]
fn ten_thousand_cycles_leak_nothing() {
    let device = device();
    let before = device.free_bytes().unwrap();
    let tier = GpuTier::new(&[Arc::clone(&device)], &options(64 << 20, 16 << 20)).unwrap();
    let bytes = content(1, 1, MIB);
    for key in 0..10_000 {
        let from = Piece::shared(Arc::clone(&bytes)).into();
        let store = Op::Store { id: id(key), from, meta: PutMeta::default() };
        let lease_after = |outcome: Outcome| {
            assert_eq!(outcome, Outcome::Stored);
            let stream = device.stream().unwrap();
            tier.get_gpu_ptr(&id(key)).unwrap().release_after(stream);
            device.end_stream(stream);
        };
        let outcomes = tier.submit(Batch::new(vec![store])).wait(Instant::now() + Duration::from_secs(60));
        lease_after(outcomes.unwrap()[0]);
    }
    let stats = tier.stats();
    assert_eq!(stats.blocks + stats.evictions, 10_000);
    drop(tier);
    assert_eq!(device.free_bytes().unwrap(), before, "device memory is left over");
}

#[test]
#[ignore = "needs a GPU"]
fn a_budget_beyond_the_device_is_a_smaller_tier() {
    let device = device();
    let budget = 4 * device.free_bytes().unwrap();
    let options = Options { slab_bytes: 16 << 30, ..options(budget, 0) };
    let tier = GpuTier::new(&[device], &options).unwrap();
    let mut held = Vec::new();
    let refused = loop {
        match tier.reserve(&id(held.len() as u64), 8 << 30, PutMeta::default()) {
            cascade_core::reservation::Reserve::Reserved(reservation) => held.push(reservation),
            other => break other,
        }
        assert!(held.len() < 100);
    };
    println!("{} GiB reserved, then {refused:?}", 8 * held.len());
    assert!(!held.is_empty());
}
