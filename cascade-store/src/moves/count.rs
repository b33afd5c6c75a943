//! What the moves between tiers, and the questions to all of them, are counted by.

use std::sync::atomic::{AtomicU64, Ordering};

use cascade_core::tier::MissReason;

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
        #[derive(Debug, Default)]
        pub(crate) struct Count {
            $(pub(crate) $name: AtomicU64,)*
            misses: [AtomicU64; REASONS.len()],
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
            pub(crate) fn moves(&self) -> MoveStats {
                let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
                MoveStats { $($name: get(&self.$name),)* ..MoveStats::default() }
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
pub(crate) fn add(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

impl Count {
    pub(crate) fn missed(&self, why: MissReason) {
        if let Some(at) = REASONS.iter().position(|reason| *reason == why) {
            add(&self.misses[at], 1);
        }
    }

    /// Fetches and leases that no tier could serve, by reason.
    pub(crate) fn misses(&self) -> Vec<(MissReason, u64)> {
        let load = |(at, reason): (usize, &MissReason)| (*reason, self.misses[at].load(Ordering::Relaxed));
        REASONS.iter().enumerate().map(load).collect()
    }
}
