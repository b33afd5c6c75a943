//! What the writer is asked for, bounded in bytes.

use std::collections::VecDeque;

use cascade_core::batch::Completer;
use cascade_core::id::BlockId;
use cascade_core::memory::SgList;
use cascade_core::tier::PutMeta;
use parking_lot::{Condvar, Mutex};

use crate::layout::{Record, WriterId};
use crate::part::Part;

/// A block to be written.
#[derive(Debug)]
pub(crate) struct Put {
    pub(crate) id: BlockId,
    pub(crate) from: SgList,
    pub(crate) meta: PutMeta,
    /// Sequence of a block that is moved; `None` for one that is put.
    pub(crate) moved: Option<u64>,
    /// Who waits; nobody for a block that is moved.
    pub(crate) part: Option<Part>,
}

#[derive(Debug)]
pub(crate) enum Request {
    Put(Put),
    Delete {
        id: BlockId,
        part: Part,
    },
    /// The block was found damaged or gone: no older version of it may come back.
    Hide(Record),
    Flush(Completer),
    /// The files of an adopted writer that has no segment any more are to be removed.
    Bury(WriterId),
}

#[derive(Debug, Default)]
struct State {
    requests: VecDeque<Request>,
    bytes: u64,
    closing: bool,
    woken: bool,
}

/// What the writer does next.
#[derive(Debug)]
pub(crate) enum Next {
    Request(Request),
    /// A write has ended.
    Woken,
    /// Nothing more will come.
    Closed,
}

#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    limit_bytes: u64,
}

impl Queue {
    pub(crate) fn new(limit_bytes: u64) -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), limit_bytes }
    }

    /// Hands over a request that takes `bytes` until they are released; `false` when there are too many under way. A single
    /// request is always taken, however large. The request itself is dropped by the caller when it is refused.
    pub(crate) fn push(&self, request: Request, bytes: u64) -> Result<(), Request> {
        let mut state = self.state.lock();
        let full = bytes > 0 && state.bytes > 0 && state.bytes.saturating_add(bytes) > self.limit_bytes;
        if full || state.closing {
            return Err(request);
        }
        state.bytes += bytes;
        state.requests.push_back(request);
        self.changed.notify_all();
        Ok(())
    }

    /// Gives back what [`Queue::push`] took.
    pub(crate) fn release(&self, bytes: u64) {
        let mut state = self.state.lock();
        state.bytes = state.bytes.saturating_sub(bytes);
    }

    /// A write has ended.
    pub(crate) fn wake(&self) {
        self.state.lock().woken = true;
        self.changed.notify_all();
    }

    pub(crate) fn close(&self) {
        self.state.lock().closing = true;
        self.changed.notify_all();
    }

    /// Waits for work. With `may_take` false only for a write to end.
    pub(crate) fn next(&self, may_take: bool, writing: bool) -> Next {
        let mut state = self.state.lock();
        loop {
            if std::mem::take(&mut state.woken) {
                return Next::Woken;
            }
            if may_take && let Some(request) = state.requests.pop_front() {
                return Next::Request(request);
            }
            if state.closing && !writing {
                return Next::Closed;
            }
            self.changed.wait(&mut state);
        }
    }

    /// The next request, if it is a put.
    pub(crate) fn next_put(&self) -> Option<Put> {
        let mut state = self.state.lock();
        match state.requests.pop_front()? {
            Request::Put(put) => Some(put),
            other => {
                state.requests.push_front(other);
                None
            }
        }
    }
}
