//! A sick tier costs a bounded time, then nothing until it is well.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::{Layer, as_inner, not_done};
use crate::batch::{Batch, Outcome, Refusal, Ticket};
use crate::clock::{Clock, SystemClock};
use crate::id::BlockId;
use crate::planted::{self, Bug};
use crate::tier::{Lookup, MissReason, Tier};

/// When a breaker opens, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerConfig {
    /// So many batches that fail within `window` open it. A batch fails when one of its operations does, for `Unavailable` or
    /// `Deadline`, or when it takes longer than `timeout`, ended or not.
    pub failures: usize,
    /// See `failures`.
    pub window: Duration,
    /// See `failures`. A batch that has a later deadline, or none, gets this one.
    pub timeout: Duration,
    /// How long it stays open before one batch is let through to see.
    pub rest: Duration,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { failures: 16, window: seconds(10), timeout: seconds(10), rest: seconds(2) }
    }
}

/// Whether anything goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Everything does.
    Closed,
    /// Nothing does.
    Open,
    /// One batch is, or will be, let through to see if the tier is well; lookups are answered.
    HalfOpen,
}

/// What a breaker has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BreakerStats {
    /// How often it opened.
    pub opened: u64,
    /// Batches that failed.
    pub failures: u64,
    /// Batches that were let through to see.
    pub probes: u64,
    /// Operations that were answered `Unavailable` while it was open.
    pub kept_out: u64,
    /// Whether it is open now, or half open.
    pub open: bool,
}

#[derive(Debug)]
enum Phase {
    Closed,
    /// Until then nothing goes through.
    Open(Duration),
    /// The number of the batch that is to tell.
    HalfOpen(u64),
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// When batches failed, not longer ago than the window.
    failed: VecDeque<Duration>,
    /// When each batch under way began; those that have counted as failed are left out.
    under_way: BTreeMap<u64, Duration>,
    next: u64,
    stats: BreakerStats,
}

/// The breaker itself, for who wraps more than a [`Tier`]. Clones are the same.
#[derive(Clone, Debug)]
pub struct Breaker {
    config: BreakerConfig,
    clock: Arc<dyn Clock>,
    state: Arc<Mutex<State>>,
}

impl Breaker {
    /// A closed breaker.
    #[must_use]
    pub fn new(config: BreakerConfig, clock: Arc<dyn Clock>) -> Self {
        let state = State {
            phase: Phase::Closed,
            failed: VecDeque::new(),
            under_way: BTreeMap::new(),
            next: 0,
            stats: BreakerStats::default(),
        };
        Self { config, clock, state: Arc::new(Mutex::new(state)) }
    }

    /// Whether anything goes through now.
    #[must_use]
    pub fn state(&self) -> BreakerState {
        let mut state = self.state.lock();
        self.notice(&mut state);
        match state.phase {
            Phase::Closed => BreakerState::Closed,
            Phase::Open(until) if self.clock.now() < until => BreakerState::Open,
            Phase::Open(_) | Phase::HalfOpen(_) => BreakerState::HalfOpen,
        }
    }

    /// What it has done.
    #[must_use]
    pub fn stats(&self) -> BreakerStats {
        let open = self.state() != BreakerState::Closed;
        BreakerStats { open, ..self.state.lock().stats }
    }

    /// Hands a batch to `inner`, if it is let through; else every operation is `Unavailable` at once.
    #[must_use]
    pub fn submit(&self, inner: &dyn Tier, mut batch: Batch) -> Ticket {
        if batch.ops.is_empty() {
            return inner.submit(batch);
        }
        let Some(number) = self.admit(batch.ops.len()) else {
            let kept_out = |op| not_done(op, MissReason::Unavailable, Refusal::Unavailable);
            return Ticket::ready(batch.ops.iter().map(kept_out).collect());
        };
        let latest = Instant::now() + self.config.timeout;
        batch.deadline = Some(batch.deadline.map_or(latest, |deadline| deadline.min(latest)));
        let (breaker, count) = (self.clone(), batch.ops.len());
        // The client's own deadline says nothing about the tier.
        let is_own = batch.deadline != Some(latest);
        Ticket::relay(inner.submit(batch), count, move |outcomes| {
            breaker.ended(number, verdict(&outcomes, is_own));
            outcomes
        })
    }

    /// The number of a batch that may go through.
    fn admit(&self, ops: usize) -> Option<u64> {
        let mut state = self.state.lock();
        self.notice(&mut state);
        let now = self.clock.now();
        let number = state.next;
        match state.phase {
            Phase::Closed => {}
            Phase::Open(until) if now >= until => {
                state.phase = Phase::HalfOpen(number);
                state.stats.probes += 1;
            }
            Phase::Open(_) | Phase::HalfOpen(_) => {
                state.stats.kept_out += ops as u64;
                return None;
            }
        }
        state.next += 1;
        state.under_way.insert(number, now);
        Some(number)
    }

    fn ended(&self, number: u64, verdict: Verdict) {
        let mut state = self.state.lock();
        self.notice(&mut state);
        // A batch that is not there has failed already: it took too long.
        if state.under_way.remove(&number).is_none() {
            return;
        }
        let is_probe = matches!(state.phase, Phase::HalfOpen(probe) if probe == number);
        match verdict {
            Verdict::Failed => self.failed(&mut state, number),
            Verdict::Well if is_probe && !planted::is(Bug::NeverCloses) => {
                state.phase = Phase::Closed;
                state.failed.clear();
            }
            // The next batch is to tell.
            Verdict::Unclear if is_probe => state.phase = Phase::Open(self.clock.now()),
            Verdict::Well | Verdict::Unclear => {}
        }
    }

    /// Counts what takes too long as failed.
    fn notice(&self, state: &mut State) {
        let now = self.clock.now();
        // They began in the order of their numbers.
        while let Some((number, began)) = state.under_way.first_key_value().map(|(number, at)| (*number, *at))
            && now.saturating_sub(began) > self.config.timeout
        {
            state.under_way.remove(&number);
            self.failed(state, number);
        }
    }

    fn failed(&self, state: &mut State, number: u64) {
        let now = self.clock.now();
        state.stats.failures += 1;
        state.failed.push_back(now);
        while state.failed.front().is_some_and(|at| now.saturating_sub(*at) > self.config.window) {
            state.failed.pop_front();
        }
        let opens = match state.phase {
            Phase::Closed => state.failed.len() >= self.config.failures.max(1),
            Phase::HalfOpen(probe) => probe == number,
            // What began before it opened says nothing new.
            Phase::Open(_) => false,
        };
        if opens && !planted::is(Bug::NeverOpens) {
            state.phase = Phase::Open(now + self.config.rest);
            state.failed.clear();
            state.stats.opened += 1;
        }
    }
}

/// What the outcomes of a batch say of the tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Well,
    /// The client's own deadline passed first.
    Unclear,
    Failed,
}

fn verdict(outcomes: &[Outcome], is_own_deadline: bool) -> Verdict {
    let of = |outcome: &Outcome| match outcome {
        Outcome::Miss(MissReason::Unavailable) | Outcome::Refused(Refusal::Unavailable) => Verdict::Failed,
        Outcome::Miss(MissReason::Deadline) | Outcome::Refused(Refusal::Deadline) if is_own_deadline => {
            Verdict::Unclear
        }
        Outcome::Miss(MissReason::Deadline) | Outcome::Refused(Refusal::Deadline) => Verdict::Failed,
        _ => Verdict::Well,
    };
    outcomes.iter().map(of).max().unwrap_or(Verdict::Well)
}

/// Puts a breaker round a tier: while it is open, lookups miss and operations are refused as `Unavailable`.
#[derive(Clone, Debug)]
pub struct BreakerLayer {
    breaker: Breaker,
}

impl BreakerLayer {
    /// A layer with a closed breaker, by the system's clock.
    #[must_use]
    pub fn new(config: BreakerConfig) -> Self {
        Self::on_clock(config, Arc::new(SystemClock::default()))
    }

    /// The same by a clock of the caller's.
    #[must_use]
    pub fn on_clock(config: BreakerConfig, clock: Arc<dyn Clock>) -> Self {
        Self { breaker: Breaker::new(config, clock) }
    }

    /// Its breaker.
    #[must_use]
    pub fn breaker(&self) -> &Breaker {
        &self.breaker
    }
}

impl Layer for BreakerLayer {
    fn wrap(&self, inner: Arc<dyn Tier>) -> Arc<dyn Tier> {
        Arc::new(Guarded { inner, breaker: self.breaker.clone() })
    }
}

#[derive(Debug)]
struct Guarded {
    inner: Arc<dyn Tier>,
    breaker: Breaker,
}

impl Tier for Guarded {
    as_inner!();

    fn lookup(&self, ids: &[BlockId], out: &mut [Lookup]) {
        if self.breaker.state() == BreakerState::Open {
            assert_eq!(ids.len(), out.len(), "one answer for each id");
            self.breaker.state.lock().stats.kept_out += ids.len() as u64;
            return out.fill(Lookup::Miss(MissReason::Unavailable));
        }
        self.inner.lookup(ids, out);
    }

    fn submit(&self, batch: Batch) -> Ticket {
        self.breaker.submit(&*self.inner, batch)
    }
}
