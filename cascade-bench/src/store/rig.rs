//! A store, and the chains of one repetition.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cascade_core::Result;
use cascade_core::batch::{Batch, Op, Outcome, Ticket};
use cascade_core::id::BlockId;
use cascade_core::metrics::TierStats;
use cascade_core::tier::{Capability, Lookup, Tier};
use cascade_pfs::PfsTier;
use cascade_store::{Reach, Store, StoreConfig};

use super::failed;
use crate::memory::{self, Region};
use crate::tiers::free_bytes;
use crate::units::format_size;

/// How long a flush may take.
const FLUSH: Duration = Duration::from_secs(600);

/// What is measured, and on what.
pub(super) struct Rig {
    pub(super) store: Store,
    pub(super) files: PfsTier,
    pub(super) source: Region,
    pub(super) target: Region,
    pub(super) block: u64,
    pub(super) blocks: usize,
    /// Chains of the repetition: each turn has one for the store and one for the tier itself.
    chains: Vec<Vec<BlockId>>,
    folder: PathBuf,
}

impl Rig {
    pub(super) fn open(memory: &Path, folder: &Path, block: u64, blocks: usize) -> Result<Self> {
        let chain = block * blocks as u64;
        // Both chains of a turn in the arena, with as much again free, so that nothing is evicted.
        let arena = (chain * 4).max(256 << 20);
        let needed = arena + 2 * chain;
        let free = free_bytes(memory)?;
        if free < needed {
            let what =
                format!("{} are needed in {}, {} are free", format_size(needed), memory.display(), free);
            return Err(failed(what));
        }
        let folder = folder.join(format!("files-{block}"));
        let config = StoreConfig::builder()
            .without_environment()
            .shm_path(memory.join(format!("arena-{block}")))
            .shm_capacity(&arena.to_string())?
            .pfs_path(&folder)
            .set("pfs_capacity", (chain * 64).max(8 << 30).to_string())?
            .set("demote", "off")?
            .set("in_flight", (chain * 4).to_string())?;
        let store = Store::open(&config.resolve()?)?;
        if !store.arena().wait_ready(Instant::now() + FLUSH) {
            return Err(failed("the pages of the arena were not made in time"));
        }
        let files = store.files().cloned().ok_or_else(|| failed("the store has no files"))?;
        let bytes = usize::try_from(chain).map_err(|_| failed("the chain does not fit this machine"))?;
        let (source, target) = (memory::random(bytes, 0x9e37_79b9_7f4a_7c15)?, memory::private(bytes)?);
        Ok(Self { store, files, source, target, block, blocks, chains: Vec::new(), folder })
    }

    /// Forgets the blocks of the repetition before, and names those of this one.
    pub(super) fn lap(&mut self, rep: usize) -> Result<()> {
        self.store.clear()?;
        let chain = |number: usize| {
            let name = |at: usize| BlockId::content(format!("{rep}/{number}/{at}").as_bytes());
            (0..self.blocks).map(name).collect()
        };
        self.chains = (0..6).map(chain).collect();
        Ok(())
    }

    pub(super) fn chain(&self, number: usize) -> Vec<BlockId> {
        self.chains.get(number).cloned().unwrap_or_default()
    }

    /// Bytes of a block.
    pub(super) fn len(&self) -> usize {
        usize::try_from(self.block).unwrap_or(usize::MAX)
    }

    /// Makes the files cold.
    pub(super) fn cool(&self) -> Result<()> {
        self.files.flush(Instant::now() + FLUSH)?;
        let dropped = crate::files::drop_caches(&self.folder);
        dropped.map(|_| ()).map_err(|error| failed("cannot drop the page cache").with_source(error))
    }

    /// Microseconds from handing an operation on nothing over to hearing of its end.
    pub(super) fn queue_us(&self) -> f64 {
        let nothing = Op::Delete { id: BlockId::content(b"nothing") };
        let start = Instant::now();
        let ticket = self.store.submit(Batch::new(vec![nothing]));
        let outcomes = ticket.wait(start + FLUSH);
        start.elapsed().as_secs_f64() * 1e6 / outcomes.map_or(1, |outcomes| outcomes.len().max(1)) as f64
    }

    pub(super) fn note(&self) -> String {
        let files = self.files.file_stats();
        let direct = if files.direct { "past the page cache" } else { "through the page cache" };
        format!("files of {} {direct}, by {}", format_size(self.block), files.engine.name())
    }
}

/// The store, whose puts are acknowledged when the blocks are in files.
#[derive(Debug)]
pub(super) struct Waiting<'a>(pub(super) &'a Store);

impl Tier for Waiting<'_> {
    fn capability(&self) -> Capability {
        self.0.capability()
    }

    fn lookup(&self, ids: &[BlockId], out: &mut [Lookup]) {
        Tier::lookup(self.0, ids, out);
    }

    fn submit(&self, batch: Batch) -> Ticket {
        self.0.submit_until(batch, Reach::Files)
    }

    fn flush(&self, deadline: Instant) -> Result<()> {
        self.0.flush(deadline)
    }

    fn stats(&self) -> TierStats {
        Tier::stats(self.0)
    }
}

/// An error unless every outcome is `right`.
pub(super) fn check(what: &str, outcomes: &[Outcome], right: impl Fn(&Outcome) -> bool) -> Result<()> {
    match outcomes.iter().find(|outcome| !right(outcome)) {
        None => Ok(()),
        Some(other) => Err(failed(format!("{what}: {other:?}"))),
    }
}
