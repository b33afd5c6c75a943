//! Measurements of a few milliseconds that the plan rests on: minima, so that a busy machine does not mislead them.

use std::time::{Duration, Instant};

use crate::copy::kernel::{Kernel, StoreKind};
use crate::copy::raw::copy_slice;

/// Fits the second-level cache: shows the speed of the kernel, not of memory.
const CACHED_BYTES: usize = 64 << 10;
/// Beyond the second-level cache: shows what the kind of stores does to memory traffic.
const MEMORY_BYTES: usize = 4 << 20;
/// A narrower kernel must be this much faster, in percent, to be preferred.
const MARGIN_PERCENT: u128 = 105;

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
        for kernel in Kernel::available() {
            let time = self.shortest(kernel, StoreKind::Plain, CACHED_BYTES, 8);
            if time.as_nanos() * MARGIN_PERCENT < best.1.as_nanos() * 100 {
                best = (kernel, time);
            }
        }
        best.0
    }

    /// Whether streaming stores are the faster way to memory.
    pub(crate) fn streaming_wins(&mut self, kernel: Kernel) -> bool {
        let plain = self.shortest(kernel, StoreKind::Plain, MEMORY_BYTES, 3);
        self.shortest(kernel, StoreKind::Streaming, MEMORY_BYTES, 3) < plain
    }

    fn shortest(&mut self, kernel: Kernel, store: StoreKind, len: usize, times: usize) -> Duration {
        let mut digests = [0; MEMORY_BYTES / crate::digest::CHUNK_BYTES];
        let digests = &mut digests[..crate::digest::chunk_count(len)];
        let mut measure = || {
            let start = Instant::now();
            copy_slice(kernel, store, &mut self.dst[..len], &self.src[..len], digests);
            start.elapsed()
        };
        (0..times).map(|_| measure()).min().unwrap_or(Duration::MAX)
    }
}
