//! CUDA devices, by the driver that is found at run time.
//!
//! A device uses the primary context of its GPU, the one that PyTorch and the CUDA runtime use, so that addresses and streams
//! of theirs are good here. Every call makes that context current and puts the caller's back. A CUDA that was initialised
//! before `fork` is unusable in the child: open devices in the process that uses them.

mod kernels;
mod raw;

use std::sync::Arc;

use cascade_core::{Error, ErrorKind, Result};

use crate::device::Device;
use crate::driver;

/// The devices of this process, in the driver's order.
///
/// # Errors
/// `NotFound` with the reason and what to do where there is no device, `System` when the driver refuses one.
pub fn devices() -> Result<Vec<Arc<dyn Device>>> {
    let driver = driver::probe().map_err(|absence| Error::new(ErrorKind::NotFound, absence.to_string()))?;
    driver.devices.iter().map(|device| open_probed(device)).collect()
}

/// The device with this number.
///
/// # Errors
/// As [`devices`]; `NotFound` also when there is no such number.
pub fn open(ordinal: u32) -> Result<Arc<dyn Device>> {
    let driver = driver::probe().map_err(|absence| Error::new(ErrorKind::NotFound, absence.to_string()))?;
    let found = driver.devices.iter().find(|device| device.ordinal == ordinal);
    let missing = || {
        let context = format!("no GPU {ordinal}: the driver shows {}", driver.devices.len());
        Error::new(ErrorKind::NotFound, context)
    };
    open_probed(found.ok_or_else(missing)?)
}

fn open_probed(device: &driver::Device) -> Result<Arc<dyn Device>> {
    let opened = raw::CudaDevice::open(device).map_err(|fault| {
        let context = format!("GPU {} ({}) cannot be used", device.ordinal, device.name);
        Error::new(ErrorKind::System, context).with_source(fault)
    })?;
    Ok(Arc::new(opened))
}
