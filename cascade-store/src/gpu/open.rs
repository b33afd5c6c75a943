//! Opening the tier of devices. Without CUDA there is none: that is said once, and everything else works.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cascade_core::{Error, ErrorKind, Result};
use cascade_gpu::cuda;
use cascade_gpu::device::{Device, Fault};
use cascade_gpu::engine;
use cascade_gpu::sim::SimDevice;
use cascade_gpu::tier::{GpuTier, Options};

use super::Gpu;
use crate::config::{GpuCapacity, GpuConfig, GpuDevices};

/// Memory of a simulated device beyond the capacity.
const SIMULATED_REST: u64 = 64 << 20;
/// Memory of a simulated device whose capacity is to follow from it.
const SIMULATED_FREE: u64 = 256 << 20;

/// The tier on the devices that `config` names; `None`, said once, where none can be used.
pub(crate) fn open(config: &GpuConfig) -> Option<Arc<Gpu>> {
    match devices(config).and_then(|devices| open_on(config, &devices)) {
        Ok(gpu) => Some(gpu),
        Err(error) => {
            static SAID: AtomicBool = AtomicBool::new(false);
            if !SAID.swap(true, Ordering::Relaxed) {
                eprintln!("cascade: gpu_capacity is set, and there is no tier in GPU memory: {error}");
            }
            None
        }
    }
}

/// The tier on these devices.
pub(crate) fn open_on(config: &GpuConfig, devices: &[Arc<dyn Device>]) -> Result<Arc<Gpu>> {
    let mut budget = u64::MAX;
    for device in devices {
        let free = device.free_bytes().map_err(|fault| unusable(device, fault))?;
        budget = budget.min(match config.capacity {
            GpuCapacity::Bytes(bytes) => bytes,
            GpuCapacity::HalfOfFree => free / 2,
        });
    }
    let mut options = Options::new(budget);
    options.slab_bytes = options.slab_bytes.min(usize::try_from(budget / 4).unwrap_or(usize::MAX));
    if let GpuDevices::Simulated(_) = config.devices {
        // A simulation says nothing about speed.
        options.engine = engine::Options { calibrate: false, staging_bytes: 1 << 20, ..options.engine };
    }
    Ok(Arc::new(Gpu::new(GpuTier::new(devices, &options)?, config.is_shared)))
}

fn devices(config: &GpuConfig) -> Result<Vec<Arc<dyn Device>>> {
    match &config.devices {
        GpuDevices::All => cuda::devices(),
        GpuDevices::These(ordinals) => ordinals.iter().map(|ordinal| cuda::open(*ordinal)).collect(),
        GpuDevices::Simulated(count) => {
            let bytes = match config.capacity {
                GpuCapacity::Bytes(bytes) => bytes + SIMULATED_REST,
                GpuCapacity::HalfOfFree => SIMULATED_FREE,
            };
            Ok(SimDevice::node(*count, bytes).into_iter().map(|sim| sim as Arc<dyn Device>).collect())
        }
    }
}

fn unusable(device: &Arc<dyn Device>, fault: Fault) -> Error {
    let info = device.info();
    let context = format!("GPU {} ({}) does not say how much memory it has", info.ordinal, info.name);
    Error::new(ErrorKind::System, context).with_source(fault)
}
