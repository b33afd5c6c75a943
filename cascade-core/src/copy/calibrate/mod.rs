//! Measurements of a few milliseconds that the plan rests on: minima, so that a busy machine does not mislead them.

mod raw;

use std::time::{Duration, Instant};

use crate::copy::kernel::{Kernel, StoreKind};
use crate::copy::raw::copy_slice;
use crate::digest::{CHUNK_BYTES, chunk_count};

/// Fits the second-level cache: shows the speed of the kernel, not of memory.
const CACHED_BYTES: usize = 64 << 10;
/// Long enough to time, short enough to flush; a block's usual size.
const MEMORY_BYTES: usize = 1 << 20;
/// A narrower kernel must be this much faster, in percent, to be preferred.
const MARGIN_PERCENT: u128 = 105;
/// What plain stores really cost, in percent of the time measured: they read source and destination at once, and write
/// the destination back later, when nobody measures.
const UNPAID_PERCENT: u128 = 150;

/// Buffers to measure with, touched.
pub(crate) struct Bench {
    src: Vec<u8>,
    dst: Vec<u8>,
}

impl Bench {
    pub(crate) fn new() -> Self {
        // Not zero: zeroed allocations are one shared page until they are written.
        Self { src: vec![1; MEMORY_BYTES], dst: vec![2; MEMORY_BYTES] }
    }

    /// The fastest kernel of this CPU on cached data.
    pub(crate) fn best_kernel(&mut self) -> Kernel {
        let mut best = (Kernel::Scalar, Duration::MAX);
        // The scalar kernel is ten times slower than any other: it is not worth its time to be measured.
        for kernel in Kernel::available().filter(|kernel| *kernel != Kernel::Scalar) {
            let time = (0..8).map(|_| self.time(kernel, StoreKind::Plain, CACHED_BYTES)).min();
            let time = time.unwrap_or(Duration::MAX);
            if time.as_nanos().saturating_mul(MARGIN_PERCENT) < best.1.as_nanos().saturating_mul(100) {
                best = (kernel, time);
            }
        }
        best.0
    }

    /// Whether streaming stores are a good way to a place that no cache holds, such as a slot of a large arena.
    pub(crate) fn streaming_wins(&mut self, kernel: Kernel) -> bool {
        let (mut plain, mut streaming) = (Duration::MAX, Duration::MAX);
        // In turns, so that another process's burst does not fall on one kind alone.
        for _ in 0..4 {
            plain = plain.min(self.time_to_memory(kernel, StoreKind::Plain));
            streaming = streaming.min(self.time_to_memory(kernel, StoreKind::Streaming));
        }
        streaming.as_nanos().saturating_mul(100) < plain.as_nanos().saturating_mul(UNPAID_PERCENT)
    }

    fn time_to_memory(&mut self, kernel: Kernel, store: StoreKind) -> Duration {
        raw::flush(&mut self.dst);
        self.time(kernel, store, MEMORY_BYTES)
    }

    fn time(&mut self, kernel: Kernel, store: StoreKind, len: usize) -> Duration {
        let mut digests = [0; MEMORY_BYTES / CHUNK_BYTES];
        let digests = &mut digests[..chunk_count(len)];
        let start = Instant::now();
        copy_slice(kernel, store, &mut self.dst[..len], &self.src[..len], digests);
        start.elapsed()
    }
}
