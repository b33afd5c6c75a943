//! Builds for loom: crates with `tests/loom*.rs` are compiled with `--cfg loom`, where the atomics are loom's.

use std::process::Command;

use crate::process::cargo;
use crate::workspace::{Metadata, Package, target};

/// Packages that have models.
pub(crate) fn packages(metadata: &Metadata) -> Vec<&Package> {
    metadata.members().filter(|package| package.has_tests("loom")).collect()
}

/// A cargo command over the models of a package. Optimised, because a model runs millions of schedules, and in a folder
/// of its own, so that it never throws away the other builds.
pub(crate) fn models(subcommand: &str, package: &Package) -> Command {
    let mut command = cargo(&[subcommand, "--release", "-p", &package.name, "--test", "loom*"]);
    command.arg("--target-dir").arg(target().join("loom"));
    command.env("RUSTFLAGS", "--cfg loom").env("CARGO_PROFILE_RELEASE_LTO", "off");
    command
}
