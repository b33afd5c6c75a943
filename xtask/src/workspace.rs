//! What the workspace holds: its root, packages and files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::process;

/// The root of the workspace that this program was built from.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// Everything that commands make goes below this folder.
pub(crate) fn target() -> PathBuf {
    root().join("target")
}

/// The part of `cargo metadata` that the commands use.
#[derive(Deserialize)]
pub(crate) struct Metadata {
    pub(crate) packages: Vec<Package>,
    workspace_members: Vec<String>,
}

#[derive(Deserialize)]
pub(crate) struct Package {
    id: String,
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) license: Option<String>,
    pub(crate) dependencies: Vec<Dependency>,
    pub(crate) features: BTreeMap<String, Vec<String>>,
    pub(crate) manifest_path: PathBuf,
}

#[derive(Deserialize)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// `dev`, `build`, or none for a normal dependency.
    pub(crate) kind: Option<String>,
}

impl Metadata {
    /// Reads all packages, of every target and feature, that the lock file names.
    pub(crate) fn read() -> Result<Self> {
        let text =
            process::output(&mut process::cargo(&["metadata", "--format-version", "1", "--all-features"]))?;
        serde_json::from_str(&text).context("`cargo metadata` printed an unknown form")
    }

    pub(crate) fn members(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|p| self.workspace_members.contains(&p.id))
    }
}

impl Package {
    pub(crate) fn folder(&self) -> &Path {
        self.manifest_path.parent().unwrap_or(Path::new("."))
    }

    /// Whether there is an integration test whose file name starts with `prefix`.
    pub(crate) fn has_tests(&self, prefix: &str) -> bool {
        let Ok(entries) = std::fs::read_dir(self.folder().join("tests")) else { return false };
        entries.flatten().any(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            name.starts_with(prefix) && name.ends_with(".rs")
        })
    }
}

/// A text file of the repository, by its path from the root.
pub(crate) struct TextFile {
    pub(crate) path: String,
    pub(crate) text: String,
}

/// Every file that git tracks or would track, as far as it is text.
pub(crate) fn text_files() -> Result<Vec<TextFile>> {
    let mut git = process::command("git");
    // A checkout that another user made (a mounted one, in a container) is as good as any for reading.
    git.args(["-c", "safe.directory=*"]);
    let listed = process::output(git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]))?;
    let paths = listed.split('\0').filter(|path| !path.is_empty());
    Ok(paths
        .filter_map(|path| {
            let text = std::fs::read_to_string(root().join(path)).ok()?;
            Some(TextFile { path: path.to_owned(), text })
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_knows_the_members() {
        let metadata = Metadata::read().unwrap();
        let names: Vec<_> = metadata.members().map(|p| p.name.as_str()).collect();
        assert!(names.contains(&"cascade-core") && names.contains(&"xtask"), "{names:?}");
    }

    #[test]
    fn text_files_hold_this_one() {
        assert!(text_files().unwrap().iter().any(|f| f.path == "xtask/src/workspace.rs"));
    }

    #[test]
    fn lanes_are_found_by_file_name() {
        let folder = tempfile::tempdir().unwrap();
        let package: Package = serde_json::from_value(serde_json::json!({
            "id": "x", "name": "x", "version": "1.0.0", "license": null, "features": {}, "dependencies": [],
            "manifest_path": folder.path().join("Cargo.toml"),
        }))
        .unwrap();
        assert!(!package.has_tests("loom"));
        std::fs::create_dir(folder.path().join("tests")).unwrap();
        std::fs::write(folder.path().join("tests/loom_lease.rs"), "").unwrap();
        assert!(package.has_tests("loom"));
        assert!(!package.has_tests("kill"));
    }
}
