//! Batches that nobody waits for: a few threads work through them, tier by tier, and complete their tickets.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cascade_core::batch::{Batch, Completer, Op, Outcome, Refusal, Ticket, ticket};
use cascade_core::budget::{Budget, Pass};
use cascade_core::tier::MissReason;
use parking_lot::Mutex;

use crate::fetch::Until;
use crate::moves::count::add;
use crate::moves::queue::Queue;
use crate::put::Reach;
use crate::spans::span;
use crate::tiers::Tiers;

/// Threads that work through batches: one may wait for a file system while the other copies.
const THREADS: usize = 2;
/// Batches that wait, at most. They are bounded by their bytes too.
const WAITING: usize = 4096;
/// Puts and deletes that are begun together: what is cancelled, or late, is noticed between two such groups. Fetches notice it
/// themselves, and a group of them ends with nothing being read any more: the fewer ends, the better.
const TOGETHER: usize = 256;
/// Bytes beyond which a group takes no further operation.
const TOGETHER_BYTES: u64 = 64 << 20;
/// Fetches that are begun together.
const FETCHES_TOGETHER: usize = 1 << 14;
/// A round without batches.
const ROUND: Duration = Duration::from_secs(1);

/// A batch on its way through the store.
#[derive(Debug)]
pub(crate) struct Job {
    /// Operations with their places in the batch.
    ops: Vec<(usize, Op)>,
    completer: Completer,
    deadline: Option<Instant>,
    reach: Reach,
    /// Its bytes count as under way until it has ended.
    pass: Pass,
    /// When it was handed over, by the store's clock.
    since: Duration,
}

/// What becomes of operations that are not begun.
fn given_up(completer: &Completer, deadline: Option<Instant>, op: &Op) -> Option<Outcome> {
    if completer.is_cancelled() {
        return Some(Outcome::Cancelled);
    }
    let is_late = deadline.is_some_and(|deadline| Instant::now() >= deadline);
    is_late.then_some(match op {
        Op::Store { .. } => Outcome::Refused(Refusal::Deadline),
        Op::Fetch { .. } | Op::Delete { .. } => Outcome::Miss(MissReason::Deadline),
    })
}

/// The answer to what there is no room for.
fn throttled(op: &Op) -> Outcome {
    match op {
        Op::Store { .. } => Outcome::Refused(Refusal::Throttled),
        Op::Fetch { .. } | Op::Delete { .. } => Outcome::Miss(MissReason::Throttled),
    }
}

/// How many operations like this one, and about how many bytes, are begun together.
fn together(op: &Op) -> (usize, u64) {
    match op {
        Op::Fetch { .. } => (FETCHES_TOGETHER, u64::MAX),
        Op::Store { .. } | Op::Delete { .. } => (TOGETHER, TOGETHER_BYTES),
    }
}

fn bytes_of(op: &Op) -> u64 {
    match op {
        Op::Store { from: list, .. } | Op::Fetch { into: list, .. } => list.len() as u64,
        Op::Delete { .. } => 0,
    }
}

/// Whether two neighbours of a batch are done together.
fn is_alike(a: &Op, b: &Op) -> bool {
    std::mem::discriminant(a) == std::mem::discriminant(b)
}

impl Job {
    fn run(self, tiers: &Tiers) {
        let Self { ops, completer, deadline, reach, pass, since } = self;
        let _span = span!(DEBUG, "batch", operations = ops.len()).entered();
        if ops.iter().any(|(_, op)| matches!(op, Op::Fetch { .. })) {
            tiers.tally.phases.queued(tiers.clock.now().saturating_sub(since));
        }
        let mut left = ops.into_iter().peekable();
        while let Some((place, op)) = left.next() {
            if let Some(outcome) = given_up(&completer, deadline, &op) {
                // The memory is the client's again before it hears of the outcome.
                drop(op);
                completer.complete(place, outcome);
                continue;
            }
            let (mut places, mut bytes, mut group) = (vec![place], bytes_of(&op), vec![op]);
            let (most, most_bytes) = together(&group[0]);
            while group.len() < most
                && bytes < most_bytes
                && let Some((place, op)) = left.next_if(|(_, next)| is_alike(&group[0], next))
            {
                bytes += bytes_of(&op);
                places.push(place);
                group.push(op);
            }
            let is_cancelled = || completer.is_cancelled();
            let until = Until { deadline, is_cancelled: Some(&is_cancelled) };
            let outcomes = tiers.run(group, reach, until);
            for (place, outcome) in places.into_iter().zip(outcomes) {
                let is_given_up = outcome == Outcome::Miss(MissReason::Deadline) && completer.is_cancelled();
                let outcome = if is_given_up { Outcome::Cancelled } else { outcome };
                completer.complete(place, outcome);
            }
        }
        // Room for others first: who hears of the end may submit again at once.
        drop(pass);
        drop(completer);
    }
}

/// Threads for batches, started with the first of them.
#[derive(Debug)]
pub(crate) struct Submits {
    tiers: Arc<Tiers>,
    queue: Arc<Queue<Job>>,
    budget: Arc<Budget>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// The process whose threads these are.
    pid: u32,
}

impl Submits {
    /// `most_bytes` may be under way.
    pub(crate) fn new(tiers: Arc<Tiers>, most_bytes: u64) -> Self {
        Self {
            tiers,
            queue: Arc::new(Queue::new(WAITING)),
            budget: Arc::new(Budget::new(most_bytes)),
            threads: Mutex::default(),
            pid: std::process::id(),
        }
    }

    /// Does a batch on the caller's thread: an outcome for each operation. It waits for no other batch and takes no part in the bound
    /// of bytes under way, as no call does that returns with the end.
    pub(crate) fn run(&self, batch: Batch, reach: Reach) -> Vec<Outcome> {
        let (ticket, completer) = ticket(batch.ops.len());
        let pass = Arc::new(Budget::new(u64::MAX)).pass();
        let ops = batch.ops.into_iter().enumerate().collect();
        let since = self.tiers.clock.now();
        Job { ops, completer, deadline: batch.deadline, reach, pass, since }.run(&self.tiers);
        ticket.wait(Instant::now()).unwrap_or_default()
    }

    /// Hands over a batch. What there is no room for is answered `Throttled` at once. In a forked child, which has none of the
    /// threads, the batch is done before this returns.
    pub(crate) fn submit(&self, batch: Batch, reach: Reach) -> Ticket {
        let (ticket, completer) = ticket(batch.ops.len());
        let is_here = std::process::id() == self.pid;
        // A budget of the child's own: the parent's threads give nothing back here.
        let budget = if is_here { Arc::clone(&self.budget) } else { Arc::new(Budget::new(u64::MAX)) };
        let (mut pass, mut ops) = (budget.pass(), Vec::with_capacity(batch.ops.len()));
        for (place, op) in batch.ops.into_iter().enumerate() {
            if pass.add(bytes_of(&op)) {
                ops.push((place, op));
            } else {
                add(&self.tiers.count.throttled, 1);
                let outcome = throttled(&op);
                drop(op);
                completer.complete(place, outcome);
            }
        }
        let since = self.tiers.clock.now();
        let job = Job { ops, completer, deadline: batch.deadline, reach, pass, since };
        if !is_here || !self.is_served() {
            job.run(&self.tiers);
            return ticket;
        }
        for refused in self.queue.push([job]) {
            add(&self.tiers.count.throttled, refused.ops.len() as u64);
            for (place, op) in refused.ops {
                let outcome = throttled(&op);
                drop(op);
                refused.completer.complete(place, outcome);
            }
        }
        ticket
    }

    /// Whether there is a thread to serve the queue; without one a batch is done by who submits it.
    fn is_served(&self) -> bool {
        let mut threads = self.threads.lock();
        while threads.len() < THREADS {
            let (tiers, queue) = (Arc::clone(&self.tiers), Arc::clone(&self.queue));
            let work = move || {
                while let Some(jobs) = queue.take(1, ROUND) {
                    jobs.into_iter().for_each(|job| job.run(&tiers));
                }
            };
            let name = format!("cascade-batch-{}", threads.len());
            let Ok(thread) = std::thread::Builder::new().name(name).spawn(work) else { break };
            threads.push(thread);
        }
        !threads.is_empty()
    }
}

impl Drop for Submits {
    /// What was submitted is done first.
    fn drop(&mut self) {
        if std::process::id() != self.pid {
            // A forked child has the handles of threads that it does not have.
            self.threads.get_mut().drain(..).for_each(std::mem::forget);
            return;
        }
        self.queue.close();
        let own = std::thread::current().id();
        for thread in self.threads.get_mut().drain(..).filter(|thread| thread.thread().id() != own) {
            // It never panics; and if it did, there is nothing to tell anyone here.
            let _ = thread.join();
        }
    }
}
