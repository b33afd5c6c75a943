//! The bytes of the file of counters (table in docs/format.md), and how they are read: from a private copy, whatever they are.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cascade_core::metrics::{BUCKETS, Distribution};

use crate::chain::Level;

pub(super) const MAGIC: [u8; 8] = *b"CASCOUNT";
pub(super) const VERSION: u64 = 1;
/// Where the stripes begin.
pub(super) const START: usize = 4096;
/// Processes are spread over so many: two that share one slow each other down, and count right all the same.
pub(super) const STRIPES: usize = 16;
pub(super) const STRIPE_WORDS: usize = 1024;
pub(super) const STRIPE_BYTES: usize = STRIPE_WORDS * 8;
/// Length of the file.
pub(super) const FILE_BYTES: usize = START + STRIPES * STRIPE_BYTES;
/// Where the histograms of a stripe begin, and how many words each has: its buckets, the sum in nanoseconds, and room.
const TIMES: usize = 128;
const TIME_WORDS: usize = 160;

/// The words of a stripe by name, from the first on. A place never changes its meaning: new names go to the end.
pub(super) const NAMES: [&str; 53] = [
    "first_put_s",
    "puts",
    "located",
    "located_hits",
    "exists",
    "arena_hits",
    "remote_hits",
    "file_hits",
    "hbm_hits",
    "hbm_shared",
    "risen_hits",
    "kept_evictions",
    "served_bytes_arena",
    "served_bytes_remote",
    "served_bytes_files",
    "saved_tokens_arena",
    "saved_tokens_remote",
    "saved_tokens_files",
    "miss_absent",
    "miss_evicting",
    "miss_corrupt",
    "miss_destination",
    "miss_throttled",
    "miss_deadline",
    "miss_unavailable",
    "demoted",
    "demoted_bytes",
    "demote_refused",
    "demote_deferred",
    "promoted",
    "promoted_bytes",
    "promote_refused",
    "prefetched",
    "shared_reads",
    "spilled",
    "spilled_bytes",
    "put_elsewhere",
    "throttled",
    "remote_brought",
    "doubted",
    "hbm_demoted",
    "hbm_demoted_bytes",
    "hbm_promoted",
    "hbm_promoted_bytes",
    "hbm_refused",
    "hidden",
    "files_puts",
    "files_exists",
    "files_refused",
    "files_evictions",
    "files_corrupt",
    "files_bytes_in",
    "files_bytes_out",
];

/// What has a histogram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timed {
    /// Calls that put.
    Put = 0,
    /// Calls for which nothing lower than the arena was needed.
    Arena = 1,
    /// Other nodes.
    Remote = 2,
    /// Files.
    Files = 3,
}

impl Timed {
    pub(crate) const ALL: [Self; 4] = [Self::Put, Self::Arena, Self::Remote, Self::Files];

    /// The first word of its histogram.
    pub(super) fn start(self) -> usize {
        TIMES + self as usize * TIME_WORDS
    }
}

/// The place of a counter in a stripe.
pub(super) fn place(name: &str) -> Option<usize> {
    NAMES.iter().position(|known| *known == name)
}

/// What all stores over one arena have counted since the file beside it was begun, those too whose processes are gone.
#[derive(Clone, Debug)]
pub struct Totals {
    /// When counting began.
    pub since: SystemTime,
    values: [u64; NAMES.len()],
    times: [Distribution; Timed::ALL.len()],
}

impl Totals {
    /// A counter by its name (docs/format.md); 0 of one that is not known.
    #[must_use]
    pub fn get(&self, name: &str) -> u64 {
        place(name).map_or(0, |at| self.values[at])
    }

    /// Fetches and leases that were served, by the tier that had the bytes then.
    #[must_use]
    pub fn hits(&self, level: Level) -> u64 {
        match level {
            Level::Device => self.get("hbm_hits").saturating_add(self.get("hbm_shared")),
            Level::Arena => self.get("arena_hits"),
            Level::Remote => self.get("remote_hits"),
            Level::Files => self.get("file_hits"),
        }
    }

    /// The same, each counted at the tier that saved the prefill: a hit in the arena on a block that had come up from files is the files'.
    #[must_use]
    pub fn origin_hits(&self, level: Level) -> u64 {
        let risen = self.get("risen_hits").min(self.get("arena_hits"));
        match level {
            Level::Arena => self.hits(level) - risen,
            Level::Files => self.hits(level).saturating_add(risen),
            Level::Device | Level::Remote => self.hits(level),
        }
    }

    /// All hits.
    #[must_use]
    pub fn all_hits(&self) -> u64 {
        let levels = [Level::Device, Level::Arena, Level::Remote, Level::Files];
        levels.into_iter().fold(0, |sum, level| sum.saturating_add(self.hits(level)))
    }

    /// Fetches and leases that no tier could serve.
    #[must_use]
    pub fn all_misses(&self) -> u64 {
        let misses = NAMES.iter().zip(self.values).filter(|(name, _)| name.starts_with("miss_"));
        misses.fold(0, |sum, (_, count)| sum.saturating_add(count))
    }

    /// Times of whole calls that this tier served, each counted at the lowest it needed; of device memory none is taken.
    #[must_use]
    pub fn latency(&self, level: Level) -> Distribution {
        match level {
            Level::Device => Distribution::default(),
            Level::Arena => self.time(Timed::Arena),
            Level::Remote => self.time(Timed::Remote),
            Level::Files => self.time(Timed::Files),
        }
    }

    /// Times of calls that put.
    #[must_use]
    pub fn put_latency(&self) -> Distribution {
        self.time(Timed::Put)
    }

    fn time(&self, of: Timed) -> Distribution {
        self.times[of as usize].clone()
    }

    /// When the first block was put; `None` before.
    #[must_use]
    pub fn first_put(&self) -> Option<SystemTime> {
        let seconds = Duration::from_secs(self.get("first_put_s"));
        UNIX_EPOCH.checked_add(seconds).filter(|_| !seconds.is_zero())
    }
}

fn word(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|part| part.try_into().ok()).map_or(0, u64::from_le_bytes)
}

/// Why bytes are no counters of the arena with this incarnation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    /// Not a file of counters, or one that is cut off.
    Foreign,
    /// Of another version of the format.
    Version,
    /// Of an arena that was here before.
    Incarnation,
}

/// Looks at the first page.
pub(super) fn check(bytes: &[u8], len: u64, incarnation: u64) -> Result<(), Wrong> {
    if !bytes.starts_with(&MAGIC) {
        return Err(Wrong::Foreign);
    }
    if word(bytes, 8) != VERSION {
        return Err(Wrong::Version);
    }
    if len != FILE_BYTES as u64 {
        return Err(Wrong::Foreign);
    }
    if word(bytes, 16) == incarnation { Ok(()) } else { Err(Wrong::Incarnation) }
}

/// The first page of a new file.
pub(super) fn header(incarnation: u64, now_s: u64) -> Vec<u8> {
    let words = [u64::from_le_bytes(MAGIC), VERSION, incarnation, now_s];
    words.into_iter().flat_map(u64::to_le_bytes).collect()
}

/// Adds up a file of counters.
///
/// # Errors
/// What is wrong with it, in words.
pub fn parse(bytes: &[u8], incarnation: u64) -> Result<Totals, &'static str> {
    check(bytes, bytes.len() as u64, incarnation).map_err(|wrong| match wrong {
        Wrong::Foreign => "the file of counters is damaged: the next store begins another",
        Wrong::Version => "the file of counters is of another version of Cascade",
        Wrong::Incarnation => "the file of counters is of an earlier arena: the next store begins another",
    })?;
    let seconds = Duration::from_secs(word(bytes, 24));
    let since = UNIX_EPOCH.checked_add(seconds).ok_or("the file of counters has no time")?;
    let sum = |at: usize| {
        let of_stripes = (0..STRIPES).map(|stripe| word(bytes, START + stripe * STRIPE_BYTES + at * 8));
        of_stripes.fold(0, u64::saturating_add)
    };
    let mut values = std::array::from_fn(sum);
    if let Some(at) = place("first_put_s") {
        // A time, not a count: of all stripes the earliest.
        let times = (0..STRIPES).map(|stripe| word(bytes, START + stripe * STRIPE_BYTES + at * 8));
        values[at] = times.filter(|time| *time > 0).min().unwrap_or(0);
    }
    let time = |of: Timed| {
        Distribution::from_counts(std::array::from_fn(|at| sum(of.start() + at)), sum(of.start() + BUCKETS))
    };
    Ok(Totals { since, values, times: Timed::ALL.map(time) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_areas_of_a_stripe_do_not_touch() {
        const { assert!(NAMES.len() <= TIMES && BUCKETS < TIME_WORDS) };
        assert!(Timed::ALL.iter().all(|of| of.start() + TIME_WORDS <= STRIPE_WORDS));
        let mut named = NAMES.to_vec();
        let count = named.len();
        named.sort_unstable();
        named.dedup();
        assert_eq!(named.len(), count);
    }

    #[test]
    fn no_bytes_are_more_than_a_sum_or_a_reason() {
        let mut bytes = header(7, 1_800_000_000);
        assert!(parse(&bytes, 7).is_err(), "cut off");
        bytes.resize(START, 0);
        bytes.resize(FILE_BYTES, 0xff);
        let totals = parse(&bytes, 7).unwrap();
        assert_eq!((totals.all_hits(), totals.all_misses()), (u64::MAX, u64::MAX));
        assert_eq!(totals.put_latency().count(), u64::MAX);
        assert!(totals.latency(Level::Files).quantile(0.99).is_some());
        assert_eq!(totals.origin_hits(Level::Arena), 0);
        for at in 0..24 {
            let mut wrong = bytes.clone();
            wrong[at] ^= 1;
            assert!(parse(&wrong, 7).is_err(), "byte {at}");
        }
        for len in [0, 8, 24, START, FILE_BYTES - 1] {
            assert!(parse(&bytes[..len], 7).is_err(), "{len} bytes");
        }
        bytes[24..32].fill(0xff);
        assert!(parse(&bytes, 7).is_err(), "a time beyond all times");
    }
}
