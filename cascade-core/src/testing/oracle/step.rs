//! Steps and random sequences of them.

use proptest::prelude::*;

/// Keys that steps draw from: few, so that they meet again.
const KEYS: u8 = 10;

/// One step against a tier. Versions are not part of it: `run` numbers them, so that a sequence stays valid when it shrinks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Puts a new version; the first seal wins.
    Put {
        /// Which block.
        key: u8,
        /// Bytes.
        len: u32,
    },
    /// Puts a new version in place of what is there.
    PutReplace {
        /// Which block.
        key: u8,
        /// Bytes.
        len: u32,
    },
    /// Puts with replace what is believed to be there.
    PutSame {
        /// Which block.
        key: u8,
    },
    /// Hands over puts of new versions, and of them the first sight, as one batch, which may be cancelled while it is under way.
    Submit {
        /// The first of the blocks, whose keys follow each other.
        key: u8,
        /// How many.
        blocks: u8,
        /// Bytes of each.
        len: u32,
        /// Whether it is cancelled at once.
        is_cancelled: bool,
    },
    /// Spoils the block where it lies, if the subject can do that, and fetches it.
    Damage {
        /// Which block.
        key: u8,
    },
    /// Looks up and fetches.
    Get {
        /// Which block.
        key: u8,
    },
    /// Leases and keeps the lease.
    Lease {
        /// Which block.
        key: u8,
    },
    /// Releases a lease that is held.
    Release {
        /// Which, modulo how many are held.
        which: u8,
    },
    /// Deletes.
    Delete {
        /// Which block.
        key: u8,
    },
    /// Puts fresh blocks of a sixteenth of the capacity each.
    Pressure {
        /// How many.
        blocks: u8,
    },
    /// Reserves, fills in part, and drops the reservation.
    Abandon {
        /// Which block.
        key: u8,
        /// Bytes.
        len: u32,
    },
    /// Releases all leases, closes and opens again.
    Reopen,
    /// Releases all leases and crashes with this block reserved and half filled.
    Crash {
        /// Which block.
        key: u8,
        /// Bytes.
        len: u32,
    },
}

fn len() -> impl Strategy<Value = u32> {
    // Small first, so that shrinking ends there; then lengths round the sizes of pages and digest chunks.
    prop_oneof![6 => 16u32..300, 3 => 4090u32..4102, 2 => 65_530u32..65_542, 1 => 16u32..150_000]
}

fn step() -> impl Strategy<Value = Step> {
    let key = || 0..KEYS;
    prop_oneof![
        8 => (key(), len()).prop_map(|(key, len)| Step::Put { key, len }),
        8 => key().prop_map(|key| Step::Get { key }),
        6 => (key(), len()).prop_map(|(key, len)| Step::PutReplace { key, len }),
        2 => key().prop_map(|key| Step::PutSame { key }),
        3 => (key(), 1u8..5, len(), any::<bool>())
            .prop_map(|(key, blocks, len, is_cancelled)| Step::Submit { key, blocks, len, is_cancelled }),
        1 => key().prop_map(|key| Step::Damage { key }),
        3 => key().prop_map(|key| Step::Delete { key }),
        4 => key().prop_map(|key| Step::Lease { key }),
        2 => any::<u8>().prop_map(|which| Step::Release { which }),
        2 => (key(), len()).prop_map(|(key, len)| Step::Abandon { key, len }),
        2 => (1u8..24).prop_map(|blocks| Step::Pressure { blocks }),
        1 => Just(Step::Reopen),
        1 => (key(), len()).prop_map(|(key, len)| Step::Crash { key, len }),
    ]
}

/// Sequences of 64 steps on average, up to 128; they shrink by leaving steps out.
pub fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(), 1..=127)
}
