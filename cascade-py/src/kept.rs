//! Buffers of tickets: exported, and so in place, until nobody moves bytes there any more.

use parking_lot::Mutex;
use pyo3::prelude::*;

use crate::buffers::Buffer;

/// Buffers whose last user was a thread of the store, which has no business with the interpreter: given back by the next
/// caller that holds it.
static LEFT: Mutex<Vec<Vec<Buffer>>> = Mutex::new(Vec::new());

/// The buffers of one ticket. Its pieces share it.
pub(crate) struct Kept(Mutex<Vec<Buffer>>);

impl Kept {
    pub(crate) fn new(buffers: Vec<Buffer>) -> Self {
        Self(Mutex::new(buffers))
    }

    /// Gives the buffers back: the ticket has ended.
    pub(crate) fn release(&self, _py: Python<'_>) {
        // Dropped after the lock, because dropping may run code of Python.
        let buffers = std::mem::take(&mut *self.0.lock());
        drop(buffers);
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let buffers = std::mem::take(self.0.get_mut());
        if !buffers.is_empty() {
            LEFT.lock().push(buffers);
        }
    }
}

/// Gives back what threads of the store left.
pub(crate) fn sweep(_py: Python<'_>) {
    let left = std::mem::take(&mut *LEFT.lock());
    drop(left);
}
