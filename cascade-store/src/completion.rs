//! Many tickets behind one descriptor, for the event loop of an engine.

use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use cascade_core::batch::{Outcome, Ticket};
use cascade_core::{Error, ErrorKind, Result};
use nix::sys::eventfd::{EfdFlags, EventFd};

/// A ticket that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completion {
    /// What the ticket was added with.
    pub token: u64,
    /// An outcome for each of its operations.
    pub outcomes: Vec<Outcome>,
}

#[derive(Debug, Default)]
struct State {
    /// By number, because tokens may repeat.
    under_way: HashMap<u64, (u64, Ticket)>,
    ended: VecDeque<Completion>,
    next: u64,
    is_closed: bool,
}

/// The standard library's lock, as in `cascade_core::batch`: a forked child must find its own queues usable.
#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// Readable while a ticket has ended and is not drained, and for ever once the queue is closed.
    event: EventFd,
    most: usize,
    /// The descriptor is one with the parent's after a fork: a child that read it would take the parent's notices.
    pid: u32,
}

impl Shared {
    /// No panic leaves the state half changed.
    fn lock(&self) -> Result<MutexGuard<'_, State>> {
        if std::process::id() != self.pid {
            let what = format!(
                "this completion queue belongs to process {}: a forked child makes one of its own",
                self.pid
            );
            return Err(Error::new(ErrorKind::Unsupported, what));
        }
        Ok(self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Makes the descriptor readable. It cannot fail short of 2^64 - 1 notices at once.
    fn ring(&self) {
        let _ = self.event.write(1);
    }

    fn ended(&self, number: u64) {
        let Ok(mut state) = self.lock() else { return };
        let Some((token, ticket)) = state.under_way.remove(&number) else { return };
        let outcomes = ticket.wait(Instant::now()).unwrap_or_default();
        state.ended.push_back(Completion { token, outcomes });
        if state.ended.len() == 1 && !state.is_closed {
            self.ring();
        }
        self.changed.notify_all();
    }
}

/// Tickets whose ends are told by a descriptor that epoll, poll or asyncio can wait for. Clones are the same queue. After a
/// fork the child's copy answers everything with `Unsupported`.
///
/// ```
/// use std::time::{Duration, Instant};
/// use cascade_core::batch::{Outcome, ticket};
/// use cascade_store::CompletionQueue;
///
/// let queue = CompletionQueue::new(16)?;
/// let (ticket, completer) = ticket(1);
/// queue.add(&ticket, 7)?;
/// completer.complete(0, Outcome::Stored);
/// let ended = queue.wait(Instant::now() + Duration::from_secs(5))?;
/// assert_eq!((ended[0].token, &ended[0].outcomes[..]), (7, &[Outcome::Stored][..]));
/// # Ok::<(), cascade_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct CompletionQueue {
    shared: Arc<Shared>,
}

impl CompletionQueue {
    /// A queue for `most` tickets, those that have ended and are not drained included.
    ///
    /// # Errors
    /// `InvalidArgument` when `most` is 0, `NoSpace` when no descriptor is to be had.
    pub fn new(most: usize) -> Result<Self> {
        if most == 0 {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                "a completion queue holds at least one ticket",
            ));
        }
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).map_err(|error| {
            let what = "no descriptor for a completion queue: raise `ulimit -n`";
            Error::new(ErrorKind::NoSpace, what).with_source(error)
        })?;
        let (state, changed) = (Mutex::default(), Condvar::new());
        Ok(Self { shared: Arc::new(Shared { state, changed, event, most, pid: std::process::id() }) })
    }

    /// Has the end of `ticket` told here, with `token`. The queue keeps the ticket until then.
    ///
    /// # Errors
    /// `NoSpace` when the queue is full, `InvalidArgument` when it is closed, `Unsupported` in a forked child. The ticket is
    /// as good as before.
    pub fn add(&self, ticket: &Ticket, token: u64) -> Result<()> {
        let mut state = self.shared.lock()?;
        if state.is_closed {
            return Err(Error::new(ErrorKind::InvalidArgument, "the completion queue is closed"));
        }
        if state.under_way.len() + state.ended.len() >= self.shared.most {
            let what = format!("the completion queue has {} tickets already: drain it", self.shared.most);
            return Err(Error::new(ErrorKind::NoSpace, what));
        }
        let number = state.next;
        state.next += 1;
        state.under_way.insert(number, (token, ticket.clone()));
        drop(state);
        // A queue that nobody has any more needs no notice.
        let home = Arc::downgrade(&self.shared);
        ticket.on_end(move || {
            if let Some(shared) = home.upgrade() {
                shared.ended(number);
            }
        });
        Ok(())
    }

    /// What has ended, at most `most` of it, in that order; never waits.
    ///
    /// # Errors
    /// `Unsupported` in a forked child.
    pub fn drain(&self, most: usize) -> Result<Vec<Completion>> {
        let mut state = self.shared.lock()?;
        Ok(self.take(&mut state, most))
    }

    fn take(&self, state: &mut State, most: usize) -> Vec<Completion> {
        let count = most.min(state.ended.len());
        let taken: Vec<Completion> = state.ended.drain(..count).collect();
        if state.ended.is_empty() && !taken.is_empty() && !state.is_closed {
            // It was rung once for them, under this lock.
            let _ = self.shared.event.read();
        }
        taken
    }

    /// What has ended, as soon as there is something, or nothing when `deadline` passes or the queue is closed first.
    ///
    /// # Errors
    /// `Unsupported` in a forked child.
    pub fn wait(&self, deadline: Instant) -> Result<Vec<Completion>> {
        let mut state = self.shared.lock()?;
        while state.ended.is_empty() && !state.is_closed {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let woken = self.shared.changed.wait_timeout(state, left);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(self.take(&mut state, usize::MAX))
    }

    /// Takes no more tickets, wakes everybody who waits, and leaves the descriptor readable for ever. What is under way goes
    /// on, and can still be drained when it has ended.
    ///
    /// # Errors
    /// `Unsupported` in a forked child.
    pub fn close(&self) -> Result<()> {
        let mut state = self.shared.lock()?;
        if !state.is_closed {
            state.is_closed = true;
            self.shared.ring();
        }
        self.shared.changed.notify_all();
        Ok(())
    }

    /// Whether the queue is closed.
    ///
    /// # Errors
    /// `Unsupported` in a forked child.
    pub fn is_closed(&self) -> Result<bool> {
        Ok(self.shared.lock()?.is_closed)
    }

    /// Tickets that were added and are not drained.
    ///
    /// # Errors
    /// `Unsupported` in a forked child.
    pub fn len(&self) -> Result<usize> {
        let state = self.shared.lock()?;
        Ok(state.under_way.len() + state.ended.len())
    }

    /// Whether no ticket is here.
    ///
    /// # Errors
    /// `Unsupported` in a forked child.
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    /// The descriptor, for an event loop: readable while something is to be drained. Only [`CompletionQueue::drain`] and
    /// [`CompletionQueue::wait`] read it.
    ///
    /// # Errors
    /// `Unsupported` in a forked child.
    pub fn descriptor(&self) -> Result<RawFd> {
        let _state = self.shared.lock()?;
        Ok(self.shared.event.as_fd().as_raw_fd())
    }
}

impl AsFd for CompletionQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.event.as_fd()
    }
}
