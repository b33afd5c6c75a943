//! Streams of a simulated device: queues that one thread works off, taking any that can go on.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use super::raw::Node;
use crate::device::{DigestJob, Fault, Run};

/// CUDA's number for a device that fell off the bus.
const LOST: Fault = Fault::Failed { function: "simulated device", code: 46 };

/// Work on a stream.
#[derive(Debug)]
pub(super) enum Work {
    Copy(Vec<Run>),
    Digest(DigestJob),
    /// Copies, and the digests of what was read to this address, unless it is 0.
    Move(Vec<Run>, u64),
    Record(u64),
    Wait(u64),
}

#[derive(Debug, Default)]
struct State {
    streams: HashMap<u64, VecDeque<Work>>,
    /// Events that are recorded and have not come.
    waiting: HashSet<u64>,
    next: u64,
    turn: u64,
    damage: u64,
    refused_events: u64,
    lost: bool,
    busy: bool,
    paused: bool,
    stopped: bool,
}

/// The streams and events of one device.
#[derive(Debug, Default)]
pub(super) struct Queues {
    state: Mutex<State>,
    changed: Condvar,
}

impl Queues {
    pub(super) fn start(node: Arc<Node>) -> Arc<Self> {
        let queues = Arc::new(Self::default());
        // The default stream.
        queues.state.lock().streams.insert(0, VecDeque::new());
        let worker = Arc::clone(&queues);
        let started =
            std::thread::Builder::new().name("sim-device".to_owned()).spawn(move || worker.run(&node));
        if started.is_err() {
            queues.lose();
        }
        queues
    }

    fn run(&self, node: &Node) {
        let mut state = self.state.lock();
        loop {
            if state.stopped {
                return;
            }
            let Some(work) = next(&mut state) else {
                self.changed.wait(&mut state);
                continue;
            };
            let damaged = matches!(work, Work::Copy(_) | Work::Move(..)) && state.damage > 0;
            state.damage -= u64::from(damaged);
            if let Work::Record(event) = work {
                state.waiting.remove(&event);
                self.changed.notify_all();
                continue;
            }
            state.busy = true;
            // The order of streams holds: only this thread takes from them.
            drop(state);
            match &work {
                Work::Copy(runs) => runs.iter().for_each(|run| node.copy(run)),
                Work::Digest(job) => node.digest(job),
                Work::Move(runs, out) => node.move_runs(runs, *out),
                Work::Record(_) | Work::Wait(_) => {}
            }
            if let (true, Work::Copy(runs) | Work::Move(runs, _)) = (damaged, &work) {
                runs.first().into_iter().for_each(|run| node.flip(run.dst));
            }
            state = self.state.lock();
            state.busy = false;
            self.changed.notify_all();
        }
    }

    fn alive(&self) -> Result<parking_lot::MutexGuard<'_, State>, Fault> {
        let state = self.state.lock();
        if state.lost { Err(LOST) } else { Ok(state) }
    }

    pub(super) fn check(&self) -> Result<(), Fault> {
        self.alive().map(drop)
    }

    pub(super) fn add_stream(&self) -> Result<u64, Fault> {
        let mut state = self.alive()?;
        state.next += 1;
        let stream = state.next;
        state.streams.insert(stream, VecDeque::new());
        Ok(stream)
    }

    /// Queued work goes on; the stream is forgotten when it has none.
    pub(super) fn end_stream(&self, stream: u64) {
        let mut state = self.state.lock();
        if state.streams.get(&stream).is_some_and(VecDeque::is_empty) {
            state.streams.remove(&stream);
        }
    }

    pub(super) fn push(&self, stream: u64, work: Work) -> Result<(), Fault> {
        let mut state = self.alive()?;
        let unknown = Fault::Failed { function: "simulated stream", code: 400 };
        state.streams.get_mut(&stream).ok_or(unknown)?.push_back(work);
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    pub(super) fn record(&self, stream: u64) -> Result<u64, Fault> {
        let mut state = self.alive()?;
        if state.refused_events > 0 {
            state.refused_events -= 1;
            return Err(Fault::OutOfMemory);
        }
        state.next += 1;
        let event = state.next;
        state.waiting.insert(event);
        drop(state);
        self.push(stream, Work::Record(event))?;
        Ok(event)
    }

    pub(super) fn is_done(&self, event: u64) -> Result<bool, Fault> {
        Ok(!self.alive()?.waiting.contains(&event))
    }

    /// Waits until a stream has no work left.
    pub(super) fn finish(&self, stream: u64) -> Result<(), Fault> {
        let mut state = self.alive()?;
        let has_work = |state: &State| state.streams.get(&stream).is_some_and(|queue| !queue.is_empty());
        while !state.lost && (has_work(&state) || state.busy) {
            self.changed.wait(&mut state);
        }
        if state.lost { Err(LOST) } else { Ok(()) }
    }

    pub(super) fn lose(&self) {
        let mut state = self.state.lock();
        state.lost = true;
        state.streams.values_mut().for_each(VecDeque::clear);
        // Whoever learns of the loss may free memory: nothing touches it any more.
        while state.busy {
            self.changed.wait(&mut state);
        }
    }

    pub(super) fn damage(&self, count: u64) {
        self.state.lock().damage = count;
    }

    pub(super) fn refuse_events(&self, count: u64) {
        self.state.lock().refused_events = count;
    }

    pub(super) fn pause(&self, paused: bool) {
        self.state.lock().paused = paused;
        self.changed.notify_all();
    }

    pub(super) fn stop(&self) {
        self.state.lock().stopped = true;
        self.changed.notify_all();
    }
}

/// The next work of some stream that can go on, in an order that no user should rely on.
fn next(state: &mut State) -> Option<Work> {
    if state.paused {
        return None;
    }
    let can = |work: &Work| !matches!(work, Work::Wait(event) if state.waiting.contains(event));
    let mut ready: Vec<u64> =
        state.streams.iter().filter(|(_, queue)| queue.front().is_some_and(can)).map(|(id, _)| *id).collect();
    ready.sort_unstable();
    state.turn = state.turn.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
    let stream = *ready.get((state.turn >> 33) as usize % ready.len().max(1))?;
    state.streams.get_mut(&stream)?.pop_front()
}
