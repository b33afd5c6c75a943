//! Standalone examples: each tier crate is used from a package outside the workspace, as its users do.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::process::{cargo, run};
use crate::steps::Steps;
use crate::workspace::{self, Metadata, Package};

pub(super) fn add_steps(steps: &mut Steps, metadata: &Metadata) {
    for package in metadata.members() {
        let example = package.folder().join("examples/standalone.rs");
        if example.is_file() {
            let cure = "let examples/standalone.rs use nothing but its own crate and cascade-core";
            steps.run(&format!("standalone {}", package.name), cure, || build_and_run(package, &example));
        }
    }
}

fn build_and_run(package: &Package, example: &Path) -> Result<String> {
    let folder =
        tempfile::Builder::new().prefix("cascade-standalone-").tempdir().context("no temporary folder")?;
    let manifest = folder.path().join("Cargo.toml");
    fs::create_dir(folder.path().join("src")).context("cannot make src/")?;
    fs::copy(example, folder.path().join("src/main.rs")).context("cannot copy the example")?;
    fs::write(&manifest, manifest_text(&package.name, workspace::root()))
        .context("cannot write Cargo.toml")?;
    // The versions that this workspace is tested with.
    fs::copy(workspace::root().join("Cargo.lock"), folder.path().join("Cargo.lock"))
        .context("no Cargo.lock")?;
    let mut command = cargo(&["run", "--quiet", "--manifest-path"]);
    command.arg(&manifest).arg("--target-dir").arg(workspace::target().join("standalone"));
    run(command.current_dir(folder.path()))?;
    Ok("built and run outside the workspace".into())
}

/// A package that depends on the crate and on cascade-core alone; `[workspace]` makes it a root of its own.
fn manifest_text(name: &str, root: &Path) -> String {
    let dependency = |name: &str| format!("{name} = {{ path = {:?} }}\n", root.join(name));
    let core = if name == "cascade-core" { String::new() } else { dependency("cascade-core") };
    format!(
        "[package]\nname = \"standalone\"\nversion = \"0.0.0\"\nedition = \"2024\"\npublish = false\n\n\
         [workspace]\n\n[dependencies]\n{core}{}\n[profile.dev]\nopt-level = 1\ndebug = \"line-tables-only\"\n",
        dependency(name)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generated_package_has_exactly_two_dependencies() {
        let text = manifest_text("cascade-shm", Path::new("/src"));
        let dependencies = text.split("[dependencies]").nth(1).unwrap().split('[').next().unwrap();
        assert_eq!(
            dependencies.trim(),
            "cascade-core = { path = \"/src/cascade-core\" }\ncascade-shm = { path = \"/src/cascade-shm\" }"
        );
    }
}
