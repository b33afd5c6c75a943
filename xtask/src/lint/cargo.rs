//! Checks that cargo itself makes: format, clippy in every build that exists, documentation.

use anyhow::Result;

use crate::loom;
use crate::process::{cargo, run};
use crate::steps::Steps;
use crate::workspace::{Metadata, Package};

/// Features that need hardware or its libraries to build; everything else is checked on every machine.
const HARDWARE_FEATURES: [&str; 4] = ["default", "mpi", "cuda", "io-uring"];

pub(super) fn add_steps(steps: &mut Steps, metadata: &Metadata) {
    steps.run("format", "cargo fmt --all", || {
        run(&mut cargo(&["fmt", "--all", "--check"])).map(|()| String::new())
    });
    let cure = "change the code as clippy says (`cargo clippy --fix` does part of it)";
    steps.run("clippy", cure, || clippy(&["--workspace", "--all-targets"]));
    let features = software_features(metadata);
    if !features.is_empty() {
        steps.run("clippy with features", cure, || {
            clippy(&["--workspace", "--all-targets", "--features", &features.join(",")])?;
            Ok(features.join(" "))
        });
    }
    for (checker, package) in loom::all(metadata) {
        steps.run(&format!("clippy of {checker} models in {}", package.name), cure, || {
            run(loom::models("clippy", checker, package).args(["--", "-D", "warnings"]))
                .map(|()| String::new())
        });
    }
    steps.run("documentation", "change the comment as rustdoc says", || {
        let mut doc = cargo(&["doc", "--workspace", "--no-deps", "--document-private-items"]);
        run(doc.env("RUSTDOCFLAGS", "-D warnings")).map(|()| String::new())
    });
}

fn clippy(selection: &[&str]) -> Result<String> {
    let arguments = [&["clippy"], selection, &["--", "-D", "warnings"]].concat();
    run(&mut cargo(&arguments)).map(|()| String::new())
}

/// `crate/feature` of every feature in the workspace that builds on any machine.
fn software_features(metadata: &Metadata) -> Vec<String> {
    let of = |package: &Package| {
        let names = package.features.keys().filter(|name| !HARDWARE_FEATURES.contains(&name.as_str()));
        names.map(|name| format!("{}/{name}", package.name)).collect::<Vec<_>>()
    };
    metadata.members().flat_map(of).collect()
}
