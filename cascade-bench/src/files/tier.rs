//! Cascade's tier of files, driven as an engine drives it: batches of blocks, several under way.

use std::path::Path;
use std::time::{Duration, Instant};

use cascade_core::Result;
use cascade_core::batch::Outcome;
use cascade_core::id::BlockId;
use cascade_core::tier::Tier;
use cascade_pfs::{IoEngine, PfsConfig, PfsTier};

use super::cli::Durability;
use super::system::{Data, Manner, Reading, System, Work, failed};
use crate::memory::{fetch_all, store_all};

/// Room for all that a repetition writes, in segments of the default size: nothing is given up while it is measured.
const CAPACITY_BYTES: u64 = 8 << 30;
/// Bytes of puts in one batch.
const BATCH_BYTES: usize = 32 << 20;
/// Stretches of calls that the tier writes at once.
const RUNS: usize = 4;
/// How long a flush may take.
const FLUSH: Duration = Duration::from_secs(600);

/// The tier.
#[derive(Debug)]
pub(super) struct Cascade {
    depth: Option<usize>,
    engine: IoEngine,
    block: u64,
    reader: Option<PfsTier>,
    direct: Option<bool>,
}

impl Cascade {
    /// For blocks of `block` bytes; `engine` is what the tier chooses here.
    pub(super) fn new(depth: Option<usize>, engine: IoEngine, block: u64) -> Self {
        Self { depth, engine, block, reader: None, direct: None }
    }
}

/// What moves the bytes of a tier in `dir`.
pub(super) fn engine(dir: &Path) -> Result<IoEngine> {
    let folder = dir.join("engine");
    let engine = PfsTier::open(config(&folder, 0, Durability::None, None))?.file_stats().engine;
    std::fs::remove_dir_all(&folder)
        .map_err(|error| failed(format!("cannot remove {}", folder.display())).with_source(error))?;
    Ok(engine)
}

/// The settings of a tier in `dir` that holds laps of `bytes`.
pub(super) fn config(dir: &Path, bytes: u64, durability: Durability, depth: Option<usize>) -> PfsConfig {
    let mut config = PfsConfig::new(dir, CAPACITY_BYTES.max(bytes * 8));
    config.durability = match durability {
        Durability::None => cascade_pfs::Durability::None,
        Durability::End => cascade_pfs::Durability::Segment,
        Durability::Block => cascade_pfs::Durability::Block,
    };
    if let Some(depth) = depth {
        (config.write_threads, config.read_threads) = (depth, depth);
        let bytes = (depth * config.io_bytes) as u64;
        (config.in_flight_bytes, config.read_in_flight_bytes) = (bytes, bytes);
    }
    config
}

/// Names of the blocks of a repetition.
pub(super) fn ids(rep: usize, blocks: usize) -> Vec<BlockId> {
    (0..blocks).map(|block| BlockId::named(&format!("files-{rep}-{block}"))).collect()
}

/// Stores all blocks, and flushes where everything is to be durable at the end.
pub(super) fn store_and_flush(
    tier: &PfsTier,
    work: &Work,
    in_flight_bytes: u64,
    data: &mut Data,
) -> Result<()> {
    let ids = ids(work.rep, work.blocks);
    // A quarter of what the tier admits is left for headers.
    let under_way = usize::try_from(in_flight_bytes / 4 * 3).unwrap_or(usize::MAX);
    let batch = (BATCH_BYTES.min(under_way / 4) / work.block).max(1);
    let most = (under_way / (batch * work.block)).max(1);
    let source = &data.source.split(1)[0];
    let stored = store_all(tier, &ids, source, work.block, batch, most);
    if let Some(other) = stored.into_iter().find(|outcome| *outcome != Outcome::Stored) {
        return Err(failed(format!("the tier answered {other:?} to a put of {} bytes", work.block)));
    }
    if work.durability == Durability::End {
        tier.flush(Instant::now() + FLUSH)?;
    }
    Ok(())
}

impl System for Cascade {
    fn name(&self) -> &'static str {
        "cascade"
    }

    fn write(&mut self, work: &Work, data: &mut Data) -> Result<f64> {
        let config = config(&work.folder, work.bytes(), work.durability, self.depth);
        let in_flight_bytes = config.in_flight_bytes;
        let tier = PfsTier::open(config)?;
        let start = Instant::now();
        store_and_flush(&tier, work, in_flight_bytes, data)?;
        let seconds = start.elapsed().as_secs_f64();
        self.direct = Some(tier.file_stats().direct);
        Ok(seconds)
    }

    fn prepare(&mut self, work: &Work) -> Result<()> {
        self.reader = Some(PfsTier::open(config(&work.folder, work.bytes(), work.durability, self.depth))?);
        Ok(())
    }

    fn read(&mut self, work: &Work, data: &mut Data) -> Result<Reading> {
        let tier = self.reader.take().ok_or_else(|| failed("the tier was not opened to be read"))?;
        let ids = ids(work.rep, work.blocks);
        let mut targets = data.target.split(1);
        targets.iter_mut().for_each(|target| target.fill(0x5a));
        let start = Instant::now();
        let outcomes = fetch_all(&tier, &ids, &mut targets[0], work.block);
        let seconds = start.elapsed().as_secs_f64();
        let len = work.block as u64;
        if let Some(other) =
            outcomes.iter().find(|outcome| !matches!(outcome, Outcome::Fetched(meta) if meta.len == len))
        {
            return Err(failed(format!("the tier answered {other:?} to a get of {len} bytes")));
        }
        let is_right = targets[0].equals(0, &data.source.split(1)[0], 0, work.block * work.blocks);
        Ok(Reading { seconds, is_right: Some(is_right) })
    }

    fn manners(&self) -> (Manner, Manner) {
        let config = config(Path::new("."), 0, Durability::End, self.depth);
        let io_bytes = config.io_bytes as u64;
        let calls = |bytes: u64| usize::try_from(bytes / io_bytes).unwrap_or(usize::MAX).max(1);
        let (write, read) = match self.engine {
            IoEngine::Pool => (config.write_threads, config.read_threads),
            // The kernel's queue takes all calls of the stretches that are under way.
            _ => {
                let write = (RUNS * calls(self.block)).min(calls(config.in_flight_bytes));
                (write, calls(config.read_in_flight_bytes))
            }
        };
        let engine = format!("cascade-pfs {}", self.engine.name());
        let manner = |depth| Manner { engine: engine.clone(), io_bytes, depth, direct: self.direct };
        (manner(write), manner(read))
    }
}
