//! One store under pressure.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use cascade_core::batch::Outcome;
use cascade_core::id::BlockId;
use cascade_core::policy::Shares;
use cascade_core::{Error, ErrorKind, Result};
use cascade_store::{Level, Put, Store, StoreConfig};
use serde::{Deserialize, Serialize};

use crate::stats::Latency;

/// Hits that are timed before the others come, at least.
const HITS: usize = 2000;
/// Blocks put for each prefix block that is fetched meanwhile.
const PUTS_PER_HIT: usize = 2;
/// Blocks put for each that is fetched again, in which order who knows.
const PUTS_PER_OTHER: usize = 4;

/// What a store is made of, and how much is put.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where shared memory is; a folder of this run alone.
    pub memory: PathBuf,
    /// Where files are, if there are to be any; a folder of this run alone.
    pub files: Option<PathBuf>,
    /// Bytes of the arena.
    pub capacity_bytes: u64,
    /// Bytes of one block.
    pub block_bytes: usize,
    /// Working set over arena.
    pub factor: f64,
    /// The setting `eviction`.
    pub eviction: &'static str,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pressure {
    /// Working set over arena.
    pub factor: f64,
    /// Blocks that the arena holds.
    pub capacity_blocks: u64,
    /// Blocks put as prefix blocks, a tenth of all.
    pub prefix_blocks: u64,
    /// Other blocks put.
    pub other_blocks: u64,
    /// Whether the prefix blocks are within the share of the arena that protects them.
    pub fits: bool,
    /// Prefix blocks that are in the arena at the end.
    pub retained: u64,
    /// Share of the hits under pressure that the arena had, 0 to 1.
    pub hits_from_arena: f64,
    /// Puts that were refused.
    pub refused: u64,
    /// Blocks whose bytes were not those that were put.
    pub wrong: u64,
}

/// Times of single hits of prefix blocks.
#[derive(Clone, Debug)]
pub struct Hits {
    /// How many there were.
    pub n: usize,
    /// In microseconds.
    pub latency: Option<Latency>,
}

struct Run {
    store: Store,
    bytes: Vec<u8>,
    /// Memory beside the store, as large as the arena, and how many blocks were written there.
    other: Vec<u8>,
    stirred: usize,
    pressure: Pressure,
}

fn id(is_prefix: bool, number: u64) -> BlockId {
    BlockId::named(&format!("{} {number}", if is_prefix { "prefix" } else { "other" }))
}

/// Fills the arena, and more: what came of it, hits before the others were put, and hits meanwhile.
///
/// # Errors
/// What opening the store gives; `Deadline` when its pages were not there in time.
pub fn press(plan: &Plan) -> Result<(Pressure, Hits, Hits)> {
    let store = open(plan)?;
    let capacity = store.arena().superblock().geometry.data_bytes / plan.block_bytes as u64;
    let blocks = (capacity as f64 * plan.factor) as u64;
    let prefix = (blocks / 10).max(1);
    let pressure = Pressure {
        factor: plan.factor,
        capacity_blocks: capacity,
        prefix_blocks: prefix,
        other_blocks: blocks.saturating_sub(prefix),
        fits: prefix as f64 <= Shares::default().prefix * capacity as f64,
        retained: 0,
        hits_from_arena: 1.0,
        refused: 0,
        wrong: 0,
    };
    let other = vec![0; capacity.max(1) as usize * plan.block_bytes];
    let mut run = Run { store, bytes: vec![0; plan.block_bytes], other, stirred: 0, pressure };
    (0..prefix).for_each(|number| run.put(true, number));
    let mut before = Vec::new();
    for number in 0..HITS.max(prefix as usize) as u64 {
        run.stir();
        before.extend(run.get_from_arena(true, number % prefix).0);
    }
    let (under, from_arena) = run.push();
    let kept: Vec<BlockId> = (0..prefix).map(|number| id(true, number)).collect();
    let found = run.store.locate(&kept);
    run.pressure.retained = found.iter().filter(|found| found.level == Some(Level::Arena)).count() as u64;
    run.pressure.hits_from_arena = from_arena as f64 / under.len().max(1) as f64;
    let hits = |times: &[f64]| Hits { n: times.len(), latency: Latency::of(times) };
    Ok((run.pressure, hits(&before), hits(&under)))
}

fn open(plan: &Plan) -> Result<Store> {
    let slots = (plan.capacity_bytes / plan.block_bytes as u64 * 2).max(4096);
    let mut config = StoreConfig::builder()
        .without_environment()
        .shm_path(&plan.memory)
        .shm_capacity(&format!("{}B", plan.capacity_bytes))?
        .set("shm_slots", slots.to_string())?
        .set("eviction", plan.eviction)?;
    if let Some(files) = &plan.files {
        config = config.pfs_path(files);
    }
    let store = Store::open(&config.resolve()?)?;
    let patience = Duration::from_secs(30 + plan.capacity_bytes / (50 << 20));
    if store.arena().wait_ready(Instant::now() + patience) {
        return Ok(store);
    }
    Err(Error::new(ErrorKind::Deadline, "the arena's pages were not there in time: the machine is too busy"))
}

impl Run {
    /// Puts the others, fetches prefix blocks meanwhile, and now and then one of the others: times of hits of prefix blocks, and how many
    /// the arena had.
    fn push(&mut self) -> (Vec<f64>, usize) {
        let (mut times, mut from_arena, mut random) = (Vec::new(), 0, 0x9e37_79b9_7f4a_7c15_u64);
        let mut next = 0;
        for number in 0..self.pressure.other_blocks {
            self.put(false, number);
            random = random.wrapping_mul(0xd134_2543_de82_ef95).wrapping_add(1);
            if (number as usize).is_multiple_of(PUTS_PER_OTHER) {
                let _ = self.get(false, (random >> 33) % (number + 1));
            }
            if (number as usize).is_multiple_of(PUTS_PER_HIT) {
                let prefix = next % self.pressure.prefix_blocks;
                next += 1;
                let (time, is_above) = self.get_from_arena(true, prefix);
                from_arena += usize::from(time.is_some() && is_above);
                times.extend(time);
            }
        }
        (times, from_arena)
    }

    fn put(&mut self, is_prefix: bool, number: u64) {
        let word = fill(is_prefix, number);
        self.bytes.chunks_mut(8).for_each(|part| part.copy_from_slice(&word[..part.len()]));
        let put = if is_prefix { Put::prefix() } else { Put::default() };
        let outcome = self.store.put(&id(is_prefix, number), &self.bytes, put);
        self.pressure.refused += u64::from(!matches!(outcome, Outcome::Stored | Outcome::Exists));
    }

    /// Fetches a block: microseconds if it was there, and whether the arena had it.
    fn get_from_arena(&mut self, is_prefix: bool, number: u64) -> (Option<f64>, bool) {
        let before = self.store.stats().hits(Level::Arena);
        let time = self.get(is_prefix, number);
        (time, self.store.stats().hits(Level::Arena) > before)
    }

    /// Moves as many bytes through the CPU's caches as the puts between two hits do, without the store: what is timed next is as cold
    /// as it is under pressure, and what differs then is the store's doing.
    fn stir(&mut self) {
        for _ in 0..PUTS_PER_HIT {
            let room = self.other.len() / self.bytes.len();
            let at = self.stirred % room * self.bytes.len();
            self.stirred += 1;
            let word = fill(false, self.stirred as u64);
            self.bytes.chunks_mut(8).for_each(|part| part.copy_from_slice(&word[..part.len()]));
            self.other[at..at + self.bytes.len()].copy_from_slice(&self.bytes);
        }
    }

    /// Fetches a block: microseconds if it was there.
    fn get(&mut self, is_prefix: bool, number: u64) -> Option<f64> {
        let (id, word) = (id(is_prefix, number), fill(is_prefix, number));
        let begun = Instant::now();
        self.store.get(&id, &mut self.bytes).ok()?;
        let time = begun.elapsed().as_secs_f64() * 1e6;
        let is_right = self.bytes.chunks(8).all(|part| *part == word[..part.len()]);
        self.pressure.wrong += u64::from(!is_right);
        Some(time)
    }
}

fn fill(is_prefix: bool, number: u64) -> [u8; 8] {
    (number << 1 | u64::from(is_prefix)).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()
}
