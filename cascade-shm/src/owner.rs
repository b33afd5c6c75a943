//! Owner rows: who uses the arena, as others see it.

use cascade_core::sync::{AtomicU64, Ordering};

use crate::lock::Holder;

/// What a row is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowState {
    /// Nobody's.
    Free,
    /// Somebody's.
    Live,
}

/// One owner row, 128 bytes in shared memory. Byte table in docs/format.md.
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub struct OwnerRow {
    /// State in bit 0, generation in the upper half.
    state: AtomicU64,
    pid: AtomicU64,
    started: AtomicU64,
    pid_namespace: AtomicU64,
    /// Number of ledger stripes that have ever been used: bounds the evictor's scan.
    stripes: AtomicU64,
}

/// A process as the kernel names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// Process id in its own pid namespace.
    pub pid: u64,
    /// Start time in clock ticks since boot.
    pub started: u64,
    /// Inode of its pid namespace.
    pub pid_namespace: u64,
}

impl OwnerRow {
    /// A private copy of a row, from its bytes in the file.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 128]) -> Self {
        let row = Self::default();
        let words = [&row.state, &row.pid, &row.started, &row.pid_namespace, &row.stripes];
        for (word, bytes) in words.into_iter().zip(bytes.as_chunks().0) {
            word.store(u64::from_le_bytes(*bytes), Ordering::Relaxed);
        }
        row
    }

    /// State and generation.
    pub fn state(&self) -> (RowState, u32) {
        let word = self.state.load(Ordering::Acquire);
        let state = if word & 1 == 1 { RowState::Live } else { RowState::Free };
        (state, (word >> 32) as u32)
    }

    /// Makes a free row the caller's, who holds the row's file lock. Gives the new generation.
    pub fn join(&self, process: Process) -> u32 {
        let (_, generation) = self.state();
        let generation = generation.wrapping_add(1);
        self.pid.store(process.pid, Ordering::Relaxed);
        self.started.store(process.started, Ordering::Relaxed);
        self.pid_namespace.store(process.pid_namespace, Ordering::Relaxed);
        self.stripes.store(0, Ordering::Relaxed);
        self.state.store(1 | u64::from(generation) << 32, Ordering::Release);
        generation
    }

    /// Ends the life of owner `generation`; `false` if it had ended already.
    pub fn leave(&self, generation: u32) -> bool {
        // As it stands: bits that mean nothing may be set by damage, and must not keep the row for ever.
        let live = self.state.load(Ordering::Acquire);
        let is_it = live & 1 == 1 && (live >> 32) as u32 == generation;
        let free = u64::from(generation) << 32;
        is_it && self.state.compare_exchange(live, free, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// The process that joined last.
    pub fn process(&self) -> Process {
        Process {
            pid: self.pid.load(Ordering::Relaxed),
            started: self.started.load(Ordering::Relaxed),
            pid_namespace: self.pid_namespace.load(Ordering::Relaxed),
        }
    }

    /// Ledger stripes to scan.
    pub fn stripes(&self) -> usize {
        self.stripes.load(Ordering::Acquire) as usize
    }

    /// Announces that stripe `stripe` is in use, before its first entry is written.
    pub fn use_stripe(&self, stripe: usize) {
        if self.stripes() <= stripe {
            self.stripes.fetch_max(stripe as u64 + 1, Ordering::SeqCst);
        }
    }

    /// Whether `holder` is the one that lives in this row now.
    pub fn is_current(&self, holder: Holder) -> bool {
        self.state() == (RowState::Live, holder.generation)
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_joined_and_left_by_generation() {
        let row = OwnerRow::default();
        assert_eq!(row.state(), (RowState::Free, 0));
        let process = Process { pid: 7, started: 8, pid_namespace: 9 };
        let generation = row.join(process);
        assert_eq!((row.state(), row.process()), ((RowState::Live, 1), process));
        assert!(!row.leave(generation + 1));
        assert!(row.leave(generation) && !row.leave(generation));
        assert_eq!(row.join(process), 2);
        assert_eq!(size_of::<OwnerRow>(), 128);
    }
}
