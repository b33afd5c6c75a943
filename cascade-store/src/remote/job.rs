//! A program that is a rank of an MPI job itself: the agent, and whoever embeds the store.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use cascade_core::id::BlockId;
use cascade_core::tier::{Lookup, MissReason};
use cascade_core::{Error, ErrorKind, Result};
use cascade_mpi::{Fabric, FabricConfig, Home, MpiConfig, MpiTier};
use cascade_shm::Arena;

use super::{ArenaHome, Remote};
use crate::config::StoreConfig;
use crate::store::Store;

/// How long all pages of an arena may take to be there: some hundred GiB.
const READY: Duration = Duration::from_secs(600);

/// How a rank joins its job; the same on every rank, but for the node.
#[derive(Clone, Debug, Default)]
pub struct JobConfig {
    /// Windows, directory, patience.
    pub fabric: FabricConfig,
    /// How others are asked.
    pub tier: MpiConfig,
    /// The node's name: ranks that say the same map each other's arenas. Default: what the arena is called by.
    pub node: Option<String>,
}

/// A rank of a running job, and its store.
#[derive(Debug)]
pub struct Job {
    store: Store,
    tier: Arc<MpiTier>,
    fabric: Arc<Fabric>,
}

impl Remote for MpiTier {
    fn locate(&self, ids: &[BlockId], deadline: Instant) -> Vec<Lookup> {
        self.locate_until(ids, deadline)
    }

    fn bring(&self, ids: &[BlockId], deadline: Instant) -> Vec<std::result::Result<(), MissReason>> {
        self.prefetch_until(ids, deadline).into_iter().map(|brought| brought.map(drop)).collect()
    }
}

impl Job {
    /// Opens the store and joins the other ranks. Collective: every rank of the job does it once, with an arena of its own node.
    ///
    /// # Errors
    /// As [`Store::open`] and [`Fabric::start`].
    pub fn start(config: &StoreConfig, job: JobConfig) -> Result<Self> {
        let made = OnceLock::new();
        let store = Store::open_beside(config, |arena| {
            let tier = join(arena, config, job)?;
            // Set once, here.
            let _ = made.set(Arc::clone(&tier));
            Ok(tier as Arc<dyn Remote>)
        })?;
        let tier = made.into_inner();
        let tier = tier.ok_or_else(|| Error::new(ErrorKind::System, "the store asked for no other nodes"))?;
        let fabric = tier.fabric_handle();
        Ok(Self { store, tier, fabric })
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Other ranks' memory, as a tier of its own.
    #[must_use]
    pub fn tier(&self) -> &Arc<MpiTier> {
        &self.tier
    }

    /// The fabric below it.
    #[must_use]
    pub fn fabric(&self) -> &Fabric {
        &self.fabric
    }

    /// Leaves the job in good order, once every rank does or `patience` is over: see [`Fabric::stop`].
    #[must_use]
    pub fn stop(self, patience: Duration) -> bool {
        let Self { store, tier, fabric } = self;
        drop((store, tier));
        fabric.stop(patience)
    }
}

fn join(arena: &Arena, config: &StoreConfig, job: JobConfig) -> Result<Arc<MpiTier>> {
    if !arena.wait_ready(Instant::now() + READY) {
        let what = "the arena's pages are not all there, so nothing of it can be offered to other nodes: see `cascade stat`";
        return Err(Error::new(ErrorKind::NoSpace, what));
    }
    let node = job.node.unwrap_or_else(|| config.arena().node_name());
    let home: Arc<dyn Home> = Arc::new(ArenaHome::new(arena.clone(), node));
    let fabric = Arc::new(Fabric::start(job.fabric, &home)?);
    Ok(Arc::new(MpiTier::new(fabric, home, job.tier)?))
}
