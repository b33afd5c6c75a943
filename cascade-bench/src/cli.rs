//! The command line of `cascade-bench`.

use std::fmt;
use std::num::NonZero;
use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use crate::run::{Pass, Stored};
use crate::units::{parse_size, parse_sizes};

const EXAMPLES: &str = "\
Operations: put (fresh ids), get, lookup, lease and release (ids given). States: hot (every page touched, huge pages made, old blocks evicted as
needed), first_touch (an arena made a moment ago) and index_only (below). Paths: single (one thread in all), callers (N
threads, each with blocks of its own), pool (one caller, its copies shared by N threads: from 8 MiB on), batch1000 (1,000 ids
in one call). The ceiling is the best plain copy without digests (memcpy, rep movsb, streaming stores) by as many threads
between the same kinds of memory, measured in turns with the operation. GB is 1e9 bytes.

Kinds of rows (--rows):
  bandwidth   put and get by block size beside their ceilings.
  latency     lookup, lease and release of ids drawn at random, at --blocks stored blocks of 4 KiB. Index B/block: tags, slots,
              region tables and digests, by the arena's own layout, with four slots for three blocks. State index_only
              (--blocks 1e7:index): the index is as full as said, but all blocks are the same 64 MiB of zeros.
  space       the arena (4 GiB, or --capacity) is filled, then --cycles blocks are put, each evicting what is in its way. Sizes
              are log-normal: median 64 KiB, sigma 1.5, those outside of 4 KiB to 64 MiB (at most a 16th of the arena)
              drawn again. used: share of the data area that blocks occupy, rounding to units included; payload: without
              it; both sampled 40 times. private, fds and left over (slots in odd states, retired blocks, ledger entries,
              units on which tables and slots disagree) stand before > after the churn: nothing may grow. Private drifts by a
              megabyte or two all the same, why is not known; tests/leaks.rs counts the library's own heap: no byte more.
  contention  lease and release by 8 processes of one thread (each with a handle of its own) and by one process of 16 threads,
              for 0.5 s at once, beside one process of one thread, in turns; on one block that all lease (hot), and on 100,000
              blocks by Zipf's law (s = 0.99). M/s: million leases a second, of all together and of each member; of one: of
              all together against the one process. Latency: one in 256 leases, timed by itself.

Needs of memory are checked before; what does not fit is not run, and noted with what it needs.

The tier of files and the store have options of their own: `cascade-bench --tier pfs --help`, `cascade-bench --tier store --help`.

Examples:
  cascade-bench --tier shm
  cascade-bench --tier shm --block 64KiB,1MiB,512MiB --reps 9 --json new.json --plot new.svg --against old.json
  cascade-bench --tier shm --rows latency --blocks 1e3,1e4,1e5,1e6,4e6,1e7:index
  cascade-bench --tier shm --rows space --cycles 1e6 --threads 1,2";

/// Measures a tier of Cascade beside what the machine can do.
#[derive(Debug, Parser)]
#[command(name = "cascade-bench", version, after_help = EXAMPLES)]
pub struct Arguments {
    /// The tier to measure.
    #[arg(long)]
    pub tier: TierName,
    /// Block sizes such as 64KiB or 512MiB, separated by commas.
    #[arg(long, value_name = "SIZE[,SIZE..]", default_value = "64KiB,256KiB,1MiB,4MiB,16MiB,64MiB,512MiB")]
    #[arg(value_parser = sizes)]
    pub block: Sizes,
    /// Repetitions of each measurement.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub reps: u32,
    /// Numbers of threads [default: 1 and all].
    #[arg(long, value_name = "N[,N..]", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..=896))]
    pub threads: Vec<u16>,
    /// Write the results as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Draw rate against block size as SVG.
    #[arg(long, value_name = "FILE")]
    pub plot: Option<PathBuf>,
    /// Compare with the JSON of an earlier run, row by row.
    #[arg(long, value_name = "FILE")]
    pub against: Option<PathBuf>,
    /// Where shared memory is.
    #[arg(long, value_name = "DIR", default_value = "/dev/shm")]
    pub dir: PathBuf,
    /// Bytes of the arena [default: three repetitions of the largest block size, at least 1GiB].
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub capacity: Option<u64>,
    /// Leave out Python's file I/O.
    #[arg(long)]
    pub no_baseline: bool,
    /// Number of the GPU.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub device: u32,
    /// Kinds of rows to measure [default: all].
    #[arg(long, value_name = "KIND[,KIND..]", value_delimiter = ',')]
    pub rows: Vec<RowKind>,
    /// Stored blocks of 4 KiB at which lookups and leases are timed; `:index` behind a number lets the blocks share their
    /// data, so that the index alone takes memory.
    #[arg(long, value_name = "N[,N..]", value_delimiter = ',', value_parser = stored)]
    #[arg(default_value = "1e3,1e4,1e5,1e6,1e7:index")]
    pub blocks: Vec<Stored>,
    /// Blocks put for each space row, after the arena is full; with `--tier gpu`, the tenth part is put, got and evicted.
    #[arg(long, value_name = "N", value_parser = count, default_value = "1e5")]
    pub cycles: u64,
    /// One part of a run, in a process of its own; its results go to the standard output as JSON.
    #[arg(long, hide = true, value_parser = part)]
    pub pass: Option<Part>,
}

/// Kinds of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RowKind {
    /// Rates of put and get by block size, beside their ceilings.
    Bandwidth,
    /// Times of lookup, lease and release by the number of stored blocks.
    Latency,
    /// Use of the data area by blocks of log-normal sizes.
    Space,
    /// Leases by many processes and threads at once.
    Contention,
}

/// The tiers that can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TierName {
    /// The shared-memory arena.
    Shm,
    /// The memory of a GPU; needs one.
    Gpu,
}

/// Block sizes in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sizes(pub Vec<u64>);

pub(crate) fn sizes(text: &str) -> cascade_core::Result<Sizes> {
    parse_sizes(text).map(Sizes)
}

/// A number such as `1e6` or `1000000`.
pub(crate) fn count(text: &str) -> Result<u64, String> {
    let number = text
        .trim()
        .parse::<f64>()
        .ok()
        .filter(|number| (1.0..=1e12).contains(number) && number.fract() == 0.0);
    number
        .map(|number| number as u64)
        .ok_or_else(|| format!("{text:?} is no whole number such as 1e6 or 1000000"))
}

/// `1e6`, or `1e7:index`.
fn stored(text: &str) -> Result<Stored, String> {
    let (number, is_index_only) = match text.split_once(':') {
        None => (text, false),
        Some((number, "index")) => (number, true),
        Some(_) => return Err(format!("{text:?}: behind the colon can only stand `index`")),
    };
    Ok(Stored { blocks: count(number)?, is_index_only })
}

/// A part of a run, in a process of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Rates, lookups and leases.
    Tier(Pass),
    /// The space row, with each of these numbers of threads.
    Space(Vec<usize>),
    /// Leases by many at once.
    Contention,
    /// One process of those.
    Worker,
    /// All rows of a GPU.
    Gpu,
}

impl Part {
    /// Value of `CASCADE_COPY_THREADS` that the process needs.
    #[must_use]
    pub fn copy_threads(&self) -> usize {
        match self {
            Self::Tier(pass) => pass.copy_threads(),
            Self::Space(_) | Self::Contention | Self::Worker => 1,
            // Pageable memory is copied by all that a pool has.
            Self::Gpu => std::thread::available_parallelism().map_or(1, NonZero::get).min(17),
        }
    }
}

/// Reads what [`Part`] writes, such as `callers:1,2` or `contention`.
fn part(text: &str) -> Result<Part, String> {
    let wrong = || format!("{text:?} is no part of a run");
    let (kind, numbers) = text.split_once(':').unwrap_or((text, ""));
    let threads = || -> Result<Vec<usize>, String> {
        numbers.split(',').map(|number| number.parse().map_err(|_| wrong())).collect()
    };
    match kind {
        "callers" => Ok(Part::Tier(Pass::Callers(threads()?))),
        "space" => Ok(Part::Space(threads()?)),
        "pool" => match threads()?[..] {
            [threads] => Ok(Part::Tier(Pass::Pool(threads))),
            _ => Err(wrong()),
        },
        "contention" if numbers.is_empty() => Ok(Part::Contention),
        "worker" if numbers.is_empty() => Ok(Part::Worker),
        "gpu" if numbers.is_empty() => Ok(Part::Gpu),
        _ => Err(wrong()),
    }
}

/// As `--pass` takes it.
impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |threads: &[usize]| threads.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
        match self {
            Self::Tier(Pass::Callers(callers)) => write!(f, "callers:{}", list(callers)),
            Self::Tier(Pass::Pool(threads)) => write!(f, "pool:{threads}"),
            Self::Space(threads) => write!(f, "space:{}", list(threads)),
            Self::Contention => f.write_str("contention"),
            Self::Worker => f.write_str("worker"),
            Self::Gpu => f.write_str("gpu"),
        }
    }
}

impl Arguments {
    /// Whether rows of this kind are wanted.
    #[must_use]
    pub fn wants(&self, kind: RowKind) -> bool {
        self.rows.is_empty() || self.rows.contains(&kind)
    }

    /// What was asked for and does not go with the tier.
    ///
    /// # Errors
    /// `InvalidArgument` that names the options.
    pub fn check(&self) -> cascade_core::Result<()> {
        let shm_only = !self.rows.is_empty() || !self.threads.is_empty() || self.capacity.is_some();
        if self.tier != TierName::Shm && shm_only {
            let context = "--rows, --threads and --capacity go with --tier shm only: leave them out";
            return Err(cascade_core::Error::new(cascade_core::ErrorKind::InvalidArgument, context));
        }
        Ok(())
    }

    /// The parts of this run: callers that copy alone (lookups and leases too), for each number of threads one caller with
    /// a pool, the space row, contention. More threads than a pool has (17) share no copy.
    #[must_use]
    pub fn parts(&self) -> Vec<Part> {
        if self.tier == TierName::Gpu {
            return vec![Part::Gpu];
        }
        let all = std::thread::available_parallelism().map_or(1, NonZero::get);
        let mut threads: Vec<usize> = match self.threads.as_slice() {
            [] => vec![1, all],
            threads => threads.iter().map(|n| usize::from(*n)).collect(),
        };
        threads.sort_unstable();
        threads.dedup();
        let mut parts = Vec::new();
        if self.wants(RowKind::Bandwidth) || self.wants(RowKind::Latency) {
            parts.push(Part::Tier(Pass::Callers(threads.clone())));
        }
        if self.wants(RowKind::Bandwidth) {
            let mut pools: Vec<_> = threads.iter().filter(|n| **n > 1).map(|n| (*n).min(17)).collect();
            pools.dedup();
            parts.extend(pools.into_iter().map(|threads| Part::Tier(Pass::Pool(threads))));
        }
        if self.wants(RowKind::Space) {
            parts.push(Part::Space(threads));
        }
        if self.wants(RowKind::Contention) {
            parts.push(Part::Contention);
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(
            ["cascade-bench", "--tier", "shm"].into_iter().chain(words.split_whitespace()),
        )
    }

    #[test]
    fn sizes_and_threads_are_lists() {
        let arguments = parsed("--block 64KiB,512MiB --threads 8,1,40 --capacity 1GiB").unwrap();
        assert_eq!(arguments.block, Sizes(vec![65_536, 512 << 20]));
        assert_eq!(arguments.capacity, Some(1 << 30));
        let passes = [Pass::Callers(vec![1, 8, 40]), Pass::Pool(8), Pass::Pool(17)].map(Part::Tier);
        let others = [Part::Space(vec![1, 8, 40]), Part::Contention];
        assert_eq!(arguments.parts(), passes.iter().chain(&others).cloned().collect::<Vec<_>>());
        assert_eq!(passes.map(|part| part.copy_threads()), [1, 8, 17]);
    }

    #[test]
    fn a_part_reads_as_it_is_written() {
        let parts = [
            Part::Tier(Pass::Callers(vec![1, 2])),
            Part::Tier(Pass::Pool(2)),
            Part::Space(vec![1, 2]),
            Part::Contention,
            Part::Worker,
            Part::Gpu,
        ];
        for expected in parts {
            assert_eq!(part(&expected.to_string()), Ok(expected));
        }
        for wrong in ["pool:1,2", "callers:x", "callers", "space", "worker:1", "other"] {
            assert!(part(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn rows_and_stored_blocks_are_chosen() {
        let arguments =
            parsed("--rows space,contention --blocks 1e3,1e7:index --cycles 1e6 --threads 1").unwrap();
        assert_eq!(arguments.parts(), [Part::Space(vec![1]), Part::Contention]);
        let stored = |blocks, is_index_only| Stored { blocks, is_index_only };
        assert_eq!(arguments.blocks, [stored(1000, false), stored(10_000_000, true)]);
        assert_eq!(arguments.cycles, 1_000_000);
        let arguments = parsed("--rows latency --threads 1,2").unwrap();
        assert_eq!(arguments.parts(), [Part::Tier(Pass::Callers(vec![1, 2]))]);
    }

    #[test]
    fn what_is_wrong_is_refused() {
        for words in [
            "--block 0",
            "--block 1XiB",
            "--reps 0",
            "--threads 0",
            "--capacity none",
            "--tier none",
            "--blocks 1.5",
            "--blocks 1e3:data",
            "--cycles 0",
            "--rows none",
        ] {
            assert!(parsed(words).is_err(), "{words}");
        }
    }
}
