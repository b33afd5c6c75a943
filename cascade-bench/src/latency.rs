//! Leases and lookups: no payload moves, so time counts, at more and more stored blocks.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cascade_core::batch::Outcome;
use cascade_core::id::BlockId;
use cascade_core::tier::{Addressable, Lookup, MissReason};
use cascade_core::{Error, ErrorKind};

use crate::lap::{FreshIds, unexpected};
use crate::memory::{self, Part, Region, store};
use crate::report::Row;
use crate::run::Stored;
use crate::shm;
use crate::stats::Latency;
use crate::team::timed;
use crate::tiers::{Open, Opened, Wanted, check_room};

/// Small blocks: the index is what is measured.
pub(crate) const BLOCK_BYTES: u64 = 4096;
/// Blocks asked for at once.
const BATCH: usize = 1000;
/// Single operations of a repetition, each timed by itself.
const SINGLES: usize = 20_000;
/// Batches of a repetition.
const BATCHES: usize = 100;
/// Different buffers that the blocks are filled from.
pub(crate) const PLACES: usize = 4096;
/// Blocks stored by one batch.
const STORE_BATCH: usize = 256;
/// Blocks asked for at once when it is looked which of them are stored.
const ASKED: usize = 1 << 16;

/// Slots for each three blocks: as full as two buckets of eight for each id can be without pushing a block out.
const SLOTS_FOR_THREE: u64 = 4;
/// Memory that a measurement leaves to others.
const SPARE_BYTES: u64 = 1 << 30;
/// Bytes of this process for each block: its id in two lists.
const LIST_BYTES: u64 = 80;

/// The tier for these blocks: a little more room than they take, in whole regions.
pub(crate) fn wanted(stored: Stored, threads: usize) -> Wanted {
    let bytes = stored.blocks * BLOCK_BYTES / 32 * 33 + (1 << 20);
    let region = 1 << (bytes / 16).max(1).ilog2().clamp(20, 26);
    Wanted {
        capacity_bytes: bytes.next_multiple_of(2 * region),
        slots: Some(stored.blocks * SLOTS_FOR_THREE / 3),
        touched: true,
        threads,
        index_only: stored.is_index_only.then_some(stored.blocks),
    }
}

/// Makes sure that the machine has the memory.
///
/// # Errors
/// `NoSpace`, with what is needed and what there is.
pub(crate) fn check_fits(folder: &Path, stored: Stored, threads: usize) -> cascade_core::Result<()> {
    let wanted = wanted(stored, threads);
    let data = if stored.is_index_only { 0 } else { wanted.capacity_bytes };
    // A slot with its tag, and what each page of data has in bitmap, residents and digests.
    let index = wanted.slots.unwrap_or(0) * 65 + wanted.capacity_bytes / BLOCK_BYTES * 5;
    check_room(folder, data + index + shm::ledger_bytes(threads), stored.blocks * LIST_BYTES + SPARE_BYTES)
}

/// A full tier to ask.
pub(crate) struct Filled {
    tier: Arc<dyn Addressable>,
    index_bytes: Option<u64>,
    is_index_only: bool,
    /// The blocks that are stored, with the place of their bytes.
    stored: Vec<(BlockId, usize)>,
    source: Region,
}

impl Filled {
    /// A tier with up to these blocks (fewer when it had to evict some of them), for so many threads at once.
    pub(crate) fn new(
        open: Open<'_>,
        ids: &mut FreshIds,
        wanted_blocks: Stored,
        threads: usize,
    ) -> cascade_core::Result<Self> {
        let Opened { tier, index_bytes } = open(&wanted(wanted_blocks, threads))?;
        let mut source = memory::random(PLACES * BLOCK_BYTES as usize, 77)?;
        let ids = ids.take(wanted_blocks.blocks as usize);
        if wanted_blocks.is_index_only {
            source.split(1)[0].fill(0);
        } else {
            put(tier.as_ref(), &ids, &source.split(1)[0])?;
        }
        let mut answers = vec![Lookup::Miss(MissReason::Absent); ASKED];
        let mut stored = Vec::with_capacity(ids.len());
        for (first, ids) in (0..).step_by(ASKED).zip(ids.chunks(ASKED)) {
            tier.lookup(ids, &mut answers[..ids.len()]);
            let is_hit = |(index, id): (usize, &BlockId)| {
                answers[index].is_hit().then_some((*id, (first + index) % PLACES))
            };
            stored.extend(ids.iter().enumerate().filter_map(is_hit));
        }
        if stored.is_empty() {
            return Err(Error::new(ErrorKind::Unsupported, "the tier kept none of the blocks put"));
        }
        Ok(Self { tier, index_bytes, is_index_only: wanted_blocks.is_index_only, stored, source })
    }

    /// Blocks that are stored.
    pub(crate) fn len(&self) -> u64 {
        self.stored.len() as u64
    }

    /// Lookups and leases by `threads` threads, one by one and in batches of 1,000.
    pub(crate) fn measure(&mut self, tier_name: &str, threads: usize, reps: usize) -> Vec<Row> {
        let is_right = self.is_right();
        let mut rows = Vec::new();
        for batch in [1, BATCH] {
            let lookup = self.sample(threads, reps, batch, lookups);
            let lease = self.sample(threads, reps, batch, leases);
            for (op, samples) in [("lookup", lookup), ("lease", lease)] {
                for (op, times_us) in [(op, &samples.call_us), ("release", &samples.release_us)] {
                    let path = if batch == 1 { "single".to_owned() } else { format!("batch{batch}") };
                    let mut row = Row::new(tier_name, op, &path, BLOCK_BYTES);
                    row.latency_us = Latency::of(times_us);
                    row.blocks = Some(self.len());
                    row.index_bytes = self.index_bytes.map(|bytes| bytes as f64 / self.len() as f64);
                    if self.is_index_only {
                        "index_only".clone_into(&mut row.state);
                    }
                    row.threads = threads;
                    row.n = reps;
                    row.verified = Some(samples.all_hit && is_right);
                    rows.extend(row.latency_us.is_some().then_some(row));
                }
            }
        }
        rows
    }

    /// Times of operations on ids drawn at random, by all threads together.
    fn sample(&self, threads: usize, reps: usize, batch: usize, operation: Timed) -> Samples {
        let count = if batch == 1 { SINGLES } else { BATCHES };
        let mut all = Samples { all_hit: true, ..Samples::default() };
        for rep in 0..reps {
            let draw = |thread: usize| self.draw(count * batch, (rep * threads + thread) as u64);
            let mut asked: Vec<_> = (0..threads).map(draw).collect();
            let (_, answers) = timed(&mut asked, |ids| operation(self.tier.as_ref(), ids, batch));
            for answer in answers {
                all.call_us.extend(answer.call_us);
                all.release_us.extend(answer.release_us);
                all.all_hit &= answer.all_hit;
            }
        }
        all
    }

    /// `count` stored ids, in an order of `seed`.
    fn draw(&self, count: usize, seed: u64) -> Vec<BlockId> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 16) as usize
        };
        (0..count).map(|_| self.stored[next() % self.stored.len()].0).collect()
    }

    /// Whether leased blocks, some from everywhere, hold what was put.
    fn is_right(&mut self) -> bool {
        let step = (self.stored.len() / 256).max(1);
        let mut bytes = vec![0; BLOCK_BYTES as usize];
        let source = &self.source.split(1)[0];
        self.stored.iter().step_by(step).all(|(id, place)| {
            let lease = self.tier.lease(id);
            lease.is_ok_and(|lease| lease.len() == bytes.len() && lease.read_at(0, &mut bytes))
                && source.holds(place * bytes.len(), &bytes)
        })
    }
}

/// Stores `ids` side by side.
pub(crate) fn put(tier: &dyn Addressable, ids: &[BlockId], source: &Part<'_>) -> cascade_core::Result<()> {
    for (number, batch) in ids.chunks(STORE_BATCH).enumerate() {
        let outcomes = store(tier, batch, source, number * STORE_BATCH, PLACES, BLOCK_BYTES as usize);
        if let Some(refused) = outcomes.iter().find(|outcome| **outcome != Outcome::Stored) {
            return Err(unexpected("put", BLOCK_BYTES as usize, &[*refused]));
        }
    }
    Ok(())
}

/// Times in microseconds, one for each call.
#[derive(Debug, Default)]
struct Samples {
    call_us: Vec<f64>,
    /// Giving back what the call took; empty where it took nothing.
    release_us: Vec<f64>,
    all_hit: bool,
}

/// Asks for `ids`, `batch` at once.
type Timed = fn(&dyn Addressable, &[BlockId], usize) -> Samples;

fn lookups(tier: &dyn Addressable, ids: &[BlockId], batch: usize) -> Samples {
    let mut samples = Samples { all_hit: true, ..Samples::default() };
    let mut answers = vec![Lookup::Miss(MissReason::Absent); batch];
    for ids in ids.chunks_exact(batch) {
        let start = Instant::now();
        tier.lookup(ids, &mut answers);
        samples.call_us.push(microseconds(start.elapsed()));
        samples.all_hit &= answers.iter().all(Lookup::is_hit);
    }
    samples
}

fn leases(tier: &dyn Addressable, ids: &[BlockId], batch: usize) -> Samples {
    let mut samples = Samples { all_hit: true, ..Samples::default() };
    for ids in ids.chunks_exact(batch) {
        let taken = if batch == 1 {
            let start = Instant::now();
            let lease = black_box(tier.lease(&ids[0]));
            let taken = Instant::now();
            samples.all_hit &= lease.is_ok();
            let release = Instant::now();
            drop(lease);
            samples.release_us.push(microseconds(release.elapsed()));
            taken - start
        } else {
            let start = Instant::now();
            let leases = black_box(tier.lease_batch(ids));
            let taken = Instant::now();
            samples.all_hit &= leases.len() == batch && leases.iter().all(Result::is_ok);
            let release = Instant::now();
            drop(leases);
            samples.release_us.push(microseconds(release.elapsed()));
            taken - start
        };
        samples.call_us.push(microseconds(taken));
    }
    samples
}

fn microseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// Median time that reading the clock twice takes: part of the time of every single operation.
pub(crate) fn clock_us() -> f64 {
    let times: Vec<_> = (0..10_000).map(|_| microseconds(Instant::now().elapsed())).collect();
    Latency::of(&times).map_or(0.0, |latency| latency.p50)
}
