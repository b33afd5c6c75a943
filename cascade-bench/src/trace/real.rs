//! `--real`: the requests through a store, with bytes: a look-up of the whole chain, the blocks of its prefix fetched, the rest put.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cascade_core::batch::Outcome as Answer;
use cascade_core::id::BlockId;
use cascade_core::{Error, ErrorKind, Result};
use cascade_store::{Level, Put, Store, StoreConfig};
use serde::{Deserialize, Serialize};

use super::format::Workload;
use super::simulate::{Outcome, key};
use crate::stats::Latency;

/// What a store is made of.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where shared memory is; a folder of this run alone.
    pub memory: PathBuf,
    /// Where files are, if there are to be any; a folder of this run alone.
    pub files: Option<PathBuf>,
    /// Bytes of one block.
    pub block_bytes: usize,
    /// Blocks that the arena should hold; it has whole regions.
    pub blocks: usize,
    /// The setting `eviction`.
    pub eviction: &'static str,
}

/// What moved, and how long it took. Times are those of a whole request, in microseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Moved {
    /// Bytes of one block, scaled down from those of a model.
    pub block_bytes: u64,
    /// Looking up the chain.
    pub lookup_us: Option<Latency>,
    /// Fetching the prefix, where there was one, and the arena had all of it.
    pub get_us: Option<Latency>,
    /// Fetching the prefix where files had some or all of it.
    #[serde(default)]
    pub get_files_us: Option<Latency>,
    /// Putting the rest, where there was one.
    pub put_us: Option<Latency>,
    /// Bytes fetched.
    pub bytes_out: u64,
    /// Bytes put.
    pub bytes_in: u64,
    /// Blocks that came from the arena.
    pub from_arena: u64,
    /// Blocks that came from files.
    pub from_files: u64,
    /// Puts that were refused.
    pub refused: u64,
    /// Blocks whose bytes were not those that were put.
    pub wrong: u64,
    /// Seconds for all requests, one behind the other.
    pub seconds: f64,
}

/// What a replay through a store gave: the blocks that its arena held in fact, counts, and bytes.
#[derive(Clone, Debug)]
pub struct Replayed {
    /// Blocks that fit the arena's data area.
    pub capacity: usize,
    /// Hits and puts; evictions are the arena's.
    pub outcome: Outcome,
    /// Bytes and times.
    pub moved: Moved,
}

/// Replays `workload` through a new store; `progress` hears of the requests done.
///
/// # Errors
/// What opening the store gives; `Deadline` when the arena's pages could not be touched in time.
pub fn replay(workload: &Workload, plan: &Plan, progress: &mut dyn FnMut(usize)) -> Result<Replayed> {
    let store = open(plan)?;
    let capacity = store.arena().superblock().geometry.data_bytes / plan.block_bytes as u64;
    let mut run = Run::new(&store, plan.block_bytes, workload);
    let begun = Instant::now();
    for (number, request) in workload.requests.iter().enumerate() {
        run.serve(&request.blocks);
        progress(number + 1);
    }
    let seconds = begun.elapsed().as_secs_f64();
    run.outcome.evictions = store.stats().arena().evictions;
    Ok(Replayed { capacity: capacity as usize, outcome: run.outcome, moved: run.moved(seconds) })
}

fn open(plan: &Plan) -> Result<Store> {
    let bytes = plan.blocks as u64 * plan.block_bytes as u64;
    let mut config = StoreConfig::builder()
        .without_environment()
        .shm_path(&plan.memory)
        .shm_capacity(&format!("{bytes}B"))?
        .set("shm_slots", (plan.blocks as u64 * 2).max(4096).to_string())?
        .set("eviction", plan.eviction)?;
    if let Some(files) = &plan.files {
        config = config.pfs_path(files);
    }
    let store = Store::open(&config.resolve()?)?;
    let patience = Duration::from_secs(30 + bytes / (50 << 20));
    if store.arena().wait_ready(Instant::now() + patience) {
        return Ok(store);
    }
    Err(Error::new(ErrorKind::Deadline, "the arena's pages were not there in time: the machine is too busy"))
}

struct Run<'a> {
    store: &'a Store,
    block_bytes: usize,
    buffer: Vec<u8>,
    outcome: Outcome,
    times_us: [Vec<f64>; 4],
    from: [u64; 2],
    refused: u64,
    wrong: u64,
}

impl<'a> Run<'a> {
    fn new(store: &'a Store, block_bytes: usize, workload: &Workload) -> Self {
        let longest = workload.requests.iter().map(|request| request.blocks.len()).max().unwrap_or(0);
        let buffer = vec![0; longest * block_bytes];
        let times_us = std::array::from_fn(|_| Vec::new());
        Self {
            store,
            block_bytes,
            buffer,
            outcome: Outcome::default(),
            times_us,
            from: [0; 2],
            refused: 0,
            wrong: 0,
        }
    }

    fn serve(&mut self, blocks: &[u32]) {
        let ids: Vec<BlockId> = blocks.iter().map(|block| BlockId::content(&block.to_le_bytes())).collect();
        self.outcome.references += ids.len() as u64;
        let begun = Instant::now();
        let found = self.store.locate(&ids);
        self.time(0, begun);
        let levels: Vec<Level> = found.iter().map_while(|found| found.level).collect();
        let fetched = self.fetch(blocks, &ids, &levels);
        self.outcome.hits += fetched as u64;
        self.put(&blocks[fetched..], &ids[fetched..]);
    }

    fn time(&mut self, what: usize, begun: Instant) {
        self.times_us[what].push(begun.elapsed().as_secs_f64() * 1e6);
    }

    /// Fetches the blocks that were found; gives how many came, up to the first that did not.
    fn fetch(&mut self, blocks: &[u32], ids: &[BlockId], levels: &[Level]) -> usize {
        if levels.is_empty() {
            return 0;
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut wanted: Vec<(BlockId, &mut [u8])> =
            ids.iter().copied().zip(buffer.chunks_exact_mut(self.block_bytes)).take(levels.len()).collect();
        let begun = Instant::now();
        let answers = self.store.get_batch(&mut wanted);
        let is_above = levels.iter().all(|level| *level == Level::Arena);
        self.time(if is_above { 1 } else { 3 }, begun);
        let came = answers.iter().take_while(|answer| answer.is_ok()).count();
        for (block, (_, bytes)) in blocks.iter().zip(&wanted).take(came) {
            self.wrong += u64::from(!is_of(bytes, *block));
        }
        for level in &levels[..came] {
            self.from[usize::from(*level != Level::Arena)] += 1;
        }
        self.buffer = buffer;
        came
    }

    fn put(&mut self, blocks: &[u32], ids: &[BlockId]) {
        if blocks.is_empty() {
            return;
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        for (block, bytes) in blocks.iter().zip(buffer.chunks_exact_mut(self.block_bytes)) {
            fill(bytes, *block);
        }
        let puts: Vec<(BlockId, &[u8])> =
            ids.iter().copied().zip(buffer.chunks_exact(self.block_bytes)).collect();
        let begun = Instant::now();
        let answers = self.store.put_batch(&puts, Put::default());
        self.time(2, begun);
        for answer in answers {
            match answer {
                Answer::Stored => self.outcome.puts += 1,
                Answer::Exists => self.outcome.orphans += 1,
                _ => self.refused += 1,
            }
        }
        self.buffer = buffer;
    }

    fn moved(&self, seconds: f64) -> Moved {
        let bytes = |blocks: u64| blocks * self.block_bytes as u64;
        let [lookup_us, get_us, put_us, get_files_us] =
            [0, 1, 2, 3].map(|what| Latency::of(&self.times_us[what]));
        Moved {
            block_bytes: self.block_bytes as u64,
            lookup_us,
            get_us,
            get_files_us,
            put_us,
            bytes_out: bytes(self.outcome.hits),
            bytes_in: bytes(self.outcome.puts),
            from_arena: self.from[0],
            from_files: self.from[1],
            refused: self.refused,
            wrong: self.wrong,
            seconds,
        }
    }
}

/// Bytes that belong to a block: its number, mixed, again and again.
fn fill(bytes: &mut [u8], block: u32) {
    let word = key(block).to_le_bytes();
    bytes.chunks_mut(8).for_each(|part| part.copy_from_slice(&word[..part.len()]));
}

fn is_of(bytes: &[u8], block: u32) -> bool {
    let word = key(block).to_le_bytes();
    bytes.chunks(8).all(|part| *part == word[..part.len()])
}

/// Bytes that the arena of `plan` takes at most.
#[must_use]
pub fn needed_bytes(blocks: usize, block_bytes: usize) -> u64 {
    // Regions of 64 MiB, and the index.
    (blocks as u64 * block_bytes as u64).next_multiple_of(64 << 20) + (64 << 20) + blocks as u64 * 512
}

/// A folder below `parent` that is there for one capacity.
#[must_use]
pub fn folder(parent: &Path, blocks: usize) -> PathBuf {
    parent.join(format!("replay-{blocks}"))
}
