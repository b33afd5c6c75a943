//! What everything in a simulation shares: dice, clock, faults, the trace, and who acts between two calls.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use cascade_core::clock::{Clock, ManualClock};
use cascade_core::id::BlockId;
use cascade_pfs::testing::Random;
use parking_lot::Mutex;

use super::turns::{Turns, Who, Work};

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

pub(super) struct World {
    pub(super) clock: Arc<ManualClock>,
    pub(super) dice: Mutex<Random>,
    pub(super) faults: Mutex<Faults>,
    pub(super) excuses: Mutex<BTreeMap<BlockId, Excuse>>,
    /// Blocks that may be seen again after their deletion, or in an older version, by their digests: their deletion below failed,
    /// which only one process knows. Contents are the same in every version, and not locked: these are deleted late also when
    /// another has put them anew, and are seen again also where a copy was begun by who was killed.
    pub(super) unordered: Mutex<BTreeMap<BlockId, BTreeSet<u64>>>,
    /// The block that somebody has in hand: what others do between is often about the same.
    pub(super) hot: Mutex<Option<BlockId>>,
    /// Blocks that were begun to be copied in this step, by either.
    pub(super) in_hand: Mutex<Vec<BlockId>>,
    turns: Turns,
    /// Processes are at work, and may be interrupted and killed.
    is_stepping: AtomicBool,
    /// Naps of who waits for a byte that another has.
    pub(super) waits: AtomicU64,
    pub(super) calls: AtomicU64,
    calls_of_step: AtomicU64,
    pub(super) nested: AtomicU64,
    pub(super) injected: AtomicU64,
    /// At a call of a process another acts, or that one is killed, once in so many.
    interrupts: u64,
    kills: u64,
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
            hot: Mutex::default(),
            in_hand: Mutex::default(),
            turns: Turns::default(),
            is_stepping: AtomicBool::new(false),
            waits: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            calls_of_step: AtomicU64::new(0),
            nested: AtomicU64::new(0),
            injected: AtomicU64::new(0),
            interrupts: [25, 12, 6][(seed / 4 % 3) as usize],
            kills: [400, 150, 60][(seed / 12 % 3) as usize],
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
        if self.turns.who() == Who::Second { "      | other:" } else { "" }
    }

    /// The block that somebody has in hand, for who acts meanwhile.
    pub(super) fn hot(&self) -> Option<BlockId> {
        (self.turns.who() == Who::Second).then(|| *self.hot.lock()).flatten()
    }

    /// Whether a copy of the block was begun by who acts at the same time.
    pub(super) fn is_being_copied(&self, id: &BlockId) -> bool {
        self.turns.is_second_under_way() && self.in_hand.lock().contains(id)
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

    /// Runs a step of one process, in which another may do `other` at any of its calls.
    pub(super) fn step(self: &Arc<Self>, other: Work, work: impl FnOnce()) {
        self.calls_of_step.store(0, Ordering::Relaxed);
        self.in_hand.lock().clear();
        self.turns.propose(other);
        self.is_stepping.store(true, Ordering::Relaxed);
        let started = self.clock.now();
        let done = catch_unwind(AssertUnwindSafe(work));
        self.turns.end();
        self.is_stepping.store(false, Ordering::Relaxed);
        if let Err(broken) = done {
            resume_unwind(broken);
        }
        let took = self.clock.now().saturating_sub(started);
        assert!(took < Duration::from_secs(300), "a step took {took:?} of simulated time: no progress");
    }

    /// Whoever waits lets the other go on.
    pub(super) fn pass(self: &Arc<Self>) {
        if self.is_stepping.load(Ordering::Relaxed) && !std::thread::panicking() {
            self.turns.pass();
        }
    }

    /// A call to a tier: here another process may act, and the one at work may be killed.
    pub(super) fn touch(self: &Arc<Self>) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let calls = self.calls_of_step.fetch_add(1, Ordering::Relaxed);
        assert!(calls < MOST_CALLS, "{calls} calls to tiers in one step: no progress");
        self.clock.advance(Duration::from_micros(3));
        // Who was killed does nothing more, whatever its destructors do here.
        if !self.is_stepping.load(Ordering::Relaxed) || std::thread::panicking() {
            return;
        }
        if self.once_in(self.kills) {
            self.note(|| "    killed here".to_owned());
            // Without the hook of a panic: this is no failure.
            resume_unwind(Box::new(Killed));
        }
        if self.once_in(self.interrupts) {
            self.interrupt();
        }
    }

    fn interrupt(self: &Arc<Self>) {
        if !self.turns.is_second_waiting() {
            self.turns.pass();
            return;
        }
        self.nested.fetch_add(1, Ordering::Relaxed);
        let world = Arc::clone(self);
        self.turns.begin(|work| std::thread::spawn(move || world.turns.second(work)));
    }
}

pub(super) fn short(id: &BlockId) -> String {
    id.to_hex()[..8].to_owned()
}
