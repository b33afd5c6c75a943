//! Operations that somebody waits for, and what becomes of them when their deadline passes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use cascade_core::batch::{Completer, Op, Outcome, Refusal};
use cascade_core::memory::{Piece, SgList};
use cascade_core::planted::{self, Bug};
use cascade_core::tier::MissReason;
use parking_lot::{Condvar, Mutex};

use crate::counters::Counters;

/// Not begun: nobody touches its memory.
const WAITING: u8 = 0;
/// Under way in memory that is kept as long as anybody may touch it.
const KEPT: u8 = 1;
/// Under way in memory that is the caller's again as soon as it is answered: only its end answers it.
const LENT: u8 = 2;
/// Its end is certain, and will be told.
const SETTLED: u8 = 3;
const ANSWERED: u8 = 4;

/// The operations of one batch.
#[derive(Debug)]
pub(crate) struct Pending {
    completer: Completer,
    deadline: Option<Instant>,
    phases: Box<[AtomicU8]>,
    kinds: Box<[Kind]>,
    timed: Option<(Arc<Clock>, Key)>,
}

/// One operation of a batch.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pending: Arc<Pending>,
    index: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Fetch,
    Store,
    Delete,
}

impl Kind {
    fn of(op: &Op) -> Self {
        match op {
            Op::Fetch { .. } => Self::Fetch,
            Op::Store { .. } => Self::Store,
            Op::Delete { .. } => Self::Delete,
        }
    }

    /// The answer when its time is over.
    fn late(self) -> Outcome {
        match self {
            Self::Store => Outcome::Refused(Refusal::Deadline),
            Self::Fetch | Self::Delete => Outcome::Miss(MissReason::Deadline),
        }
    }
}

impl Pending {
    pub(crate) fn new(
        completer: Completer,
        deadline: Option<Instant>,
        ops: &[Op],
        clock: &Arc<Clock>,
    ) -> Arc<Self> {
        let phases = ops.iter().map(|_| AtomicU8::new(WAITING)).collect();
        let kinds = ops.iter().map(Kind::of).collect();
        let made = |timed| Self { completer, deadline, phases, kinds, timed };
        match deadline {
            None => Arc::new(made(None)),
            Some(deadline) => Arc::new_cyclic(|weak| {
                let key = clock.add(deadline, Weak::clone(weak));
                made(Some((Arc::clone(clock), key)))
            }),
        }
    }

    pub(crate) fn part(self: &Arc<Self>, index: usize) -> Part {
        Part { pending: Arc::clone(self), index }
    }

    fn change(&self, index: usize, from: &[u8], to: u8) -> bool {
        let Some(phase) = self.phases.get(index) else { return false };
        let change = |now| from.contains(&now).then_some(to);
        phase.fetch_update(Ordering::AcqRel, Ordering::Acquire, change).is_ok()
    }

    /// The deadline has passed: answers what was not begun, and what keeps its memory as long as it is under way.
    fn expire(&self, counters: &Counters) {
        for (index, kind) in self.kinds.iter().enumerate() {
            if self.change(index, &[WAITING, KEPT], ANSWERED) {
                count(counters, *kind, kind.late());
                self.completer.complete(index, kind.late());
            }
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some((clock, key)) = &self.timed {
            clock.remove(*key);
        }
    }
}

/// Counts what an operation came to.
fn count(counters: &Counters, kind: Kind, outcome: Outcome) {
    let late = outcome == kind.late();
    counters.deadlines.add(u64::from(late));
    match (kind, outcome) {
        (Kind::Fetch, Outcome::Miss(_)) => counters.misses.add(1),
        (Kind::Fetch, Outcome::Fetched(_)) => counters.hits.add(1),
        (Kind::Store, Outcome::Refused(_)) => counters.refused.add(1),
        (Kind::Store, Outcome::Exists) => counters.exists.add(1),
        _ => {}
    }
}

impl Part {
    /// Answers the operation, unless its deadline did; counts it.
    pub(crate) fn complete(&self, counters: &Counters, outcome: Outcome) -> bool {
        let first = self.pending.change(self.index, &[WAITING, KEPT, LENT, SETTLED], ANSWERED);
        if first {
            let kind = self.pending.kinds.get(self.index);
            kind.into_iter().for_each(|kind| count(counters, *kind, outcome));
            self.pending.completer.complete(self.index, outcome);
        }
        first
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.pending.deadline
    }

    pub(crate) fn is_late(&self) -> bool {
        self.pending.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    pub(crate) fn is_answered(&self) -> bool {
        self.pending.phases.get(self.index).is_none_or(|phase| phase.load(Ordering::Acquire) == ANSWERED)
    }

    /// Why the operation is not to be begun any more.
    pub(crate) fn given_up(&self) -> Option<Outcome> {
        if self.pending.completer.is_cancelled() {
            return Some(Outcome::Cancelled);
        }
        let late = self.is_late() || self.is_answered();
        self.pending.kinds.get(self.index).filter(|_| late).map(|kind| kind.late())
    }

    /// Begins to touch `memory`; `false` when the operation is answered, and the memory the caller's again.
    #[must_use]
    pub(crate) fn begin(&self, memory: &SgList) -> bool {
        self.begin_in(memory.pieces().iter().all(Piece::is_kept))
    }

    /// [`Part::begin`] with memory that is `kept` or not.
    #[must_use]
    pub(crate) fn begin_in(&self, kept: bool) -> bool {
        let kept = kept || planted::is(Bug::EarlyAnswer);
        self.pending.change(self.index, &[WAITING, KEPT, LENT], if kept { KEPT } else { LENT })
    }

    /// From here on the end of the operation answers it, and no deadline; `false` when one already has.
    #[must_use]
    pub(crate) fn settle(&self) -> bool {
        self.pending.change(self.index, &[WAITING, KEPT, LENT, SETTLED], SETTLED)
    }
}

type Key = (Instant, u64);

#[derive(Debug, Default)]
struct Times {
    batches: BTreeMap<Key, Weak<Pending>>,
    number: u64,
    closed: bool,
}

/// Deadlines of the batches that are under way.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    times: Mutex<Times>,
    changed: Condvar,
}

impl Clock {
    fn add(&self, deadline: Instant, batch: Weak<Pending>) -> Key {
        let mut times = self.times.lock();
        times.number += 1;
        let key = (deadline, times.number);
        times.batches.insert(key, batch);
        if times.batches.first_key_value().is_some_and(|(first, _)| *first == key) {
            self.changed.notify_one();
        }
        key
    }

    fn remove(&self, key: Key) {
        self.times.lock().batches.remove(&key);
    }

    pub(crate) fn close(&self) {
        self.times.lock().closed = true;
        self.changed.notify_all();
    }

    /// Answers what is late, until the clock is closed; `cancel` is called after some batch was.
    pub(crate) fn work(&self, counters: &Counters, cancel: impl Fn()) {
        while let Some(batch) = self.next() {
            if let Some(batch) = batch.upgrade() {
                batch.expire(counters);
            }
            cancel();
        }
    }

    /// The next batch whose time is over; `None` when the clock is closed.
    fn next(&self) -> Option<Weak<Pending>> {
        let mut times = self.times.lock();
        loop {
            if times.closed {
                return None;
            }
            let first = times.batches.first_key_value().map(|((deadline, _), _)| *deadline);
            match first {
                None => self.changed.wait(&mut times),
                Some(deadline) if deadline <= Instant::now() => {
                    return times.batches.pop_first().map(|(_, batch)| batch);
                }
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    self.changed.wait_for(&mut times, left.max(Duration::from_micros(100)));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use cascade_core::batch::{Ticket, ticket};
    use cascade_core::id::BlockId;
    use cascade_core::memory::HostBuffer;

    use super::*;

    fn three(deadline: Instant, clock: &Arc<Clock>) -> (Ticket, Arc<Pending>) {
        let fetch = || Op::Fetch { id: BlockId::named("a"), into: SgList::new() };
        let (ticket, completer) = ticket(3);
        (ticket, Pending::new(completer, Some(deadline), &[fetch(), fetch(), fetch()], clock))
    }

    #[test]
    fn lent_memory_is_answered_for_by_its_end_alone() {
        let (clock, counters) = (Arc::new(Clock::default()), Counters::default());
        let (ticket, pending) = three(Instant::now(), &clock);
        let kept: SgList = HostBuffer::zeroed(8).piece().into();
        let mut bytes = [0u8; 8];
        // SAFETY: nobody reads or writes through the piece, and `bytes` outlives it.
        let lent: SgList = unsafe { Piece::host_write(bytes.as_mut_ptr(), 8) }.into();
        let (waiting, kept_part, lent_part) = (pending.part(0), pending.part(1), pending.part(2));
        assert!(kept_part.begin(&kept) && lent_part.begin(&lent));
        pending.expire(&counters);
        assert!(waiting.is_answered() && kept_part.is_answered() && !lent_part.is_answered());
        assert!(!waiting.begin(&kept) && !kept_part.settle(), "it is the caller's again");
        assert!(!ticket.poll());
        assert!(lent_part.complete(&counters, Outcome::Miss(MissReason::Deadline)));
        assert!(!lent_part.complete(&counters, Outcome::Stored), "once only");
        assert_eq!(ticket.wait(Instant::now()), Some(vec![Outcome::Miss(MissReason::Deadline); 3]));
        assert_eq!((counters.misses.get(), counters.deadlines.get()), (3, 3));
    }

    #[test]
    fn the_clock_answers_in_time_and_forgets_what_has_ended() {
        let (clock, counters) = (Arc::new(Clock::default()), Counters::default());
        let far = Instant::now() + Duration::from_secs(600);
        let (_far, kept) = three(far, &clock);
        let (_gone, ended) = three(far, &clock);
        drop(ended);
        std::thread::scope(|scope| {
            scope.spawn(|| clock.work(&counters, || ()));
            let (ticket, _pending) = three(Instant::now() + Duration::from_millis(5), &clock);
            let outcomes = ticket.wait(Instant::now() + Duration::from_secs(30));
            assert_eq!(outcomes, Some(vec![Outcome::Miss(MissReason::Deadline); 3]));
            clock.close();
        });
        assert_eq!(clock.times.lock().batches.len(), 1);
        drop(kept);
        assert!(clock.times.lock().batches.is_empty());
    }
}
