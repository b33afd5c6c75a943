use std::sync::Arc;
use std::time::{Duration, Instant};

use super::*;
use crate::device::{Device, Fault, Hbm, Pinned, Run};

fn wait(device: &SimDevice, event: crate::device::Event) -> Result<(), Fault> {
    let start = Instant::now();
    while !device.is_done(event)? {
        assert!(start.elapsed() < Duration::from_secs(10), "the simulated device hangs");
        std::thread::yield_now();
    }
    Ok(())
}

#[test]
fn copies_run_late_and_in_order() {
    let sim = SimDevice::new(1 << 20);
    let device: Arc<dyn Device> = sim.clone();
    let hbm = Hbm::new(&device, 4096).unwrap();
    let mut pinned = Pinned::new(&device, 4096).unwrap();
    assert!(pinned.write_words(0, &[7, 8, 9, 0, 0, 0, 0, 0]));
    let stream = device.stream().unwrap();
    sim.pause();
    let there = Run { dst: hbm.address(), src: pinned.address(), len: 64 };
    let back = Run { dst: pinned.address() + 2048, src: hbm.address(), len: 64 };
    // SAFETY: both memories outlive the event, and nobody else touches them.
    unsafe { device.copy(stream, &[there]).and_then(|()| device.copy(stream, &[back])).unwrap() };
    let event = device.record(stream).unwrap();
    assert_eq!(device.is_done(event), Ok(false));
    sim.resume();
    wait(&sim, event).unwrap();
    assert_eq!(pinned.digests(33)[32], !(7 ^ 8 ^ 9));
}

#[test]
fn host_memory_must_be_registered() {
    let device: Arc<dyn Device> = SimDevice::new(1 << 20);
    let hbm = Hbm::new(&device, 4096).unwrap();
    let bytes = [0u8; 64];
    let run = Run { dst: hbm.address(), src: bytes.as_ptr() as u64, len: 64 };
    let stream = device.stream().unwrap();
    // SAFETY: refused, and so nothing is queued.
    assert_eq!(unsafe { device.copy(stream, &[run]) }, Err(Fault::NotRegistered));
}

#[test]
fn memory_ends_and_comes_back() {
    let sim = SimDevice::new(8192);
    let device: Arc<dyn Device> = sim.clone();
    let first = Hbm::new(&device, 8192).unwrap();
    assert_eq!(Hbm::new(&device, 1).err(), Some(Fault::OutOfMemory));
    drop(first);
    assert_eq!((device.free_bytes(), sim.held(), raw::known(&sim)), (Ok(8192), 0, 0));
}

#[test]
fn a_lost_device_refuses_everything() {
    let sim = SimDevice::new(8192);
    let stream = sim.stream().unwrap();
    let event = sim.record(stream).unwrap();
    sim.lose();
    assert!(sim.is_done(event).is_err() && sim.stream().is_err() && sim.allocate(1).is_err());
}
