//! The command line of `cascade-bench --tier pfs`.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use crate::cli::{Sizes, count, sizes};
use crate::units::parse_size;

const EXAMPLES: &str = "\
Rows (--rows):
  bandwidth    files are written and read back by Cascade, fio, a plain loop of this program and the rivals, one after the other in
               each repetition, beginning with another one each time. Each has a folder of its own, removed after. Cascade's
               reader is another handle than its writer. fio and the plain loop make calls as long as Cascade's, as many at once.
               ceiling: the best fio row of the same durability (without fio: the plain loop). paired: ratios within a repetition.
  counts       1,000 blocks make at most 6 files; creates, metadata calls, syncs, writes and reads a GB, counted at the seam
               between the tier and the file system; bytes of files and disk for each byte of payload.
  open         seconds to the first and the last hit over the index of --blocks blocks of a writer that is gone.
  concurrency  processes that write and read one directory: the time from a block's acknowledgement until others see it, and rates.

Durability: none: when the system writes. end: everything is synced before the clock stops (Cascade: durability segment, then flush).
block: each block is durable when it is acknowledged (an eighth of the bytes is moved).

With --cold, all files are synced and dropped from the page cache before they are read (as root the caches of the whole machine are,
too). A row says cold only when mincore then found no page of them and the reader had at least as many bytes from the
device, where the system counts those. Direct I/O passes by the cache anyway. The host below a virtual machine may still have a cache.

Rivals: fio, python (a file a block, plain open, write, readinto), hdf5 (h5py, a dataset a block in one file), vllm (the tier `fs`
of vLLM itself: direct I/O, a file a block, 16 threads as it has them here, nothing synced; for `end` its files are synced by the benchmark
when its jobs have ended). `cargo xtask bench` sets up what they need; what is not there is a row `not run` with its reason.

Examples:
  cascade-bench --tier pfs --dir /scratch/me --cold --json pfs.json --plot pfs.svg
  cascade-bench --tier pfs --cold --rows bandwidth --block 64KiB,1MiB,16MiB,512MiB --durability none,end --rivals fio,python,hdf5,vllm
  cascade-bench --tier pfs --block 1MiB,64MiB --reps 15 --rows bandwidth --durability end --rivals fio";

/// Measures the tier of files beside what the machine can do.
#[derive(Debug, Parser)]
#[command(name = "cascade-bench", version, after_help = EXAMPLES)]
pub struct Arguments {
    /// The tier to measure.
    #[arg(long, value_parser = ["pfs"])]
    pub tier: String,
    /// Where files are written, in a folder of this run that is removed at its end.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub dir: PathBuf,
    /// Block sizes [default: 64KiB,256KiB,1MiB,4MiB,16MiB,64MiB,512MiB].
    #[arg(long, visible_alias = "sizes", value_name = "SIZE[,SIZE..]", value_parser = sizes)]
    pub block: Option<Sizes>,
    /// Repetitions of each measurement [default: 9].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub reps: Option<u32>,
    /// Calls under way at once, of Cascade, fio and the plain loop [default: what Cascade's tier has].
    #[arg(long, visible_alias = "threads", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub depth: Option<u16>,
    /// Drop caches before files are read, and prove it.
    #[arg(long)]
    pub cold: bool,
    /// Kinds of rows to measure [default: all].
    #[arg(long, value_name = "KIND[,KIND..]", value_delimiter = ',')]
    pub rows: Vec<RowKind>,
    /// When written blocks are durable [default: all three].
    #[arg(long, value_name = "WHEN[,WHEN..]", value_delimiter = ',')]
    pub durability: Vec<Durability>,
    /// What is measured beside Cascade [default: fio,python,hdf5].
    #[arg(long, value_name = "SYSTEM[,SYSTEM..]", value_delimiter = ',')]
    pub rivals: Vec<Rival>,
    /// Bytes that a repetition moves at least [default: 256MiB].
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub lap: Option<u64>,
    /// Blocks in the index that is opened [default: 1e4,1e5,1e6].
    #[arg(long, value_name = "N[,N..]", value_delimiter = ',', value_parser = count)]
    pub blocks: Vec<u64>,
    /// Python for the rivals.
    #[arg(long, value_name = "PROGRAM", default_value = "python3")]
    pub python: PathBuf,
    /// Python that has vLLM [default: that of --python].
    #[arg(long, value_name = "PROGRAM")]
    pub vllm_python: Option<PathBuf>,
    /// Small defaults, to see in seconds that everything runs; its figures say nothing.
    #[arg(long)]
    pub quick: bool,
    /// Write the results as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Draw rate against block size as SVG.
    #[arg(long, value_name = "FILE")]
    pub plot: Option<PathBuf>,
    /// Compare with the JSON of an earlier run, row by row.
    #[arg(long, value_name = "FILE")]
    pub against: Option<PathBuf>,
    /// One process of several, told what to do on its standard input.
    #[arg(long, hide = true)]
    pub worker: bool,
}

/// Kinds of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RowKind {
    /// Rates of writing and reading by block size.
    Bandwidth,
    /// Files and calls for each GB.
    Counts,
    /// Time to open a large index.
    Open,
    /// Several processes on one directory.
    Concurrency,
}

/// When what was written survives a loss of power.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Durability {
    /// When the system writes it.
    None,
    /// When the clock stops.
    End,
    /// When it is acknowledged.
    Block,
}

impl Durability {
    /// As rows and rivals have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::End => "end",
            Self::Block => "block",
        }
    }
}

/// What is measured beside Cascade.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Rival {
    /// The flexible I/O tester, direct I/O.
    Fio,
    /// One file a block in Python.
    Python,
    /// One dataset a block in one HDF5 file, by h5py.
    Hdf5,
    /// The tier `fs` of vLLM.
    Vllm,
    /// None of them.
    None,
}

/// What is to be measured, with every default in place.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) blocks: Vec<u64>,
    pub(crate) reps: usize,
    pub(crate) depth: Option<usize>,
    pub(crate) is_cold: bool,
    pub(crate) rows: Vec<RowKind>,
    pub(crate) durabilities: Vec<Durability>,
    pub(crate) rivals: Vec<Rival>,
    pub(crate) lap_bytes: u64,
    /// Bytes of each of the 1,000 blocks of the counts.
    pub(crate) counted_bytes: u64,
    pub(crate) indexed: Vec<u64>,
    /// How long processes work at once.
    pub(crate) milliseconds: u64,
    pub(crate) python: PathBuf,
    pub(crate) vllm_python: PathBuf,
}

fn or<T: Clone>(given: &[T], default: &[T]) -> Vec<T> {
    if given.is_empty() { default.to_vec() } else { given.to_vec() }
}

impl Arguments {
    /// Whether rows of this kind are wanted.
    #[must_use]
    pub fn wants(&self, kind: RowKind) -> bool {
        self.rows.is_empty() || self.rows.contains(&kind)
    }

    pub(crate) fn plan(&self) -> Plan {
        let sizes: &[u64] = match self.quick {
            true => &[64 << 10, 1 << 20],
            false => &[64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20, 64 << 20, 512 << 20],
        };
        let by_speed = |quick: u64, slow: u64| if self.quick { quick } else { slow };
        let mut durabilities = or(&self.durability, &[Durability::None, Durability::End, Durability::Block]);
        durabilities.dedup();
        Plan {
            blocks: self.block.as_ref().map_or_else(|| sizes.to_vec(), |sizes| sizes.0.clone()),
            reps: self.reps.map_or(by_speed(2, 9), u64::from) as usize,
            depth: self.depth.map(usize::from),
            is_cold: self.cold,
            rows: or(&self.rows, RowKind::value_variants()),
            durabilities,
            rivals: or(&self.rivals, &[Rival::Fio, Rival::Python, Rival::Hdf5]),
            lap_bytes: self.lap.unwrap_or(by_speed(8 << 20, 256 << 20)),
            counted_bytes: by_speed(16 << 10, 1 << 20),
            indexed: or(&self.blocks, if self.quick { &[1000] } else { &[10_000, 100_000, 1_000_000] }),
            milliseconds: by_speed(600, 3000),
            python: self.python.clone(),
            vllm_python: self.vllm_python.clone().unwrap_or_else(|| self.python.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(
            ["cascade-bench", "--tier", "pfs"].into_iter().chain(words.split_whitespace()),
        )
    }

    #[test]
    fn what_is_given_counts_more_than_what_quick_means() {
        let plan = parsed("--quick --sizes 4MiB --reps 3 --threads 2 --rivals none").unwrap().plan();
        assert_eq!((plan.blocks, plan.reps, plan.depth), (vec![4 << 20], 3, Some(2)));
        assert_eq!((plan.lap_bytes, plan.indexed), (8 << 20, vec![1000]));
        assert_eq!(plan.rivals, [Rival::None]);
        let plan = parsed("--cold --durability block,end --blocks 1e3").unwrap().plan();
        assert_eq!((plan.blocks.len(), plan.reps, plan.is_cold), (7, 9, true));
        assert_eq!(plan.durabilities, [Durability::Block, Durability::End]);
    }

    #[test]
    fn what_is_wrong_is_refused() {
        for words in
            ["--block 0", "--reps 0", "--depth 0", "--rows none", "--rivals x", "--blocks 1.5", "--lap x"]
        {
            assert!(parsed(words).is_err(), "{words}");
        }
    }
}
