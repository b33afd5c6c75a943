//! Reads that are under way, bounded in bytes.

use std::collections::VecDeque;
use std::fmt;

use parking_lot::Mutex;

type Start = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct State {
    bytes: u64,
    waiting: VecDeque<(u64, Start)>,
}

/// Lets reads begin, in their order, while fewer bytes than a limit are under way; a single one always.
pub(crate) struct Gate {
    state: Mutex<State>,
    limit_bytes: u64,
    most_waiting: usize,
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        write!(f, "Gate({} of {} bytes, {} wait)", state.bytes, self.limit_bytes, state.waiting.len())
    }
}

impl State {
    fn admits(&self, bytes: u64, limit_bytes: u64) -> bool {
        self.bytes == 0 || self.bytes.saturating_add(bytes) <= limit_bytes
    }
}

impl Gate {
    pub(crate) fn new(limit_bytes: u64, most_waiting: usize) -> Self {
        Self { state: Mutex::default(), limit_bytes, most_waiting }
    }

    /// Whether so many wait that no more should be asked for.
    pub(crate) fn is_crowded(&self) -> bool {
        self.state.lock().waiting.len() >= self.most_waiting
    }

    /// Calls `start`, which takes `bytes` until [`Gate::leave`]: now, or when others have left.
    pub(crate) fn enter(&self, bytes: u64, start: impl FnOnce() + Send + 'static) {
        let mut state = self.state.lock();
        if state.waiting.is_empty() && state.admits(bytes, self.limit_bytes) {
            state.bytes += bytes;
            drop(state);
            return start();
        }
        state.waiting.push_back((bytes, Box::new(start)));
    }

    /// Gives back what [`Gate::enter`] took.
    pub(crate) fn leave(&self, bytes: u64) {
        let mut ready = Vec::new();
        {
            let mut state = self.state.lock();
            state.bytes = state.bytes.saturating_sub(bytes);
            while let Some((bytes, start)) = state.waiting.pop_front() {
                if !state.admits(bytes, self.limit_bytes) {
                    state.waiting.push_front((bytes, start));
                    break;
                }
                state.bytes += bytes;
                ready.push(start);
            }
        }
        ready.into_iter().for_each(|start| start());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn bytes_are_bounded_and_order_is_kept() {
        let (gate, started) = (Gate::new(100, 2), Arc::new(Mutex::new(Vec::new())));
        let enter = |bytes: u64| {
            let started = Arc::clone(&started);
            gate.enter(bytes, move || started.lock().push(bytes));
        };
        enter(500);
        enter(60);
        enter(30);
        assert!(gate.is_crowded());
        enter(20);
        assert_eq!(*started.lock(), [500], "a single one is always let in");
        gate.leave(500);
        assert_eq!(*started.lock(), [500, 60, 30]);
        gate.leave(30);
        assert_eq!(*started.lock(), [500, 60, 30, 20]);
        assert!(!gate.is_crowded());
    }
}
