//! Leases and lookups: no payload moves, so time counts, at more and more stored blocks.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use cascade_core::Result;
use cascade_core::batch::Outcome;
use cascade_core::id::BlockId;
use cascade_core::tier::{Addressable, Lookup, MissReason};

use crate::lap::{FreshIds, unexpected};
use crate::memory::{self, Region, store};
use crate::report::Row;
use crate::stats::Latency;
use crate::team::timed;
use crate::tiers::{Open, Wanted};

/// Small blocks: the index is what is measured.
pub(crate) const BLOCK_BYTES: u64 = 4096;
/// Blocks asked for at once.
const BATCH: usize = 1000;
/// Single operations of a repetition, each timed by itself.
const SINGLES: usize = 20_000;
/// Batches of a repetition.
const BATCHES: usize = 100;
/// Different buffers that the blocks are filled from.
const PLACES: usize = 4096;
/// Blocks stored by one batch.
const STORE_BATCH: usize = 256;

/// The tier for `blocks` blocks: a quarter more room, because hashing fills no index evenly.
pub(crate) fn wanted(blocks: u64) -> Wanted {
    let capacity_bytes = (blocks * BLOCK_BYTES * 5 / 4).next_multiple_of(64 << 20).max(256 << 20);
    Wanted { capacity_bytes, slots: Some((blocks * 2).max(1 << 16)), touched: true }
}

/// A full tier to ask.
pub(crate) struct Filled {
    tier: Arc<dyn Addressable>,
    /// The blocks that are stored, with the place of their bytes.
    stored: Vec<(BlockId, usize)>,
    source: Region,
}

impl Filled {
    /// A tier with up to `blocks` blocks (fewer when it had to evict some of them).
    pub(crate) fn new(open: Open<'_>, ids: &mut FreshIds, blocks: u64) -> Result<Self> {
        let tier = open(&wanted(blocks))?;
        let mut source = memory::random(PLACES * BLOCK_BYTES as usize, 77)?;
        let ids = ids.take(blocks as usize);
        let part = &source.split(1)[0];
        for (number, batch) in ids.chunks(STORE_BATCH).enumerate() {
            let first = number * STORE_BATCH;
            let outcomes = store(tier.as_ref(), batch, part, first, PLACES, BLOCK_BYTES as usize);
            if let Some(refused) = outcomes.iter().find(|outcome| **outcome != Outcome::Stored) {
                return Err(unexpected("put", BLOCK_BYTES as usize, &[*refused]));
            }
        }
        let mut answers = vec![Lookup::Miss(MissReason::Absent); ids.len()];
        tier.lookup(&ids, &mut answers);
        let is_hit = |(index, id): (usize, BlockId)| answers[index].is_hit().then_some((id, index % PLACES));
        let stored = ids.into_iter().enumerate().filter_map(is_hit).collect();
        Ok(Self { tier, stored, source })
    }

    /// Blocks that are stored.
    pub(crate) fn len(&self) -> u64 {
        self.stored.len() as u64
    }

    /// Lookups and leases by `threads` threads, one by one and in batches of 1,000.
    pub(crate) fn measure(&mut self, tier_name: &str, threads: usize, reps: usize) -> Vec<Row> {
        let is_right = self.is_right();
        let kinds = [
            ("lookup", 1, lookups as Timed),
            ("lease", 1, leases as Timed),
            ("lookup", BATCH, lookups as Timed),
            ("lease", BATCH, leases as Timed),
        ];
        let row = |(op, batch, operation): (&str, usize, Timed)| {
            let path = if batch == 1 { "single".to_owned() } else { format!("batch{batch}") };
            let mut row = Row::new(tier_name, op, &path, BLOCK_BYTES);
            let (times, all_hit) = self.sample(threads, reps, batch, operation);
            row.latency_us = Latency::of(&times);
            row.blocks = Some(self.len());
            row.threads = threads;
            row.n = reps;
            row.verified = Some(all_hit && is_right);
            row
        };
        kinds.into_iter().map(row).collect()
    }

    /// Microseconds of each operation on ids drawn at random, and whether every id hit.
    fn sample(&self, threads: usize, reps: usize, batch: usize, operation: Timed) -> (Vec<f64>, bool) {
        let count = if batch == 1 { SINGLES } else { BATCHES };
        let (mut times, mut all_hit) = (Vec::new(), true);
        for rep in 0..reps {
            let draw = |thread: usize| self.draw(count * batch, (rep * threads + thread) as u64);
            let mut asked: Vec<_> = (0..threads).map(draw).collect();
            let (_, answers) = timed(&mut asked, |ids| operation(self.tier.as_ref(), ids, batch));
            for (each, hits) in answers {
                times.extend(each);
                all_hit &= hits == count * batch;
            }
        }
        (times, all_hit)
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

/// Asks for `ids`, `batch` at once; microseconds of each call, and the number of hits.
type Timed = fn(&dyn Addressable, &[BlockId], usize) -> (Vec<f64>, usize);

fn lookups(tier: &dyn Addressable, ids: &[BlockId], batch: usize) -> (Vec<f64>, usize) {
    let mut answers = vec![Lookup::Miss(MissReason::Absent); batch];
    let ask = |ids: &[BlockId]| {
        let start = Instant::now();
        tier.lookup(ids, &mut answers);
        let time = start.elapsed();
        (time.as_secs_f64() * 1e6, answers.iter().filter(|answer| answer.is_hit()).count())
    };
    total(ids.chunks_exact(batch).map(ask))
}

/// A lease is taken and given back: both are timed.
fn leases(tier: &dyn Addressable, ids: &[BlockId], batch: usize) -> (Vec<f64>, usize) {
    let one = |ids: &[BlockId]| {
        let start = Instant::now();
        let hits = usize::from(black_box(tier.lease(&ids[0])).is_ok());
        (start.elapsed().as_secs_f64() * 1e6, hits)
    };
    let many = |ids: &[BlockId]| {
        let start = Instant::now();
        let leases = black_box(tier.lease_batch(ids));
        let hits = leases.iter().filter(|lease| lease.is_ok()).count();
        drop(leases);
        (start.elapsed().as_secs_f64() * 1e6, hits)
    };
    if batch == 1 { total(ids.chunks_exact(1).map(one)) } else { total(ids.chunks_exact(batch).map(many)) }
}

fn total(calls: impl Iterator<Item = (f64, usize)>) -> (Vec<f64>, usize) {
    let (times, hits): (Vec<_>, Vec<_>) = calls.unzip();
    (times, hits.iter().sum())
}
