//! Two processes that take turns, each on a thread of its own: one runs, the other stands where it was. So one can wait for the
//! other in the middle of what it does, and everything still happens in one order, which the dice decide.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};

/// What the second process does.
pub(super) type Work = Box<dyn FnOnce() + Send>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    First,
    Second,
}

#[derive(Default)]
struct State {
    /// What the second process is to do, until it begins.
    waiting: Option<Work>,
    /// The thread of the second process.
    second: Option<JoinHandle<()>>,
    is_seconds_turn: bool,
    /// The second process has begun, and not ended.
    is_under_way: bool,
}

#[derive(Default)]
pub(super) struct Turns {
    state: Mutex<State>,
    changed: Condvar,
}

impl Turns {
    /// Whose turn it is: always that of who asks.
    pub(super) fn who(&self) -> Who {
        if self.state.lock().is_seconds_turn { Who::Second } else { Who::First }
    }

    /// Whether the second process has begun and not ended.
    pub(super) fn is_second_under_way(&self) -> bool {
        self.state.lock().is_under_way
    }

    pub(super) fn is_second_waiting(&self) -> bool {
        self.state.lock().waiting.is_some()
    }

    pub(super) fn propose(&self, work: Work) {
        *self.state.lock() = State { waiting: Some(work), ..State::default() };
    }

    /// The second process begins; returns at the first's next turn. `run` is what its thread runs the work by.
    pub(super) fn begin(&self, run: impl FnOnce(Work) -> JoinHandle<()>) {
        let mut state = self.state.lock();
        let Some(work) = state.waiting.take() else { return };
        (state.is_under_way, state.is_seconds_turn) = (true, true);
        state.second = Some(run(work));
        while state.is_seconds_turn {
            self.changed.wait(&mut state);
        }
    }

    /// On the thread of the second process.
    pub(super) fn second(&self, work: Work) {
        let done = catch_unwind(AssertUnwindSafe(work));
        let mut state = self.state.lock();
        (state.is_under_way, state.is_seconds_turn) = (false, false);
        self.changed.notify_all();
        drop(state);
        if let Err(broken) = done {
            resume_unwind(broken);
        }
    }

    /// Gives the turn to the other, if there is one, and waits for the next.
    pub(super) fn pass(&self) {
        let mut state = self.state.lock();
        let is_second = state.is_seconds_turn;
        if !state.is_under_way {
            return;
        }
        state.is_seconds_turn = !is_second;
        self.changed.notify_all();
        while state.is_seconds_turn != is_second {
            self.changed.wait(&mut state);
        }
    }

    /// The first process is done: the second goes on to its end.
    pub(super) fn end(&self) {
        while self.is_second_under_way() {
            self.pass();
        }
        let second = std::mem::take(&mut *self.state.lock()).second;
        if let Some(Err(broken)) = second.map(JoinHandle::join) {
            resume_unwind(broken);
        }
    }
}
