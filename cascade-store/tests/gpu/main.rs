//! The store with devices, the arena and files: on simulated devices, whose addresses the CPU cannot touch.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "clippy sees helpers of an integration test as library code"
)]

mod killed;
mod rig;
mod shared;

use std::sync::Arc;
use std::time::{Duration, Instant};

use cascade_core::batch::{Batch, Op, Outcome, Refusal};
use cascade_core::id::BlockId;
use cascade_core::memory::{HostBuffer, SgList};
use cascade_core::testing::bytes::content;
use cascade_core::tier::{MissReason, PutMeta, Tier};
use cascade_gpu::device::{Device, Hbm};
use cascade_store::{Level, Put, Reach, Store};

use rig::{MIB, Rig};

fn fixed(number: u8) -> BlockId {
    BlockId::content(&[number])
}

fn level(store: &Store, id: &BlockId) -> Option<Level> {
    store.locate(std::slice::from_ref(id))[0].level
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

#[test]
fn a_block_of_device_memory_is_on_the_device_and_below() {
    let rig = Rig::new(1, "8MiB", true);
    let store = rig.open();
    let (id, bytes) = (fixed(1), content(1, 1, 700_000));
    assert_eq!(rig.put(&store, &id, &bytes), Outcome::Stored);
    assert_eq!(rig.put(&store, &id, &bytes), Outcome::Exists);
    assert_eq!(level(&store, &id), Some(Level::Device));
    assert_eq!(Level::Device.name(), "hbm");
    store.flush(soon()).unwrap();
    // What the node has survives the device and the process.
    let stats = store.stats();
    assert_eq!((stats.moves.hbm_demoted, stats.arena().blocks, stats.tier(Level::Files).blocks), (1, 1, 1));
    assert_eq!(rig.get_host(&store, &id, bytes.len()), Ok(bytes.to_vec()));
    assert_eq!(rig.get(&store, &id, bytes.len()), Ok(bytes.to_vec()));
    assert_eq!((store.stats().hits(Level::Device), store.stats().hits(Level::Arena)), (1, 1));
    drop(store);
    assert_eq!(rig.held(), rig.own(), "everything went back to the device");
    let store = rig.open();
    assert_eq!(level(&store, &id), Some(Level::Arena));
    assert_eq!(rig.get(&store, &id, bytes.len()), Ok(bytes.to_vec()));
}

#[test]
fn a_block_comes_up_from_the_arena_and_from_files() {
    let rig = Rig::new(1, "8MiB", true);
    let store = rig.open();
    let bytes = content(2, 1, 300_001);
    let ids = [fixed(1), fixed(2), BlockId::named("a name")];
    for id in &ids {
        assert_eq!(store.put(id, &bytes, Put::default()), Outcome::Stored);
    }
    assert_eq!(store.demote(&ids[1..]), [Outcome::Stored; 2]);
    for id in &ids {
        let lease = store.get_gpu_ptr(id).unwrap();
        assert_eq!((lease.len(), lease.device(), lease.address() % 512), (300_001, 0, 0));
        assert_eq!(rig.read(lease.piece(), 300_001), *bytes);
        assert_eq!(level(&store, id), Some(Level::Device));
    }
    assert_eq!(store.stats().moves.hbm_promoted, 3);
    assert_eq!(store.get_gpu_ptr(&fixed(9)).unwrap_err(), MissReason::Absent);
    // Straight into pages too, from the arena and from the device.
    let id = fixed(3);
    let bytes = content(3, 1, 4096 * 50);
    assert_eq!(store.put(&id, &bytes, Put::default()), Outcome::Stored);
    for _ in 0..2 {
        assert_eq!(rig.get_pages(&store, &id, 4096, 50), Ok(bytes.to_vec()));
    }
}

#[test]
fn a_name_that_was_replaced_elsewhere_is_never_served_from_the_device() {
    let rig = Rig::new(1, "8MiB", false);
    let (store, other) = (rig.open(), rig.open_without_devices());
    let id = BlockId::named("n");
    let (old, new) = (content(1, 1, 100_000), content(2, 2, 100_000));
    assert_eq!(rig.put(&store, &id, &old), Outcome::Stored);
    assert_eq!(level(&store, &id), Some(Level::Device));
    assert_eq!(other.put(&id, &new, Put::default()), Outcome::Stored);
    assert_eq!(level(&store, &id), Some(Level::Arena));
    assert_eq!(rig.get(&store, &id, 100_000), Ok(new.to_vec()));
    assert_eq!(rig.read(store.get_gpu_ptr(&id).unwrap().piece(), 100_000), *new);
    assert_eq!(rig.put(&store, &id, &old), Outcome::Stored);
    let mut out = vec![0; 100_000];
    other.get(&id, &mut out).unwrap();
    assert_eq!(out, *old);
    assert!(other.delete(&id));
    assert_eq!(rig.get(&store, &id, 100_000), Err(MissReason::Absent));
    assert!(store.get_gpu_ptr(&id).is_err() && level(&store, &id).is_none());
}

#[test]
fn deleting_and_clearing_reach_the_device() {
    let rig = Rig::new(1, "8MiB", false);
    let store = rig.open();
    for number in 0..20 {
        assert_eq!(rig.put(&store, &fixed(number), &content(7, 1, 50_000)), Outcome::Stored);
        // Also while its copy to the arena is on its way.
        assert!(number % 2 == 0 || store.delete(&fixed(number)));
    }
    store.flush(soon()).unwrap();
    for number in 0..20 {
        assert_eq!(store.contains(&fixed(number)), number % 2 == 0, "{number}");
    }
    store.clear().unwrap();
    assert!((0..20).all(|number| !store.contains(&fixed(number))));
    assert_eq!(store.stats().tier(Level::Device).blocks, 0);
}

#[test]
fn a_block_that_is_deleted_while_it_comes_up_stays_deleted() {
    for has_files in [false, true] {
        for clears in [false, true] {
            let rig = Rig::new(1, "8MiB", has_files);
            let store = rig.open();
            let id = fixed(1);
            assert_eq!(store.put(&id, &content(1, 1, 300_000), Put::default()), Outcome::Stored);
            // The copy to the device is queued and does not go on: the block is on its way up.
            rig.sims[0].pause();
            std::thread::scope(|scope| {
                let rising = scope.spawn(|| store.get_gpu_ptr(&id).map(drop));
                std::thread::sleep(Duration::from_millis(50));
                if clears {
                    store.clear().unwrap();
                } else {
                    assert!(store.delete(&id));
                }
                rig.sims[0].resume();
                let _ = rising.join().unwrap();
            });
            assert!(!store.contains(&id), "it came back (files {has_files}, clear {clears})");
            assert_eq!(store.get_gpu_ptr(&id).err(), Some(MissReason::Absent));
        }
    }
}

#[test]
fn deletions_beside_rises_hold() {
    let rig = Rig::new(1, "8MiB", false);
    let store = rig.open();
    let (id, bytes) = (fixed(1), content(1, 1, 70_000));
    for _ in 0..200 {
        assert_eq!(store.put(&id, &bytes, Put::default()), Outcome::Stored);
        std::thread::scope(|scope| {
            scope.spawn(|| store.get_gpu_ptr(&id).map(drop));
            scope.spawn(|| store.delete(&id));
        });
        assert!(!store.contains(&id));
    }
}

#[test]
fn a_device_that_is_too_small_evicts_and_loses_nothing() {
    let rig = Rig::new(1, "2MiB", false);
    let store = rig.open();
    for number in 0..40 {
        assert_eq!(rig.put(&store, &fixed(number), &content(number.into(), 1, 300_000)), Outcome::Stored);
    }
    // Larger than the tier of devices: straight to the arena.
    assert_eq!(rig.put(&store, &fixed(99), &content(99, 1, 3 * MIB)), Outcome::Stored);
    assert_eq!(level(&store, &fixed(99)), Some(Level::Arena));
    store.flush(soon()).unwrap();
    let stats = store.stats();
    assert!(stats.tier(Level::Device).evictions >= 30 && stats.tier(Level::Device).used_bytes <= 2 << 20);
    for number in 0..40 {
        let bytes = content(number.into(), 1, 300_000);
        assert_eq!(rig.get(&store, &fixed(number), 300_000), Ok(bytes.to_vec()), "{number}");
    }
    assert_eq!(store.stats().lost(), 0);
}

#[test]
fn what_only_the_device_has_is_served_and_comes_down() {
    let rig = Rig::new(1, "8MiB", false);
    let store = rig.open();
    let (id, bytes) = (fixed(1), content(1, 1, 200_000));
    assert_eq!(rig.put(&store, &id, &bytes), Outcome::Stored);
    store.flush(soon()).unwrap();
    // The arena evicts it, or another process deletes it there.
    rig.open_without_devices().clear().unwrap();
    assert_eq!(store.stats().arena().blocks, 0);
    assert_eq!(level(&store, &id), Some(Level::Device));
    assert_eq!(rig.get_host(&store, &id, 200_000), Ok(bytes.to_vec()));
    let lease = store.lease(&id).unwrap();
    let mut out = vec![0; 200_000];
    assert!(lease.read_at(0, &mut out) && out == *bytes);
    assert_eq!(store.stats().arena().blocks, 1);
}

#[test]
fn a_lost_device_costs_its_blocks_a_copy_and_nobody_an_error() {
    let rig = Rig::new(1, "8MiB", true);
    let store = rig.open();
    let (id, bytes) = (fixed(1), content(1, 1, 200_000));
    assert_eq!(rig.put(&store, &id, &bytes), Outcome::Stored);
    store.flush(soon()).unwrap();
    let into = rig.fresh(200_000);
    rig.sims[0].lose();
    // The first call that fails tells.
    assert_eq!(store.get_device(&[(id, into)], None), [Err(MissReason::Unavailable)]);
    assert_eq!(level(&store, &id), Some(Level::Arena));
    assert_eq!(rig.get_host(&store, &id, 200_000), Ok(bytes.to_vec()));
    assert_eq!(store.get_gpu_ptr(&id).unwrap_err(), MissReason::Unavailable);
    assert_eq!(store.put(&fixed(2), &bytes, Put::default()), Outcome::Stored);
    store.flush(soon()).unwrap();
    assert_eq!(store.stats().lost(), 0);
}

#[test]
fn reach_is_kept_for_device_memory_too() {
    let rig = Rig::new(1, "8MiB", true);
    let store = rig.open();
    let put = |id: &BlockId, reach| {
        let list = rig.on_device(&content(4, 1, 99_000));
        store.put_device(&[(*id, list)], Put::default().until(reach), None)[0]
    };
    assert_eq!(put(&fixed(1), Reach::Files), Outcome::Stored);
    assert_eq!(store.stats().tier(Level::Files).blocks, 1);
    assert_eq!(put(&BlockId::named("x"), Reach::Durable), Outcome::Stored);
    assert_eq!(store.stats().tier(Level::Files).blocks, 2);
    let rig = Rig::new(1, "8MiB", false);
    let store = rig.open();
    let list = rig.on_device(&content(4, 1, 99_000));
    let refused = store.put_device(&[(fixed(1), list)], Put::default().until(Reach::Files), None);
    assert_eq!(refused, [Outcome::Refused(Refusal::Unavailable)]);
}

#[test]
fn several_devices_take_the_blocks_of_each() {
    let rig = Rig::new(3, "8MiB", false);
    let store = rig.open();
    for number in 0..30 {
        let bytes = content(number.into(), 1, 60_000);
        // The tensors are on device 0; most of the ids are another's.
        assert_eq!(rig.put(&store, &fixed(number), &bytes), Outcome::Stored);
        assert_eq!(rig.get(&store, &fixed(number), 60_000), Ok(bytes.to_vec()));
        assert_eq!(rig.get_host(&store, &fixed(number), 60_000), Ok(bytes.to_vec()));
    }
    let devices: std::collections::HashSet<u32> =
        (0..30).map(|number| store.get_gpu_ptr(&fixed(number)).unwrap().device()).collect();
    assert_eq!(devices.len(), 3);
}

#[test]
fn without_a_tier_of_devices_device_memory_is_refused() {
    let rig = Rig::new(1, "8MiB", false);
    let store = rig.open_without_devices();
    let bytes = content(1, 1, 1000);
    assert_eq!(rig.put(&store, &fixed(1), &bytes), Outcome::Refused(Refusal::Memory));
    assert_eq!(store.put(&fixed(1), &bytes, Put::default()), Outcome::Stored);
    assert_eq!(rig.get(&store, &fixed(1), 1000), Err(MissReason::Destination));
    assert_eq!(store.get_gpu_ptr(&fixed(1)).unwrap_err(), MissReason::Unavailable);
    assert!(store.gpu().is_none());
}

#[test]
fn the_store_is_a_tier_for_device_memory() {
    let rig = Rig::new(1, "8MiB", true);
    let store = rig.open();
    let bytes = content(5, 1, 123_456);
    let op = Op::Store { id: fixed(5), from: rig.on_device(&bytes), meta: PutMeta::default() };
    let into = rig.fresh(123_456);
    let mut host = HostBuffer::zeroed(123_456);
    let ops = vec![
        op,
        Op::Fetch { id: fixed(5), into: into.clone() },
        Op::Fetch { id: fixed(5), into: host.piece().into() },
    ];
    let outcomes = store.submit(Batch::new(ops)).wait(soon()).unwrap();
    assert!(
        matches!(outcomes[..], [Outcome::Stored, Outcome::Fetched(_), Outcome::Fetched(_)]),
        "{outcomes:?}"
    );
    assert_eq!(rig.read(&into.pieces()[0], 123_456), *bytes);
    assert!(host.bytes_mut().unwrap() == &*bytes);
}

#[test]
fn a_put_follows_the_callers_stream() {
    let rig = Rig::new(1, "8MiB", false);
    let store = rig.open();
    let (sim, bytes) = (&rig.sims[0], content(6, 1, 64 << 10));
    let hbm = Arc::new(Hbm::new(&(sim.clone() as Arc<dyn Device>), 64 << 10).unwrap());
    let tensor = SgList::from(hbm.piece(0, 64 << 10).unwrap());
    let stream = sim.stream().unwrap();
    // The caller's stream fills the tensor only now.
    let pinned = rig.pinned(&bytes);
    sim.pause();
    rig.fill_on(stream, &tensor, &pinned);
    std::thread::scope(|scope| {
        let put =
            scope.spawn(|| store.put_device(&[(fixed(6), tensor.clone())], Put::default(), Some(stream)));
        std::thread::sleep(Duration::from_millis(30));
        sim.resume();
        assert_eq!(put.join().unwrap(), [Outcome::Stored]);
    });
    assert_eq!(rig.get_host(&store, &fixed(6), 64 << 10), Ok(bytes.to_vec()));
}

#[test]
fn the_arena_is_registered_as_it_grows() {
    let rig = Rig::new(1, "8MiB", false);
    let store = rig.open();
    assert!(store.arena().wait_ready(soon()));
    let registered = || store.gpu().unwrap().engines()[0].registry().registered_bytes();
    let until = soon();
    while registered() < store.arena().ready_bytes() {
        assert!(Instant::now() < until, "{} of {}", registered(), store.arena().ready_bytes());
        std::thread::sleep(Duration::from_millis(10));
    }
    let bytes = content(8, 1, MIB);
    assert_eq!(rig.put(&store, &fixed(8), &bytes), Outcome::Stored);
    store.flush(soon()).unwrap();
    assert_eq!(rig.get_host(&store, &fixed(8), MIB), Ok(bytes.to_vec()));
}

#[test]
fn settings_are_checked_and_shown() {
    let rig = Rig::new(1, "8MiB", false);
    let shown = rig.open().in_force();
    assert!(
        shown.contains("gpu_capacity = \"8MiB\"  # code") && shown.contains("gpu_devices = \"simulated\"")
    );
    assert!(rig.open_without_devices().in_force().contains("gpu_capacity = \"off\"  # default"));
    for (name, value) in [("gpu_capacity", "12"), ("gpu_capacity", "lots"), ("gpu_devices", "one")] {
        let wrong = rig.builder(Some("1GiB")).set(name, value).unwrap().resolve().unwrap_err();
        assert!(wrong.context().starts_with(name), "{wrong}");
    }
    let alone = rig.builder(None).set("gpu_devices", "0").unwrap().resolve().unwrap_err();
    assert!(alone.context().contains("gpu_capacity"), "{alone}");
    // Where there is no GPU, its tier is absent and everything else is there.
    if cascade_gpu::driver::probe().is_err() {
        let config = rig.builder(Some("1GiB")).set("gpu_devices", "0").unwrap().resolve().unwrap();
        let store = Store::open(&config).unwrap();
        assert!(store.gpu().is_none());
        assert_eq!(store.put(&fixed(1), b"x", Put::default()), Outcome::Stored);
    }
}
