//! Tickets and completion queues.

use std::collections::HashMap;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cascade_core::batch::{self, Outcome};
use cascade_core::{Error, ErrorKind};
use cascade_store::outcome_name;
use parking_lot::Mutex;
use pyo3::prelude::*;

use crate::kept::{Kept, sweep};
use crate::raise;
use crate::store::timeout;

/// A batch under way.
#[pyclass(frozen, module = "cascade_kv")]
pub(crate) struct Ticket {
    inner: batch::Ticket,
    kept: Option<Arc<Kept>>,
}

impl Ticket {
    pub(crate) fn new(inner: batch::Ticket, kept: Option<Arc<Kept>>) -> Self {
        Self { inner, kept }
    }

    /// What became of it, if it has ended; its buffers are given back then.
    fn outcomes(&self, py: Python<'_>) -> Option<Vec<Outcome>> {
        let outcomes = self.inner.wait(Instant::now())?;
        sweep(py);
        if let Some(kept) = &self.kept {
            kept.release(py);
        }
        Some(outcomes)
    }
}

/// How long a wait goes on before Python's signal handlers have their turn.
const SLICE: Duration = Duration::from_millis(50);

/// Waits without the GIL, in slices, so that Ctrl-C ends it: `wait` is given the end of each slice, and answers `None` when that
/// came first.
pub(crate) fn wait_with_signals<T: Send>(
    py: Python<'_>,
    deadline: Instant,
    mut wait: impl FnMut(Instant) -> Option<T> + Send,
) -> PyResult<Option<T>> {
    loop {
        let now = Instant::now();
        let until = deadline.min(now + SLICE);
        if let Some(over) = py.detach(|| wait(until)) {
            return Ok(Some(over));
        }
        if until >= deadline {
            return Ok(None);
        }
        py.check_signals()?;
    }
}

fn names(outcomes: Vec<Outcome>) -> Vec<&'static str> {
    outcomes.into_iter().map(outcome_name).collect()
}

#[pymethods]
impl Ticket {
    /// Whether every block has its outcome.
    fn poll(&self, py: Python<'_>) -> bool {
        self.outcomes(py).is_some()
    }

    /// The outcomes, or `None` while some are missing; never waits.
    fn result(&self, py: Python<'_>) -> Option<Vec<&'static str>> {
        self.outcomes(py).map(names)
    }

    /// Waits for the outcomes, without the GIL; `None` when the time passed first.
    #[pyo3(signature = (timeout_s=60.0))]
    fn wait(&self, py: Python<'_>, timeout_s: f64) -> PyResult<Option<Vec<&'static str>>> {
        let deadline = timeout(timeout_s)?;
        let over = wait_with_signals(py, deadline, |until| self.inner.wait(until))?;
        Ok(if over.is_some() { self.result(py) } else { None })
    }

    /// For each block the length that was fetched, or `None`; `None` in all while some are missing.
    fn lengths(&self, py: Python<'_>) -> Option<Vec<Option<u64>>> {
        let len = |outcome| if let Outcome::Fetched(meta) = outcome { Some(meta.len) } else { None };
        self.outcomes(py).map(|outcomes| outcomes.into_iter().map(len).collect())
    }

    /// Asks that what has not begun is given up.
    fn cancel(&self) {
        self.inner.cancel();
    }
}

/// Many tickets behind one descriptor.
#[pyclass(frozen, module = "cascade_kv")]
pub(crate) struct CompletionQueue {
    inner: cascade_store::CompletionQueue,
    tickets: Mutex<(u64, HashMap<u64, Py<Ticket>>)>,
}

impl CompletionQueue {
    fn ended(&self, py: Python<'_>, done: Vec<cascade_store::Completion>) -> Vec<Py<Ticket>> {
        sweep(py);
        let mut tickets = self.tickets.lock();
        let ended: Vec<_> = done.iter().filter_map(|done| tickets.1.remove(&done.token)).collect();
        drop(tickets);
        for kept in ended.iter().filter_map(|ticket| ticket.get().kept.as_ref()) {
            kept.release(py);
        }
        ended
    }
}

/// Whether this is told by `False`.
fn is_a_value(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::NoSpace | ErrorKind::InvalidArgument)
}

#[pymethods]
impl CompletionQueue {
    #[new]
    #[pyo3(signature = (capacity=1024))]
    fn new(capacity: usize) -> PyResult<Self> {
        let inner = cascade_store::CompletionQueue::new(capacity).map_err(raise)?;
        Ok(Self { inner, tickets: Mutex::default() })
    }

    /// Has the end of a ticket told here; false when the queue is full or closed.
    fn add(&self, ticket: Py<Ticket>) -> PyResult<bool> {
        // Answers in a forked child, where the lock below may be held for ever by a thread of the parent.
        self.inner.descriptor().map_err(raise)?;
        let inner = ticket.get().inner.clone();
        let token = {
            let mut tickets = self.tickets.lock();
            tickets.0 += 1;
            let token = tickets.0;
            tickets.1.insert(token, ticket);
            token
        };
        match self.inner.add(&inner, token) {
            Ok(()) => Ok(true),
            Err(error) => {
                let taken = self.tickets.lock().1.remove(&token);
                drop(taken);
                if is_a_value(&error) { Ok(false) } else { Err(raise(error)) }
            }
        }
    }

    /// The descriptor, readable while a ticket has ended and is not drained.
    fn fileno(&self) -> PyResult<RawFd> {
        self.inner.descriptor().map_err(raise)
    }

    /// The tickets that have ended, at most `most`, in the order of their ends; never waits.
    #[pyo3(signature = (most=None))]
    fn drain(&self, py: Python<'_>, most: Option<usize>) -> PyResult<Vec<Py<Ticket>>> {
        let done = self.inner.drain(most.unwrap_or(usize::MAX)).map_err(raise)?;
        Ok(self.ended(py, done))
    }

    /// Waits, without the GIL, until some have ended, the time has passed, or the queue is closed.
    #[pyo3(signature = (timeout_s=60.0))]
    fn wait(&self, py: Python<'_>, timeout_s: f64) -> PyResult<Vec<Py<Ticket>>> {
        let deadline = timeout(timeout_s)?;
        let wait = |until| match self.inner.wait(until) {
            Ok(done) if done.is_empty() && !self.inner.is_closed().unwrap_or(true) => None,
            other => Some(other),
        };
        let done = wait_with_signals(py, deadline, wait)?.unwrap_or(Ok(Vec::new())).map_err(raise)?;
        Ok(self.ended(py, done))
    }

    /// Takes no more tickets, and wakes who waits.
    fn close(&self) -> PyResult<()> {
        self.inner.close().map_err(raise)
    }

    /// Whether the queue is closed.
    #[getter]
    fn closed(&self) -> PyResult<bool> {
        self.inner.is_closed().map_err(raise)
    }

    fn __len__(&self) -> PyResult<usize> {
        self.inner.len().map_err(raise)
    }

    /// An empty queue is a queue.
    fn __bool__(&self) -> bool {
        true
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, _exception: &Bound<'_, pyo3::types::PyTuple>) -> PyResult<()> {
        self.close()
    }
}
