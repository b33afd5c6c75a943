//! Policies by name.

use std::fmt;

use cascade_core::policy::{
    Admission, EvictionPolicy, FrequencyByAge, Learned, Recency, Sampled, Shares, lists,
};
use clap::ValueEnum;

/// What can be replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub enum Policy {
    /// What Cascade does: worth learned from how long blocks stay unused, by samples.
    Default,
    /// The same, and what is worth less than all that could go is not let in.
    DefaultWorthier,
    /// Least recently used, exactly.
    Lru,
    /// Least recently used, by samples.
    LruSampled,
    /// Uses over age, by samples.
    Frequency,
    /// Least frequently used with dynamic ageing.
    Lfu,
    /// SIEVE.
    Sieve,
    /// S3-FIFO.
    S3fifo,
    /// W-TinyLFU.
    Tinylfu,
    /// The best that any policy could do (Belady).
    Belady,
    /// A cache that forgets nothing.
    Infinite,
}

impl Policy {
    /// A fresh one for `blocks` blocks; `None` for those that are no policies.
    #[must_use]
    pub fn build(self, blocks: usize, seed: u64) -> Option<Box<dyn EvictionPolicy>> {
        let keys = Learned::memory_for(blocks);
        let learned = || Sampled::new(Learned::new(keys), blocks, Shares::default(), seed);
        Some(match self {
            Self::Default => Box::new(learned()),
            Self::DefaultWorthier => Box::new(learned().admitting(Admission::Worthier)),
            Self::Lru => Box::new(lists::Lru::default()),
            Self::LruSampled => Box::new(Sampled::new(Recency::default(), blocks, Shares::default(), seed)),
            Self::Frequency => {
                Box::new(Sampled::new(FrequencyByAge::new(keys), blocks, Shares::default(), seed))
            }
            Self::Lfu => Box::new(lists::Lfu::default()),
            Self::Sieve => Box::new(lists::Sieve::default()),
            Self::S3fifo => Box::new(lists::S3Fifo::new(blocks)),
            Self::Tinylfu => Box::new(lists::TinyLfu::new(blocks)),
            Self::Belady | Self::Infinite => return None,
        })
    }
}

impl Policy {
    /// What the setting `eviction` of a store is called that does this; `None` for what no arena can do.
    #[must_use]
    pub fn setting(self) -> Option<&'static str> {
        match self {
            Self::Default => Some("learned"),
            Self::Lru => Some("lru"),
            _ => None,
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        f.write_str(value.as_ref().map_or("", |value| value.get_name()))
    }
}
