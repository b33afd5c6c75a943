//! The command line of `cascade-bench`.

use std::num::NonZero;
use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use crate::run::Pass;
use crate::units::{parse_size, parse_sizes};

const EXAMPLES: &str = "\
Operations: put (fresh ids), get, lookup, lease and release (ids given). States: hot (every page touched, old blocks evicted as
needed) and first_touch (an arena made a moment ago). Paths: single (one thread in all), callers (N threads, each with
blocks of its own), pool (one caller, its copies shared by N threads: from 8 MiB on), batch1000 (1,000 ids in one call).
The ceiling is the best plain copy without digests (memcpy, rep movsb, streaming stores) by as many threads between the
same kinds of memory, measured in turns with the operation. GB is 1e9 bytes.

Examples:
  cascade-bench --tier shm
  cascade-bench --tier shm --block 64KiB,1MiB,512MiB --reps 9 --json new.json --plot new.svg --against old.json";

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
    #[arg(long, value_name = "N[,N..]", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..=1024))]
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
    /// One part of a run, in a process of its own; its results go to the standard output as JSON.
    #[arg(long, hide = true, value_parser = pass)]
    pub pass: Option<Pass>,
}

/// The tiers that can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TierName {
    /// The shared-memory arena.
    Shm,
}

/// Block sizes in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sizes(pub Vec<u64>);

fn sizes(text: &str) -> cascade_core::Result<Sizes> {
    parse_sizes(text).map(Sizes)
}

/// Reads `callers:1,2` or `pool:2`.
fn pass(text: &str) -> Result<Pass, String> {
    let wrong = || format!("{text:?} is no pass");
    let (kind, numbers) = text.split_once(':').ok_or_else(wrong)?;
    let numbers: Result<Vec<usize>, _> = numbers.split(',').map(str::parse).collect();
    match (kind, numbers.map_err(|_| wrong())?.as_slice()) {
        ("callers", callers) => Ok(Pass::Callers(callers.to_vec())),
        ("pool", [threads]) => Ok(Pass::Pool(*threads)),
        _ => Err(wrong()),
    }
}

/// A pass as `--pass` takes it.
#[must_use]
pub fn pass_text(pass: &Pass) -> String {
    match pass {
        Pass::Callers(callers) => {
            format!("callers:{}", callers.iter().map(usize::to_string).collect::<Vec<_>>().join(","))
        }
        Pass::Pool(threads) => format!("pool:{threads}"),
    }
}

impl Arguments {
    /// The parts of this run: callers that copy alone, then for each number of threads one caller with a pool. More
    /// threads than a pool has (17) share no copy.
    #[must_use]
    pub fn passes(&self) -> Vec<Pass> {
        let all = std::thread::available_parallelism().map_or(1, NonZero::get);
        let mut threads: Vec<usize> = match self.threads.as_slice() {
            [] => vec![1, all],
            threads => threads.iter().map(|n| usize::from(*n)).collect(),
        };
        threads.sort_unstable();
        threads.dedup();
        let mut pools: Vec<_> = threads.iter().filter(|n| **n > 1).map(|n| (*n).min(17)).collect();
        pools.dedup();
        std::iter::once(Pass::Callers(threads)).chain(pools.into_iter().map(Pass::Pool)).collect()
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
        let passes = [Pass::Callers(vec![1, 8, 40]), Pass::Pool(8), Pass::Pool(17)];
        assert_eq!(arguments.passes(), passes);
        assert_eq!(passes.map(|pass| pass.copy_threads()), [1, 8, 17]);
    }

    #[test]
    fn a_pass_reads_as_it_is_written() {
        for expected in [Pass::Callers(vec![1, 2]), Pass::Pool(2)] {
            assert_eq!(pass(&pass_text(&expected)), Ok(expected));
        }
        assert!(pass("pool:1,2").is_err() && pass("callers:x").is_err() && pass("callers").is_err());
    }

    #[test]
    fn what_is_wrong_is_refused() {
        for words in ["--block 0", "--block 1XiB", "--reps 0", "--threads 0", "--capacity none", "--tier gpu"]
        {
            assert!(parsed(words).is_err(), "{words}");
        }
    }
}
