//! Blocks in the device memory of one process, read by another: two stores over one arena, and two processes.
//!
//! `CASCADE_GPU_PAIR=0,1` lets two processes do it on real devices, the first number for the one that puts; both may be the same.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cascade_core::batch::Outcome;
use cascade_core::id::BlockId;
use cascade_core::memory::{HostBuffer, Piece, SgList};
use cascade_core::testing::bytes::content;
use cascade_gpu::device::{Device, Hbm};
use cascade_gpu::engine::{CopyEngine, Digested};
use cascade_gpu::sim::SimDevice;
use cascade_store::{Put, Store, StoreConfig};

const LEN: usize = 3 << 20;

fn config(place: &Path, devices: &str, share: &str) -> StoreConfig {
    let builder = StoreConfig::builder().without_environment().shm_path(place.join("arena"));
    let builder = builder.shm_capacity("64MiB").unwrap().set("gpu_devices", devices).unwrap();
    let builder = builder.set("gpu_share", share).unwrap();
    builder.set("gpu_capacity", "16MiB").unwrap().resolve().unwrap()
}

fn folder() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("cascade-test-").tempdir_in("/dev/shm").unwrap()
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

fn engine(store: &Store) -> Arc<CopyEngine> {
    Arc::clone(&store.gpu().unwrap().engines()[0])
}

fn put(store: &Store, id: &BlockId, bytes: &Arc<[u8]>) -> Outcome {
    let engine = engine(store);
    let list: SgList =
        Arc::new(Hbm::new(engine.device(), bytes.len()).unwrap()).piece(0, bytes.len()).unwrap().into();
    let from = Piece::shared(Arc::clone(bytes)).into();
    engine.copy(list.clone(), from, bytes.len(), Digested::Nothing).unwrap();
    store.put_device(&[(*id, list)], Put::default(), None)[0]
}

fn get(store: &Store, id: &BlockId, len: usize) -> Option<Vec<u8>> {
    let engine = engine(store);
    let list: SgList = Arc::new(Hbm::new(engine.device(), len).unwrap()).piece(0, len).unwrap().into();
    store.get_device(&[(*id, list.clone())], None).remove(0).ok()?;
    let mut buffer = HostBuffer::zeroed(len);
    engine.copy(buffer.piece().into(), list, len, Digested::Nothing).unwrap();
    buffer.bytes_mut().map(|bytes| bytes.to_vec())
}

fn shared(store: &Store) -> u64 {
    store.stats().moves.hbm_shared
}

#[test]
fn a_store_reads_from_the_device_memory_of_another() {
    let place = folder();
    let open = |share| {
        // Devices of different nodes: nothing but a shared handle lets one reach the other's memory.
        let device: Arc<dyn Device> = SimDevice::new(64 << 20);
        Store::open_with_devices(&config(place.path(), "simulated", share), &[device]).unwrap()
    };
    let (one, two, apart) = (open("on"), open("on"), open("off"));
    let (id, name, bytes) = (BlockId::content(b"1"), BlockId::named("a name"), content(1, 1, LEN));
    for id in [&id, &name] {
        assert_eq!(put(&one, id, &bytes), Outcome::Stored);
    }
    one.flush(soon()).unwrap();
    for (count, id) in [(1, &id), (2, &name)] {
        assert_eq!((get(&two, id, LEN), shared(&two)), (Some(bytes.to_vec()), count));
        assert_eq!((get(&apart, id, LEN), shared(&apart)), (Some(bytes.to_vec()), 0));
    }
    // Both are the same block for the one that has it itself.
    assert_eq!((get(&one, &id, LEN), shared(&one)), (Some(bytes.to_vec()), 0));
    // Another block lies where the name's did by now, or nothing: what comes is compared, and the arena serves.
    let newer = content(1, 2, LEN);
    assert_eq!(two.put(&name, &newer, Put::default()), Outcome::Stored);
    assert_eq!((get(&two, &name, LEN), shared(&two)), (Some(newer.to_vec()), 2));
    for number in 0..8_u8 {
        put(&one, &BlockId::content(&[7, number]), &content(number.into(), 9, LEN));
    }
    one.flush(soon()).unwrap();
    assert_eq!((get(&two, &id, LEN), shared(&two)), (Some(bytes.to_vec()), 2));
    drop(one);
    assert_eq!(get(&two, &BlockId::content(&[7, 7]), LEN), Some(content(7, 9, LEN).to_vec()));
}

#[test]
fn a_damaged_place_is_never_served() {
    let place = folder();
    let sims = [SimDevice::new(64 << 20), SimDevice::new(64 << 20)];
    let open = |sim: &Arc<SimDevice>| {
        let device: Arc<dyn Device> = sim.clone();
        Store::open_with_devices(&config(place.path(), "simulated", "on"), &[device]).unwrap()
    };
    let (one, two) = (open(&sims[0]), open(&sims[1]));
    let (id, bytes) = (BlockId::content(b"1"), content(1, 1, LEN));
    assert_eq!(put(&one, &id, &bytes), Outcome::Stored);
    one.flush(soon()).unwrap();
    // The copy from the other leaves a wrong bit where it was to arrive.
    let engine = engine(&two);
    let list: SgList = Arc::new(Hbm::new(engine.device(), LEN).unwrap()).piece(0, LEN).unwrap().into();
    sims[1].damage(1);
    assert!(two.get_device(&[(id, list.clone())], None)[0].is_ok());
    let mut buffer = HostBuffer::zeroed(LEN);
    engine.copy(buffer.piece().into(), list, LEN, Digested::Nothing).unwrap();
    assert!(buffer.bytes_mut().unwrap() == &*bytes && shared(&two) == 0);
}

/// Puts, says so, and lives until its input ends.
#[test]
#[ignore = "a child of the test below"]
fn child() {
    let place = PathBuf::from(std::env::var_os("CASCADE_SHARED_PLACE").unwrap());
    let config = config(&place, &std::env::var("CASCADE_SHARED_DEVICES").unwrap(), "on");
    let store = Store::open(&config).unwrap();
    for key in 0..4 {
        assert_eq!(put(&store, &BlockId::content(&[key]), &content(key.into(), 1, LEN)), Outcome::Stored);
    }
    store.flush(soon()).unwrap();
    println!("\nready");
    let _end = std::io::stdin().read_line(&mut String::new());
}

#[test]
fn a_process_reads_what_another_put_also_when_that_is_killed() {
    let place = folder();
    let pair = std::env::var("CASCADE_GPU_PAIR").ok();
    let (putting, getting) =
        pair.as_deref().map_or(("simulated", "simulated"), |pair| pair.split_once(',').unwrap());
    let store = Store::open(&config(place.path(), getting, "on")).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "shared::child", "--ignored", "--nocapture", "--test-threads=1"]);
    command.env("CASCADE_SHARED_PLACE", place.path()).env("CASCADE_SHARED_DEVICES", putting);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line == "ready"), "the other process failed");
    for key in 0..3_u8 {
        let start = Instant::now();
        assert_eq!(get(&store, &BlockId::content(&[key]), LEN), Some(content(key.into(), 1, LEN).to_vec()));
        println!(
            "block {key} came in {:?}, {} of them from the other process",
            start.elapsed(),
            shared(&store)
        );
    }
    // The memory of simulated devices is not to be had from another process: the arena serves.
    assert_eq!(shared(&store), if pair.is_some() { 3 } else { 0 });
    child.kill().unwrap();
    child.wait().unwrap();
    // Its memory may be open here, and hold anything.
    for key in 0..4_u8 {
        assert_eq!(get(&store, &BlockId::content(&[key]), LEN), Some(content(key.into(), 1, LEN).to_vec()));
    }
    assert!(!engine(&store).is_lost(), "the survivor's device works");
    println!(
        "put on {putting}, got on {getting}: {} blocks from the other process's device memory",
        shared(&store)
    );
    std::io::stdout().flush().unwrap();
}
