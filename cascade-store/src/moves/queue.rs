//! What a background thread is asked for: bounded, and told when to end.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

#[derive(Debug)]
struct State<T> {
    waiting: VecDeque<T>,
    is_closed: bool,
}

/// Requests for a thread, or several.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    most: usize,
}

impl<T> Queue<T> {
    /// At most `most` requests wait.
    pub(crate) fn new(most: usize) -> Self {
        let state = State { waiting: VecDeque::new(), is_closed: false };
        Self { state: Mutex::new(state), changed: Condvar::new(), most }
    }

    /// Hands over requests; those that there is no room for come back.
    pub(crate) fn push(&self, requests: impl IntoIterator<Item = T>) -> Vec<T> {
        let mut state = self.state.lock();
        let mut refused = Vec::new();
        for request in requests {
            if state.waiting.len() < self.most && !state.is_closed {
                state.waiting.push_back(request);
            } else {
                refused.push(request);
            }
        }
        self.changed.notify_one();
        refused
    }

    /// Hands over a request that somebody waits for, however many wait already. One that comes too late is dropped.
    pub(crate) fn push_waited(&self, request: T) {
        let mut state = self.state.lock();
        if !state.is_closed {
            state.waiting.push_back(request);
        }
        self.changed.notify_one();
    }

    /// Tells every thread that serves the queue to end when nothing waits.
    pub(crate) fn close(&self) {
        self.state.lock().is_closed = true;
        self.changed.notify_all();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state.lock().is_closed
    }

    /// Up to `most` requests, as soon as there is one, or `patience` is over. `None` when the queue is closed and
    /// empty.
    pub(crate) fn take(&self, most: usize, patience: Duration) -> Option<Vec<T>> {
        let mut state = self.state.lock();
        if state.waiting.is_empty() && !state.is_closed && !patience.is_zero() {
            self.changed.wait_for(&mut state, patience);
        }
        let count = most.min(state.waiting.len());
        (count > 0 || !state.is_closed).then(|| state.waiting.drain(..count).collect())
    }
}
