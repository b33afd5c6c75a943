//! The GPU tier by itself: puts a block, leases it by its device address, gets it back. On a simulated device, so that it
//! runs everywhere; with a GPU, the devices come from `cascade_gpu::cuda`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cascade_core::batch::{Batch, Op, Outcome};
use cascade_core::id::BlockId;
use cascade_core::memory::{HostBuffer, Piece};
use cascade_core::tier::{PutMeta, Tier};
use cascade_gpu::device::Device;
use cascade_gpu::sim::SimDevice;
use cascade_gpu::tier::{GpuTier, Options};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let device: Arc<dyn Device> = SimDevice::new(256 << 20);
    let tier = GpuTier::new(&[device], &Options::new(128 << 20))?;
    let id = BlockId::named("a block");
    let bytes: Arc<[u8]> = (0..1 << 20).map(|at: u32| (at % 251) as u8).collect();
    let from = Piece::shared(Arc::clone(&bytes)).into();
    let mut buffer = HostBuffer::zeroed(bytes.len());
    let ops =
        vec![Op::Store { id, from, meta: PutMeta::default() }, Op::Fetch { id, into: buffer.piece().into() }];
    let outcomes = tier.submit(Batch::new(ops)).wait(Instant::now() + Duration::from_secs(10));
    let outcomes = outcomes.ok_or("the device did not answer")?;
    assert!(matches!(outcomes[..], [Outcome::Stored, Outcome::Fetched(_)]), "{outcomes:?}");
    assert_eq!(buffer.bytes_mut().map(|got| got == &*bytes), Some(true));
    let lease = tier.get_gpu_ptr(&id).map_err(|why| why.name())?;
    println!("{} bytes at {:#x} of device {}", lease.len(), lease.address(), lease.device());
    Ok(())
}
