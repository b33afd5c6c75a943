//! Other nodes as a rung of the store's chain, and what the store's own calls bring from there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cascade_core::Result;
use cascade_core::batch::{Batch, Outcome, Refusal, Ticket};
use cascade_core::id::BlockId;
use cascade_core::metrics::TierStats;
use cascade_core::tier::{Capability, Lookup, MissReason, Tier};

use super::Remote;
use crate::moves::count::add;
use crate::moves::queue::Queue;
use crate::moves::rise::Wanted;
use crate::moves::riser;
use crate::tiers::{Answer, Tiers};

/// How long a lookup may ask others.
const LOOKUP: Duration = Duration::from_millis(200);
/// How long a fetch may ask others, but for a deadline of the caller's.
const BRING: Duration = Duration::from_secs(5);
/// Prefetches that wait, at most.
const WAITING: usize = 1 << 14;
/// How long a block that somebody else is bringing or writing is waited for, and how long until it is looked at again.
const SETTLE: Duration = Duration::from_millis(200);
const SETTLE_NAP: Duration = Duration::from_micros(100);

/// The other nodes, and what the store keeps about them. Blocks whose bytes are fixed by their ids are shared; a name may mean other
/// bytes on each node, and is not asked for.
#[derive(Debug)]
pub(crate) struct Elsewhere {
    remote: Arc<dyn Remote>,
    /// For the thread that prefetches where there are no files.
    pub(crate) rise: Queue<Wanted>,
    pid: u32,
}

/// What a call brought: for each of its blocks whether it came, or why not. Nothing for a call that asked nobody.
#[derive(Debug, Default)]
pub(crate) struct Came(Vec<Answer<bool>>);

impl Came {
    /// Whether the block at `at` came from another node for this call.
    pub(crate) fn has(&self, at: usize) -> bool {
        self.0.get(at) == Some(&Ok(true))
    }

    /// The better reason for a miss: what other nodes said, where this one only says that it has no such block.
    pub(crate) fn explain<T>(&self, at: usize, answer: &mut Answer<T>) {
        if let (Some(Err(why)), Err(MissReason::Absent)) = (self.0.get(at), &answer) {
            *answer = Err(*why);
        }
    }
}

impl Elsewhere {
    pub(crate) fn new(remote: Arc<dyn Remote>) -> Self {
        Self { remote, rise: Queue::new(WAITING), pid: std::process::id() }
    }

    /// A forked child shares its parent's connections, and must not speak.
    pub(crate) fn is_forked(&self) -> bool {
        std::process::id() != self.pid
    }

    /// Brings those of `ids` that are marked.
    fn bring(&self, ids: &[BlockId], lacking: &[bool], deadline: Option<Instant>) -> Came {
        let places: Vec<usize> = (0..ids.len()).filter(|at| lacking[*at]).collect();
        if places.is_empty() {
            return Came::default();
        }
        let asked: Vec<BlockId> = places.iter().map(|at| ids[*at]).collect();
        let own = Instant::now() + BRING;
        let brought = self.remote.bring(&asked, deadline.map_or(own, |deadline| deadline.min(own)));
        let mut came = vec![Ok(false); ids.len()];
        for (at, brought) in places.into_iter().zip(brought) {
            came[at] = brought.map(|()| true);
        }
        Came(came)
    }
}

impl Tiers {
    /// Brings from other nodes what the arena lacks of `ids`, into it.
    pub(crate) fn bring(&self, ids: &[BlockId], deadline: Option<Instant>) -> Came {
        let Some(elsewhere) = self.elsewhere() else { return Came::default() };
        let here = self.settled(ids, deadline);
        let is_lacking =
            |(id, here): (&BlockId, &Lookup)| *here == Lookup::Miss(MissReason::Absent) && is_shared(id);
        let lacking: Vec<bool> = ids.iter().zip(&here).map(is_lacking).collect();
        let came = elsewhere.bring(ids, &lacking, deadline);
        let count = (0..ids.len()).filter(|at| came.has(*at)).count();
        add(&self.count.remote_brought, count as u64);
        // Another may have begun to bring one of them between the look and the question; then it is the other's that is waited for.
        let failed = |at: &usize| lacking[*at] && !came.has(*at);
        let failed: Vec<BlockId> = (0..ids.len()).filter(failed).map(|at| ids[at]).collect();
        self.settled(&failed, deadline);
        came
    }

    /// What the arena has of `ids`, once nobody brings or writes a shared one of them any more, or after a moment: two that want a
    /// block at once fetch it once, and both get it.
    fn settled(&self, ids: &[BlockId], deadline: Option<Instant>) -> Vec<Lookup> {
        let mut here = vec![Lookup::Pending; ids.len()];
        let own = Instant::now() + SETTLE;
        let until = deadline.map_or(own, |deadline| deadline.min(own));
        loop {
            self.arena.lookup(ids, &mut here);
            let is_pending = |(id, here): (&BlockId, &Lookup)| *here == Lookup::Pending && is_shared(id);
            if !ids.iter().zip(&here).any(is_pending) || Instant::now() >= until {
                return here;
            }
            std::thread::sleep(SETTLE_NAP);
        }
    }
}

fn is_shared(id: &BlockId) -> bool {
    !id.kind().replaceable()
}

/// Brings up what `prefetch` asked for, in a store without files, until the queue is closed.
pub(crate) fn work(tiers: &Tiers, elsewhere: &Elsewhere) {
    while let Some(all) = elsewhere.rise.take(1, Duration::from_secs(1)) {
        all.iter()
            .filter(|_| !elsewhere.rise.is_closed())
            .for_each(|wanted| riser::bring_up(tiers, None, wanted));
    }
}

impl Tier for Elsewhere {
    fn capability(&self) -> Capability {
        Capability {
            name: "remote",
            capacity_bytes: 0,
            max_block_bytes: 0,
            persistent: false,
            shared: true,
            device: false,
            one_sided: true,
        }
    }

    /// Asks others, and so takes as long as they do: at most 200 ms.
    fn lookup(&self, ids: &[BlockId], out: &mut [Lookup]) {
        out.fill(Lookup::Miss(MissReason::Absent));
        let places: Vec<usize> = (0..ids.len()).filter(|at| is_shared(&ids[*at])).collect();
        if self.is_forked() || places.is_empty() {
            return;
        }
        let asked: Vec<BlockId> = places.iter().map(|at| ids[*at]).collect();
        for (at, answer) in places.into_iter().zip(self.remote.locate(&asked, Instant::now() + LOOKUP)) {
            out[at] = answer;
        }
    }

    /// Nothing is stored there, or fetched from there but by way of the arena.
    fn submit(&self, batch: Batch) -> Ticket {
        let refuse = |op: &cascade_core::batch::Op| match op {
            cascade_core::batch::Op::Store { .. } => Outcome::Refused(Refusal::Unavailable),
            _ => Outcome::Miss(MissReason::Unavailable),
        };
        Ticket::ready(batch.ops.iter().map(refuse).collect())
    }

    fn flush(&self, _deadline: Instant) -> Result<()> {
        Ok(())
    }

    fn stats(&self) -> TierStats {
        TierStats::default()
    }
}
