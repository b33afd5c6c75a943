//! Ctrl-C, as a flag that long commands look at: a process that is killed with an owner row leaves work to others.

mod raw;

use std::time::{Duration, Instant};

pub(super) use raw::Interrupts;

/// How soon a sleeping command notices.
const STEP: Duration = Duration::from_millis(20);

impl Interrupts {
    /// Sleeps; `false` when it was interrupted.
    pub(super) fn sleep(&self, time: Duration) -> bool {
        let end = Instant::now() + time;
        loop {
            if self.came() {
                return false;
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            std::thread::sleep(left.min(STEP));
        }
    }
}
