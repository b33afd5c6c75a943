//! The space row: blocks of very different sizes come and go, and what the arena makes of its data area.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use cascade_core::batch::Outcome;
use cascade_core::id::BlockId;
use cascade_core::tier::{Addressable, Lookup, MissReason, Tier};
use cascade_core::{Error, ErrorKind, Result};
use cascade_shm::Arena;

use crate::draw::{LogNormal, Random};
use crate::lap::unexpected;
use crate::memory::{self, Part, Region, store_run};
use crate::report::{Census, Row, Space};
use crate::run::Results;
use crate::shm;
use crate::stats::{Latency, Spread};
use crate::team::timed;
use crate::tiers::{Wanted, check_room};

/// Sizes of the row: half of them in each of the two kinds of regions, the largest as large as a region.
pub(crate) const SIZES: LogNormal =
    LogNormal { median_bytes: 64 << 10, sigma: 1.5, least_bytes: 4 << 10, most_bytes: 64 << 20 };
/// Random bytes that blocks are taken from.
const SOURCE_BYTES: u64 = 256 << 20;
/// Samples of the used share, spread over the churn.
const SAMPLES: u64 = 40;
/// Blocks read back at the end.
const CHECKED: usize = 500;

/// The arena's size unless told otherwise: 64 times the largest block.
const CAPACITY_BYTES: u64 = 4 << 30;
/// Memory that is left to others.
const SPARE_BYTES: u64 = 1 << 30;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// Folder for the arena.
    pub dir: PathBuf,
    /// Bytes of the arena; `None`: 4 GiB.
    pub capacity_bytes: Option<u64>,
    /// Blocks put after it is full.
    pub cycles: u64,
    /// Numbers of threads, one row for each.
    pub threads: Vec<usize>,
}

/// Measures the space rows, each in an arena of its own.
///
/// # Errors
/// What making the arena gives, and a put or get that it cannot do.
pub fn measure(
    options: &Options,
    tier_name: &str,
    say: &mut dyn FnMut(usize, usize, &str),
) -> Result<Results> {
    let mut results = Results::default();
    let capacity_bytes = options.capacity_bytes.unwrap_or(CAPACITY_BYTES);
    if let Err(error) = check_room(&options.dir, capacity_bytes, SOURCE_BYTES + SPARE_BYTES) {
        results.notes.push(format!("the space row is not run: {error}"));
        return Ok(results);
    }
    for (step, threads) in options.threads.iter().enumerate() {
        say(step, options.threads.len(), &format!("space, {} puts x{threads}", options.cycles));
        let wanted =
            Wanted { capacity_bytes, slots: None, touched: true, threads: *threads, index_only: None };
        let arena = shm::make(&options.dir, &wanted)?;
        let sizes = LogNormal { most_bytes: SIZES.most_bytes.min(capacity_bytes / 16), ..SIZES };
        results.rows.push(Churn::new(&arena.arena, sizes)?.measure(tier_name, *threads, options.cycles)?);
    }
    Ok(results)
}

/// Blocks to put, and into what.
pub(crate) struct Churn<'a> {
    arena: &'a Arena,
    sizes: LogNormal,
    source: Region,
    /// Blocks put since the last look, and those that were there then.
    known: Vec<Block>,
    refused: u64,
    used: u64,
}

/// A block that was put.
#[derive(Clone, Copy, Debug)]
struct Block {
    id: BlockId,
    len: u64,
    /// Where its bytes begin in the source.
    at: u64,
}

impl<'a> Churn<'a> {
    /// For `arena`, whose pages exist.
    pub(crate) fn new(arena: &'a Arena, sizes: LogNormal) -> Result<Self> {
        let bytes = SOURCE_BYTES.max(sizes.most_bytes * 2);
        let source = memory::random(bytes as usize, 0x5eed)?;
        Ok(Self { arena, sizes, source, known: Vec::new(), refused: 0, used: 0 })
    }

    /// Fills the arena, then puts `puts` blocks with `threads` threads.
    pub(crate) fn measure(&mut self, tier_name: &str, threads: usize, puts: u64) -> Result<Row> {
        self.fill(threads)?;
        // Before the census, what the measurement itself keeps and needs must not look like growth: its list of times, and the
        // lists of one lap.
        let mut each_us = vec![1.0; puts as usize];
        each_us.clear();
        for _ in 0..2 {
            drop(self.put(threads, puts.div_ceil(SAMPLES))?);
            self.shares();
        }
        let before = self.census()?;
        let (evicted, refused) = (self.arena.stats().evictions, self.refused);
        let mut time = Duration::ZERO;
        let (mut used, mut payload) = (Vec::new(), Vec::new());
        let mut left = puts;
        for sample in 0..SAMPLES {
            let now = left / (SAMPLES - sample);
            let lap = self.put(threads, now)?;
            left -= now;
            time += lap.0;
            each_us.extend(lap.1);
            let shares = self.shares();
            used.push(shares.0);
            payload.push(shares.1);
        }
        let evictions = self.arena.stats().evictions - evicted;
        let after = self.census()?;
        let mut row = Row::new(tier_name, "put", "churn", self.sizes.median_bytes);
        row.threads = threads;
        row.n = used.len();
        row.blocks = Some(after.blocks);
        row.latency_us = Latency::of(&each_us);
        row.verified = Some(self.is_right()? && after.is_sound());
        row.space = Spread::of(&used).zip(Spread::of(&payload)).map(|(used_share, payload_share)| Space {
            sizes: self.sizes.text(),
            data_bytes: self.arena.stats().capacity_bytes,
            puts,
            used_share,
            payload_share,
            evictions_per_put: evictions as f64 / puts.max(1) as f64,
            refused: self.refused - refused,
            puts_per_second: puts as f64 / time.as_secs_f64(),
            before,
            after,
        });
        Ok(row)
    }

    /// Puts until as much again as the arena holds was put after it was full.
    fn fill(&mut self, threads: usize) -> Result<()> {
        let capacity = self.arena.stats().capacity_bytes;
        let start = self.arena.stats().bytes_in;
        while self.arena.stats().bytes_in - start < 2 * capacity {
            self.put(threads, 2_000 * threads as u64)?;
            self.look();
        }
        Ok(())
    }

    /// Puts `count` fresh blocks; gives the time of all and of each.
    fn put(&mut self, threads: usize, count: u64) -> Result<(Duration, Vec<f64>)> {
        let (arena, sizes, first) = (self.arena, self.sizes, self.used);
        self.used += count;
        let source = &self.source.split(1)[0];
        let mut members: Vec<_> = (0..threads as u64)
            .map(|thread| {
                first + count * thread / threads as u64..first + count * (thread + 1) / threads as u64
            })
            .collect();
        let (time, laps) = timed(&mut members, |numbers| put_all(arena, source, sizes, numbers.clone()));
        let mut each_us = Vec::new();
        for lap in laps {
            let lap = lap?;
            self.known.extend(lap.stored);
            self.refused += lap.refused;
            each_us.extend(lap.each_us);
        }
        Ok((time, each_us))
    }

    /// Forgets the blocks that are gone.
    fn look(&mut self) {
        let ids: Vec<BlockId> = self.known.iter().map(|block| block.id).collect();
        let mut answers = vec![Lookup::Miss(MissReason::Absent); ids.len()];
        self.arena.lookup(&ids, &mut answers);
        let mut answers = answers.iter();
        self.known.retain(|_| answers.next().is_some_and(Lookup::is_hit));
    }

    /// Shares of the data area that are used, and that are payload.
    fn shares(&mut self) -> (f64, f64) {
        self.look();
        let stats = self.arena.stats();
        let payload: u64 = self.known.iter().map(|block| block.len).sum();
        let share = |bytes: u64| bytes as f64 / stats.capacity_bytes as f64;
        (share(stats.used_bytes), share(payload))
    }

    fn census(&self) -> Result<Census> {
        let audit = self.arena.audit().ok_or_else(|| {
            Error::new(ErrorKind::System, "this process cannot join the arena that it made")
        })?;
        Ok(Census {
            private_bytes: private_bytes(),
            fds: std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64),
            blocks: audit.sealed_slots,
            odd_slots: audit.filling_slots + audit.leaving_slots,
            retired_slots: audit.retired_slots,
            ledger_entries: audit.ledger_entries,
            disagreements: audit.disagreements,
        })
    }

    /// Whether blocks that are there, some of all ages, hold what was put.
    fn is_right(&mut self) -> Result<bool> {
        let step = (self.known.len() / CHECKED).max(1);
        let mut bytes = Vec::new();
        let source = &self.source.split(1)[0];
        for block in self.known.iter().step_by(step) {
            let lease = self.arena.lease(&block.id);
            let lease = lease.map_err(|why| {
                Error::new(ErrorKind::System, format!("a block that was there is gone: {why:?}"))
            })?;
            bytes.resize(lease.len(), 0);
            if !lease.read_at(0, &mut bytes) || bytes.len() as u64 != block.len {
                return Ok(false);
            }
            if !source.holds(block.at as usize, &bytes) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

struct Lap {
    stored: Vec<Block>,
    refused: u64,
    each_us: Vec<f64>,
}

fn put_all(arena: &Arena, source: &Part<'_>, sizes: LogNormal, numbers: std::ops::Range<u64>) -> Result<Lap> {
    let mut lap = Lap { stored: Vec::new(), refused: 0, each_us: Vec::new() };
    for number in numbers {
        // A size belongs to its number: the workload is the same however many threads share it.
        let mut random = Random::new(number);
        let len = sizes.draw(&mut random);
        let at = random.below((source.len() as u64 - len) / 64 + 1) * 64;
        let block = Block { id: BlockId::named(&format!("churn-{number}")), len, at };
        let start = Instant::now();
        let outcome = store_run(arena, &block.id, source, at as usize, len as usize);
        lap.each_us.push(start.elapsed().as_secs_f64() * 1e6);
        match outcome {
            Outcome::Stored => lap.stored.push(block),
            Outcome::Refused(_) => lap.refused += 1,
            other => return Err(unexpected("put", len as usize, &[other])),
        }
    }
    Ok(lap)
}

/// Private memory of this process in bytes; 0 where the system does not say.
fn private_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_churn_is_measured_verified_and_sound() {
        let folder = tempfile::Builder::new().prefix("cascade-test-").tempdir_in("/dev/shm").unwrap();
        let config = cascade_shm::ArenaConfig::new(folder.path().join("arena")).capacity(64 << 20);
        let arena = Arena::open(&config).unwrap();
        assert!(arena.wait_ready(Instant::now() + Duration::from_secs(60)));
        let sizes = LogNormal { most_bytes: 4 << 20, ..SIZES };
        let mut churn = Churn::new(&arena, sizes).unwrap();
        for threads in [1, 3] {
            let row = churn.measure("shm", threads, 4_000).unwrap();
            let space = row.space.unwrap();
            assert_eq!((row.verified, row.threads, space.puts), (Some(true), threads, 4_000));
            assert!(space.after.is_sound() && space.before.is_sound(), "{space:?}");
            assert!(space.payload_share.max <= space.used_share.max, "{space:?}");
            assert!(space.used_share.max <= 1.0 && space.used_share.min > 0.5, "{space:?}");
            assert!((0.5..2.0).contains(&space.evictions_per_put), "{space:?}");
            assert_eq!(space.after.fds, space.before.fds);
        }
        // Wrong bytes are seen: the source is no longer what was put.
        churn.source.split(1)[0].fill(1);
        assert!(!churn.is_right().unwrap());
    }
}
