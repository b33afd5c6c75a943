//! Which kernel, stores and threads a copy gets.

use std::fmt;
use std::num::NonZero;

use crate::copy::calibrate::Bench;
use crate::copy::kernel::{Direction, Kernel, StoreKind};
use crate::copy::pool::MAX_HELPERS;
use crate::copy::published::Published;
use crate::copy::settings::Settings;

/// Puts stream from here on. To a slot that no cache holds, streaming was the faster by half at all lengths from 4 KiB up
/// (EPYC, 16 KiB to 4 MiB: 12-22 against 5-12 GB/s); a smaller block stays in the cache for its first reader.
const PUT_STREAMING_FROM_BYTES: usize = 16 << 10;
/// Gets stream from here on. A copy that the CPU reads at once would gain from plain stores up to about 32 MiB (copy and
/// read, 256 KiB: plain 30, streaming 15 GB/s; 16 MiB: 21 and 15; 64 MiB: 14 and 16), but KV blocks of a MiB and more are
/// copied in long rows and then go to a device: their copies evict each other from the cache, and plain stores then read
/// every line before they write it (72 % of the best copy at 1 MiB).
const GET_STREAMING_FROM_BYTES: usize = 1 << 20;
/// Copies are shared from here on: below, one thread is about as fast and leaves the other CPUs to their work.
const THREADS_FROM_BYTES: usize = 8 << 20;

/// How this process copies. Printable: one line, then one for each setting that has no effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyPlan {
    /// Kernel of all copies.
    pub kernel: Kernel,
    /// Least length in bytes of a put with streaming stores; `usize::MAX`: never.
    pub put_streaming_from_bytes: usize,
    /// Least length in bytes of a get with streaming stores; `usize::MAX`: never.
    pub get_streaming_from_bytes: usize,
    /// Threads that share a large copy, the caller included.
    pub threads: usize,
    /// Least length in bytes of a copy that is shared.
    pub threads_from_bytes: usize,
    /// Environment settings that could not be used, and why.
    pub notes: Vec<String>,
}

/// The process's plan: made on first use, in some milliseconds, and kept.
pub fn plan() -> &'static CopyPlan {
    static PLAN: Published<CopyPlan> = Published::new();
    PLAN.get(|_| true, || CopyPlan::decide(Settings::from_env())).0
}

impl CopyPlan {
    fn decide(settings: Settings) -> Self {
        let mut bench = Bench::new();
        let kernel = settings.kernel.unwrap_or_else(|| bench.best_kernel());
        let (put, get) = match settings.store {
            Some(StoreKind::Streaming) => (0, 0),
            Some(StoreKind::Plain) => (usize::MAX, usize::MAX),
            None if bench.streaming_wins(kernel) => (PUT_STREAMING_FROM_BYTES, GET_STREAMING_FROM_BYTES),
            None => (usize::MAX, usize::MAX),
        };
        let cpus = || std::thread::available_parallelism().map_or(1, NonZero::get);
        Self {
            kernel,
            put_streaming_from_bytes: put,
            get_streaming_from_bytes: get,
            threads: settings.threads.unwrap_or_else(|| cpus().min(MAX_HELPERS + 1)),
            threads_from_bytes: THREADS_FROM_BYTES,
            notes: settings.notes,
        }
    }

    /// Kind of stores for a copy of `len` bytes.
    pub fn store_kind(&self, direction: Direction, len: usize) -> StoreKind {
        let from = match direction {
            Direction::Put => self.put_streaming_from_bytes,
            Direction::Get => self.get_streaming_from_bytes,
        };
        if len >= from { StoreKind::Streaming } else { StoreKind::Plain }
    }

    /// Threads for a copy or digest of `len` bytes, the caller included.
    pub fn threads_for(&self, len: usize) -> usize {
        if len >= self.threads_from_bytes { self.threads } else { 1 }
    }
}

impl fmt::Display for CopyPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let from = |bytes: usize| match bytes {
            usize::MAX => "never".to_owned(),
            bytes => format!("from {} KiB", bytes >> 10),
        };
        write!(
            f,
            "copy kernel {}; streaming stores: put {}, get {}; threads {} from {} MiB",
            self.kernel,
            from(self.put_streaming_from_bytes),
            from(self.get_streaming_from_bytes),
            self.threads,
            self.threads_from_bytes >> 20,
        )?;
        self.notes.iter().try_for_each(|note| write!(f, "\n{note}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environment_overrides_the_calibration() {
        let settings = Settings {
            kernel: Some(Kernel::Scalar),
            store: Some(StoreKind::Streaming),
            threads: Some(1),
            notes: vec!["a note".to_owned()],
        };
        let plan = CopyPlan::decide(settings);
        assert_eq!(plan.kernel, Kernel::Scalar);
        assert_eq!(plan.store_kind(Direction::Get, 1), StoreKind::Streaming);
        assert_eq!(plan.threads_for(1 << 30), 1);
        let printed = plan.to_string();
        assert!(printed.starts_with("copy kernel scalar; streaming stores: put from 0 KiB"), "{printed}");
        assert!(printed.ends_with("\na note"), "{printed}");
    }

    #[test]
    fn calibration_chooses_among_what_the_cpu_has() {
        let plan = CopyPlan::decide(Settings::default());
        assert!(plan.kernel.is_supported());
        assert!((1..=MAX_HELPERS + 1).contains(&plan.threads));
        assert_eq!(plan.store_kind(Direction::Put, 4096), StoreKind::Plain);
        assert_eq!(plan.threads_for(4 << 20), 1);
    }
}
