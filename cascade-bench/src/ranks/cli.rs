//! The command line of `--tier mpi` and `--suite scaling`.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use crate::cli::{Sizes, sizes};
use crate::units::parse_size;

const NOTES: &str = "\
`cargo xtask bench --tier mpi` builds this with MPI and starts it as --ranks processes; each has an arena of its own, and takes itself
for a node of its own (but for --path shm, where they map each other's arenas). Rank 0 measures, the others serve.

Operations: get (one block after the other into the caller's memory), lease (one after the other into the own arena, which is where
a block stays: no copy more), prefetch (all blocks of the repetition in one call, into the own arena), put (published to the directory,
until all is told; beside a put into an arena that nobody else reads), lookup (one id whose entry another rank keeps). Each finds,
moves, digests and verifies; afterwards the bytes are compared.

The ceiling of get, lease and prefetch is a plain loop over the same blocks of the same windows in the same order, in turns with
them: MPI_Get and MPI_Win_flush of the whole block (path rma), a request and its answer as messages (message), a plain copy out
of the mapped arena (shm). Nothing is looked up, allocated, digested or verified in it. Its destination is as large as what is
read, and touched. While it runs the thread of MPI of the other ranks never rests. The ceiling of lookup is a loop of gets of 512
bytes out of the directory's window; its share is that of the medians of time.

State adaptive: the same leases while the other rank's thread rests as it does in use; its ceiling is the other rank never at rest. Op
idle: the share of a core that the thread of MPI takes while nobody asks anything.

`--suite scaling`: every rank leases blocks of the next rank at once. weak: the same bytes for each rank; strong: the same bytes for
all together. Rates are those of all ranks together, by the slowest. prompt_first and prompt_again: rank 0 has put a prompt of 20 blocks of 1 MiB,
and all others get it through their stores at once, then again.";

/// Suites and tiers of this program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Suite {
    /// All ranks at once.
    Scaling,
}

/// How ranks are to reach each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Way {
    /// One-sided, out of windows.
    Rma,
    /// By messages, as where no windows can be made.
    Message,
    /// By mapping, as ranks of one node do.
    Shm,
}

/// Measures other ranks' memory beside what MPI itself does.
#[derive(Debug, Parser)]
#[command(name = "cascade-bench --tier mpi", version, after_help = NOTES)]
pub struct Arguments {
    /// The tier to measure.
    #[arg(long, value_parser = ["mpi"], required_unless_present = "suite")]
    pub tier: Option<String>,
    /// The suite to run.
    #[arg(long, conflicts_with = "tier")]
    pub suite: Option<Suite>,
    /// Ranks; the launcher has started as many. For --suite scaling a list, one job for each.
    #[arg(long, value_name = "N[,N..]", value_delimiter = ',')]
    pub ranks: Vec<u32>,
    /// The MPI to build and start with: mpich or openmpi. Read by `cargo xtask bench`.
    #[arg(long, value_name = "MPI")]
    pub mpi: Option<String>,
    /// How ranks reach each other; the path really taken stands in the results.
    #[arg(long, value_enum, default_value_t = Way::Rma)]
    pub path: Way,
    /// Block sizes such as 256KiB or 512MiB, separated by commas.
    #[arg(long, value_name = "SIZE[,SIZE..]", value_parser = sizes)]
    #[arg(default_value = "64KiB,256KiB,1MiB,4MiB,16MiB,64MiB,512MiB")]
    pub block: Sizes,
    /// Repetitions of each measurement.
    #[arg(long, value_name = "N", default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub reps: u32,
    /// Bytes of a repetition, at most and but for one block.
    #[arg(long, value_name = "SIZE", default_value = "128MiB", value_parser = parse_size)]
    pub lap: u64,
    /// Bytes of each rank's arena [default: three repetitions of the largest block].
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub capacity: Option<u64>,
    /// Where shared memory is.
    #[arg(long, value_name = "DIR", default_value = "/dev/shm")]
    pub dir: PathBuf,
    /// Write the results as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Add the results to those that are in the JSON file already.
    #[arg(long, requires = "json")]
    pub append: bool,
    /// Compare with the JSON of an earlier run, row by row.
    #[arg(long, value_name = "FILE")]
    pub against: Option<PathBuf>,
    /// A folder that all ranks see, in which they meet. Given by `cargo xtask bench`.
    #[arg(long, value_name = "DIR", hide = true)]
    pub meet: Option<PathBuf>,
}
