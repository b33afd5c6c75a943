//! The store as a tier: what layers, and the tests of every tier, are held against.

use std::time::Instant;

use cascade_core::Result;
use cascade_core::batch::{Batch, Op, Outcome, Ticket};
use cascade_core::id::BlockId;
use cascade_core::layer::Breaker;
use cascade_core::lease::Lease;
use cascade_core::metrics::TierStats;
use cascade_core::reservation::Reserve;
use cascade_core::tier::{Addressable, Capability, Lookup, MissReason, PutMeta, Tier};

use crate::chain::Level;
use crate::fetch::Until;
use crate::put::Reach;
use crate::stats::StoreStats;
use crate::store::Store;
use crate::tiers::Tiers;

impl Tiers {
    pub(crate) fn stats(&self) -> StoreStats {
        self.tell();
        let mut moves = self.count.moves();
        let tiers: Vec<_> = self.chain.rungs().iter().map(|rung| (rung.level, rung.tier.stats())).collect();
        let (arena, below) =
            (tiers.iter().find(|(level, _)| *level == Level::Arena), self.arena.below_stats());
        let arena = arena.map(|(_, stats)| *stats).unwrap_or_default();
        let kept = if self.files().is_some() { below.kept_evictions } else { 0 };
        moves.evicted_undemoted = arena.evictions.saturating_sub(kept);
        moves.risen_hits = below.risen_hits;
        let files = self.files().map(|files| files.tier.file_stats());
        let breaker = self.files().and_then(|files| files.tier.breaker()).map(Breaker::stats);
        let measured =
            self.chain.rungs().iter().map(|rung| rung.level).filter(|level| *level != Level::Device);
        let served = measured.map(|level| (level, self.tally.origin(level))).collect();
        let (get_time, put_latency) = (self.tally.phases.snapshot(), self.tally.put_latency());
        StoreStats {
            tiers,
            files,
            breaker,
            moves,
            served,
            get_time,
            put_latency,
            pins: self.pins.stats(),
            misses: self.count.misses(),
        }
    }

    /// Does operations of one kind, together; an outcome for each. Fetches end early, as late ones do, when `until` says so.
    pub(crate) fn run(&self, ops: Vec<Op>, reach: Reach, until: Until<'_>) -> Vec<Outcome> {
        let (mut wanted, mut blocks, mut gone) = (Vec::new(), Vec::new(), Vec::new());
        for op in ops {
            match op {
                Op::Fetch { id, into } => wanted.push((id, into)),
                Op::Store { id, from, meta } => blocks.push((id, from, meta)),
                Op::Delete { id } => gone.push(id),
            }
        }
        let fetched = |answer| match answer {
            Ok(meta) => Outcome::Fetched(meta),
            Err(why) => Outcome::Miss(why),
        };
        let mut outcomes = Vec::new();
        if !wanted.is_empty() {
            outcomes.extend(self.fetch_until(&wanted, until).into_iter().map(fetched));
        }
        if !blocks.is_empty() {
            outcomes.extend(self.put(blocks, reach));
        }
        outcomes.extend(self.delete(&gone));
        outcomes
    }
}

impl Tier for Store {
    fn capability(&self) -> Capability {
        let rungs = self.tiers.chain.rungs().iter().map(|rung| rung.tier.capability());
        let sum = |a: Capability, b: Capability| Capability {
            capacity_bytes: a.capacity_bytes.saturating_add(b.capacity_bytes),
            max_block_bytes: a.max_block_bytes.max(b.max_block_bytes),
            ..a
        };
        let arena = self.tiers.arena.capability();
        Capability { name: "store", ..rungs.reduce(sum).unwrap_or(arena) }
    }

    fn lookup(&self, ids: &[BlockId], out: &mut [Lookup]) {
        assert_eq!(ids.len(), out.len(), "one answer for each id");
        for (answer, found) in out.iter_mut().zip(self.locate(ids)) {
            *answer = found.answer;
        }
    }

    fn submit(&self, batch: Batch) -> Ticket {
        self.submits.submit(batch, Reach::Found)
    }

    fn flush(&self, deadline: Instant) -> Result<()> {
        Self::flush(self, deadline)
    }

    fn stats(&self) -> TierStats {
        self.tiers.stats().total()
    }
}

impl Addressable for Store {
    fn reserve(&self, id: &BlockId, len: u64, meta: PutMeta) -> Reserve {
        self.tiers.reserve(id, len, meta, Reach::Found)
    }

    fn lease(&self, id: &BlockId) -> std::result::Result<Lease, MissReason> {
        Self::lease(self, id)
    }

    fn lease_batch(&self, ids: &[BlockId]) -> Vec<std::result::Result<Lease, MissReason>> {
        Self::lease_batch(self, ids)
    }
}
