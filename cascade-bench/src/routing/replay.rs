//! A trace sent through simulated ranks: real directory buckets, real choice of the owner, no bytes.

use std::collections::HashSet;

use cascade_core::id::BlockId;
use cascade_core::tier::{BlockMeta, Class};
use cascade_mpi::choice::{Standing, in_order};
use cascade_mpi::directory::{Owner, Table};
use cascade_mpi::route::Route;

use crate::trace::Workload;

/// How long a read makes its rank busy, in milliseconds of the trace.
const BUSY_MS: u64 = 1000;

/// What a replay counted.
#[derive(Debug)]
pub(super) struct Replayed {
    /// Different blocks.
    pub(super) blocks: u64,
    /// Lookups in each rank's part of the directory.
    pub(super) asked: Vec<u64>,
    /// Blocks that each rank gave to others.
    pub(super) served: Vec<u64>,
}

struct Ranks {
    route: Route,
    tables: Vec<Table>,
    /// Blocks of each rank.
    here: Vec<HashSet<u32>>,
    /// Reads of the present stretch of time.
    busy: Vec<u64>,
    counts: Replayed,
}

/// Sends `workload` through `ranks` ranks, each of which keeps all that it puts, and with replicas all that it fetches.
pub(super) fn replay(workload: &Workload, ranks: u32, has_replicas: bool) -> Replayed {
    let count = ranks.max(1) as usize;
    let buckets = workload.blocks.div_ceil(count).max(4);
    let mut all = Ranks {
        route: Route::new(ranks, buckets as u64),
        tables: (0..count).map(|rank| Table::new(rank as u32, buckets)).collect(),
        here: vec![HashSet::new(); count],
        busy: vec![0; count],
        counts: Replayed { blocks: workload.blocks as u64, asked: vec![0; count], served: vec![0; count] },
    };
    let mut stretch = 0;
    for (number, request) in workload.requests.iter().enumerate() {
        if request.at_ms / BUSY_MS != stretch {
            stretch = request.at_ms / BUSY_MS;
            all.busy.fill(0);
        }
        let own = number % count;
        request.blocks.iter().for_each(|block| all.want(own, *block, has_replicas));
    }
    all.counts
}

impl Ranks {
    fn want(&mut self, own: usize, block: u32, has_replicas: bool) {
        if self.here[own].contains(&block) {
            return;
        }
        let id = BlockId::from_words([u64::from(block), 0, 0, 0]);
        let at = self.route.of(&id);
        let home = at.rank as usize;
        self.counts.asked[home] += 1;
        let entry = self.tables[home].find(at.bucket, &id);
        let busy = &self.busy;
        let standing = |rank: u32| Standing { readers: busy[rank as usize], ..Standing::default() };
        let owner = entry.and_then(|entry| in_order(own as u32, &entry.owners, standing).first().copied());
        if let Some(owner) = owner {
            self.counts.served[owner.rank as usize] += 1;
            self.busy[owner.rank as usize] += 1;
        }
        // Put where nobody has it, kept where it was fetched: either way its rank is an owner now.
        if owner.is_none() || has_replicas {
            self.here[own].insert(block);
            let meta = BlockMeta { len: 1, digest: u64::from(block), class: Class::Prefix, tenant: 0 };
            let owner = Owner { rank: own as u32, slot: block, generation: 1, incarnation: 1, offset: 0 };
            self.tables[home].publish(at.bucket, &id, &meta, owner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One block that every request names.
    fn hot(requests: u64) -> Workload {
        Workload::new("hot".into(), (0..requests).map(|number| (number, vec![0])))
    }

    #[test]
    fn without_replicas_one_owner_serves_all() {
        let replayed = replay(&hot(400), 4, false);
        assert_eq!(replayed.served, [300, 0, 0, 0], "all but the requests of the owner's own rank");
    }

    #[test]
    fn with_replicas_each_rank_fetches_once_and_owners_share() {
        let replayed = replay(&hot(400), 16, true);
        assert_eq!(replayed.served.iter().sum::<u64>(), 15);
        assert!(replayed.served.iter().all(|served| *served <= 3), "{replayed:?}");
    }
}
