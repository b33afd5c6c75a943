//! The allocation of one block.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;

use crate::block::BlockMemory;

/// Alignment that the streaming kernels like best.
const ALIGN: usize = 64;

/// Owned memory of one block.
#[derive(Debug)]
pub(super) struct Slab {
    ptr: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the slab owns its memory; what may be written when is the tier's protocol, kept under its lock.
unsafe impl Send for Slab {}
// SAFETY: as above.
unsafe impl Sync for Slab {}

impl Slab {
    /// Memory for `len > 0` bytes; `None` when the system has none.
    pub(super) fn new(len: usize) -> Option<Self> {
        let layout = Layout::from_size_align(len.max(1), ALIGN).ok()?;
        // SAFETY: the layout has a size of at least one byte.
        let ptr = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        Some(Self { ptr, layout })
    }

    /// Size in bytes.
    pub(super) fn len(&self) -> u64 {
        self.layout.size() as u64
    }

    /// The block in this slab. Whoever uses it keeps the slab alive (the tier's tables do).
    pub(super) fn memory(&self, len: usize) -> BlockMemory {
        assert!(len <= self.layout.size(), "a block lies within its slab");
        // SAFETY: the memory is valid for `len` bytes; the tier hands the value only to leases and reservations that its tables keep.
        unsafe { BlockMemory::new(self.ptr, len) }
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout, and freed once.
        unsafe { dealloc(self.ptr.as_ptr(), self.layout) };
    }
}
