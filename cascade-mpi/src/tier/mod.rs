//! The tier: the memory of all ranks. What this rank's node has is asked first; the rest is looked up in the directory and brought here.

mod bring;
mod publish;
mod stats;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use cascade_core::batch::{Batch, Op, Outcome, Refusal, Ticket};
use cascade_core::id::BlockId;
use cascade_core::lease::Lease;
use cascade_core::memory::SgList;
use cascade_core::metrics::TierStats;
use cascade_core::reservation::Reserve;
use cascade_core::tier::{Addressable, BlockMeta, Capability, Lookup, MissReason, PutMeta, Tier};
use cascade_core::{Error, ErrorKind, Result};

use crate::directory::Entry;
use crate::fabric::Fabric;
use crate::home::Home;
use bring::{Brought, Remote};
use publish::Publisher;
pub use stats::MpiStats;

/// Blocks that come at a time: more would only wait for the one thread of MPI.
const AT_ONCE: usize = 4;

/// How a tier asks other ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MpiConfig {
    /// How long a lookup may take. What is not known by then is unavailable.
    pub lookup: Duration,
    /// How long each fetch of a block may take, but for a deadline of the caller's.
    pub fetch: Duration,
    /// Whether memory of other ranks of this node is mapped; else it is read like that of other nodes.
    pub map_neighbours: bool,
    /// The longest time between two looks for blocks that others of this node have put.
    pub news_every: Duration,
    /// Everything is published again after so long: what was lost on the way, or said to a rank that did not answer.
    pub again_every: Duration,
}

impl Default for MpiConfig {
    fn default() -> Self {
        Self {
            lookup: Duration::from_millis(500),
            fetch: Duration::from_secs(5),
            map_neighbours: true,
            news_every: Duration::from_millis(250),
            again_every: Duration::from_secs(60),
        }
    }
}

/// Blocks of all ranks, as one of them sees them. What it fetches is stored in its own home, and so has an owner more.
#[derive(Debug)]
pub struct MpiTier {
    local: Arc<dyn Addressable>,
    publisher: Publisher,
    remote: Arc<Remote>,
}

impl MpiTier {
    /// The tier over `fabric`, which was started with the same `home`.
    ///
    /// # Errors
    /// `System` when there is no thread to publish with.
    pub fn new(fabric: Arc<Fabric>, home: Arc<dyn Home>, config: MpiConfig) -> Result<Self> {
        let local: Arc<dyn Addressable> = Arc::new(Local(Arc::clone(&home)));
        Self::over(fabric, home, local, config)
    }

    /// The same, with another tier in place of the home's: its blocks are no one else's.
    ///
    /// # Errors
    /// As [`MpiTier::new`].
    pub fn over(
        fabric: Arc<Fabric>,
        home: Arc<dyn Home>,
        local: Arc<dyn Addressable>,
        config: MpiConfig,
    ) -> Result<Self> {
        let remote = Arc::new(Remote::new(fabric, home, Arc::clone(&local), config));
        let publisher = Publisher::start(Arc::clone(&remote))
            .map_err(|error| Error::new(ErrorKind::System, "no thread to publish with").with_source(error))?;
        Ok(Self { local, publisher, remote })
    }

    /// What it has done beyond what every tier counts.
    #[must_use]
    pub fn mpi_stats(&self) -> MpiStats {
        self.remote.counters.snapshot()
    }

    /// The fabric below.
    #[must_use]
    pub fn fabric(&self) -> &Fabric {
        &self.remote.fabric
    }

    /// The fabric below, to be stopped when no tier uses it any more.
    #[must_use]
    pub fn fabric_handle(&self) -> Arc<Fabric> {
        Arc::clone(&self.remote.fabric)
    }

    /// What other ranks have of `ids`; what could not be found out before `deadline` is a miss with its reason.
    #[must_use]
    pub fn locate_until(&self, ids: &[BlockId], deadline: Instant) -> Vec<Lookup> {
        let deadline = deadline.min(Instant::now() + self.remote.config.lookup);
        let answer = |found| match found {
            Ok(Some(entry)) if self.remote.is_reachable(&entry) => Lookup::Hit(entry.meta),
            Ok(_) => Lookup::Miss(MissReason::Absent),
            Err(why) => Lookup::Miss(why),
        };
        self.remote.entries(ids, deadline).into_iter().map(answer).collect()
    }

    /// The rank that has a block, and where in its window: the first owner that the directory names; a hint.
    #[must_use]
    pub fn owner_until(&self, id: &BlockId, deadline: Instant) -> Option<(u32, u64)> {
        let entry = self.remote.entry(id, deadline.min(Instant::now() + self.remote.config.lookup)).ok()?;
        entry.owners.first().map(|owner| (owner.rank, owner.offset))
    }

    /// Brings a block of another rank into this home, and leases it. Where there is no room for it, that is `Throttled`.
    ///
    /// # Errors
    /// Why it is not to be had.
    pub fn lease(&self, id: &BlockId) -> std::result::Result<Lease, MissReason> {
        match self.local.lease(id) {
            Err(MissReason::Absent) => {}
            answer => return answer,
        }
        let deadline = Instant::now() + self.remote.config.fetch;
        let entry = self.remote.entry(id, deadline)?;
        match self.remote.bring(&entry, deadline)? {
            Brought::Home => self.local.lease(id),
            Brought::Loose(_) => Err(MissReason::Throttled),
        }
    }

    /// Copies blocks into this home ahead of their use: for each the length that came, 0 for one that was here, or why not.
    #[must_use]
    pub fn prefetch(&self, ids: &[BlockId]) -> Vec<std::result::Result<u64, MissReason>> {
        self.prefetch_until(ids, Instant::now() + self.remote.config.fetch)
    }

    /// [`MpiTier::prefetch`], of which nothing takes longer than to `deadline`. Directory entries are all asked for at once; then some
    /// blocks come at a time.
    #[must_use]
    pub fn prefetch_until(
        &self,
        ids: &[BlockId],
        deadline: Instant,
    ) -> Vec<std::result::Result<u64, MissReason>> {
        let mut here = vec![Lookup::Pending; ids.len()];
        self.local.lookup(ids, &mut here);
        let left: Vec<usize> = (0..ids.len()).filter(|at| !here[*at].is_hit()).collect();
        let asked: Vec<BlockId> = left.iter().map(|at| ids[*at]).collect();
        let mut answers = vec![Ok(0); ids.len()];
        let entries = self.remote.entries(&asked, deadline);
        let wanted: Vec<(usize, std::result::Result<Entry, MissReason>)> = left
            .into_iter()
            .zip(entries)
            .map(|(at, entry)| (at, entry.and_then(|entry| entry.ok_or(MissReason::Absent))))
            .collect();
        let next = AtomicUsize::new(0);
        let work = || {
            let mut done = Vec::new();
            while let Some((at, entry)) = wanted.get(next.fetch_add(1, Relaxed)) {
                let brought =
                    entry.as_ref().map_err(|why| *why).and_then(|entry| self.bring(entry, deadline));
                done.push((*at, brought));
            }
            done
        };
        let helpers = wanted.len().saturating_sub(1).min(AT_ONCE - 1);
        std::thread::scope(|scope| {
            let helping: Vec<_> = (0..helpers).map(|_| scope.spawn(work)).collect();
            let mine = work();
            let others = helping.into_iter().filter_map(|helper| helper.join().ok()).flatten();
            mine.into_iter().chain(others).for_each(|(at, brought)| answers[at] = brought);
        });
        answers
    }

    fn bring(&self, entry: &Entry, deadline: Instant) -> std::result::Result<u64, MissReason> {
        if Instant::now() >= deadline {
            return Err(MissReason::Deadline);
        }
        match self.remote.bring(entry, deadline)? {
            Brought::Home => Ok(entry.meta.len),
            Brought::Loose(_) => Err(MissReason::Throttled),
        }
    }

    fn fetch(&self, id: &BlockId, into: SgList, deadline: Instant) -> Outcome {
        // The list is given back to whoever lent it only when nothing of it is held any more.
        let local = local(&self.local, Op::Fetch { id: *id, into: into.clone() });
        if local != Outcome::Miss(MissReason::Absent) {
            return local;
        }
        match self.fetch_from_others(id, &into, deadline) {
            Ok(meta) => Outcome::Fetched(meta),
            Err(why) => Outcome::Miss(why),
        }
    }

    fn fetch_from_others(
        &self,
        id: &BlockId,
        into: &SgList,
        deadline: Instant,
    ) -> std::result::Result<BlockMeta, MissReason> {
        let entry = self.remote.entry(id, deadline)?;
        if (into.len() as u64) < entry.meta.len || !into.is_writable() || !into.is_host() {
            return Err(MissReason::Destination);
        }
        match self.remote.bring(&entry, deadline)? {
            Brought::Loose(buffer) => {
                buffer.copy_to(into).then_some(entry.meta).ok_or(MissReason::Destination)
            }
            Brought::Home => match local(&self.local, Op::Fetch { id: *id, into: into.clone() }) {
                Outcome::Fetched(meta) => Ok(meta),
                Outcome::Miss(why) => Err(why),
                _ => Err(MissReason::Unavailable),
            },
        }
    }

    fn store(&self, id: &BlockId, from: SgList, meta: PutMeta) -> Outcome {
        let outcome = local(&self.local, Op::Store { id: *id, from, meta });
        if outcome == Outcome::Stored {
            self.publisher.put(*id);
        }
        outcome
    }

    /// Forgets it here and in the directory: other ranks keep what copies they have, and nobody else is sent to them.
    fn delete(&self, id: &BlockId, deadline: Instant) -> Outcome {
        let outcome = local(&self.local, Op::Delete { id: *id });
        match self.remote.entry(id, deadline.min(Instant::now() + self.remote.config.lookup)) {
            Ok(Entry { owners, .. }) => {
                owners.iter().for_each(|owner| self.remote.fabric.retract(id, *owner));
                if matches!(outcome, Outcome::Miss(MissReason::Absent)) { Outcome::Deleted } else { outcome }
            }
            Err(_) => outcome,
        }
    }

    fn run(&self, op: Op, deadline: Option<Instant>) -> Outcome {
        let now = Instant::now();
        if deadline.is_some_and(|deadline| now >= deadline) {
            return match op {
                Op::Store { .. } => {
                    self.remote.counters.refused.fetch_add(1, Relaxed);
                    Outcome::Refused(Refusal::Deadline)
                }
                Op::Fetch { .. } | Op::Delete { .. } => Outcome::Miss(MissReason::Deadline),
            };
        }
        let own = now + self.remote.config.fetch;
        let deadline = deadline.map_or(own, |deadline| deadline.min(own));
        match op {
            Op::Fetch { id, into } => self.fetch(&id, into, deadline),
            Op::Store { id, from, meta } => self.store(&id, from, meta),
            Op::Delete { id } => self.delete(&id, deadline),
        }
    }
}

impl Tier for MpiTier {
    fn capability(&self) -> Capability {
        Capability { name: "mpi", one_sided: true, ..self.local.capability() }
    }

    fn lookup(&self, ids: &[BlockId], out: &mut [Lookup]) {
        self.local.lookup(ids, out);
        let left: Vec<usize> =
            (0..ids.len()).filter(|at| out[*at] == Lookup::Miss(MissReason::Absent)).collect();
        let asked: Vec<BlockId> = left.iter().map(|at| ids[*at]).collect();
        let found = self.locate_until(&asked, Instant::now() + self.remote.config.lookup);
        left.into_iter().zip(found).for_each(|(at, found)| out[at] = found);
    }

    fn submit(&self, batch: Batch) -> Ticket {
        let Batch { ops, deadline } = batch;
        Ticket::ready(ops.into_iter().map(|op| self.run(op, deadline)).collect())
    }

    /// Returns when all that was put before is published.
    fn flush(&self, deadline: Instant) -> Result<()> {
        self.local.flush(deadline)?;
        if self.publisher.flush(deadline) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Deadline, "what was put is not yet published to the other ranks"))
    }

    fn stats(&self) -> TierStats {
        let mut stats = self.local.stats();
        let remote = self.remote.counters.snapshot();
        stats.refused += remote.refused;
        stats
    }
}

/// One operation of a tier that answers at once, or within its own bounds.
fn local(tier: &Arc<dyn Addressable>, op: Op) -> Outcome {
    const LONG: Duration = Duration::from_secs(60);
    let ticket = tier.submit(Batch::new(vec![op]));
    let outcomes = ticket.wait(Instant::now() + LONG);
    outcomes.and_then(|outcomes| outcomes.first().copied()).unwrap_or(Outcome::Miss(MissReason::Unavailable))
}

/// The tier of a home, as one that can be shared.
#[derive(Debug)]
struct Local(Arc<dyn Home>);

impl Tier for Local {
    fn capability(&self) -> Capability {
        self.0.tier().capability()
    }

    fn lookup(&self, ids: &[BlockId], out: &mut [Lookup]) {
        self.0.tier().lookup(ids, out);
    }

    fn submit(&self, batch: Batch) -> Ticket {
        self.0.tier().submit(batch)
    }

    fn flush(&self, deadline: Instant) -> Result<()> {
        self.0.tier().flush(deadline)
    }

    fn stats(&self) -> TierStats {
        self.0.tier().stats()
    }
}

impl Addressable for Local {
    fn reserve(&self, id: &BlockId, len: u64, meta: PutMeta) -> Reserve {
        self.0.tier().reserve(id, len, meta)
    }

    fn lease(&self, id: &BlockId) -> std::result::Result<Lease, MissReason> {
        self.0.tier().lease(id)
    }

    fn lease_batch(&self, ids: &[BlockId]) -> Vec<std::result::Result<Lease, MissReason>> {
        self.0.tier().lease_batch(ids)
    }
}
