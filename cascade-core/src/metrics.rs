//! Names and values of what is counted, the same in every tier.

mod histogram;

pub use histogram::{BUCKETS, Distribution, Histogram, bucket_of};

/// Counters since a handle was opened and gauges of now. All byte figures count payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TierStats {
    /// Payload bytes that the tier may hold now.
    pub capacity_bytes: u64,
    /// Bytes of the data area that can be used at once: less than the capacity while memory is still being touched.
    pub ready_bytes: u64,
    /// Bytes of the data area in use, allocation rounding included.
    pub used_bytes: u64,
    /// Blocks stored.
    pub blocks: u64,
    /// Puts that stored a block.
    pub puts: u64,
    /// Puts that found the block stored (deduplicated).
    pub exists: u64,
    /// Puts that were refused.
    pub refused: u64,
    /// Fetches and leases that found their block.
    pub hits: u64,
    /// Fetches and leases that did not.
    pub misses: u64,
    /// Blocks dropped to make room.
    pub evictions: u64,
    /// Blocks dropped because their bytes did not match their digest.
    pub corrupt: u64,
    /// Payload bytes copied in.
    pub bytes_in: u64,
    /// Payload bytes copied out.
    pub bytes_out: u64,
    /// Bytes that hardware may still write and that are therefore not reused.
    pub quarantined_bytes: u64,
    /// Blocks that are gone, and whose space waits for a process that was stopped while it held a lock.
    pub waiting_blocks: u64,
}

impl TierStats {
    /// Name and value of every field, in a fixed order, for reports and exporters.
    #[must_use]
    pub fn fields(&self) -> [(&'static str, u64); 15] {
        [
            ("capacity_bytes", self.capacity_bytes),
            ("ready_bytes", self.ready_bytes),
            ("used_bytes", self.used_bytes),
            ("blocks", self.blocks),
            ("puts", self.puts),
            ("exists", self.exists),
            ("refused", self.refused),
            ("hits", self.hits),
            ("misses", self.misses),
            ("evictions", self.evictions),
            ("corrupt", self.corrupt),
            ("bytes_in", self.bytes_in),
            ("bytes_out", self.bytes_out),
            ("quarantined_bytes", self.quarantined_bytes),
            ("waiting_blocks", self.waiting_blocks),
        ]
    }
}
