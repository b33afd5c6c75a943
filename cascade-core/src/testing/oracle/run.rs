//! Steps against a subject, judged by the model.

use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::test_runner::{Config, TestCaseError, TestRunner};

use super::model::{Contents, Held, Model};
use super::{HalfPut, Step, Subject, Survival, steps};
use crate::batch::{Batch, Op, Outcome, Refusal};
use crate::memory::{HostBuffer, Piece};
use crate::reservation::Reserve;
use crate::testing::bytes::{HEADER_BYTES, content, id};
use crate::tier::{Addressable, Lookup, MissReason, OnExisting, PutMeta};

type Verdict = Result<(), String>;

/// Leases held at a time: at 150 kB each they stay below half of the smallest capacity.
const MOST_LEASES: usize = 3;
/// Keys of blocks that only press.
const PRESSURE_KEYS: u64 = 1 << 32;
const HANG: Duration = Duration::from_secs(30);

/// Runs random sequences against fresh subjects: as many as `PROPTEST_CASES` says, or `cases`.
///
/// # Panics
/// When the contract is broken; the message has the shortest sequence found that breaks it.
pub fn check(cases: u32, make: impl Fn() -> Box<dyn Subject>) {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok());
    // The shortest sequence is printed in full and can be run by itself, so no file of seeds is kept.
    let config = Config { cases: asked.unwrap_or(cases), failure_persistence: None, ..Config::default() };
    let verdict = TestRunner::new(config)
        .run(&steps(), |steps| run(&steps, make().as_mut()).map_err(TestCaseError::fail));
    assert!(verdict.is_ok(), "{}", verdict.err().map(|error| error.to_string()).unwrap_or_default());
}

/// Runs `steps` against an empty subject.
///
/// # Errors
/// The step at which the contract was broken, and how.
pub fn run(steps: &[Step], subject: &mut dyn Subject) -> Verdict {
    let mut runner =
        Runner { tier: subject.tier(), model: Model::default(), version: 0, pressed: PRESSURE_KEYS };
    for (at, step) in steps.iter().enumerate() {
        let verdict = runner.step(*step, subject).and_then(|()| runner.invariants());
        verdict.map_err(|broken| format!("step {at}, {step:?}: {broken}"))?;
    }
    runner.end().map_err(|broken| format!("at the end: {broken}"))
}

struct Runner {
    tier: Arc<dyn Addressable>,
    model: Model,
    version: u64,
    pressed: u64,
}

impl Runner {
    fn step(&mut self, step: Step, subject: &mut dyn Subject) -> Verdict {
        match step {
            Step::Put { key, len } => self.put_new(key.into(), len, OnExisting::Keep),
            Step::PutReplace { key, len } => self.put_new(key.into(), len, OnExisting::Replace),
            Step::PutSame { key } => match self.model.contents(key.into()) {
                Some(contents) => self.put(key.into(), contents, OnExisting::Replace),
                None => Ok(()),
            },
            Step::Submit { key, blocks, len, is_cancelled } => {
                self.submit(key.into(), blocks.into(), len, is_cancelled)
            }
            Step::Damage { key } => self.damage(key.into(), subject),
            Step::Get { key } => self.get(key.into()),
            Step::Lease { key } => self.lease(key.into()),
            Step::Release { which } => self.release(which),
            Step::Delete { key } => self.delete(key.into()),
            Step::Pressure { blocks } => self.press(blocks),
            Step::Abandon { key, len } => self.abandon(key.into(), len),
            Step::Reopen => self.reopen(subject),
            Step::Crash { key, len } => self.crash(key.into(), len, subject),
        }
    }

    fn next(&mut self, len: u32) -> Contents {
        self.version += 1;
        let len = usize::try_from(len).unwrap_or(usize::MAX).max(HEADER_BYTES);
        Contents { version: self.version, len }
    }

    fn one(&self, op: Op) -> Result<Outcome, String> {
        let outcomes = self.tier.submit(Batch::new(vec![op])).wait(Instant::now() + HANG);
        let outcomes = outcomes.ok_or_else(|| format!("an operation did not complete in {HANG:?} (I6)"))?;
        outcomes.first().copied().ok_or_else(|| "no outcome".to_owned())
    }

    fn missing(&mut self, key: u64) -> Verdict {
        let evictions = self.tier.stats().evictions;
        self.model.missing(key, evictions)
    }

    fn put_new(&mut self, key: u64, len: u32, on_existing: OnExisting) -> Verdict {
        let contents = self.next(len);
        self.put(key, contents, on_existing)
    }

    fn put(&mut self, key: u64, new: Contents, on_existing: OnExisting) -> Verdict {
        let from = Piece::shared(content(key, new.version, new.len)).into();
        let meta = PutMeta { on_existing, ..PutMeta::default() };
        let outcome = self.one(Op::Store { id: id(key), from, meta })?;
        self.was_put(key, new, on_existing, outcome)
    }

    /// Holds what became of a put against the model.
    fn was_put(&mut self, key: u64, new: Contents, on_existing: OnExisting, outcome: Outcome) -> Verdict {
        let believed = self.model.contents(key);
        match outcome {
            Outcome::Stored => {
                // With `Keep`, or with the same bytes, only a block that was forgotten makes room for itself.
                if believed == Some(new) || (believed.is_some() && on_existing == OnExisting::Keep) {
                    self.missing(key)?;
                }
                self.model.stored(key, new);
                Ok(())
            }
            Outcome::Exists => {
                let there = self.model.seen(key)?;
                let right = on_existing == OnExisting::Keep || there == new;
                right.then_some(()).ok_or_else(|| format!("Exists for other bytes than the stored {there:?}"))
            }
            Outcome::Refused(Refusal::Full | Refusal::Throttled) if !self.model.held.is_empty() => Ok(()),
            other => Err(format!("a put of key {key}, {new:?}, was {other:?}")),
        }
    }

    /// A batch of puts and fetches, judged in its order.
    fn submit(&mut self, first: u64, blocks: u64, len: u32, is_cancelled: bool) -> Verdict {
        let puts: Vec<(u64, Contents)> = (first..first + blocks).map(|key| (key, self.next(len))).collect();
        let meta = PutMeta { on_existing: OnExisting::Replace, ..PutMeta::default() };
        let mut ops: Vec<Op> = Vec::new();
        for (key, new) in &puts {
            let from = Piece::shared(content(*key, new.version, new.len)).into();
            ops.push(Op::Store { id: id(*key), from, meta });
        }
        let room =
            puts.iter().map(|(key, new)| self.model.contents(*key).map_or(0, |old| old.len).max(new.len));
        let mut buffers: Vec<HostBuffer> = room.map(HostBuffer::zeroed).collect();
        let fetches = puts.iter().zip(&mut buffers);
        ops.extend(fetches.map(|((key, _), buffer)| Op::Fetch { id: id(*key), into: buffer.piece().into() }));
        let ticket = self.tier.submit(Batch::new(ops));
        if is_cancelled {
            ticket.cancel();
        }
        let outcomes = ticket.wait(Instant::now() + HANG);
        let outcomes = outcomes.ok_or_else(|| format!("a batch did not complete in {HANG:?} (I6)"))?;
        let (stored, fetched) = outcomes.split_at_checked(puts.len()).ok_or("an outcome for each")?;
        for ((key, new), outcome) in puts.iter().zip(stored) {
            if !(is_cancelled && *outcome == Outcome::Cancelled) {
                self.was_put(*key, *new, OnExisting::Replace, *outcome)?;
            }
        }
        for (((key, _), outcome), buffer) in puts.iter().zip(fetched).zip(&mut buffers) {
            match outcome {
                Outcome::Cancelled if is_cancelled => {}
                Outcome::Fetched(meta) => {
                    let bytes = buffer.bytes_mut().ok_or("the tier still holds a list")?;
                    self.is_right(*key, meta.len, bytes)?;
                }
                Outcome::Miss(MissReason::Absent | MissReason::Evicting) => self.missing(*key)?,
                other => return Err(format!("a fetch of key {key} in a batch was {other:?}")),
            }
        }
        Ok(())
    }

    fn damage(&mut self, key: u64, subject: &mut dyn Subject) -> Verdict {
        let Some(contents) = self.model.contents(key) else { return Ok(()) };
        if self.model.held.iter().any(|held| held.key == key) || !subject.damage(&id(key)) {
            return Ok(());
        }
        let mut buffer = HostBuffer::zeroed(contents.len);
        match self.one(Op::Fetch { id: id(key), into: buffer.piece().into() })? {
            Outcome::Fetched(meta) => {
                let bytes = buffer.bytes_mut().ok_or("the tier still holds a list")?;
                self.is_right(key, meta.len, bytes)
            }
            // Whoever found it first says so. It may come back: a copy of it was under way.
            Outcome::Miss(MissReason::Corrupt | MissReason::Absent | MissReason::Evicting) => {
                self.model.damaged(key);
                Ok(())
            }
            other => Err(format!("a fetch of key {key}, which was damaged, was {other:?}")),
        }
    }

    /// Whether a fetch gave what was put last.
    fn is_right(&mut self, key: u64, len: u64, bytes: &[u8]) -> Verdict {
        let contents = self.model.seen(key)?;
        let is_right = len == contents.len as u64
            && bytes.get(..contents.len) == Some(&*content(key, contents.version, contents.len));
        is_right.then_some(()).ok_or_else(|| format!("key {key} is not what was put last, {contents:?} (I1)"))
    }

    fn get(&mut self, key: u64) -> Verdict {
        let mut seen = [Lookup::Pending];
        self.tier.lookup(&[id(key)], &mut seen);
        let room = self.model.contents(key).map_or(HEADER_BYTES, |contents| contents.len + 10);
        let mut buffer = HostBuffer::zeroed(room);
        let outcome = self.one(Op::Fetch { id: id(key), into: buffer.piece().into() })?;
        match (seen[0], outcome) {
            (Lookup::Hit(promised), Outcome::Fetched(meta)) if promised == meta => {
                let bytes = buffer.bytes_mut().ok_or("the tier still holds a list")?;
                self.is_right(key, meta.len, bytes)
            }
            (Lookup::Miss(_), Outcome::Miss(MissReason::Absent | MissReason::Evicting)) => self.missing(key),
            // It was damaged, and another thread may have been about to find and to drop it.
            (_, Outcome::Miss(MissReason::Absent | MissReason::Evicting | MissReason::Corrupt))
                if self.model.is_doubted(key) =>
            {
                self.missing(key)
            }
            other => Err(format!("lookup and fetch of key {key} were {other:?}")),
        }
    }

    fn lease(&mut self, key: u64) -> Verdict {
        if self.model.held.len() >= MOST_LEASES {
            return Ok(());
        }
        match self.tier.lease(&id(key)) {
            Ok(lease) => {
                let held = Held { lease, key, contents: self.model.seen(key)? };
                held.check()?;
                self.model.held.push(held);
                Ok(())
            }
            Err(MissReason::Absent | MissReason::Evicting) => self.missing(key),
            Err(other) => Err(format!("a lease of key {key} was {other:?}")),
        }
    }

    fn release(&mut self, which: u8) -> Verdict {
        let held = &mut self.model.held;
        if held.is_empty() {
            return Ok(());
        }
        held.swap_remove(usize::from(which) % held.len()).check()
    }

    fn delete(&mut self, key: u64) -> Verdict {
        match self.one(Op::Delete { id: id(key) })? {
            Outcome::Deleted => self.model.seen(key).map(|_| self.model.deleted(key)),
            Outcome::Miss(MissReason::Absent | MissReason::Evicting) => self.missing(key),
            other => Err(format!("a delete of key {key} was {other:?}")),
        }
    }

    fn press(&mut self, blocks: u8) -> Verdict {
        let len = u32::try_from(self.tier.capability().capacity_bytes / 16).unwrap_or(u32::MAX);
        for _ in 0..blocks {
            self.pressed += 1;
            self.put_new(self.pressed, len, OnExisting::Keep)?;
        }
        Ok(())
    }

    fn abandon(&mut self, key: u64, len: u32) -> Verdict {
        let contents = self.next(len);
        match self.tier.reserve(&id(key), contents.len as u64, PutMeta::default()) {
            Reserve::Reserved(mut reservation) => {
                let half = content(key, contents.version, contents.len / 2);
                if self.model.contents(key).is_some() {
                    self.missing(key)?;
                }
                reservation
                    .write_at(0, &half)
                    .then_some(())
                    .ok_or_else(|| "a reservation takes its bytes".to_owned())
            }
            Reserve::Exists(_) => self.model.seen(key).map(drop),
            Reserve::Refused(Refusal::Full | Refusal::Throttled) if !self.model.held.is_empty() => Ok(()),
            other => Err(format!("a reservation of key {key}, {contents:?}, was {other:?}")),
        }
    }

    fn reopen(&mut self, subject: &mut dyn Subject) -> Verdict {
        let (evictions, kept) = (self.tier.stats().evictions, self.tier.capability().persistent);
        self.change(|| subject.reopen());
        self.tier = subject.tier();
        self.model.closed(evictions, kept);
        self.see_all()
    }

    fn crash(&mut self, key: u64, len: u32, subject: &mut dyn Subject) -> Verdict {
        let contents = self.next(len);
        let written = content(key, contents.version, contents.len / 2);
        let evictions = self.tier.stats().evictions;
        let half = HalfPut { id: id(key), len: contents.len, written };
        let survival = self.change(|| subject.crash(&half));
        self.tier = subject.tier();
        match survival {
            Survival::Unknown => self.model.closed(evictions, false),
            Survival::Intact { evictions: more } => self.model.closed(evictions + more, true),
        }
        // The block that was never sealed must not be seen, nor Pending for ever: nobody is filling it any more.
        self.get(key)?;
        self.see_all()
    }

    /// Lets go of every lease and of the handle, so that the subject's own is the last.
    fn change<T>(&mut self, change: impl FnOnce() -> T) -> T {
        self.model.held.clear();
        self.tier = Arc::new(crate::memory_tier::MemoryTier::new(0));
        change()
    }

    fn see_all(&mut self) -> Verdict {
        self.model.keys().into_iter().try_for_each(|key| self.get(key))
    }

    fn invariants(&self) -> Verdict {
        self.model.held.iter().try_for_each(Held::check)?;
        let stats = self.tier.stats();
        let (used, capacity) = (stats.used_bytes, stats.capacity_bytes);
        (used <= capacity).then_some(()).ok_or_else(|| format!("{used} bytes in use of {capacity} (I4)"))
    }

    fn end(mut self) -> Verdict {
        self.see_all()?;
        let left = self.model.keys();
        left.into_iter().try_for_each(|key| self.delete(key))?;
        self.invariants()?;
        self.model.held.clear();
        let stats = self.tier.stats();
        let empty = stats.used_bytes == 0 && stats.blocks == 0;
        empty.then_some(()).ok_or_else(|| {
            format!("{} bytes and {} blocks left when all is deleted (I5)", stats.used_bytes, stats.blocks)
        })
    }
}
