//! The test binaries of the controls: an ordinary build, one with kill points and one for each checker of models, all with the bugs in them.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::process::{cargo, output};
use crate::workspace::{root, target};

/// A test binary.
pub(super) struct Binary {
    /// `plain`, `kill`, `files`, `store`, or the checker it is built for.
    pub(super) build: &'static str,
    pub(super) name: String,
    pub(super) path: PathBuf,
    /// Where its tests run.
    pub(super) folder: PathBuf,
}

/// Builds them all.
pub(super) fn all() -> Result<Vec<Binary>> {
    let mut found = Vec::new();
    let mut plain = build("cascade-shm", &["--features", "planted"]);
    plain.args(["arena", "conformance", "fork", "hostile"].iter().flat_map(|name| ["--test", name]));
    found.extend(binaries("plain", &mut plain)?);
    let mut files = build("cascade-pfs", &["--features", "planted,testing"]);
    files.args(["tier", "faults", "engine", "scrub"].iter().flat_map(|name| ["--test", name]));
    found.extend(binaries("files", &mut files)?);
    let mut store =
        build("cascade-store", &["--features", "planted", "--lib", "--test", "files", "--test", "tickets"]);
    found.extend(binaries("store", &mut store)?);
    // A build of its own: with kill points times are shorter, which other lanes notice.
    let mut kill = build("cascade-shm", &["--features", "planted,kill-points", "--test", "kill"]);
    found.extend(binaries("kill", &mut kill)?);
    for checker in ["loom", "shuttle"] {
        let tests = format!("{checker}*");
        let mut command = build("cascade-shm", &["--features", "planted", "--release", "--test", &tests]);
        command.arg("--target-dir").arg(target().join(checker));
        command.env("RUSTFLAGS", format!("--cfg {checker}")).env("CARGO_PROFILE_RELEASE_LTO", "off");
        found.extend(binaries(checker, &mut command)?);
    }
    Ok(found)
}

fn build(package: &str, arguments: &[&str]) -> Command {
    let mut command =
        cargo(&["test", "-p", package, "--no-run", "--message-format", "json-render-diagnostics"]);
    // Without it a build without debug assertions refuses to have bugs.
    command.args(arguments).env("CASCADE_PLANTED_BUILD", "1");
    command
}

fn binaries(build: &'static str, command: &mut Command) -> Result<Vec<Binary>> {
    println!("  building the {build} tests with planted bugs");
    let text = output(command)?;
    let found: Vec<Binary> = text.lines().filter_map(|line| binary(build, line)).collect();
    if found.is_empty() {
        bail!("the {build} build made no test binary");
    }
    found
        .into_iter()
        .map(|binary| binary.path.exists().then_some(binary).context("a binary is gone"))
        .collect()
}

/// The test binary that a message of cargo is about.
fn binary(build: &'static str, line: &str) -> Option<Binary> {
    let message: Value = serde_json::from_str(line).ok()?;
    let is_test = message["profile"]["test"].as_bool()?;
    let path = PathBuf::from(message["executable"].as_str()?);
    let name = message["target"]["name"].as_str()?.to_owned();
    let package = match build {
        "files" => "cascade-pfs",
        "store" => "cascade-store",
        _ => "cascade-shm",
    };
    is_test.then(|| Binary { build, name, path, folder: root().join(package) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_binaries_are_read_from_cargos_messages() {
        let line = r#"{"reason":"compiler-artifact","target":{"name":"arena"},"profile":{"test":true},"executable":"/t/arena-1"}"#;
        let found = binary("plain", line).unwrap();
        assert_eq!((found.name.as_str(), found.path.to_str()), ("arena", Some("/t/arena-1")));
        assert!(binary("plain", r#"{"reason":"build-finished","success":true}"#).is_none());
        assert!(binary("plain", &line.replace("true", "false")).is_none());
    }
}
