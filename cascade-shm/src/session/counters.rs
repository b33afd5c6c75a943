//! What a stripe counts: each thread its own line, added up when asked.

use std::sync::atomic::{AtomicU64, Ordering};

use cascade_core::metrics::TierStats;
use crossbeam_utils::CachePadded;

use crate::arena::BelowStats;

/// Counters of one stripe.
#[derive(Debug, Default)]
pub struct Counters {
    lines: CachePadded<Line>,
}

#[derive(Debug, Default)]
struct Line {
    puts: AtomicU64,
    exists: AtomicU64,
    refused: AtomicU64,
    hits: AtomicU64,
    misses: AtomicU64,
    evictions: AtomicU64,
    corrupt: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    kept_evictions: AtomicU64,
    risen_hits: AtomicU64,
}

/// What happened, to be counted.
#[derive(Clone, Copy, Debug)]
pub enum Event {
    /// A block of this many bytes was stored.
    Put(u64),
    /// A put found its block.
    Exists,
    /// A put was refused.
    Refused,
    /// This many fetches or leases found their block.
    Hit(u64),
    /// This many did not.
    Miss(u64),
    /// This many blocks were dropped to make room.
    Evicted(u64),
    /// A block did not match its digest.
    Corrupt,
    /// This many bytes were copied out.
    Out(u64),
    /// A block that was dropped to make room is in a tier below too.
    EvictedKept,
    /// This many fetches or leases found a block that had come up from a tier below.
    HitRisen(u64),
}

impl Counters {
    /// Counts an event.
    #[inline]
    pub fn count(&self, event: Event) {
        let add = |counter: &AtomicU64, by| counter.fetch_add(by, Ordering::Relaxed);
        let line = &self.lines;
        match event {
            Event::Put(bytes) => {
                add(&line.puts, 1);
                add(&line.bytes_in, bytes)
            }
            Event::Exists => add(&line.exists, 1),
            Event::Refused => add(&line.refused, 1),
            Event::Hit(blocks) => add(&line.hits, blocks),
            Event::Miss(blocks) => add(&line.misses, blocks),
            Event::Evicted(blocks) => add(&line.evictions, blocks),
            Event::Corrupt => add(&line.corrupt, 1),
            Event::Out(bytes) => add(&line.bytes_out, bytes),
            Event::EvictedKept => add(&line.kept_evictions, 1),
            Event::HitRisen(blocks) => add(&line.risen_hits, blocks),
        };
    }

    /// Adds what is counted about the tiers below to `stats`.
    pub fn add_below(&self, stats: &mut BelowStats) {
        stats.kept_evictions += self.lines.kept_evictions.load(Ordering::Relaxed);
        stats.risen_hits += self.lines.risen_hits.load(Ordering::Relaxed);
    }

    /// Adds these counters to `stats`.
    pub fn add_to(&self, stats: &mut TierStats) {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let line = &self.lines;
        stats.puts += get(&line.puts);
        stats.exists += get(&line.exists);
        stats.refused += get(&line.refused);
        stats.hits += get(&line.hits);
        stats.misses += get(&line.misses);
        stats.evictions += get(&line.evictions);
        stats.corrupt += get(&line.corrupt);
        stats.bytes_in += get(&line.bytes_in);
        stats.bytes_out += get(&line.bytes_out);
    }
}
