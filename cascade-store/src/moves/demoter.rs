//! The thread that copies blocks down: what was put, and what a sweep of the arena finds.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use cascade_core::batch::{Completer, Op, Outcome, Refusal};
use cascade_core::id::BlockId;
use cascade_core::planted::{self, Bug};
use cascade_shm::Below;

use super::count::add;
use super::flights::Kind;
use super::node::Role;
use super::sink::Wave;
use crate::config::Demote;
use crate::files::Files;
use crate::raw;
use crate::spans::span;
use crate::tiers::Tiers;

/// Bytes on their way to the files, at most; they are pinned. Less where that is more than an eighth of the arena.
const IN_FLIGHT: u64 = 128 << 20;
/// Batches on their way, at most: each block takes a lease.
const WAVES: usize = 4;
/// Requests that are taken together.
const TOGETHER: usize = 256;
/// How often the arena is looked at where blocks go down when it fills.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How often it is swept for blocks whose process did not get to copy them.
const SWEEP_EVERY: Duration = Duration::from_secs(5);
/// How often the node hears what the tiers have counted.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// How long after a refusal the files are asked again.
const REST: Duration = Duration::from_secs(1);
/// Blocks go down when more than this share of the arena, in percent, is in use,
const HIGH_PERCENT: u64 = 75;
/// until this share, or less, is of blocks that would be lost.
const LOW_PERCENT: u64 = 50;

/// How long a store that is closed goes on copying what was put.
const CLOSE_WITHIN: Duration = Duration::from_secs(60);

/// What the demoter is asked for.
#[derive(Debug)]
pub(crate) enum Request {
    /// A block was put.
    Put(BlockId),
    /// Everything is to go down; `Stored` is the answer when the files have it all.
    All(Completer),
}

pub(crate) struct Demoter {
    tiers: Arc<Tiers>,
    files: Arc<Files>,
    role: Role,
    waves: VecDeque<Wave>,
    bytes: u64,
    limit: u64,
    /// What the last sweep found, which others may be about to copy.
    found: HashSet<BlockId>,
    swept: Duration,
    looked: Duration,
    told: Duration,
    /// Not before then are the files asked again.
    rests_until: Option<Duration>,
    refused: Option<Refusal>,
    closing: Option<Duration>,
}

impl Demoter {
    pub(crate) fn new(tiers: Arc<Tiers>, files: Arc<Files>) -> Self {
        let role = Role::new(Arc::clone(&files.flights));
        let limit = IN_FLIGHT.min(tiers.arena.data_bytes() / 8).min(files.config.in_flight_bytes / 2);
        let now = tiers.clock.now();
        Self {
            tiers,
            files,
            role,
            waves: VecDeque::new(),
            bytes: 0,
            limit,
            found: HashSet::new(),
            swept: now,
            looked: now,
            told: now,
            rests_until: None,
            refused: None,
            closing: None,
        }
    }

    /// Works until the queue is closed and empty.
    pub(crate) fn work(mut self) {
        self.check_notes();
        loop {
            let patience = if self.waves.is_empty() { LOOK_EVERY } else { Duration::ZERO };
            if !self.turn(patience) || self.is_over() {
                break;
            }
        }
        while self.finish_one() {}
    }

    /// Serves what is asked for within `patience`, or does what else there is to do; `false` when the queue is closed and empty.
    pub(crate) fn turn(&mut self, patience: Duration) -> bool {
        let Some(requests) = self.files.sink.take(TOGETHER, patience) else { return false };
        let is_idle = requests.is_empty();
        if self.since(self.told) >= TELL_EVERY {
            self.told = self.now();
            self.tiers.tell();
        }
        self.serve(requests);
        if is_idle && !self.finish_one() {
            self.look();
        }
        true
    }

    fn now(&self) -> Duration {
        self.tiers.clock.now()
    }

    fn since(&self, then: Duration) -> Duration {
        self.now().saturating_sub(then)
    }

    /// Takes back what the arena notes of copies that these files do not have: other files may have been below it before, or
    /// somebody removed them. Where they have another block of a name, put by another node, that one is the newer.
    pub(crate) fn check_notes(&self) {
        for (id, digest) in self.tiers.arena.kept() {
            match self.files.meta(&id) {
                Some(meta) if meta.digest == digest => {}
                Some(_) if id.kind().replaceable() => self.drop_older(&id, digest),
                _ => drop(self.tiers.arena.note_below(&id, digest, Below::Absent)),
            }
        }
    }

    /// Takes a block out of the arena that was copied to files, and has been replaced there since.
    fn drop_older(&self, id: &BlockId, digest: u64) {
        let Some(flight) = self.files.flights.begin(id, Kind::Change) else { return };
        let is_older = self.files.is_current(&flight)
            && self.files.meta(id).is_some_and(|newest| newest.digest != digest)
            && self.tiers.above(id).is_some_and(|above| above.digest == digest);
        if is_older {
            raw::run(&self.tiers.arena, vec![Op::Delete { id: *id }]);
            add(&self.tiers.count.doubted, 1);
        }
    }

    /// Whether the store was closed too long ago to go on with what waits.
    fn is_over(&mut self) -> bool {
        if !self.files.sink.is_closed() {
            return false;
        }
        let now = self.now();
        now.saturating_sub(*self.closing.get_or_insert(now)) > CLOSE_WITHIN
    }

    fn serve(&mut self, requests: Vec<Request>) {
        let mut puts = Vec::new();
        for request in requests {
            match request {
                Request::Put(id) => puts.push(id),
                Request::All(completer) => {
                    self.send(&std::mem::take(&mut puts));
                    self.rests_until = None;
                    // What is forgotten after the copies is missing in files that were flushed.
                    while self.finish_one() {}
                    self.forget_hidden();
                    let outcome = self.send_all().map_or(Outcome::Stored, Outcome::Refused);
                    completer.complete(0, outcome);
                }
            }
        }
        self.send(&puts);
    }

    /// Begins to copy blocks, waiting for room among those under way.
    fn send(&mut self, ids: &[BlockId]) {
        let mut left = ids;
        while !left.is_empty() {
            if self.rests() {
                // A sweep finds them when the files take blocks again.
                add(&self.tiers.count.demote_deferred, left.len() as u64);
                return;
            }
            while (self.bytes >= self.limit || self.waves.len() >= WAVES) && self.finish_one() {}
            let (wave, rest) = self.tiers.start_sink(&self.files, left, self.waves.is_empty());
            if wave.is_none() && rest.len() == left.len() {
                self.finish_one();
            }
            if let Some(wave) = wave {
                self.bytes += wave.bytes;
                self.waves.push_back(wave);
            }
            left = rest;
        }
    }

    /// Waits for the oldest wave; `false` when there is none.
    pub(crate) fn finish_one(&mut self) -> bool {
        let Some(wave) = self.waves.pop_front() else { return false };
        self.bytes -= wave.bytes;
        let _span = span!(DEBUG, "sink", bytes = wave.bytes).entered();
        if let Some(why) = self.tiers.finish_sink(&self.files, wave).refused {
            self.refused = Some(why);
            self.rests_until = Some(self.now() + REST);
        }
        true
    }

    fn rests(&self) -> bool {
        self.rests_until.is_some_and(|until| self.now() < until)
    }

    /// Copies every block of the arena that the files lack; why some are left.
    fn send_all(&mut self) -> Option<Refusal> {
        self.refused = None;
        self.send(&self.alone());
        while self.finish_one() {}
        self.found.clear();
        self.refused.take()
    }

    /// Blocks that only the arena has and the files are to have.
    fn alone(&self) -> Vec<BlockId> {
        let cold = self.tiers.arena.survey(u64::MAX).cold.into_iter();
        cold.filter(|cold| self.files.selects(&cold.id, cold.meta.class)).map(|cold| cold.id).collect()
    }

    /// What there is to do when nobody asks.
    fn look(&mut self) {
        if self.rests() {
            return;
        }
        self.forget_hidden();
        match self.files.demote {
            Demote::Off => {}
            Demote::Through | Demote::Selective if self.since(self.swept) >= SWEEP_EVERY => self.sweep(),
            Demote::Back if self.since(self.looked) >= LOOK_EVERY => self.relieve(),
            Demote::Through | Demote::Selective | Demote::Back => {}
        }
    }

    /// Tells the files again what they could not forget. No wave is under way, so that this thread waits for nothing that is its own.
    fn forget_hidden(&self) {
        self.files.forget_hidden(|id| {
            if !planted::is(Bug::LateNote) {
                self.tiers.take_note_back(id);
            }
        });
    }

    /// Copies what two sweeps found: what was put by a process that died, or was refused before.
    fn sweep(&mut self) {
        self.swept = self.now();
        if !self.role.tend() {
            return;
        }
        let alone = self.alone();
        let before = std::mem::take(&mut self.found);
        let (again, new): (Vec<BlockId>, Vec<BlockId>) =
            alone.into_iter().partition(|id| before.contains(id));
        self.found = new.into_iter().collect();
        if !planted::is(Bug::NoSweep) {
            self.send(&again);
        }
    }

    /// Copies the coldest blocks while the arena is full of blocks that would be lost.
    fn relieve(&mut self) {
        self.looked = self.now();
        let fill = self.tiers.arena.fill();
        let share = |percent: u64| fill.capacity_bytes / 100 * percent;
        if fill.used_bytes <= share(HIGH_PERCENT) || !self.role.tend() {
            return;
        }
        let survey = self.tiers.arena.survey(fill.capacity_bytes);
        let mut excess = survey.alone_bytes.saturating_sub(share(LOW_PERCENT));
        let within = survey.cold.iter().take_while(|cold| {
            let wanted = excess > 0;
            excess = excess.saturating_sub(cold.meta.len);
            wanted
        });
        let ids: Vec<BlockId> = within.map(|cold| cold.id).collect();
        self.send(&ids);
    }
}
