//! `cargo xtask bench`: builds the benchmark with optimisation and hands the options to it.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

use crate::process::{cargo, run};
use crate::workspace;

/// Options of `cargo xtask bench`.
#[derive(Args)]
pub(crate) struct Options {
    /// The tier to measure.
    #[arg(long)]
    tier: Tier,
    /// Block size such as 64KiB or 512MiB; without it every size from 64 KiB to 512 MiB.
    #[arg(long, value_name = "SIZE")]
    block: Option<String>,
    /// Repetitions of each measurement.
    #[arg(long, value_name = "N")]
    reps: Option<u32>,
    /// Threads; without it 1 and all.
    #[arg(long, value_name = "N")]
    threads: Option<u32>,
    /// Write the results as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw the results as SVG.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Compare with the results of an earlier run.
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Tier {
    Shm,
}

pub(crate) fn command(options: &Options) -> Result<()> {
    let mut bench = cargo(&["run", "--release", "--package", "cascade-bench", "--bin", "cascade-bench"]);
    bench.arg("--manifest-path").arg(workspace::root().join("Cargo.toml")).arg("--").args(arguments(options));
    // Files are named from where the command was typed.
    bench.current_dir(std::env::current_dir().context("no current folder")?);
    run(&mut bench)
}

/// The same options for the benchmark program, and none that was not given.
fn arguments(options: &Options) -> Vec<OsString> {
    let tier = match options.tier {
        Tier::Shm => "shm",
    };
    let mut arguments = vec!["--tier".into(), tier.into()];
    let mut add = |flag: &str, value: Option<OsString>| {
        if let Some(value) = value {
            arguments.extend([flag.into(), value]);
        }
    };
    add("--block", options.block.clone().map(Into::into));
    add("--reps", options.reps.map(|n| n.to_string().into()));
    add("--threads", options.threads.map(|n| n.to_string().into()));
    add("--json", options.json.clone().map(Into::into));
    add("--plot", options.plot.clone().map(Into::into));
    add("--against", options.against.clone().map(Into::into));
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Probe {
        #[command(flatten)]
        options: Options,
    }

    #[test]
    fn every_option_reaches_the_benchmark() {
        let typed = "--tier shm --block 1MiB --reps 9 --threads 2 --json a --plot b --against c";
        let words: Vec<_> = typed.split(' ').collect();
        let probe = Probe::parse_from(std::iter::once("bench").chain(words.iter().copied()));
        assert_eq!(arguments(&probe.options), words);
    }

    #[test]
    fn options_that_were_not_given_are_not_handed_on() {
        assert_eq!(arguments(&Probe::parse_from(["bench", "--tier", "shm"]).options), ["--tier", "shm"]);
    }
}
