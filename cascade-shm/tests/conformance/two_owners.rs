//! Two handles on one arena, used by turns: what one stores, the other finds, leases, replaces and deletes.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use cascade_core::Result;
use cascade_core::batch::{Batch, Ticket};
use cascade_core::id::BlockId;
use cascade_core::lease::Lease;
use cascade_core::metrics::TierStats;
use cascade_core::reservation::Reserve;
use cascade_core::tier::{Addressable, Capability, Lookup, MissReason, PutMeta, Tier};
use cascade_shm::{Arena, ArenaConfig};

#[derive(Debug)]
pub(crate) struct TwoOwners {
    owners: [Arena; 2],
    turn: AtomicUsize,
}

impl TwoOwners {
    pub(crate) fn open(config: &ArenaConfig) -> Self {
        let open = || Arena::open(config).unwrap();
        Self { owners: [open(), open()], turn: AtomicUsize::new(0) }
    }

    fn next(&self) -> &Arena {
        &self.owners[self.turn.fetch_add(1, Ordering::Relaxed) % 2]
    }
}

impl Tier for TwoOwners {
    fn capability(&self) -> Capability {
        self.next().capability()
    }

    fn lookup(&self, ids: &[BlockId], out: &mut [Lookup]) {
        self.next().lookup(ids, out);
    }

    fn submit(&self, batch: Batch) -> Ticket {
        self.next().submit(batch)
    }

    fn flush(&self, deadline: Instant) -> Result<()> {
        self.next().flush(deadline)
    }

    /// Counters are by handle and add up; gauges are the arena's, but for the quarantine.
    fn stats(&self) -> TierStats {
        let [one, two] = [self.owners[0].stats(), self.owners[1].stats()];
        TierStats {
            puts: one.puts + two.puts,
            exists: one.exists + two.exists,
            refused: one.refused + two.refused,
            hits: one.hits + two.hits,
            misses: one.misses + two.misses,
            evictions: one.evictions + two.evictions,
            corrupt: one.corrupt + two.corrupt,
            bytes_in: one.bytes_in + two.bytes_in,
            bytes_out: one.bytes_out + two.bytes_out,
            quarantined_bytes: one.quarantined_bytes + two.quarantined_bytes,
            waiting_blocks: one.waiting_blocks + two.waiting_blocks,
            ..one
        }
    }
}

impl Addressable for TwoOwners {
    fn reserve(&self, id: &BlockId, len: u64, meta: PutMeta) -> Reserve {
        self.next().reserve(id, len, meta)
    }

    fn lease(&self, id: &BlockId) -> std::result::Result<Lease, MissReason> {
        self.next().lease(id)
    }
}
