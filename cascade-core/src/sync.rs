//! Atomics and fences, from `std` or, under `--cfg loom`, from loom, so that the shipped protocol code is what the models check.

#[cfg(loom)]
pub use loom::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
#[cfg(not(loom))]
pub use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};

/// One step of a bounded wait on another thread: a spin hint, or a yield once spinning has not helped (always a yield
/// under loom, whose scheduler must be told).
#[inline]
pub fn relax(step: u32) {
    #[cfg(loom)]
    {
        let _ = step;
        loom::thread::yield_now();
    }
    #[cfg(not(loom))]
    if step < 64 {
        std::hint::spin_loop();
    } else {
        std::thread::yield_now();
    }
}
