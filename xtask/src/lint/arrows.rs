//! Dependency arrows: core <- tiers <- store <- {py, bench}. Tiers never see each other, and core does no I/O.

use crate::lint::Violation;
use crate::workspace::{Metadata, Package};

const TIERS: [&str; 4] = ["cascade-shm", "cascade-gpu", "cascade-mpi", "cascade-pfs"];

/// Crates that do I/O, or that exist to reach the system. Their place is a tier.
const IO: [&str; 14] = [
    "nix",
    "libc",
    "memmap2",
    "rustix",
    "io-uring",
    "tokio",
    "mio",
    "socket2",
    "cudarc",
    "mpi",
    "libloading",
    "tempfile",
    "async-std",
    "reqwest",
];

pub(super) fn check(metadata: &Metadata) -> Vec<Violation> {
    metadata.members().flat_map(check_package).collect()
}

fn check_package(package: &Package) -> Vec<Violation> {
    let ours =
        package.dependencies.iter().filter(|d| d.name.starts_with("cascade-") && d.name != package.name);
    let mut found: Vec<_> = ours
        .filter(|dependency| !allowed(&package.name).contains(&dependency.name.as_str()))
        .map(|dependency| {
            let rule = format!("must not depend on {}: core <- tiers <- store <- py, bench", dependency.name);
            Violation::new(&package.name, rule)
        })
        .collect();
    if package.name == "cascade-core" {
        let io = package.dependencies.iter().filter(|d| d.kind.is_none() && IO.contains(&d.name.as_str()));
        found.extend(io.map(|d| {
            Violation::new(&package.name, format!("does no I/O, so it must not depend on {}", d.name))
        }));
    }
    found
}

/// The crates of the workspace that `name` may depend on, development dependencies included.
fn allowed(name: &str) -> Vec<&'static str> {
    match name {
        "cascade-core" | "xtask" => vec![],
        tier if TIERS.contains(&tier) => vec!["cascade-core"],
        "cascade-store" => [&["cascade-core"][..], &TIERS].concat(),
        _ => [&["cascade-core", "cascade-store"][..], &TIERS].concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn package(name: &str, dependency: &str, kind: Option<&str>) -> Package {
        serde_json::from_value(json!({
            "id": name, "name": name, "version": "0.1.0", "license": "MIT", "features": {},
            "manifest_path": "/x/Cargo.toml", "dependencies": [{ "name": dependency, "kind": kind }],
        }))
        .unwrap()
    }

    #[test]
    fn planted_arrows_against_the_line_are_found() {
        for (from, to) in [
            ("cascade-core", "cascade-shm"),
            ("cascade-shm", "cascade-gpu"),
            ("cascade-pfs", "cascade-store"),
            ("cascade-store", "cascade-py"),
            ("cascade-py", "cascade-bench"),
            ("xtask", "cascade-core"),
        ] {
            assert_eq!(check_package(&package(from, to, None)).len(), 1, "{from} -> {to}");
            assert_eq!(check_package(&package(from, to, Some("dev"))).len(), 1, "{from} -> {to} in tests");
        }
    }

    #[test]
    fn planted_io_in_core_is_found() {
        assert_eq!(check_package(&package("cascade-core", "nix", None)).len(), 1);
        assert_eq!(check_package(&package("cascade-core", "tempfile", Some("dev"))).len(), 0);
        assert_eq!(check_package(&package("cascade-shm", "nix", None)).len(), 0);
    }

    #[test]
    fn arrows_along_the_line_pass() {
        for (from, to) in [
            ("cascade-core", "cascade-core"),
            ("cascade-shm", "cascade-core"),
            ("cascade-store", "cascade-shm"),
            ("cascade-py", "cascade-store"),
            ("cascade-bench", "cascade-shm"),
        ] {
            assert_eq!(check_package(&package(from, to, None)), vec![], "{from} -> {to}");
        }
    }
}
