//! What a store counts, tier by tier.

use cascade_core::layer::BreakerStats;
use cascade_core::metrics::{Distribution, TierStats};
use cascade_core::tier::MissReason;
use cascade_pfs::PfsStats;

use crate::chain::Level;
use crate::moves::count::MoveStats;
use crate::phases::GetTime;
use crate::pins::PinStats;
use crate::tally::Origin as ServedFrom;

/// Counters and gauges of one store.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct StoreStats {
    /// Each tier, from the top: counters of this handle and gauges of all that use it.
    pub tiers: Vec<(Level, TierStats)>,
    /// Files and calls of the tier of files, where there is one.
    pub files: Option<PfsStats>,
    /// What kept calls from a file system that failed, where there are files.
    pub breaker: Option<BreakerStats>,
    /// Moves between the tiers.
    pub moves: MoveStats,
    /// What arena and files have done for callers, by where the bytes came from.
    pub served: Vec<(Level, ServedFrom)>,
    /// Where the time of gets went.
    pub get_time: GetTime,
    /// Times of whole calls that put.
    pub put_latency: Distribution,
    /// Pins that this store holds, and what became of others.
    pub pins: PinStats,
    /// Fetches and leases that no tier could serve, by reason.
    pub misses: Vec<(MissReason, u64)>,
}

impl StoreStats {
    /// One tier's; zero where there is none.
    #[must_use]
    pub fn tier(&self, level: Level) -> TierStats {
        self.tiers.iter().find(|(of, _)| *of == level).map(|(_, stats)| *stats).unwrap_or_default()
    }

    /// The arena's.
    #[must_use]
    pub fn arena(&self) -> TierStats {
        self.tier(Level::Arena)
    }

    /// Fetches and leases that were served, by the tier that the bytes came from when they were needed.
    #[must_use]
    pub fn hits(&self, level: Level) -> u64 {
        match level {
            Level::Device => self.moves.hbm_hits,
            Level::Arena => self.moves.arena_hits,
            Level::Remote => self.moves.remote_hits,
            Level::Files => self.moves.file_hits,
        }
    }

    /// What one tier has done for callers; nothing where there is none.
    #[must_use]
    pub fn served_from(&self, level: Level) -> ServedFrom {
        self.served.iter().find(|(of, _)| *of == level).map(|(_, served)| served.clone()).unwrap_or_default()
    }

    /// Blocks that are gone for good by no wish of the user: evicted from the arena and not in files, or given up by the files.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.moves.evicted_undemoted + self.tier(Level::Files).evictions
    }

    /// Name and value of what the tier of files counts beside its tier's counters; nothing where there is none.
    #[must_use]
    pub fn file_fields(&self) -> Vec<(&'static str, u64)> {
        let Some(files) = &self.files else { return Vec::new() };
        let breaker = self.breaker.unwrap_or_default();
        vec![
            ("breaker_open", u64::from(breaker.open)),
            ("breaker_opened", breaker.opened),
            ("breaker_failures", breaker.failures),
            ("breaker_kept_out", breaker.kept_out),
            ("direct", u64::from(files.direct)),
            ("segments", files.segments),
            ("file_bytes", files.file_bytes),
            ("index_bytes", files.index_bytes),
            ("creates", files.creates),
            ("removes", files.removes),
            ("metadata", files.metadata),
            ("syncs", files.syncs),
            ("writes", files.writes),
            ("reads", files.reads),
            ("read_transfers", files.read_transfers),
            ("deadlines", files.deadlines),
            ("poisoned", files.poisoned),
            ("no_space", files.no_space),
            ("io_errors", files.io_errors),
            ("lost_files", files.lost_files),
            ("kept", files.kept),
            ("adopted", files.adopted),
            ("other_version", files.other_version),
            ("read_only", u64::from(files.read_only)),
        ]
    }

    /// The whole store as one tier: capacities, bytes and blocks added up (a block in two tiers counts twice).
    #[must_use]
    pub fn total(&self) -> TierStats {
        let sum = |of: fn(&TierStats) -> u64| self.tiers.iter().map(|(_, stats)| of(stats)).sum();
        TierStats {
            capacity_bytes: sum(|tier| tier.capacity_bytes),
            ready_bytes: sum(|tier| tier.ready_bytes),
            used_bytes: sum(|tier| tier.used_bytes),
            blocks: sum(|tier| tier.blocks),
            puts: self.arena().puts + self.moves.spilled,
            exists: self.moves.exists,
            refused: sum(|tier| tier.refused),
            hits: [Level::Device, Level::Arena, Level::Remote, Level::Files]
                .map(|of| self.hits(of))
                .iter()
                .sum(),
            misses: self.misses.iter().map(|(_, count)| count).sum(),
            evictions: self.lost(),
            corrupt: sum(|tier| tier.corrupt),
            bytes_in: self.arena().bytes_in + self.moves.spilled_bytes,
            bytes_out: sum(|tier| tier.bytes_out),
            quarantined_bytes: sum(|tier| tier.quarantined_bytes),
            waiting_blocks: sum(|tier| tier.waiting_blocks),
        }
    }
}
