//! Tier 1 of Cascade: the memory of GPUs.
//!
//! The tier will keep pools of blocks in HBM, lease them by device pointer and copy between HBM and the arena.
//! **None of that is here yet.** What this crate holds today is what the tier and `cascade doctor` need first:
//!
//! * [`driver`]: which CUDA devices this process can use, asked of the driver library that is found at run time.
//!
//! Nothing is linked against CUDA. One build runs on machines with and without GPUs; where there is no driver,
//! [`driver::probe`] says why, and the tier is simply absent.

pub mod driver;
mod raw;
