//! Rust tests: unit, integration and documentation tests, kill lanes and loom models.

use std::path::Path;

use anyhow::Result;

use crate::process::{self, cargo};
use crate::steps::Steps;
use crate::workspace::{Metadata, Package, target};

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
        if has_tests(package.folder(), "kill") && package.features.contains_key("kill-points") {
            lane(steps, quick, &format!("kill lane of {}", package.name), || {
                run_tests("kill", &["-p", &package.name, "--features", "kill-points", "--test", "kill*"])
            });
        }
        if package.dependencies.iter().any(|d| d.name == "loom") && has_tests(package.folder(), "loom") {
            lane(steps, quick, &format!("loom models of {}", package.name), || loom(package));
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
    process::run(&mut cargo(&[runner, selection].concat()))?;
    Ok(if nextest { "nextest" } else { "cargo test" }.into())
}

/// Models need a build with `--cfg loom`, which keeps its own folder so that it never throws away the other builds;
/// optimised, because a model runs millions of schedules.
fn loom(package: &Package) -> Result<String> {
    let folder = target().join("loom");
    let mut test = cargo(&["test", "--release", "-p", &package.name, "--test", "loom*", "--no-fail-fast"]);
    test.arg("--target-dir").arg(folder);
    test.env("RUSTFLAGS", "--cfg loom").env("CARGO_PROFILE_RELEASE_LTO", "off");
    process::run(&mut test).map(|()| String::new())
}

/// Whether the package has an integration test whose name starts with `prefix`.
fn has_tests(package: &Path, prefix: &str) -> bool {
    let Ok(entries) = std::fs::read_dir(package.join("tests")) else { return false };
    entries.flatten().any(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        name.starts_with(prefix) && name.ends_with(".rs")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_are_found_by_file_name() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!has_tests(folder.path(), "loom"));
        std::fs::create_dir(folder.path().join("tests")).unwrap();
        std::fs::write(folder.path().join("tests/loom_lease.rs"), "").unwrap();
        assert!(has_tests(folder.path(), "loom"));
        assert!(!has_tests(folder.path(), "kill"));
    }
}
