//! The command line of `--suite trace`.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use super::policies::Policy;
use super::synthetic::Family;
use crate::suite::Outputs;

const EXAMPLES: &str = "\
A request names a chain of blocks; a block counts as a hit only when all before it hit, and what missed is put. `gap` is the
share of the way from LRU to Belady that a policy goes. Files are JSON lines: the Mooncake format (timestamp in ms, hash_ids),
or documents with questions (input, qa_pairs: LooGLE), which get arrival times by --seed.

Examples:
  cascade-bench --suite trace --trace mooncake_conversation_trace.jsonl
  cascade-bench --suite trace --trace FILE --policy default,lru --capacity 1e3,5e4 --minutes 20-60 --json new.json --plot new.svg
  cascade-bench --suite trace --synthetic chat --seed 1,2,3
  cascade-bench --suite trace --trace FILE --real --block 64KiB --capacity 1e4 --files /scratch/me";

/// Suites that can be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Suite {
    /// Requests replayed against policies of eviction.
    Trace,
}

/// Replays requests against policies of eviction, at any capacities, in seconds.
#[derive(Debug, Parser)]
#[command(name = "cascade-bench --suite trace", version, after_help = EXAMPLES)]
pub struct Arguments {
    /// The suite.
    #[arg(long)]
    pub suite: Suite,
    /// Requests as JSON lines.
    #[arg(long, value_name = "FILE", required_unless_present = "synthetic", conflicts_with = "synthetic")]
    pub trace: Option<PathBuf>,
    /// Requests from stated distributions instead.
    #[arg(long, value_name = "NAME")]
    pub synthetic: Option<Family>,
    /// Seeds of generated requests and of sampling; with several, medians over them.
    #[arg(long, value_name = "N[,N..]", value_delimiter = ',', default_value = "1")]
    pub seed: Vec<u64>,
    /// Policies, side by side.
    #[arg(long, value_name = "NAME[,NAME..]", value_delimiter = ',')]
    #[arg(default_value = "default,lru,lfu,sieve,s3fifo,tinylfu,lru-sampled,frequency,belady,infinite")]
    pub policy: Vec<Policy>,
    /// Blocks that the tier holds.
    #[arg(long, value_name = "N[,N..]", value_delimiter = ',', value_parser = blocks)]
    #[arg(default_value = "1000,5000,10000,30000,50000")]
    pub capacity: Vec<usize>,
    /// Only the requests of these minutes, such as 20-60.
    #[arg(long, value_name = "FROM-TO", value_parser = minutes)]
    pub minutes: Option<(f64, f64)>,
    /// Only every N-th request.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub every: Option<u32>,
    /// The last request first.
    #[arg(long)]
    pub reversed: bool,
    /// Send the requests through a store as well, with bytes: an arena of --capacity blocks, and files below it with --files.
    #[arg(long)]
    pub real: bool,
    /// Bytes of a block with --real: a 512-token block of a large model has some 100 MiB, so this is scaled down.
    #[arg(long, value_name = "SIZE", default_value = "64KiB", value_parser = crate::units::parse_size)]
    pub block: u64,
    /// Where shared memory is.
    #[arg(long, value_name = "DIR", default_value = "/dev/shm")]
    pub dir: PathBuf,
    /// Where files are to be, with --real.
    #[arg(long, value_name = "DIR", requires = "real")]
    pub files: Option<PathBuf>,
    /// Where results go.
    #[command(flatten)]
    pub outputs: Outputs,
}

fn blocks(text: &str) -> Result<usize, String> {
    let number = text.trim().parse::<f64>().ok();
    let number = number.filter(|number| (1.0..=1e8).contains(number) && number.fract() == 0.0);
    number.map(|number| number as usize).ok_or_else(|| format!("{text:?} is no number such as 5000 or 5e3"))
}

fn minutes(text: &str) -> Result<(f64, f64), String> {
    let parse = |text: &str| text.parse::<f64>().ok().filter(|minute| *minute >= 0.0);
    let span = text.split_once('-').and_then(|(from, to)| Some((parse(from)?, parse(to)?)));
    span.filter(|(from, to)| from < to).ok_or_else(|| format!("{text:?} is no span of minutes such as 20-60"))
}
