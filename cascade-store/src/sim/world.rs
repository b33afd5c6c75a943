//! What everything in a simulation shares: dice, clock, faults, the trace, and who acts between two calls.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use cascade_core::clock::{Clock, ManualClock};
use cascade_core::id::BlockId;
use cascade_pfs::testing::Random;
use parking_lot::Mutex;

/// Lines of the trace that a failure shows.
const LINES: u64 = 80;
/// Calls to tiers that one step may make: beyond, it makes no progress.
const MOST_CALLS: u64 = 20_000;

/// What is wrong with the medium below now.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Faults {
    pub(super) full: bool,
    pub(super) writes: bool,
    pub(super) reads: bool,
    pub(super) deletes: bool,
    pub(super) slow: bool,
}

/// Why a block that was acknowledged is gone: counted by the tier that lost it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Excuse {
    /// Evicted from the top, which knew of no copy below.
    Evicted,
    /// Given up by the files for want of room.
    GivenUp,
    /// Its bytes in files were damaged, and that was found.
    Damaged,
    /// Deleted long ago, when that failed, and only now.
    LateDelete,
    /// The arena, or files that nothing had made durable, went with a node.
    Lost,
}

/// How a process ends in the middle of what it does.
#[derive(Debug)]
pub(super) struct Killed;

type Other = Box<dyn Fn() + Send>;

pub(super) struct World {
    pub(super) clock: Arc<ManualClock>,
    pub(super) dice: Mutex<Random>,
    pub(super) faults: Mutex<Faults>,
    pub(super) excuses: Mutex<BTreeMap<BlockId, Excuse>>,
    /// Names whose order is not kept (ARCHITECTURE.md, on the way of one block through the store): their deletion below failed, which
    /// only one process knows, or one was killed between copying them and looking again. An older version may be seen; never wrong bytes.
    pub(super) unordered: Mutex<BTreeMap<BlockId, ()>>,
    /// Where the reservation lies that the top gave last: what is fetched to there is on its way up.
    pub(super) reserved: Mutex<Option<usize>>,
    /// The block that somebody has in hand: what others do between is often about the same.
    pub(super) hot: Mutex<Option<BlockId>>,
    /// Blocks that were begun to be copied in this step.
    pub(super) in_hand: Mutex<Vec<BlockId>>,
    /// What another process does next.
    other: Mutex<Option<Other>>,
    is_nested: AtomicUsize,
    can_die: AtomicUsize,
    pub(super) calls: AtomicU64,
    calls_of_step: AtomicU64,
    pub(super) nested: AtomicU64,
    pub(super) injected: AtomicU64,
    trace: AtomicU64,
    lines: Mutex<VecDeque<String>>,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").field("now", &self.clock.now()).finish_non_exhaustive()
    }
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            clock: Arc::default(),
            dice: Mutex::new(Random::new(seed)),
            faults: Mutex::default(),
            excuses: Mutex::default(),
            unordered: Mutex::default(),
            reserved: Mutex::default(),
            hot: Mutex::default(),
            in_hand: Mutex::default(),
            other: Mutex::default(),
            is_nested: AtomicUsize::new(0),
            can_die: AtomicUsize::new(0),
            calls: AtomicU64::new(0),
            calls_of_step: AtomicU64::new(0),
            nested: AtomicU64::new(0),
            injected: AtomicU64::new(0),
            trace: AtomicU64::new(0),
            lines: Mutex::default(),
        }
    }

    pub(super) fn below(&self, bound: u64) -> u64 {
        self.dice.lock().below(bound)
    }

    pub(super) fn once_in(&self, n: u64) -> bool {
        self.dice.lock().once_in(n)
    }

    /// A fault that is on happens once in three times.
    pub(super) fn strikes(&self, is_on: fn(&Faults) -> bool) -> bool {
        let strikes = is_on(&self.faults.lock()) && self.once_in(3);
        self.injected.fetch_add(u64::from(strikes), Ordering::Relaxed);
        strikes
    }

    /// Notes a line: all of them make the trace, the last are shown.
    pub(super) fn note(&self, line: impl FnOnce() -> String) {
        let text = format!("{:>9.3} s{} {}", self.clock.now().as_secs_f64(), self.indent(), line());
        let hash = text.bytes().fold(self.trace.load(Ordering::Relaxed), |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
        });
        self.trace.store(hash, Ordering::Relaxed);
        let mut lines = self.lines.lock();
        if lines.len() as u64 >= super::number("CASCADE_SIM_LINES", LINES) {
            lines.pop_front();
        }
        lines.push_back(text);
    }

    fn indent(&self) -> &'static str {
        if self.is_nested.load(Ordering::Relaxed) > 0 { "      | other:" } else { "" }
    }

    /// The block in hand, where this is what another does meanwhile.
    pub(super) fn hot(&self) -> Option<BlockId> {
        (self.is_nested.load(Ordering::Relaxed) > 0).then(|| *self.hot.lock()).flatten()
    }

    /// Whether the process in which another acts now has begun to copy the block.
    pub(super) fn is_being_copied(&self, id: &BlockId) -> bool {
        self.is_nested.load(Ordering::Relaxed) > 0 && self.in_hand.lock().contains(id)
    }

    pub(super) fn log(&self) -> String {
        self.lines.lock().iter().map(|line| format!("  {line}\n")).collect()
    }

    pub(super) fn trace(&self) -> u64 {
        self.trace.load(Ordering::Relaxed)
    }

    pub(super) fn excuse(&self, id: &BlockId, why: Excuse) {
        self.note(|| format!("    {} is gone: {why:?}", short(id)));
        self.excuses.lock().insert(*id, why);
    }

    /// Runs a step of one process, between whose calls `other` may act.
    pub(super) fn step<T>(&self, other: Other, work: impl FnOnce() -> T) -> T {
        self.calls_of_step.store(0, Ordering::Relaxed);
        self.in_hand.lock().clear();
        *self.other.lock() = Some(other);
        self.can_die.store(1, Ordering::Relaxed);
        let started = self.clock.now();
        let result = work();
        self.can_die.store(0, Ordering::Relaxed);
        *self.other.lock() = None;
        let took = self.clock.now().saturating_sub(started);
        assert!(took < Duration::from_secs(300), "a step took {took:?} of simulated time: no progress");
        result
    }

    /// Nobody else acts, and nobody dies, from here on.
    pub(super) fn calm(&self) {
        self.can_die.store(0, Ordering::Relaxed);
        *self.other.lock() = None;
        *self.reserved.lock() = None;
        self.is_nested.store(0, Ordering::Relaxed);
    }

    /// A call to a tier: here another process may act, and the one at work may be killed.
    pub(super) fn touch(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let calls = self.calls_of_step.fetch_add(1, Ordering::Relaxed);
        assert!(calls < MOST_CALLS, "{calls} calls to tiers in one step: no progress");
        self.clock.advance(Duration::from_micros(3));
        if self.is_nested.load(Ordering::Relaxed) > 0 {
            return;
        }
        if self.can_die.load(Ordering::Relaxed) > 0 && self.once_in(400) {
            self.note(|| "    killed here".to_owned());
            self.unordered.lock().extend(self.in_hand.lock().iter().map(|id| (*id, ())));
            self.calm();
            // Without the hook of a panic: this is no failure.
            std::panic::resume_unwind(Box::new(Killed));
        }
        if self.once_in(25) {
            let other = self.other.lock().take();
            if let Some(other) = other {
                self.is_nested.fetch_add(1, Ordering::Relaxed);
                self.nested.fetch_add(1, Ordering::Relaxed);
                other();
                self.is_nested.fetch_sub(1, Ordering::Relaxed);
                *self.other.lock() = Some(other);
            }
        }
    }
}

pub(super) fn short(id: &BlockId) -> String {
    id.to_hex()[..8].to_owned()
}
