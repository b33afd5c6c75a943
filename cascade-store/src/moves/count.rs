//! What the moves between tiers, and the questions to all of them, are counted by.

use cascade_core::tier::MissReason;

use crate::chain::Located;
use crate::counters::{Board, Counter};

/// Every reason for a miss, in the order of the counters.
const REASONS: [MissReason; 7] = [
    MissReason::Absent,
    MissReason::Evicting,
    MissReason::Corrupt,
    MissReason::Destination,
    MissReason::Throttled,
    MissReason::Deadline,
    MissReason::Unavailable,
];

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counters of one store.
        #[derive(Debug)]
        pub(crate) struct Count {
            $(pub(crate) $name: Counter,)*
            misses: [Counter; REASONS.len()],
        }

        /// Moves between the tiers, and what was asked of all of them, since the store was opened.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct MoveStats {
            $($(#[$doc])* pub $name: u64,)*
            /// Evictions from the arena, by this handle, of blocks that were not in files: these are lost.
            pub evicted_undemoted: u64,
            /// Hits in the arena on blocks that had come up from files.
            pub risen_hits: u64,
        }

        impl Count {
            /// Counters that add to the node's too.
            pub(crate) fn on(board: &Board) -> Self {
                Self {
                    $($name: board.counter(stringify!($name)),)*
                    misses: REASONS.map(|why| board.counter(&format!("miss_{}", why.name()))),
                }
            }

            pub(crate) fn moves(&self) -> MoveStats {
                MoveStats { $($name: self.$name.get(),)* ..MoveStats::default() }
            }
        }

        impl MoveStats {
            /// Name and value of every field, in a fixed order.
            #[must_use]
            pub fn fields(&self) -> Vec<(&'static str, u64)> {
                vec![
                    $((stringify!($name), self.$name),)*
                    ("evicted_undemoted", self.evicted_undemoted),
                    ("risen_hits", self.risen_hits),
                ]
            }
        }
    };
}

counters! {
    /// Ids that were asked for by look-ups.
    located,
    /// Those of them that some tier had.
    located_hits,
    /// Blocks copied from the arena to files.
    demoted,
    /// Bytes of those.
    demoted_bytes,
    /// Blocks that the files refused; they are tried again.
    demote_refused,
    /// Puts that found the queue of the demoter full; a sweep finds their blocks.
    demote_deferred,
    /// Blocks brought up from files into the arena.
    promoted,
    /// Bytes of those.
    promoted_bytes,
    /// Blocks that could not be brought up: no room in the arena, or not to be read.
    promote_refused,
    /// Blocks brought up because `prefetch` asked for them.
    prefetched,
    /// Reads of a file that were spared because another reader was bringing the block up.
    shared_reads,
    /// Puts and reservations of what was there, in whichever tier.
    exists,
    /// Puts that went to files because the arena had no room.
    spilled,
    /// Bytes of those.
    spilled_bytes,
    /// Puts that found another thread or process storing the same block, and copied nothing.
    put_elsewhere,
    /// Operations that were submitted while more bytes than `in_flight` were under way, and answered at once.
    throttled,
    /// Fetches and leases that the arena served.
    arena_hits,
    /// Fetches and leases that were served by blocks that other nodes had: they are in the arena now.
    remote_hits,
    /// Blocks brought from other nodes into the arena, for whatever was asked.
    remote_brought,
    /// Fetches and leases that had to be served from files.
    file_hits,
    /// Copies, in files or on their way up, that were given up because another process changed the block meanwhile.
    doubted,
    /// Fetches and leases that device memory served.
    hbm_hits,
    /// Fetches that the device memory of another process served.
    hbm_shared,
    /// Blocks copied from devices to the arena.
    hbm_demoted,
    /// Bytes of those.
    hbm_demoted_bytes,
    /// Blocks brought up from the arena to devices.
    hbm_promoted,
    /// Bytes of those.
    hbm_promoted_bytes,
    /// Blocks that could not be copied between a device and the arena: no room on the other side, or a failure.
    hbm_refused,
    /// Old blocks that the files could not forget when they were to; they are hidden, and forgotten later.
    hidden,
}

/// Adds to a counter.
pub(crate) fn add(counter: &Counter, more: u64) {
    counter.add(more);
}

impl Count {
    /// A look-up found this; gives how much of it was there.
    pub(crate) fn asked(&self, found: &[Located]) -> usize {
        let hits = found.iter().filter(|found| found.answer.is_hit()).count();
        self.located.add(found.len() as u64);
        self.located_hits.add(hits as u64);
        hits
    }

    pub(crate) fn missed(&self, why: MissReason) {
        if let Some(at) = REASONS.iter().position(|reason| *reason == why) {
            add(&self.misses[at], 1);
        }
    }

    /// Fetches and leases that no tier could serve, by reason.
    pub(crate) fn misses(&self) -> Vec<(MissReason, u64)> {
        let load = |(at, reason): (usize, &MissReason)| (*reason, self.misses[at].get());
        REASONS.iter().enumerate().map(load).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn every_counter_has_a_place_beside_the_arena() {
        let folder = tempfile::tempdir().unwrap();
        let arena = folder.path().join("arena.node");
        let count = Count::on(&crate::counters::open(&arena, 1));
        let names: Vec<_> = count.moves().fields().into_iter().map(|(name, _)| name).collect();
        add(&count.hidden, 3);
        REASONS.iter().for_each(|why| count.missed(*why));
        let totals = crate::counters::look(&arena, 1).unwrap();
        assert!(totals.since <= SystemTime::now());
        assert_eq!((totals.get("hidden"), totals.all_misses()), (3, REASONS.len() as u64));
        for name in names.into_iter().filter(|name| *name != "evicted_undemoted") {
            assert!(crate::counters::is_known(name), "{name}");
        }
    }
}
