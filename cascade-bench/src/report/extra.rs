//! What rows of some kinds say beside rates and times: the space that an arena used, and operations by many at once.

use serde::{Deserialize, Serialize};

use crate::stats::{Latency, Spread};

/// Operations by several processes or threads at once, counted in the same stretch of time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Throughput {
    /// Operations of all together each second.
    pub per_second: Spread,
    /// Operations of one process (or thread) each second: the slowest, the middle and the fastest of all repetitions.
    pub member_per_second: Spread,
    /// Median of all together over that of one process alone with the same keys, measured in turns.
    pub of_one: f64,
}

/// Where the time of a batch through the store goes, in microseconds of the whole batch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Phases {
    /// Finding out which tier has each block.
    pub lookup_us: f64,
    /// Handing the batch to the store's threads, and hearing of its end.
    pub queue_us: f64,
    /// Waiting for reads from files while nothing else was left to do; what was read is verified in it.
    #[serde(default)]
    pub transfer_us: f64,
    /// Copying, with the digests that are made in the same pass. Of a put: the rest of the time.
    pub copy_us: f64,
    /// Digests of all bytes, by one thread that does nothing else: no part of the sum.
    pub verify_us: f64,
    /// What is left of the whole.
    #[serde(default)]
    pub rest_us: f64,
}

/// What rows of other ranks' memory say besides.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ranked {
    /// The MPI library.
    pub library: String,
    /// Rates of the ceiling in GB/s, all repetitions.
    pub ceiling: Option<Spread>,
    /// Times of single operations of the ceiling, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ceiling_us: Option<Latency>,
    /// Gets out of windows for each operation, counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gets: Option<f64>,
    /// Share of a core that the thread of MPI took while nobody asked; over the ranks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub core_share: Option<Spread>,
}

/// How evenly ranks are loaded, in a simulation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Routing {
    /// Ids that were routed; of a replay, different blocks.
    pub ids: u64,
    /// Entries, of a replay lookups: of the rank with the most over the mean.
    pub directory: f64,
    /// What the first is expected to be by chance alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_chance: Option<f64>,
    /// Blocks given to others: of the rank that gave the most over the mean.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owners: Option<f64>,
    /// Blocks that were fetched from another rank.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fetched: Option<u64>,
    /// Of them, those that the busiest rank gave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub most: Option<u64>,
}

/// How an arena used its data area while blocks came and went.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Space {
    /// Distribution of the sizes, with its parameters.
    pub sizes: String,
    /// Bytes of the data area.
    pub data_bytes: u64,
    /// Blocks put, after the arena was full.
    pub puts: u64,
    /// Share of the data area that blocks occupy, allocation rounding included, sampled while it churned.
    pub used_share: Spread,
    /// Share of the data area that is payload, sampled at the same moments.
    pub payload_share: Spread,
    /// Blocks evicted for each one put.
    pub evictions_per_put: f64,
    /// Puts that were refused: one without room among what is pinned or being filled.
    pub refused: u64,
    /// Blocks put each second, by all threads together.
    pub puts_per_second: f64,
    /// The process and the arena when it had just been filled.
    pub before: Census,
    /// The same after the last put.
    pub after: Census,
}

/// What must not grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Census {
    /// Private memory of the process in bytes.
    pub private_bytes: u64,
    /// Open file descriptors of the process.
    pub fds: u64,
    /// Visible blocks.
    pub blocks: u64,
    /// Slots that are being claimed, filled, evicted or freed, though nobody is at work.
    pub odd_slots: u64,
    /// Slots with a block that was deleted or replaced under a lease, though there is no lease.
    pub retired_slots: u64,
    /// Ledger entries in use, though nothing is held.
    pub ledger_entries: u64,
    /// Units of the data area that bitmaps or residents and the slots disagree on.
    pub disagreements: u64,
}

impl Census {
    /// Whether nothing is left over and the tables agree.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        [self.odd_slots, self.retired_slots, self.ledger_entries, self.disagreements] == [0; 4]
    }
}

/// Requests replayed against a policy of eviction.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Replay {
    /// What was replayed.
    pub workload: String,
    /// Which policy.
    pub policy: String,
    /// Blocks that the tier holds.
    pub capacity_blocks: u64,
    /// Blocks that hit, with all before them in their request, of all blocks named, 0 to 1: median over seeds.
    pub hit_rate: f64,
    /// The same, with the least and the most of all seeds.
    pub hit_rates: Spread,
    /// Share of the way from LRU to the optimum; `None` where one of them was not run or they are equal.
    pub gap_closed: Option<f64>,
    /// Blocks named, of the last seed as all that follows.
    pub references: u64,
    /// Blocks that were there for nothing, because one before them was not.
    pub orphans: u64,
    /// Blocks put.
    pub puts: u64,
    /// Blocks evicted.
    pub evictions: u64,
}
