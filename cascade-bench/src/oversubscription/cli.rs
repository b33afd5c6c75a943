//! The command line of `--suite oversubscription`.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use crate::suite::Outputs;

const EXAMPLES: &str = "\
A working set of --factor times the arena is put, a tenth of it first as prefix blocks. Facts, not times, decide the exit code: no bytes
are wrong, no put is refused, and prefix blocks all stay in the arena where they are within their share of it (four fifths).

Examples:
  cascade-bench --suite oversubscription
  cascade-bench --suite oversubscription --capacity 1GiB --block 1MiB --factor 2,10 --files /scratch/me --json new.json --plot new.svg";

/// Suites that can be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Suite {
    /// More blocks than the arena holds.
    Oversubscription,
}

/// What goes first when the arena is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Eviction {
    /// What is worth least, as far as was learned.
    Learned,
    /// What is unused for longest.
    Lru,
}

impl Eviction {
    /// As the setting `eviction` of a store calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Learned => "learned",
            Self::Lru => "lru",
        }
    }
}

/// Puts more blocks than the arena holds, and looks at what stays and how fast it is.
#[derive(Debug, Parser)]
#[command(name = "cascade-bench --suite oversubscription", version, after_help = EXAMPLES)]
pub struct Arguments {
    /// The suite.
    #[arg(long)]
    pub suite: Suite,
    /// Bytes of the arena.
    #[arg(long, value_name = "SIZE", default_value = "128MiB", value_parser = crate::units::parse_size)]
    pub capacity: u64,
    /// Bytes of a block.
    #[arg(long, value_name = "SIZE", default_value = "256KiB", value_parser = crate::units::parse_size)]
    pub block: u64,
    /// Working set over arena.
    #[arg(long, value_name = "X[,X..]", value_delimiter = ',', default_value = "1.2,2,10", value_parser = factor)]
    pub factor: Vec<f64>,
    /// What goes first when the arena is full.
    #[arg(long, value_name = "NAME", default_value = "learned")]
    pub eviction: Eviction,
    /// Where shared memory is.
    #[arg(long, value_name = "DIR", default_value = "/dev/shm")]
    pub dir: PathBuf,
    /// Where files are to be.
    #[arg(long, value_name = "DIR", default_value = "/var/tmp")]
    pub files: PathBuf,
    /// Where results go.
    #[command(flatten)]
    pub outputs: Outputs,
}

fn factor(text: &str) -> Result<f64, String> {
    let factor = text.trim().parse::<f64>().ok().filter(|factor| (0.1..=1000.0).contains(factor));
    factor.ok_or_else(|| format!("{text:?} is no factor from 0.1 to 1000"))
}
