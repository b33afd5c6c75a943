//! A stripe of the file of counters, mapped.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::atomic::AtomicU64;

use memmap2::{MmapOptions, MmapRaw};
use nix::fcntl::posix_fallocate;

use super::layout::{FILE_BYTES, STRIPE_BYTES, STRIPE_WORDS};

/// Words that the stores of a node add to.
#[derive(Debug)]
pub(crate) struct Stripe(MmapRaw);

impl Stripe {
    /// The stripe that begins at byte `at`, a page boundary; `None` where the system has no memory for the file.
    pub(super) fn map(file: &File, at: u64) -> Option<Self> {
        // Allocated before it is touched: a page that cannot be had would end the process.
        posix_fallocate(file, 0, i64::try_from(FILE_BYTES).ok()?).ok()?;
        let map = MmapOptions::new().offset(at).len(STRIPE_BYTES).map_raw(file.as_raw_fd()).ok()?;
        Some(Self(map))
    }

    pub(super) fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is of STRIPE_WORDS words that were allocated, at a page boundary, for as long as `self` lives; nobody of
        // ours makes the file shorter, and every process that maps it touches it by atomics only, which any bytes are.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast::<AtomicU64>(), STRIPE_WORDS) }
    }
}
