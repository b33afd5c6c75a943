//! Tier 1 of Cascade: the memory of GPUs.
//!
//! * [`tier`]: [`GpuTier`](tier::GpuTier), blocks in HBM under a hard budget, leased by pointer ([`lease`]);
//! * [`engine`]: copies between HBM and host memory, and within HBM, with digests computed by the device;
//! * [`device`]: what the tier needs of a device; [`cuda`]: the CUDA driver; [`sim`]: a device in host memory;
//! * [`share`]: blocks that other processes of the node read from this one's device memory;
//! * [`driver`]: which CUDA devices this process can use, asked of the driver library that is found at run time.
//!
//! Nothing is linked against CUDA. One build runs on machines with and without GPUs; where there is no driver,
//! [`driver::probe`] says why, and the tier is simply absent.

pub mod cuda;
pub mod device;
pub mod driver;
pub mod engine;
pub mod lease;
mod pool;
mod raw;
pub mod share;
pub mod sim;
pub mod tier;
