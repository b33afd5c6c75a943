//! One rank of the measured job: its arena, its blocks, and how it meets the others without MPI, which is what is measured.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cascade_core::batch::{Batch, Op, Outcome};
use cascade_core::id::BlockId;
use cascade_core::memory::{HostBuffer, Piece};
use cascade_core::tier::{PutMeta, Tier};
use cascade_core::{Error, ErrorKind, Result};
use cascade_mpi::{Fabric, FabricConfig, Home, MpiConfig, MpiTier};
use cascade_store::StoreConfig;
use cascade_store::remote::{self, ArenaHome};

use super::cli::{Arguments, Way};
use crate::tiers::{Scratch, check_room};

/// No step of a measurement takes longer.
const LONG: Duration = Duration::from_secs(300);
/// How far the contents of blocks are apart in the bytes that all are cut from.
const SHIFT: usize = 4096;
const SHIFTS: usize = 256;

/// A rank.
#[derive(Debug)]
pub(super) struct Rank {
    pub(super) job: remote::Job,
    pub(super) tier: Arc<MpiTier>,
    pub(super) home: ArenaHome,
    pub(super) way: Way,
    folder: PathBuf,
    /// What all blocks are parts of.
    content: Arc<[u8]>,
    /// The last: the arena in it is closed before it goes.
    pub(super) scratch: Scratch,
}

/// Bytes for the largest block of `arguments`, three repetitions of it.
fn capacity(arguments: &Arguments) -> u64 {
    let largest = arguments.block.0.iter().copied().max().unwrap_or(0);
    let lap = arguments.lap.max(largest);
    arguments.capacity.unwrap_or_else(|| (lap * 5 / 2 + (64 << 20)).next_multiple_of(64 << 20))
}

impl Rank {
    /// Joins the job.
    pub(super) fn start(arguments: &Arguments) -> Result<Self> {
        let Some(folder) = arguments.meet.clone() else {
            let what = "ranks need a folder to meet in: start this by `cargo xtask bench --tier mpi`";
            return Err(Error::new(ErrorKind::InvalidArgument, what));
        };
        let ranks = u64::from(arguments.ranks.iter().copied().max().unwrap_or(1));
        check_room(&arguments.dir, capacity(arguments) * ranks, 0)?;
        let scratch = Scratch::new(&arguments.dir)?;
        let process = std::process::id();
        let config = StoreConfig::builder().without_environment().shm_path(scratch.path().join("arena"));
        let config = config
            .set("node", format!("n{process}"))?
            .set("shm_capacity", capacity(arguments).to_string())?;
        let way = arguments.path;
        let mut fabric = FabricConfig { windows: way != Way::Message, ..FabricConfig::default() };
        // Where there are more ranks than cores, a rank that waits for its turn is not dead.
        fabric.patience.answer = Duration::from_secs(20);
        let node = if way == Way::Shm { "one".to_owned() } else { format!("node {process}") };
        let tier = MpiConfig { lookup: LONG, fetch: LONG, ..MpiConfig::default() };
        let settings = remote::JobConfig { fabric, tier, node: Some(node.clone()) };
        let job = remote::Job::start(&config.resolve()?, settings)?;
        let tier = Arc::clone(job.tier());
        let home = ArenaHome::new(job.store().arena().clone(), node);
        let largest = arguments.block.0.iter().copied().max().unwrap_or(0).max(1 << 20) as usize;
        let content = random(largest + SHIFT * SHIFTS);
        Ok(Self { job, tier, home, way, folder, content, scratch })
    }

    pub(super) fn fabric(&self) -> &Fabric {
        self.tier.fabric()
    }

    pub(super) fn rank(&self) -> u32 {
        self.fabric().rank()
    }

    pub(super) fn ranks(&self) -> u32 {
        self.fabric().ranks()
    }

    /// Waits until every rank is here.
    pub(super) fn meet(&self, place: &str) -> Result<()> {
        let mark = |rank: u32| self.folder.join(format!("{place} {rank}"));
        let failed = |error| Error::new(ErrorKind::System, "cannot write to --meet").with_source(error);
        std::fs::write(mark(self.rank()), "").map_err(failed)?;
        let until = Instant::now() + LONG;
        while !(0..self.ranks()).all(|rank| mark(rank).exists()) {
            if Instant::now() > until {
                let what = format!("rank {} waited in vain for others at {place:?}", self.rank());
                return Err(Error::new(ErrorKind::Deadline, what));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Tells all ranks something; they read it after they have met.
    pub(super) fn say(&self, name: &str, text: &str) -> Result<()> {
        let failed = |error| Error::new(ErrorKind::System, "cannot write to --meet").with_source(error);
        std::fs::write(self.folder.join(format!("{name} of {}", self.rank())), text).map_err(failed)
    }

    /// What `rank` said.
    pub(super) fn said(&self, name: &str, rank: u32) -> Result<String> {
        let failed = |error| Error::new(ErrorKind::System, "cannot read from --meet").with_source(error);
        std::fs::read_to_string(self.folder.join(format!("{name} of {rank}"))).map_err(failed)
    }

    /// The content of block `number`.
    pub(super) fn piece(&self, number: u64, len: usize) -> Piece {
        let whole = Piece::shared(Arc::clone(&self.content));
        let at = number as usize % SHIFTS * SHIFT;
        whole.part(at, len).unwrap_or(whole)
    }

    /// The same as bytes.
    pub(super) fn content_of(&self, number: u64, len: usize) -> &[u8] {
        let at = number as usize % SHIFTS * SHIFT;
        self.content.get(at..at + len).unwrap_or_default()
    }

    /// Whether `bytes` are those of block `number`.
    pub(super) fn is_content(&self, number: u64, bytes: &[u8]) -> bool {
        self.content_of(number, bytes.len()) == bytes
    }

    /// Puts block `number` into `tier`.
    pub(super) fn put(&self, tier: &dyn Tier, number: u64, len: usize) -> Result<()> {
        let op = Op::Store { id: id(number), from: self.piece(number, len).into(), meta: PutMeta::default() };
        match one(tier, op) {
            Outcome::Stored => Ok(()),
            other => Err(unexpected("put", other)),
        }
    }

    /// Publishes what was put, and lets the messages arrive.
    pub(super) fn flush(&self) -> Result<()> {
        self.tier.flush(Instant::now() + LONG)?;
        std::thread::sleep(Duration::from_millis(300));
        Ok(())
    }

    /// Forgets blocks here and nowhere else.
    pub(super) fn forget(&self, numbers: &[u64]) {
        let ops = numbers.iter().map(|number| Op::Delete { id: id(*number) }).collect();
        let _ = self.job.store().arena().submit(Batch::new(ops)).wait(Instant::now() + LONG);
    }

    /// Whether the own arena has block `number` with its bytes.
    pub(super) fn is_here(&self, number: u64, len: usize, into: &mut HostBuffer) -> bool {
        let Some(part) = into.piece().part(0, len) else { return false };
        let outcome = one(self.job.store().arena(), Op::Fetch { id: id(number), into: part.into() });
        let bytes = into.bytes_mut().and_then(|bytes| bytes.get(..len));
        matches!(outcome, Outcome::Fetched(_)) && bytes.is_some_and(|bytes| self.is_content(number, bytes))
    }

    /// The share of the neighbour's memory by which it can be mapped.
    pub(super) fn share(&self) -> String {
        self.home.share()
    }

    /// Leaves, once all do.
    pub(super) fn end(self) -> Result<()> {
        self.meet("end")?;
        let Self { job, tier, home, .. } = self;
        drop((tier, home));
        if job.stop(Duration::from_secs(20)) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::System, "MPI did not end in good order"))
    }
}

/// The id of block `number`.
pub(super) fn id(number: u64) -> BlockId {
    BlockId::content(&number.to_le_bytes())
}

/// What one operation led to.
pub(super) fn one(tier: &dyn Tier, op: Op) -> Outcome {
    let outcomes = tier.submit(Batch::new(vec![op])).wait(Instant::now() + LONG);
    let first = outcomes.and_then(|outcomes| outcomes.first().copied());
    first.unwrap_or(Outcome::Miss(cascade_core::tier::MissReason::Deadline))
}

pub(super) fn unexpected(op: &str, got: impl std::fmt::Debug) -> Error {
    Error::new(ErrorKind::System, format!("a {op} ended with {got:?}: the machine is too busy, or too small"))
}

fn random(len: usize) -> Arc<[u8]> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes.into()
}
