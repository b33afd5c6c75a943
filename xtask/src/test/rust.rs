//! Rust tests: unit, integration and documentation tests, kill lanes and loom models.

use anyhow::Result;

use super::Lane;
use crate::process::{self, cargo};
use crate::steps::Steps;
use crate::workspace::Metadata;
use crate::{fuzz, loom, miri, negative};

pub(super) fn add_unit_steps(steps: &mut Steps) {
    let cure = "run the failed test alone with `cargo test -p CRATE NAME -- --nocapture`";
    steps.run("unit and integration tests", cure, || run_tests("default", &[]));
    steps.run("documentation tests", cure, || {
        process::run(&mut cargo(&["test", "--doc", "--no-fail-fast"])).map(|()| String::new())
    });
}

/// Lanes that need a build of their own.
pub(super) fn add_lanes(steps: &mut Steps, metadata: &Metadata, quick: bool) {
    for package in metadata.members() {
        if package.has_tests("kill") && package.features.contains_key("kill-points") {
            let mut selection = vec!["-p", &package.name, "--features", "kill-points", "--test", "kill*"];
            if package.has_tests("deaths") {
                selection.extend(["--test", "deaths*"]);
            }
            lane(steps, quick, &format!("kill lanes of {}", package.name), || run_tests("kill", &selection));
        }
    }
    if quick {
        return steps.leave_out("models, negative controls, Miri", "--quick");
    }
    for lane in [Lane::Models, Lane::Negative, Lane::Miri] {
        add_lane(steps, metadata, lane);
    }
}

pub(super) fn add_lane(steps: &mut Steps, metadata: &Metadata, which: Lane) {
    match which {
        Lane::Models => {
            for (checker, package) in loom::all(metadata) {
                let name = format!("{checker} models of {}", package.name);
                lane(steps, false, &name, || loom::run(checker, package));
            }
        }
        Lane::Negative => lane(steps, false, "negative controls", negative::run),
        Lane::Miri => miri::add_step(steps),
        // These have steps of their own: one needs the wheel, the other an MPI.
        Lane::Vllm | Lane::Mpi | Lane::Slurm => {}
    }
}

/// Ten seconds of each fuzz target.
pub(super) fn add_fuzz(steps: &mut Steps, quick: bool) {
    const SECONDS_EACH: u64 = 10;
    let name = "fuzz targets";
    if quick {
        return steps.leave_out(name, "--quick");
    }
    match fuzz::missing() {
        Some(why) => steps.leave_out(name, &why),
        None => {
            let cure = "the failed input is in target/fuzz/findings; run the target with it";
            steps.run(name, cure, || Ok(fuzz::summary(&fuzz::run(SECONDS_EACH)?, SECONDS_EACH)));
        }
    }
}

fn lane(steps: &mut Steps, quick: bool, name: &str, work: impl FnOnce() -> Result<String>) {
    if quick {
        steps.leave_out(name, "--quick");
    } else {
        steps.run(name, "run the command above alone; the seed and the schedule are in its output", work);
    }
}

/// Runs tests with nextest where it is installed (it shows hangs and runs in parallel), else with plain cargo.
fn run_tests(profile: &str, selection: &[&str]) -> Result<String> {
    let nextest = process::succeeds(&mut cargo(&["nextest", "--version"]));
    let runner: &[&str] = match (nextest, selection) {
        (true, _) => &["nextest", "run", "--no-fail-fast", "--profile", profile],
        // Documentation tests are a step of their own.
        (false, []) => &["test", "--no-fail-fast", "--lib", "--bins", "--tests", "--examples"],
        (false, _) => &["test", "--no-fail-fast"],
    };
    // As the profile `kill` of nextest: tables are shown, and times are measured one at a time.
    let shown: &[&str] =
        if nextest || profile != "kill" { &[] } else { &["--", "--show-output", "--test-threads=1"] };
    process::run(&mut cargo(&[runner, selection, shown].concat()))?;
    Ok(if nextest { "nextest" } else { "cargo test" }.into())
}
