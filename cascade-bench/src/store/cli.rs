//! The command line of `--tier store`.

use std::path::PathBuf;

use clap::Parser;

use crate::cli::{Sizes, sizes};

const NOTES: &str = "\
A chain of --blocks blocks is put and got through the store, which has an arena and files below it, in one submitted batch; in turns
with it the tier itself does the same with blocks of its own. Paths: arena (all blocks are there), files (none is in the arena; they
come up into it on the way), split (every second block is in files alone). The ceiling of split is its slower half: the files'
blocks alone, read by the tier of files, as if the others cost nothing. put files is acknowledged when the blocks are in files.
Files are dropped from the page cache before they are read.

Phases, of the whole batch, by medians; of gets and leases by the store's own clocks: lookup (which tier has what), queue (until a
thread of the store takes the batch), transfer (waiting for reads from files while nothing else was left to do; files verify what
they read in it), copy (with the digests that are made in the same pass), rest (what is left). Of puts: lookup (all ids located,
timed by itself), queue (an operation on nothing handed over and heard of again), copy (the rest). verify is no part of the sum: the
digests of all bytes, by one thread, timed by itself.";

/// Measures the store over its tiers, beside each tier itself.
#[derive(Debug, Parser)]
#[command(name = "cascade-bench --tier store", version, after_help = NOTES)]
pub struct Arguments {
    /// The tier to measure.
    #[arg(long, value_parser = ["store"])]
    pub tier: String,
    /// Block sizes such as 64KiB or 4MiB, separated by commas.
    #[arg(long, value_name = "SIZE[,SIZE..]", default_value = "256KiB", value_parser = sizes)]
    pub block: Sizes,
    /// Blocks of the chain.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    #[arg(value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(2..=1_000_000))]
    pub blocks: usize,
    /// Repetitions of each measurement.
    #[arg(long, value_name = "N", default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub reps: u32,
    /// Where files go: a folder on the file system to be measured.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub dir: PathBuf,
    /// Where shared memory is.
    #[arg(long, value_name = "DIR", default_value = "/dev/shm")]
    pub shm_dir: PathBuf,
    /// Write the results as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Compare with the JSON of an earlier run, row by row.
    #[arg(long, value_name = "FILE")]
    pub against: Option<PathBuf>,
}
