//! The page at the front of the file of locks.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use memmap2::{MmapOptions, MmapRaw};
use nix::fcntl::{FallocateFlags, fallocate};

use super::changes::{Page, WORDS};

const BYTES: usize = WORDS * 8;

#[derive(Debug)]
struct Mapped(MmapRaw);

/// The page of a file, shared with all who map it; `None` where the system has no memory for it.
pub(super) fn page(file: &File) -> Option<Arc<dyn Page>> {
    // Allocated before it is touched: a page that cannot be had would end the process.
    fallocate(file, FallocateFlags::empty(), 0, BYTES as i64).ok()?;
    let map = MmapOptions::new().len(BYTES).map_raw(file.as_raw_fd()).ok()?;
    Some(Arc::new(Mapped(map)))
}

impl Page for Mapped {
    fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is of WORDS words that were allocated, at a page boundary, for as long as `self` lives; every process
        // that maps it touches it by atomics only, which any bytes are.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast::<AtomicU64>(), WORDS) }
    }
}
