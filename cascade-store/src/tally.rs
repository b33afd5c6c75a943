//! What a store has done for its callers, by the tier that the bytes came from when they were needed.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use cascade_core::metrics::Distribution;

use crate::chain::Level;
use crate::counters::{Board, Counter, Timed, Timing};
use crate::phases::Phases;
use crate::planner::Measured;

/// Puts without a single hit, and how long that must last, before it is said that something is wrong.
pub(crate) const FRUITLESS_PUTS: u64 = 4000;
pub(crate) const FRUITLESS_TIME: Duration = Duration::from_secs(600);

#[derive(Debug)]
struct Served {
    bytes: Counter,
    tokens: Counter,
    latency: Timing,
}

impl Served {
    fn on(board: &Board, level: &str, of: Timed) -> Self {
        Self {
            bytes: board.counter(&format!("served_bytes_{level}")),
            tokens: board.counter(&format!("saved_tokens_{level}")),
            latency: board.timing(of),
        }
    }
}

/// Counters of one store.
#[derive(Debug)]
pub(crate) struct Tally {
    board: Board,
    served: [Served; 3],
    put_latency: Timing,
    puts: Counter,
    hits: AtomicU64,
    /// When the first block was put, in nanoseconds of the store's clock; 0: none was.
    first_put: AtomicU64,
    is_warned: AtomicBool,
    /// Tokens of a block, as the caller has said.
    block_tokens: AtomicU64,
    pub(crate) measured: Measured,
    pub(crate) phases: Phases,
}

/// What one tier has done for callers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Origin {
    /// Bytes of blocks that came from this tier when they were needed: from files also where they went up on the way.
    pub served_bytes: u64,
    /// Tokens whose prefill that saved: blocks times what [`Store::set_block_tokens`](crate::Store::set_block_tokens) said then.
    pub saved_tokens: u64,
    /// Times of whole calls (fetches, batches of leases), each counted at the lowest tier that it needed. A lease of one block
    /// that the arena has is not timed: it takes about as long as looking at a clock.
    pub latency: Distribution,
}

/// Blocks and bytes that a call had from one tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) blocks: u64,
    pub(crate) bytes: u64,
}

/// What a call had from each tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Parts {
    pub(crate) arena: Part,
    /// Of other nodes, by way of the arena.
    pub(crate) remote: Part,
    pub(crate) files: Part,
}

impl Part {
    /// What is left of this without `other`, which is a part of it.
    pub(crate) fn without(self, other: Self) -> Self {
        Self { blocks: self.blocks - other.blocks, bytes: self.bytes - other.bytes }
    }

    pub(crate) fn add(&mut self, bytes: u64) {
        self.blocks += 1;
        self.bytes += bytes;
    }
}

fn add(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

impl Tally {
    /// Counters that add to the node's too.
    pub(crate) fn on(board: &Board) -> Self {
        let levels = [("arena", Timed::Arena), ("remote", Timed::Remote), ("files", Timed::Files)];
        Self {
            board: board.clone(),
            served: levels.map(|(name, of)| Served::on(board, name, of)),
            put_latency: board.timing(Timed::Put),
            puts: board.counter("puts"),
            hits: AtomicU64::new(0),
            first_put: AtomicU64::new(0),
            is_warned: AtomicBool::new(false),
            block_tokens: AtomicU64::new(0),
            measured: Measured::default(),
            phases: Phases::default(),
        }
    }

    pub(crate) fn set_block_tokens(&self, tokens: u64) {
        self.block_tokens.store(tokens, Ordering::Relaxed);
    }

    /// A call was served by these tiers; `took` where it was timed.
    pub(crate) fn served(&self, parts: Parts, took: Option<Duration>) {
        let Parts { arena, remote, files } = parts;
        let all = arena.blocks + remote.blocks + files.blocks;
        let mut above = 0;
        let parts = [(Level::Arena, arena), (Level::Remote, remote), (Level::Files, files)];
        for ((level, part), served) in parts.into_iter().zip(&self.served) {
            above += part.blocks;
            if part.blocks == 0 {
                continue;
            }
            add(&self.hits, part.blocks);
            served.bytes.add(part.bytes);
            served.tokens.add(part.blocks * self.block_tokens.load(Ordering::Relaxed));
            let Some(took) = took else { continue };
            let is_lowest = above == all;
            if is_lowest {
                served.latency.record(took);
            }
            let is_alone = part.blocks == all;
            if is_alone {
                self.measured.loaded(level, part.blocks, part.bytes, took);
            }
        }
    }

    /// `blocks` were put in one call that ends `now`; the warning, once, where nothing ever hits.
    pub(crate) fn put(&self, blocks: u64, now: Duration, took: Duration) -> Option<String> {
        self.put_latency.record(took);
        self.puts.add(blocks);
        let puts = self.puts.get();
        let now_ns = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX).max(1);
        // Only the first put finds 0 there.
        let first = self.first_put.compare_exchange(0, now_ns, Ordering::Relaxed, Ordering::Relaxed);
        if first.is_ok() {
            self.board.first_put();
        }
        let since = Duration::from_nanos(now_ns.saturating_sub(first.err().unwrap_or(now_ns)));
        let is_fruitless =
            puts >= FRUITLESS_PUTS && since >= FRUITLESS_TIME && self.hits.load(Ordering::Relaxed) == 0;
        (is_fruitless && !self.is_warned.swap(true, Ordering::Relaxed)).then(|| {
            format!(
                "cascade: {puts} blocks were put in {} s and not one was hit. If others should have found them, compare the \
                 key spaces of who puts and who asks: model, weights fingerprint, dtype, layout, tokens of a block, adapter \
                 and tenant must be the same, and ids must come from the same tokens. `cascade why ID` says of one id why \
                 it is no hit",
                since.as_secs()
            )
        })
    }

    /// Memory for a block was reserved: a put in place.
    pub(crate) fn reserved(&self) {
        self.puts.add(1);
        self.board.first_put();
    }

    pub(crate) fn origin(&self, level: Level) -> Origin {
        let served = &self.served[crate::planner::place(level)];
        Origin {
            served_bytes: served.bytes.get(),
            saved_tokens: served.tokens.get(),
            latency: served.latency.snapshot(),
        }
    }

    pub(crate) fn put_latency(&self) -> Distribution {
        self.put_latency.snapshot()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_counts_where_its_bytes_came_from_and_its_time_at_the_lowest() {
        let tally = Tally::on(&Board::default());
        tally.set_block_tokens(16);
        let part = |blocks, bytes| Part { blocks, bytes };
        let parts = |arena, remote, files| Parts { arena, remote, files };
        let none = Part::default();
        tally.served(parts(part(2, 200), none, none), Some(Duration::from_micros(1)));
        tally.served(parts(part(1, 100), none, part(3, 300)), Some(Duration::from_millis(1)));
        tally.served(parts(part(1, 50), none, none), None);
        tally.served(parts(none, part(2, 500), none), Some(Duration::from_micros(9)));
        let [arena, remote, files] =
            [Level::Arena, Level::Remote, Level::Files].map(|level| tally.origin(level));
        assert_eq!((remote.served_bytes, remote.saved_tokens, remote.latency.count()), (500, 32, 1));
        assert_eq!((arena.served_bytes, arena.saved_tokens, arena.latency.count()), (350, 64, 1));
        assert_eq!((files.served_bytes, files.saved_tokens, files.latency.count()), (300, 48, 1));
    }

    #[test]
    fn puts_that_never_hit_are_said_once_and_only_after_a_while() {
        let tally = Tally::on(&Board::default());
        let put = |seconds| tally.put(3000, Duration::from_secs(seconds), Duration::ZERO);
        assert_eq!((put(1), put(2)), (None, None));
        let said = put(700).expect("9000 blocks in 699 s");
        assert!(
            said.contains("699 s") && said.contains("key space") && said.contains("cascade why"),
            "{said}"
        );
        assert_eq!(put(2000), None);
        let other = Tally::on(&Board::default());
        other.put(5000, Duration::from_secs(1), Duration::ZERO);
        other.served(Parts { arena: Part { blocks: 1, bytes: 1 }, ..Parts::default() }, None);
        assert_eq!(other.put(1, Duration::from_secs(5000), Duration::ZERO), None);
    }
}
