//! What the tier does when its device is late, small, damaged or gone, and how its copies are cut. On simulated devices.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "clippy sees helpers of an integration test as library code"
)]

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use cascade_core::batch::{Batch, Op, Outcome, Refusal};
use cascade_core::id::BlockId;
use cascade_core::memory::{HostBuffer, Piece, SgList};
use cascade_core::testing::bytes::{content, id};
use cascade_core::tier::{Addressable, Lookup, MissReason, PutMeta, Tier};
use cascade_gpu::device::{Device, Hbm};
use cascade_gpu::engine::{self, CopyEngine, Digested, Way};
use cascade_gpu::sim::SimDevice;
use cascade_gpu::tier::{GpuTier, Options, route};
use common::{digests, pages, registered};

const MIB: usize = 1 << 20;

fn engine_options() -> engine::Options {
    // Small buffers, so that transfers of some MiB go in many parts.
    let base = engine::Options { relay_bytes: 1 << 20, ..engine::Options::default() };
    engine::Options { staging_bytes: 192 << 10, calibrate: false, ..base }
}

fn tier_on(devices: &[Arc<SimDevice>], budget_bytes: u64) -> GpuTier {
    let devices: Vec<Arc<dyn Device>> =
        devices.iter().map(|sim| Arc::clone(sim) as Arc<dyn Device>).collect();
    let options = Options { budget_bytes, slab_bytes: MIB, engine: engine_options() };
    GpuTier::new(&devices, &options).unwrap()
}

fn one(tier: &GpuTier, op: Op) -> Outcome {
    tier.submit(Batch::new(vec![op])).wait(Instant::now() + Duration::from_secs(30)).unwrap()[0]
}

fn put(tier: &GpuTier, key: u64, len: usize) -> Outcome {
    let from = Piece::shared(content(key, 1, len)).into();
    one(tier, Op::Store { id: id(key), from, meta: PutMeta::default() })
}

fn get(tier: &GpuTier, key: u64, len: usize) -> (Outcome, Vec<u8>) {
    let mut buffer = HostBuffer::zeroed(len);
    let outcome = one(tier, Op::Fetch { id: id(key), into: buffer.piece().into() });
    (outcome, buffer.bytes_mut().unwrap().to_vec())
}

#[test]
fn everything_goes_back_to_the_device() {
    let sim = SimDevice::new(64 << 20);
    let tier = tier_on(std::slice::from_ref(&sim), 8 << 20);
    for key in 0..40 {
        assert_eq!(put(&tier, key, 700_000), Outcome::Stored);
    }
    assert_eq!(get(&tier, 39, 700_000).1, *content(39, 1, 700_000));
    assert!(sim.free_bytes().unwrap() >= 56 << 20, "the budget is hard");
    drop(tier);
    assert_eq!((sim.held(), sim.free_bytes().unwrap()), (0, 64 << 20));
}

#[test]
fn ten_thousand_cycles_leak_nothing() {
    let sim = SimDevice::new(64 << 20);
    let tier = tier_on(std::slice::from_ref(&sim), 4 << 20);
    put(&tier, 0, 300_000);
    let held = sim.held();
    for key in 1..10_000 {
        assert_eq!(put(&tier, key, 300_000), Outcome::Stored);
        if key % 64 == 0 {
            assert!(matches!(get(&tier, key, 300_000).0, Outcome::Fetched(_)));
        }
    }
    let stats = tier.stats();
    assert_eq!(stats.blocks + stats.evictions, 10_000);
    // Four slabs, and what one lane and one staging need.
    assert!(sim.held() <= held + 8, "{} held, {held} at first", sim.held());
    for key in 0..10_000 {
        one(&tier, Op::Delete { id: id(key) });
    }
    assert_eq!(tier.stats().used_bytes, 0);
    assert_eq!((tier.trim(), sim.free_bytes().unwrap()), (4 << 20, 64 << 20));
}

#[test]
fn a_device_that_is_full_is_a_smaller_tier() {
    let sim = SimDevice::new(3 << 20);
    let tier = tier_on(std::slice::from_ref(&sim), 64 << 20);
    for key in 0..20 {
        assert_eq!(put(&tier, key, MIB), Outcome::Stored);
    }
    assert_eq!(put(&tier, 100, 5 * MIB), Outcome::Refused(Refusal::Full));
    assert_eq!(get(&tier, 19, MIB).1, *content(19, 1, MIB));
    assert_eq!(tier.stats().evictions, 17);
}

#[test]
fn damage_on_the_way_is_a_miss_and_never_served() {
    let sim = SimDevice::new(64 << 20);
    let tier = tier_on(std::slice::from_ref(&sim), 8 << 20);
    put(&tier, 1, 100_000);
    let lease = tier.get_gpu_ptr(&id(1)).unwrap();
    let reservation = tier.lease(&id(1)).unwrap();
    sim.damage(1);
    // A write to the block that nobody should have made.
    assert!(reservation.memory().write_at(0, &content(1, 1, 8)));
    drop((lease, reservation));
    assert_eq!(get(&tier, 1, 100_000).0, Outcome::Miss(MissReason::Corrupt));
    assert_eq!((get(&tier, 1, 100_000).0, tier.stats().corrupt), (Outcome::Miss(MissReason::Absent), 1));
}

#[test]
fn a_lost_device_is_misses_and_refusals() {
    let sim = SimDevice::new(64 << 20);
    let tier = tier_on(std::slice::from_ref(&sim), 8 << 20);
    put(&tier, 1, 100_000);
    let lease = tier.get_gpu_ptr(&id(1)).unwrap();
    sim.lose();
    assert_eq!(put(&tier, 2, 100_000), Outcome::Refused(Refusal::Unavailable));
    assert_eq!(get(&tier, 1, 100_000).0, Outcome::Miss(MissReason::Unavailable));
    let mut out = [Lookup::Pending];
    tier.lookup(&[id(1)], &mut out);
    assert_eq!(out[0], Lookup::Miss(MissReason::Unavailable));
    assert!(!lease.is_valid() && tier.lease(&id(1)).is_err());
}

#[test]
fn a_lease_on_a_stream_holds_its_block_until_the_stream_comes() {
    let sim = SimDevice::new(64 << 20);
    let tier = tier_on(std::slice::from_ref(&sim), MIB as u64);
    put(&tier, 1, MIB);
    let lease = tier.get_gpu_ptr(&id(1)).unwrap();
    assert_eq!((lease.device(), lease.len(), lease.address() % 512), (0, MIB, 0));
    let stream = sim.stream().unwrap();
    sim.pause();
    lease.release_after(stream);
    // The only place is taken: nothing can be reserved while the stream may read.
    let refused = tier.reserve(&id(2), MIB as u64, PutMeta::default());
    assert!(matches!(refused, cascade_core::reservation::Reserve::Refused(Refusal::Full)));
    sim.resume();
    let start = Instant::now();
    while put(&tier, 2, MIB) != Outcome::Stored {
        assert!(start.elapsed() < Duration::from_secs(10), "the event never came");
    }
}

#[test]
fn several_devices_share_the_blocks() {
    let sims = SimDevice::node(3, 64 << 20);
    let tier = tier_on(&sims, 8 << 20);
    for key in 0..60 {
        assert_eq!(put(&tier, key, 100_000), Outcome::Stored);
        let ordinal = tier.get_gpu_ptr(&id(key)).unwrap().device() as usize;
        assert_eq!(ordinal, route(&id(key), 3));
    }
    let by_device = |ordinal| (0..60).filter(|key| route(&id(*key), 3) == ordinal).count();
    assert!((0..3).all(|ordinal| by_device(ordinal) >= 10));
    sims[1].lose();
    for key in 0..60 {
        let hit = matches!(get(&tier, key, 100_000).0, Outcome::Fetched(_));
        assert_eq!(hit, route(&id(key), 3) != 1, "only the blocks of the lost device are gone");
    }
}

#[test]
fn scattered_pages_go_both_ways_by_every_way() {
    let device: Arc<dyn Device> = SimDevice::new(256 << 20);
    let engine = CopyEngine::new(&device, engine_options()).unwrap();
    let kernels = [Way::Kernel { ctas: 4 }, Way::Move { ctas: 4 }, Way::Relay { ctas: 4 }];
    for way in [None, Some(Way::Dma), Some(Way::Batch)].into_iter().chain(kernels.map(Some)) {
        engine.force(way);
        // Pages of Llama at TP 1 and 8, of an MLA model, and of an odd length that no digest kernel walks.
        for (page_bytes, count) in [(32_768, 130), (4096, 1025), (18_432, 122), (520, 1000), (1001, 500)] {
            let len = page_bytes * count;
            let hbm = Arc::new(Hbm::new(&device, len).unwrap());
            let bytes = content(page_bytes as u64, 1, len);
            let from = Piece::shared(Arc::clone(&bytes)).into();
            let got = engine.copy(pages(&hbm, page_bytes, count), from, len, Digested::Destination).unwrap();
            assert_eq!(got, (page_bytes % 8 == 0).then(|| digests(&bytes)), "{page_bytes} x {count} in");
            let mut buffer = HostBuffer::zeroed(len);
            let into = buffer.piece().into();
            let got = engine.copy(into, pages(&hbm, page_bytes, count), len, Digested::Source).unwrap();
            assert_eq!(got, (page_bytes % 8 == 0).then(|| digests(&bytes)), "{page_bytes} x {count} out");
            assert!(buffer.bytes_mut().unwrap() == &*bytes, "{page_bytes} x {count} by {way:?}");
        }
    }
}

#[test]
fn memory_that_is_not_registered_goes_both_ways_in_units_that_threads_share() {
    let sim = SimDevice::new(256 << 20);
    let device: Arc<dyn Device> = sim.clone();
    // Buffers of three units, of two odd ones, and of more units than the transfer has.
    for staging_bytes in [192 << 10, 1000, 32 << 20] {
        let engine = CopyEngine::new(&device, engine::Options { staging_bytes, ..engine_options() }).unwrap();
        for (page_bytes, count) in [(1, 1), (70_001, 1), (9 * MIB + 8, 1), (32_768, 300), (528, 20_000)] {
            let len = page_bytes * count;
            if staging_bytes < 4096 && len > MIB {
                continue;
            }
            let hbm = Arc::new(Hbm::new(&device, len).unwrap());
            let bytes = content(len as u64, 1, len);
            let expected = digests(&bytes);
            // Several at once: each direction is one's at a time.
            std::thread::scope(|scope| {
                let from: SgList = Piece::shared(Arc::clone(&bytes)).into();
                let put = engine.copy(pages(&hbm, page_bytes, count), from, len, Digested::Destination);
                assert_eq!(put.unwrap().as_ref(), Some(&expected), "{page_bytes} x {count} in");
                for _ in 0..2 {
                    let (engine, hbm, bytes, expected) = (&engine, &hbm, &bytes, &expected);
                    scope.spawn(move || {
                        let mut buffer = HostBuffer::zeroed(len);
                        let lists = (buffer.piece().into(), pages(hbm, page_bytes, count));
                        let got = engine.copy(lists.0, lists.1, len, Digested::Source);
                        assert_eq!(got.unwrap().as_ref(), Some(expected), "{page_bytes} x {count} out");
                        assert!(buffer.bytes_mut().unwrap() == &**bytes, "{page_bytes} x {count}");
                    });
                }
            });
        }
    }
}

#[test]
fn a_device_that_is_lost_ends_a_transfer_of_many_units() {
    let sim = SimDevice::new(64 << 20);
    let device: Arc<dyn Device> = sim.clone();
    let engine = CopyEngine::new(&device, engine_options()).unwrap();
    let hbm = Arc::new(Hbm::new(&device, 12 * MIB).unwrap());
    let whole = || SgList::from(hbm.piece(0, 12 * MIB).unwrap());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(30));
            sim.lose();
        });
        let bytes = Piece::shared(content(1, 1, 12 * MIB));
        while engine.copy(whole(), bytes.clone().into(), 12 * MIB, Digested::Destination).is_ok() {}
    });
    let mut buffer = HostBuffer::zeroed(12 * MIB);
    assert!(engine.copy(buffer.piece().into(), whole(), 12 * MIB, Digested::Source).is_err());
    assert!(buffer.bytes_mut().is_some(), "nobody keeps the caller's memory");
}

#[test]
fn the_last_part_of_one_run_may_go_by_the_kernel() {
    let sim = SimDevice::new(64 << 20);
    let device: Arc<dyn Device> = sim.clone();
    for len in [MIB, MIB + 16, 2 * MIB, 8 * MIB, 8 * MIB - 48, 8 * MIB + 3] {
        let engine = CopyEngine::new(&device, engine_options()).unwrap();
        engine.force(Some(Way::Tail { ctas: 32 }));
        let hbm = Arc::new(Hbm::new(&device, len).unwrap());
        let (_keep, host) = registered(&engine, &content(len as u64, 1, len + 16));
        let from = aligned(&host, len);
        let shift = from.as_ptr() as usize - host.as_ptr() as usize;
        let expected = digests(&content(len as u64, 1, len + 16)[shift..shift + len]);
        let there = || SgList::from(hbm.piece(0, len).unwrap());
        let got = engine.copy(there(), from.into(), len, Digested::Destination).unwrap();
        assert_eq!(got.as_ref(), Some(&expected), "{len} bytes in");
        let lying = engine.digests(&hbm.piece(0, len).unwrap()).unwrap();
        assert_eq!(lying.as_ref(), Some(&expected), "{len} bytes as they lie");
        let mut buffer = HostBuffer::zeroed(len);
        let got = engine.copy(buffer.piece().into(), there(), len, Digested::Source).unwrap();
        assert_eq!(got.as_ref(), Some(&expected), "{len} bytes out");
        assert_eq!(digests(buffer.bytes_mut().unwrap()), expected);
    }
}

/// The part of a registered buffer that begins at a multiple of 16, and `len` bytes of it.
fn aligned(piece: &Piece, len: usize) -> Piece {
    piece.part((piece.as_ptr() as usize).wrapping_neg() % 16, len).unwrap()
}

#[test]
fn pages_of_registered_memory_go_both_ways_in_one_pass() {
    for way in [Way::Move { ctas: 4 }, Way::Relay { ctas: 4 }] {
        registered_pages_go_both_ways(way);
    }
}

fn registered_pages_go_both_ways(way: Way) {
    let sim = SimDevice::new(256 << 20);
    let device: Arc<dyn Device> = sim.clone();
    let engine = CopyEngine::new(&device, engine_options()).unwrap();
    engine.force(Some(way));
    // Few pages are one launch, many are several; the last chunk is short, the last page may be.
    for (page_bytes, count, less) in [
        (32_768, 130, 0),
        (4096, 3001, 0),
        (32_768, 290, 0),
        (18_432, 122, 16),
        (512, 5000, 496),
        (70_000, 1, 0),
        (528, 33, 0),
    ] {
        let len = page_bytes * count - less;
        let hbm = Arc::new(Hbm::new(&device, page_bytes * count).unwrap());
        let bytes = content(page_bytes as u64, 1, len);
        let (_from, host) = registered(&engine, &[&bytes[..], &[0; 16]].concat());
        let before = aligned(&host, len);
        let in_place = {
            let mut filled = vec![0; len];
            // The buffer need not begin at a multiple of 16: what is copied is read back as it lies.
            let shift = before.as_ptr() as usize - host.as_ptr() as usize;
            filled.copy_from_slice(&[&bytes[..], &[0; 16]].concat()[shift..shift + len]);
            filled
        };
        let got = engine.copy(pages(&hbm, page_bytes, count), before.into(), len, Digested::Destination);
        assert_eq!(got.unwrap().unwrap(), digests(&in_place), "{page_bytes} x {count} in");
        let mut buffer = HostBuffer::zeroed(len + 16);
        let fresh = CopyEngine::new(&device, engine_options()).unwrap();
        fresh.force(Some(way));
        let piece = buffer.piece();
        assert!(fresh.registry().add_in_background(&piece, Arc::new(())));
        fresh.registry().finish().unwrap();
        let into = aligned(&piece, len);
        let shift = into.as_ptr() as usize - piece.as_ptr() as usize;
        let got = fresh.copy(into.into(), pages(&hbm, page_bytes, count), len, Digested::Source);
        assert_eq!(got.unwrap().unwrap(), digests(&in_place), "{page_bytes} x {count} out");
        drop((fresh, piece));
        assert!(buffer.bytes_mut().unwrap()[shift..shift + len] == in_place, "{page_bytes} x {count}");
    }
}

#[test]
fn a_page_of_another_length_far_down_the_list_changes_the_way() {
    for way in [Way::Move { ctas: 4 }, Way::Relay { ctas: 4 }] {
        another_length_far_down(way);
    }
}

fn another_length_far_down(way: Way) {
    let sim = SimDevice::new(64 << 20);
    let device: Arc<dyn Device> = sim.clone();
    let engine = CopyEngine::new(&device, engine_options()).unwrap();
    engine.force(Some(way));
    let (page, count) = (4096, 2500);
    let len = page * count;
    let hbm = Arc::new(Hbm::new(&device, len + page).unwrap());
    let bytes = content(9, 1, len);
    let (_keep, host) = registered(&engine, &bytes);
    let mut list = SgList::new();
    (0..count - 1).for_each(|index| list.push(hbm.piece((index + 1) * page, page).unwrap()));
    // Two halves in place of the last page but the one: no table of pages says that.
    list.push(hbm.piece(0, page / 2).unwrap());
    list.push(hbm.piece(count * page, page / 2).unwrap());
    assert_eq!(engine.copy(list.clone(), host.into(), len, Digested::Destination).unwrap(), None);
    let mut buffer = HostBuffer::zeroed(len);
    engine.copy(buffer.piece().into(), list, len, Digested::Nothing).unwrap();
    assert!(buffer.bytes_mut().unwrap() == &*bytes);
}

#[test]
fn more_transfers_than_relays_go_at_once() {
    let sim = SimDevice::new(64 << 20);
    let device: Arc<dyn Device> = sim.clone();
    let engine = CopyEngine::new(&device, engine_options()).unwrap();
    engine.force(Some(Way::Relay { ctas: 4 }));
    let (page, count) = (4096, 300);
    let len = page * count;
    let hbm: Vec<_> = (0..6).map(|_| Arc::new(Hbm::new(&device, len).unwrap())).collect();
    let hosts: Vec<_> = (0..6).map(|key| registered(&engine, &content(key, 1, len)).1).collect();
    let before = sim.held();
    for _ in 0..3 {
        let start = |(hbm, host): (&Arc<Hbm>, &Piece)| {
            let from = host.clone().into();
            engine.start(pages(hbm, page, count), from, len, Digested::Destination, None).unwrap()
        };
        let flying: Vec<_> = hbm.iter().zip(&hosts).map(start).collect();
        for (key, transfer) in (0..).zip(flying) {
            assert_eq!(transfer.wait().unwrap().unwrap(), digests(&content(key, 1, len)));
        }
    }
    // Three relays, and lanes of three buffers.
    assert!(sim.held() <= before + 3 + 5 * 3, "{} held, {before} at first", sim.held());
}

#[test]
fn a_block_of_one_device_goes_from_and_to_the_memory_of_another() {
    let sims = SimDevice::node(2, 64 << 20);
    let tier = tier_on(&sims, 8 << 20);
    let (page, count) = (4096, 100);
    let len = page * count;
    for key in 0..8 {
        // Memory of the device that does not keep this block.
        let other: Arc<dyn Device> = sims[1 - route(&id(key), 2)].clone();
        let engine = &tier.engines()[other.info().ordinal as usize];
        let hbm = Arc::new(Hbm::new(&other, 2 * len).unwrap());
        let bytes = content(key, 1, len);
        let from = Piece::shared(Arc::clone(&bytes)).into();
        engine.copy(pages(&hbm, page, count), from, len, Digested::Nothing).unwrap();
        let stream = other.stream().unwrap();
        let submit = |op| tier.submit_after(Batch::new(vec![op]), stream).wait(Instant::now()).unwrap()[0];
        let store = Op::Store { id: id(key), from: pages(&hbm, page, count), meta: PutMeta::default() };
        assert_eq!(submit(store), Outcome::Stored);
        let into = hbm.piece(len, len).unwrap();
        assert!(matches!(submit(Op::Fetch { id: id(key), into: into.clone().into() }), Outcome::Fetched(_)));
        other.end_stream(stream);
        let mut buffer = HostBuffer::zeroed(len);
        engine.copy(buffer.piece().into(), into.into(), len, Digested::Nothing).unwrap();
        assert!(buffer.bytes_mut().unwrap() == &*bytes, "key {key}");
    }
}

#[test]
fn a_device_of_another_node_is_not_reached() {
    let (sims, stranger) = (SimDevice::node(1, 64 << 20), SimDevice::node(2, 64 << 20).remove(1));
    let tier = tier_on(&sims, 8 << 20);
    let device: Arc<dyn Device> = stranger;
    let from = Arc::new(Hbm::new(&device, MIB).unwrap()).piece(0, MIB).unwrap().into();
    let store = Op::Store { id: id(1), from, meta: PutMeta::default() };
    assert_eq!(one(&tier, store), Outcome::Refused(Refusal::Memory));
}

#[test]
fn an_engine_measures_its_ways() {
    let device: Arc<dyn Device> = SimDevice::new(64 << 20);
    let engine = CopyEngine::new(&device, engine::Options::default()).unwrap();
    println!("{}", engine.ways());
    assert!(!engine.is_lost());
}

#[test]
fn a_transfer_that_gets_no_event_is_waited_for() {
    let sim = SimDevice::new(64 << 20);
    let device: Arc<dyn Device> = sim.clone();
    let engine = CopyEngine::new(&device, engine_options()).unwrap();
    let hbm = Arc::new(Hbm::new(&device, MIB).unwrap());
    let (mut buffer, host) = registered(&engine, &content(1, 1, MIB));
    engine.copy(hbm.piece(0, MIB).unwrap().into(), host.clone().into(), MIB, Digested::Nothing).unwrap();
    let (_other, into) = registered(&engine, &vec![0; MIB]);
    sim.refuse_events(1);
    sim.pause();
    std::thread::scope(|scope| {
        let copy = scope.spawn(|| {
            engine.start(into.clone().into(), hbm.piece(0, MIB).unwrap().into(), MIB, Digested::Nothing, None)
        });
        std::thread::sleep(Duration::from_millis(50));
        // The copy is queued, and nobody knows its end: who asked for it must not get its memory back yet.
        assert!(!copy.is_finished());
        sim.resume();
        assert!(copy.join().unwrap().is_err());
    });
    drop((host, engine));
    assert!(buffer.bytes_mut().is_some());
}

#[test]
fn a_lease_without_an_event_and_a_tier_that_ends_wait_for_the_stream() {
    let sim = SimDevice::new(64 << 20);
    let tier = tier_on(std::slice::from_ref(&sim), MIB as u64);
    put(&tier, 1, MIB);
    let stream = sim.stream().unwrap();
    let (first, second) = (tier.get_gpu_ptr(&id(1)).unwrap(), tier.get_gpu_ptr(&id(1)).unwrap());
    let record = |sim: &SimDevice| sim.record(stream).unwrap();
    sim.pause();
    let _work = record(&sim);
    sim.refuse_events(1);
    std::thread::scope(|scope| {
        let released = scope.spawn(move || first.release_after(stream));
        std::thread::sleep(Duration::from_millis(50));
        assert!(!released.is_finished(), "the stream may still read");
        sim.resume();
        released.join().unwrap();
    });
    sim.pause();
    second.release_after(stream);
    std::thread::scope(|scope| {
        let ended = scope.spawn(move || drop(tier));
        std::thread::sleep(Duration::from_millis(50));
        assert!(!ended.is_finished(), "the stream may still read");
        sim.resume();
        ended.join().unwrap();
    });
    assert_eq!(sim.held(), 0);
}

#[test]
fn registered_memory_goes_straight_and_its_bounds_are_kept() {
    let sim = SimDevice::new(64 << 20);
    let device: Arc<dyn Device> = sim.clone();
    let engine = CopyEngine::new(&device, engine_options()).unwrap();
    let before = sim.held();
    let mut arena = HostBuffer::zeroed(3 * MIB);
    arena.bytes_mut().unwrap().copy_from_slice(&content(7, 1, 3 * MIB));
    let whole = arena.piece();
    for (from, len) in [(0, MIB), (MIB, MIB + 4096)] {
        assert!(
            engine.registry().add_in_background(&whole.part(from, len).unwrap(), Arc::new(arena.clone()))
        );
    }
    engine.registry().finish().unwrap();
    assert_eq!((engine.registry().registered_bytes(), sim.held()), (2 * MIB as u64 + 4096, before + 2));
    let hbm = Arc::new(Hbm::new(&device, 3 * MIB).unwrap());
    // Within, across two registrations, and beyond them.
    for (from, len) in [(100, 1000), (MIB - 77, 500_000), (2 * MIB - 8, MIB)] {
        let (to, part) = (hbm.piece(0, len).unwrap(), whole.part(from, len).unwrap());
        let got = engine.copy(to.into(), part.into(), len, Digested::Destination).unwrap();
        assert_eq!(got.unwrap(), digests(&content(7, 1, 3 * MIB)[from..from + len]), "{from} {len}");
    }
    drop((hbm, engine, whole));
    assert_eq!(sim.held(), 0, "registrations are taken back");
}

#[test]
fn pages_of_the_device_become_a_block_and_come_back() {
    let sim = SimDevice::new(64 << 20);
    let device: Arc<dyn Device> = sim.clone();
    let tier = tier_on(std::slice::from_ref(&sim), 16 << 20);
    let (page, count) = (16_384, 200);
    let hbm = Arc::new(Hbm::new(&device, 2 * page * count).unwrap());
    let bytes = content(3, 1, page * count);
    let engine = tier.engine_of(&id(3));
    let from = Piece::shared(Arc::clone(&bytes)).into();
    engine.copy(pages(&hbm, page, count), from, page * count, Digested::Nothing).unwrap();
    let name = BlockId::named("pages");
    let stream = sim.stream().unwrap();
    let store = Op::Store { id: name, from: pages(&hbm, page, count), meta: PutMeta::default() };
    let outcome = tier.submit_after(Batch::new(vec![store]), stream).wait(Instant::now()).unwrap()[0];
    assert_eq!(outcome, Outcome::Stored);
    let mut other = SgList::new();
    (0..count).for_each(|index| other.push(hbm.piece((count + index) * page, page).unwrap()));
    assert!(matches!(one(&tier, Op::Fetch { id: name, into: other }), Outcome::Fetched(_)));
    let mut back = HostBuffer::zeroed(page * count);
    let from = hbm.piece(count * page, count * page).unwrap();
    engine.copy(back.piece().into(), from.into(), page * count, Digested::Nothing).unwrap();
    assert!(back.bytes_mut().unwrap() == &*bytes);
}
