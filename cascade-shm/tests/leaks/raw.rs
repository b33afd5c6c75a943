//! The system's allocator, counted.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicI64, Ordering};

struct Counted;

static BYTES: AtomicI64 = AtomicI64::new(0);
static PIECES: AtomicI64 = AtomicI64::new(0);

#[global_allocator]
static ALLOCATOR: Counted = Counted;

/// What is allocated and not freed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    pub(crate) bytes: i64,
    pub(crate) pieces: i64,
}

impl Held {
    pub(crate) fn now() -> Self {
        Self { bytes: BYTES.load(Ordering::Relaxed), pieces: PIECES.load(Ordering::Relaxed) }
    }
}

fn count(bytes: i64, pieces: i64) {
    BYTES.fetch_add(bytes, Ordering::Relaxed);
    PIECES.fetch_add(pieces, Ordering::Relaxed);
}

// SAFETY: everything is the system allocator's; counting allocates nothing.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as i64, 1);
        // SAFETY: the caller's contract is that of `System`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        count(-(layout.size() as i64), -1);
        // SAFETY: the caller's contract is that of `System`, which gave `ptr`.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count(new_size as i64 - layout.size() as i64, 0);
        // SAFETY: the caller's contract is that of `System`, which gave `ptr`.
        unsafe { System.realloc(ptr, layout, new_size) }
    }
}
