//! Four threads on fifty ids: never a wrong byte.

use std::sync::Arc;
use std::thread;

use super::rig::{KEEP, MIB, REPLACE, Rig};
use super::{MakeAddressable, MakeTier, Verdict, rule};
use crate::batch::{Outcome, Refusal};
use crate::testing::bytes::{content, id, mix, version_of};
use crate::tier::{Addressable, Lookup, MissReason, Tier};

const THREADS: u64 = 4;
const KEYS: u64 = 50;
/// Keys below this have one writer, so that versions that go back show; the others are everybody's.
const OWNED: u64 = 24;
const OPS: u64 = 1500;

/// Length by version: 16 bytes to 40 KiB.
fn len_of(version: u64) -> usize {
    16 + (mix(version) % 40_000) as usize
}

/// Judges bytes of `key`: a version of it, whole, and no older than what this thread has seen where there is one writer.
fn judge(key: u64, bytes: &[u8], newest: &mut [u64]) -> Verdict {
    let Some(version) = version_of(key, bytes) else {
        return Err(format!("{} bytes that were never put under key {key} (I1)", bytes.len()));
    };
    rule!(bytes.len() == len_of(version), "version {version} of key {key} has another length (I1)");
    if key < OWNED
        && let Some(seen) = newest.get_mut(key as usize)
    {
        rule!(version >= *seen, "key {key} went back from version {seen} to {version} (I2)");
        *seen = version;
    }
    Ok(())
}

struct Worker<T: ?Sized> {
    rig: Rig<T>,
    thread: u64,
    newest: Vec<u64>,
    steps: u64,
}

impl<T: Tier + ?Sized> Worker<T> {
    fn new(tier: &Arc<T>, thread: u64) -> Self {
        Self { rig: Rig::new(Arc::clone(tier)), thread, newest: vec![0; KEYS as usize], steps: 0 }
    }

    fn writes(&self, key: u64) -> bool {
        key >= OWNED || key % THREADS == self.thread
    }

    fn put(&mut self, key: u64) -> Verdict {
        let version = 1 + self.steps * THREADS + self.thread;
        let meta = if key < OWNED || self.steps.is_multiple_of(2) { REPLACE } else { KEEP };
        let outcome = self.rig.put(&id(key), &content(key, version, len_of(version)), meta)?;
        match outcome {
            Outcome::Stored if key < OWNED => self.newest[key as usize] = version,
            Outcome::Exists if key < OWNED => return Err("new bytes were answered Exists".into()),
            Outcome::Stored | Outcome::Exists => {}
            Outcome::Refused(Refusal::Pending | Refusal::Full | Refusal::Throttled) => {}
            other => return Err(format!("a put among threads was {other:?}")),
        }
        Ok(())
    }

    fn get(&mut self, key: u64) -> Verdict {
        match self.rig.get(&id(key), 41_000)? {
            (Outcome::Fetched(meta), bytes) => {
                let len = usize::try_from(meta.len).unwrap_or(usize::MAX);
                let bytes = bytes.get(..len).ok_or("a block longer than any that was put (I1)")?;
                judge(key, bytes, &mut self.newest)
            }
            (Outcome::Miss(MissReason::Absent | MissReason::Evicting | MissReason::Throttled), _) => Ok(()),
            (other, _) => Err(format!("a fetch among threads was {other:?}")),
        }
    }

    fn delete(&mut self, key: u64) -> Verdict {
        let outcome = self.rig.delete(&id(key))?;
        rule!(
            matches!(outcome, Outcome::Deleted | Outcome::Miss(_)),
            "a delete among threads was {outcome:?}"
        );
        Ok(())
    }

    fn step(&mut self) -> Verdict {
        self.steps += 1;
        let dice = mix(self.steps * THREADS + self.thread);
        let key = dice % KEYS;
        match (dice >> 32) % 10 {
            0..4 if self.writes(key) => self.put(key),
            9 if self.writes(key) => self.delete(key),
            _ => self.get(key),
        }
    }
}

/// Runs `work` for each thread and gives the first broken rule.
fn together<W: Send>(workers: Vec<W>, work: impl Fn(&mut W, u64) -> Verdict + Sync) -> Verdict {
    thread::scope(|scope| {
        let work = &work;
        let all: Vec<_> = workers
            .into_iter()
            .map(|mut worker| scope.spawn(move || (0..OPS).try_for_each(|at| work(&mut worker, at))))
            .collect();
        let ended =
            all.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err("a thread panicked".into())));
        ended.fold(Ok(()), Result::and)
    })
}

fn settle<T: Tier + ?Sized>(rig: &Rig<T>) -> Verdict {
    for key in 0..KEYS {
        rule!(rig.lookup(&id(key)) != Lookup::Pending, "key {key} is Pending, and nobody is writing (I5)");
        rig.delete(&id(key))?;
        rule!(!rig.lookup(&id(key)).is_hit(), "key {key} is a hit after delete (I2)");
    }
    rule!(rig.stats().corrupt == 0, "blocks became corrupt among threads");
    rig.is_empty("after four threads and deleting all")
}

pub(super) fn store(make: MakeTier<'_>) -> Verdict {
    let tier = make(4 * MIB);
    let workers = (0..THREADS).map(|thread| Worker::new(&tier, thread)).collect();
    together(workers, |worker, _| worker.step())?;
    settle(&Rig::new(tier))
}

/// Leases `key`, and reads it twice with other work between.
fn hold(worker: &mut Worker<dyn Addressable>, key: u64) -> Verdict {
    let Ok(lease) = worker.rig.tier.lease(&id(key)) else { return Ok(()) };
    let mut first = vec![0; lease.len()];
    rule!(lease.read_at(0, &mut first), "a lease cannot be read");
    judge(key, &first, &mut worker.newest)?;
    for _ in 0..3 {
        worker.step()?;
    }
    let mut again = vec![0; lease.len()];
    rule!(
        lease.read_at(0, &mut again) && again == first,
        "a leased block of key {key} changed its bytes (I1)"
    );
    Ok(())
}

pub(super) fn lease(make: MakeAddressable<'_>) -> Verdict {
    // Small enough that the blocks of all threads press on each other.
    let tier = make(MIB);
    let workers = (0..THREADS).map(|thread| Worker::new(&tier, thread)).collect();
    together(workers, |worker, at| {
        let dice = mix(at ^ (worker.thread << 40));
        if dice.is_multiple_of(4) { hold(worker, (dice >> 8) % KEYS) } else { worker.step() }
    })?;
    settle(&Rig::new(tier))
}
