//! What the tier counts beyond every tier's counters.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

macro_rules! counters {
    ($($(#[$what:meta])* $name:ident,)*) => {
        /// What a tier of other ranks' memory has done.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct MpiStats {
            $($(#[$what])* pub $name: u64,)*
        }

        #[derive(Debug, Default)]
        pub(super) struct Counters {
            $(pub(super) $name: AtomicU64,)*
        }

        impl Counters {
            pub(super) fn snapshot(&self) -> MpiStats {
                MpiStats { $($name: self.$name.load(Relaxed),)* }
            }
        }

        impl MpiStats {
            /// Name and value of every field, in a fixed order.
            #[must_use]
            pub fn fields(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)*]
            }
        }
    };
}

counters! {
    /// Blocks that came from windows of other ranks, or by their messages.
    fetched,
    /// Their bytes.
    fetched_bytes,
    /// Blocks that came out of mapped memory of other ranks of this node.
    mapped,
    /// Their bytes.
    mapped_bytes,
    /// Fetched blocks for which this home had no room: they went to whoever asked, and nowhere else.
    loose,
    /// Owners that no longer had what the directory said; they are taken out.
    stale,
    /// Payloads that did not match their digest although their owner's slot stood: torn or damaged.
    mismatched,
    /// Reads of buckets that had to be repeated, because somebody wrote there.
    torn_buckets,
    /// Fetches that ended at a deadline.
    late,
    /// Fetches for which no owner answered.
    unreachable,
    /// Owners that were published.
    published,
    /// Puts that were refused here, before the home was asked.
    refused,
}
