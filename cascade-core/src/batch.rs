//! Batches of operations and the tickets that they complete.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::id::BlockId;
use crate::memory::SgList;
use crate::tier::{BlockMeta, MissReason, PutMeta};

/// One operation on one block.
#[derive(Debug)]
pub enum Op {
    /// Copies the block into `into`, which must hold at least its length.
    Fetch {
        /// Which block.
        id: BlockId,
        /// Where to.
        into: SgList,
    },
    /// Stores the bytes of `from` as a block.
    Store {
        /// Which block.
        id: BlockId,
        /// Where from; the block is as long as the list.
        from: SgList,
        /// Class, tenant, and what to do if it exists.
        meta: PutMeta,
    },
    /// Forgets the block.
    Delete {
        /// Which block.
        id: BlockId,
    },
}

/// Operations handed over together.
#[derive(Debug, Default)]
pub struct Batch {
    /// The operations, answered in this order.
    pub ops: Vec<Op>,
    /// When to give up on what has not started.
    pub deadline: Option<Instant>,
}

impl Batch {
    /// A batch without a deadline.
    #[must_use]
    pub fn new(ops: Vec<Op>) -> Self {
        Self { ops, deadline: None }
    }
}

/// Why a put was refused. Nothing was stored, nothing was lost.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// Nothing could be evicted to make room.
    Full,
    /// The block can never fit in this tier.
    TooLarge,
    /// A block has at least one byte.
    Empty,
    /// Another writer is storing the same id now; its bytes will do.
    Pending,
    /// Too many bytes or operations are in flight.
    Throttled,
    /// The deadline passed.
    Deadline,
    /// A piece of the list is in memory that this tier cannot reach.
    Memory,
    /// The tier, device or peer is gone.
    Unavailable,
    /// The tier can only be read: of its medium this process may change nothing.
    ReadOnly,
}

impl Refusal {
    /// The name as metrics, logs and Python write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::TooLarge => "too_large",
            Self::Empty => "empty",
            Self::Pending => "pending",
            Self::Throttled => "throttled",
            Self::Deadline => "deadline",
            Self::Memory => "memory",
            Self::Unavailable => "unavailable",
            Self::ReadOnly => "read_only",
        }
    }
}

/// What became of one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The block was copied out.
    Fetched(BlockMeta),
    /// The block was stored.
    Stored,
    /// The block was stored already.
    Exists,
    /// The block was forgotten.
    Deleted,
    /// There was nothing to fetch or forget.
    Miss(MissReason),
    /// The put was refused.
    Refused(Refusal),
    /// The ticket was cancelled before this operation started.
    Cancelled,
}

/// What somebody wants done when a ticket has ended.
struct Watcher(Box<dyn FnOnce() + Send>);

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watcher")
    }
}

#[derive(Debug)]
struct State {
    outcomes: Vec<Option<Outcome>>,
    left: usize,
    /// Empty once nothing is left.
    watchers: Vec<Watcher>,
}

/// The standard library's locks: parking_lot's waits go through one table for the whole process, which another thread may
/// have locked at the moment of a fork, and then the child's waits never end.
#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    done: Condvar,
    cancelled: AtomicBool,
}

impl Shared {
    /// A panic under the lock leaves every outcome as it was: what is locked is never half done.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells everybody that the ticket has ended; without the lock, because watchers may ask the ticket.
    fn end(&self, mut state: MutexGuard<'_, State>) {
        let watchers = std::mem::take(&mut state.watchers);
        self.done.notify_all();
        drop(state);
        watchers.into_iter().for_each(|watcher| (watcher.0)());
    }
}

/// The client's side of a batch under way. Clones are the same ticket; one that is dropped changes nothing for the operations.
#[derive(Clone, Debug)]
pub struct Ticket {
    shared: Arc<Shared>,
    /// The ticket whose end this one tells of: it is cancelled with this one.
    relayed: Option<Box<Ticket>>,
}

/// The tier's side: reports an outcome for each operation. What is never reported reads as unavailable once this is dropped.
#[derive(Debug)]
pub struct Completer {
    shared: Arc<Shared>,
}

/// A ticket for `ops` operations and the side that completes it.
#[must_use]
pub fn ticket(ops: usize) -> (Ticket, Completer) {
    let shared = Arc::new(Shared {
        state: Mutex::new(State { outcomes: vec![None; ops], left: ops, watchers: Vec::new() }),
        done: Condvar::new(),
        cancelled: AtomicBool::new(false),
    });
    (Ticket { shared: Arc::clone(&shared), relayed: None }, Completer { shared })
}

impl Ticket {
    /// A ticket that is complete from the start.
    #[must_use]
    pub fn ready(outcomes: Vec<Outcome>) -> Self {
        let state =
            State { outcomes: outcomes.into_iter().map(Some).collect(), left: 0, watchers: Vec::new() };
        Self {
            shared: Arc::new(Shared {
                state: Mutex::new(state),
                done: Condvar::new(),
                cancelled: AtomicBool::new(false),
            }),
            relayed: None,
        }
    }

    /// A ticket that ends when `inner` does, with what `change` makes of its outcomes: what a layer gives its client.
    #[must_use]
    pub fn relay(
        inner: Self,
        outcomes: usize,
        change: impl FnOnce(Vec<Outcome>) -> Vec<Outcome> + Send + 'static,
    ) -> Self {
        if let Some(outcomes) = inner.wait(Instant::now()) {
            return Self::ready(change(outcomes));
        }
        let (mut outer, completer) = ticket(outcomes);
        let ended = inner.clone();
        inner.on_end(move || {
            let outcomes = change(ended.wait(Instant::now()).unwrap_or_default());
            outcomes.into_iter().enumerate().for_each(|(at, outcome)| completer.complete(at, outcome));
        });
        outer.relayed = Some(Box::new(inner));
        outer
    }

    /// Whether every operation has its outcome.
    #[must_use]
    pub fn poll(&self) -> bool {
        self.shared.lock().left == 0
    }

    /// Waits until `deadline`; `None` when it passed first (the operations go on, and the ticket stays good).
    #[must_use]
    pub fn wait(&self, deadline: Instant) -> Option<Vec<Outcome>> {
        let mut state = self.shared.lock();
        while state.left > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            state = self.shared.done.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        Some(state.outcomes.iter().flatten().copied().collect())
    }

    /// Calls `watcher` when every operation has its outcome: at once if that is so now, else on the thread that brings the last
    /// one, which must not be kept waiting.
    pub fn on_end(&self, watcher: impl FnOnce() + Send + 'static) {
        let mut state = self.shared.lock();
        if state.left > 0 {
            state.watchers.push(Watcher(Box::new(watcher)));
            return;
        }
        drop(state);
        watcher();
    }

    /// Asks that operations which have not started are given up; those under way complete.
    pub fn cancel(&self) {
        self.shared.cancelled.store(true, Ordering::Relaxed);
        if let Some(inner) = &self.relayed {
            inner.cancel();
        }
    }
}

impl Completer {
    /// Whether the client has cancelled.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.shared.cancelled.load(Ordering::Relaxed)
    }

    /// Reports the outcome of operation `index`; a second report for the same operation is ignored.
    pub fn complete(&self, index: usize, outcome: Outcome) {
        let mut state = self.shared.lock();
        let Some(slot) = state.outcomes.get_mut(index) else { return };
        if slot.is_some() {
            return;
        }
        *slot = Some(outcome);
        state.left -= 1;
        if state.left == 0 {
            self.shared.end(state);
        }
    }
}

impl Drop for Completer {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        for slot in &mut state.outcomes {
            slot.get_or_insert(Outcome::Miss(MissReason::Unavailable));
        }
        state.left = 0;
        self.shared.end(state);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn completes_in_any_order_and_once() {
        let (ticket, completer) = ticket(2);
        assert!(!ticket.poll());
        completer.complete(1, Outcome::Stored);
        completer.complete(1, Outcome::Exists);
        completer.complete(7, Outcome::Exists);
        assert!(ticket.wait(Instant::now() + Duration::from_millis(1)).is_none());
        completer.complete(0, Outcome::Deleted);
        assert_eq!(ticket.wait(Instant::now()), Some(vec![Outcome::Deleted, Outcome::Stored]));
    }

    #[test]
    fn a_lost_completer_never_hangs_the_client() {
        let (ticket, completer) = ticket(1);
        std::thread::scope(|scope| {
            scope.spawn(move || drop(completer));
            let outcomes = ticket.wait(Instant::now() + Duration::from_secs(5));
            assert_eq!(outcomes, Some(vec![Outcome::Miss(MissReason::Unavailable)]));
        });
    }

    #[test]
    fn watchers_are_called_once_when_the_last_outcome_is_there() {
        let calls = Arc::new(Mutex::new(Vec::new()));
        let watch = |ticket: &Ticket, name: &'static str| {
            let (calls, asked) = (Arc::clone(&calls), ticket.clone());
            ticket.on_end(move || calls.lock().unwrap().push((name, asked.poll())));
        };
        let (completed, completer) = ticket(2);
        watch(&completed, "first");
        completer.complete(0, Outcome::Stored);
        assert!(calls.lock().unwrap().is_empty());
        completer.complete(1, Outcome::Stored);
        drop(completer);
        watch(&completed, "late");
        let (lost, completer) = ticket(1);
        watch(&lost, "lost");
        drop(completer);
        assert_eq!(*calls.lock().unwrap(), [("first", true), ("late", true), ("lost", true)]);
    }

    #[test]
    fn a_relayed_ticket_ends_and_is_cancelled_with_the_one_below() {
        let (inner, completer) = ticket(1);
        let outer = Ticket::relay(inner, 2, |mut outcomes| {
            outcomes.push(Outcome::Exists);
            outcomes
        });
        outer.cancel();
        assert!(completer.is_cancelled() && !outer.poll());
        completer.complete(0, Outcome::Stored);
        let expected = Some(vec![Outcome::Stored, Outcome::Exists]);
        assert_eq!(outer.wait(Instant::now()), expected);
        let again = Ticket::relay(Ticket::ready(vec![Outcome::Stored]), 1, |outcomes| outcomes);
        assert_eq!(again.wait(Instant::now()), Some(vec![Outcome::Stored]));
    }

    #[test]
    fn cancel_is_seen_by_the_tier() {
        let (ticket, completer) = ticket(1);
        ticket.cancel();
        assert!(completer.is_cancelled());
    }
}
