//! Fuzz targets (`fuzz/`): built with the coverage flags of libFuzzer by the same compiler as everything else, seeded by code,
//! run one after the other, each for the same time.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use crate::process::{self, cargo};
use crate::steps::seconds;
use crate::workspace::target;

/// An input that takes longer than this is a finding. Targets that do many operations bound each of them, far below this.
const HANG_SECONDS: u64 = 60;
/// Number of targets, among which a lane shares its time.
pub(crate) const TARGETS: u64 = 14;
/// Coverage for libFuzzer: counters on edges and a table of their places. The operands of comparisons are left out: seeds hold
/// every magic number, and the loops over tables would spend three quarters of the time on them.
const COVERAGE: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
                        -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
                        -Cllvm-args=-sanitizer-coverage-pc-table --cfg fuzzing";

/// Options of `cargo xtask fuzz`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Seconds for each target.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
}

pub(crate) fn command(options: &Options) -> Result<()> {
    if let Some(why) = missing() {
        bail!(why);
    }
    println!("{}", summary(&run(options.seconds)?, options.seconds));
    Ok(())
}

/// What a target did.
struct Outcome {
    name: String,
    executions: u64,
    took: std::time::Duration,
}

/// Why the targets cannot be run on this machine; `None` when they can.
pub(crate) fn missing() -> Option<String> {
    let compiles = ["c++", "g++", "clang++"]
        .iter()
        .any(|name| process::succeeds(process::command(name).arg("--version")));
    if !compiles {
        return Some("not run: libFuzzer needs a C++ compiler (g++ or clang++), and there is none".into());
    }
    let mut fetch = cargo(&["fetch", "--manifest-path", "fuzz/Cargo.toml"]);
    if !process::succeeds(&mut fetch) {
        return Some(
            "not run: libfuzzer-sys cannot be fetched (`cargo fetch --manifest-path fuzz/Cargo.toml`)".into(),
        );
    }
    None
}

/// Runs every target for `seconds_each`, and prints the executions of each. Gives them with the targets' names.
///
/// # Errors
/// A target that crashed, hung or could not be built; the message names the input that does it.
pub(crate) fn run(seconds_each: u64) -> Result<Vec<(String, u64)>> {
    let folder = build()?;
    let corpus = target().join("fuzz/corpus");
    let names = process::output(process::command(folder.join("seeds")).env("CASCADE_SEEDS", &corpus))?;
    ensure!(names.lines().count() as u64 == TARGETS, "there are other targets than {TARGETS}: {names}");
    let mut done = Vec::new();
    let mut failed = Vec::new();
    for name in names.lines() {
        match run_one(&folder, &corpus, name, seconds_each) {
            Ok(outcome) => {
                println!("  {}", line(&outcome));
                done.push((outcome.name, outcome.executions));
            }
            Err(error) => {
                eprintln!("{error:#}");
                failed.push(name);
            }
        }
    }
    if !failed.is_empty() {
        bail!("fuzz targets that found something: {}", failed.join(", "));
    }
    Ok(done)
}

/// What all targets did, in a line.
pub(crate) fn summary(done: &[(String, u64)], seconds_each: u64) -> String {
    let total: u64 = done.iter().map(|(_, executions)| executions).sum();
    format!("{total} executions of {} targets, {seconds_each} s each", done.len())
}

fn line(outcome: &Outcome) -> String {
    let rate = outcome.executions as f64 / outcome.took.as_secs_f64().max(1e-9);
    let took = seconds(outcome.took);
    format!("{:12} {:>12} executions in {took:>8} ({rate:.0}/s)", outcome.name, outcome.executions)
}

/// Builds all targets; gives the folder of the programs.
fn build() -> Result<PathBuf> {
    let host = host()?;
    let out = target().join("fuzz");
    let mut build = cargo(&["build", "--release", "--manifest-path", "fuzz/Cargo.toml", "--target", &host]);
    // With a named target the flags reach neither build scripts nor macros.
    process::run(build.arg("--target-dir").arg(&out).env("RUSTFLAGS", COVERAGE))?;
    Ok(out.join(host).join("release"))
}

fn host() -> Result<String> {
    let text = process::output(process::command("rustc").arg("-vV"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("host: "));
    line.map(str::to_owned).context("`rustc -vV` names no host")
}

fn run_one(folder: &Path, corpus: &Path, name: &str, seconds_each: u64) -> Result<Outcome> {
    let findings = target().join("fuzz/findings");
    std::fs::create_dir_all(&findings)?;
    let mut fuzz = process::command(folder.join(name));
    fuzz.arg(format!("-max_total_time={seconds_each}")).arg(format!("-timeout={HANG_SECONDS}"));
    fuzz.args(["-print_final_stats=1", "-rss_limit_mb=4096", "-max_len=8192"]);
    fuzz.arg(format!("-artifact_prefix={}/{name}-", findings.display())).arg(corpus.join(name));
    // Removed here: libFuzzer ends its process without destructors.
    let memory = tempfile::Builder::new().prefix("cascade-fuzz-").tempdir_in("/dev/shm")?;
    fuzz.env("CASCADE_FUZZ_FOLDER", memory.path());
    let start = Instant::now();
    let output = fuzz.output().with_context(|| format!("cannot start the fuzz target {name}"))?;
    let took = start.elapsed();
    let text = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        let end: Vec<&str> = text.lines().rev().take(40).collect();
        let end: Vec<&str> = end.into_iter().rev().collect();
        let again = format!("run it again with `{} INPUT`", folder.join(name).display());
        bail!("the fuzz target {name} found something ({}); {again}:\n{}", output.status, end.join("\n"));
    }
    let executions =
        executions(&text).with_context(|| format!("{name} does not say what it did:\n{text}"))?;
    if executions == 0 {
        bail!("the fuzz target {name} executed nothing");
    }
    Ok(Outcome { name: name.into(), executions, took })
}

/// What libFuzzer prints at its end.
fn executions(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executions_are_read_from_the_final_statistics() {
        let text =
            "#2 INITED\nstat::number_of_executed_units: 1044739\nstat::average_exec_per_sec:     116082\n";
        assert_eq!(executions(text), Some(1_044_739));
        assert_eq!(executions("Done 5 runs"), None);
    }
}
