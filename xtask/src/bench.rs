//! `cargo xtask bench`: builds the benchmark with optimisation and hands every option to it, `--help` too. For the tier of files it
//! sets up what that is measured beside; for other ranks' memory it sets up MPI and starts the ranks.

mod ranks;
mod rivals;

use std::ffi::OsString;

use anyhow::{Context, Result};
use clap::Args;

use crate::process::{cargo, run};
use crate::workspace;

/// Options of `cargo xtask bench`: those of the benchmark program, which says what they are.
#[derive(Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Options {
    /// Options of the benchmark, for example `--tier shm --block 1MiB --json new.json`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTION")]
    arguments: Vec<OsString>,
}

pub(crate) fn command(options: &Options) -> Result<()> {
    if ranks::is_wanted(&options.arguments) {
        return ranks::command(&options.arguments);
    }
    let mut bench = cargo(&["run", "--release", "--package", "cascade-bench", "--bin", "cascade-bench"]);
    bench.arg("--manifest-path").arg(workspace::root().join("Cargo.toml")).arg("--").args(&options.arguments);
    bench.args(rivals::set_up(&options.arguments));
    // Files are named from where the command was typed.
    bench.current_dir(std::env::current_dir().context("no current folder")?);
    run(&mut bench)
}

/// What stands behind `name`, as the next word or after `=`.
fn value(words: &[String], name: &str) -> Option<String> {
    let follows = words.windows(2).find(|pair| pair[0] == name).map(|pair| pair[1].clone());
    let joined = words.iter().find_map(|word| Some(word.strip_prefix(name)?.strip_prefix('=')?.to_owned()));
    follows.or(joined)
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
    fn every_option_reaches_the_benchmark_as_it_was_typed() {
        let typed =
            "--tier shm --block 1MiB,4MiB --reps 9 --threads 1,2 --json a --plot b --against c --help";
        let words: Vec<_> = typed.split(' ').collect();
        let probe = Probe::parse_from(std::iter::once("bench").chain(words.iter().copied()));
        assert_eq!(probe.options.arguments, words);
    }

    #[test]
    fn options_are_read_in_both_spellings() {
        let words = ["--tier", "pfs", "--rivals=fio,vllm"].map(str::to_owned);
        assert_eq!(value(&words, "--tier").as_deref(), Some("pfs"));
        assert_eq!(value(&words, "--rivals").as_deref(), Some("fio,vllm"));
        assert_eq!(value(&words, "--python"), None);
    }
}
