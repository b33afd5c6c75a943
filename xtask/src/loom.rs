//! Models: crates with `tests/loom*.rs` or `tests/shuttle*.rs` are compiled with `--cfg loom` or `--cfg shuttle`, where the
//! atomics are those of that checker.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use crate::process::{self, cargo};
use crate::workspace::{Metadata, Package, target};

/// The checkers; the files of their models begin with these names.
const CHECKERS: [&str; 2] = ["loom", "shuttle"];

/// Packages that have models, with the checker of each.
pub(crate) fn all(metadata: &Metadata) -> Vec<(&'static str, &Package)> {
    let of = |checker| metadata.members().filter(move |p| p.has_tests(checker)).map(move |p| (checker, p));
    CHECKERS.into_iter().flat_map(of).collect()
}

/// A cargo command over the models of a package. Optimised, because a model runs millions of schedules, and in a folder
/// of its own, so that it never throws away the other builds.
pub(crate) fn models(subcommand: &str, checker: &str, package: &Package) -> Command {
    let mut command =
        cargo(&[subcommand, "--release", "-p", &package.name, "--test", &format!("{checker}*")]);
    command.arg("--target-dir").arg(target().join(checker));
    command.env("RUSTFLAGS", format!("--cfg {checker}")).env("CARGO_PROFILE_RELEASE_LTO", "off");
    command
}

/// Runs the models of a package and prints what each of them explored.
pub(crate) fn run(checker: &str, package: &Package) -> Result<String> {
    let folder = target().join(checker);
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let report = folder.join("report.tsv");
    // That of the last run must not be taken for this one's.
    let _ = fs::remove_file(&report);
    process::run(models("test", checker, package).arg("--no-fail-fast").env("CASCADE_LOOM_REPORT", &report))?;
    let text = fs::read_to_string(&report).context("no model has reported what it explored")?;
    println!("\n{}", table(&text));
    let executions: u64 = rows(&text).filter_map(|row| row.get(2)?.parse::<u64>().ok()).sum();
    Ok(format!("{} models, {executions} executions", rows(&text).count()))
}

fn rows(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines().map(|line| line.split('\t').collect::<Vec<_>>()).filter(|row| row.len() == 5)
}

fn table(text: &str) -> String {
    let width = rows(text).map(|row| row[0].len()).max().unwrap_or(0);
    let line = |row: Vec<&str>| {
        format!("{:width$}  {:>8}  {:>10}  {:>7}  {}", row[0], row[1], row[2], row[3], row[4])
    };
    let head = line(vec!["model", "bound", "executions", "s", "explored"]);
    let mut lines: Vec<String> = rows(text).map(line).collect();
    lines.sort();
    lines.insert(0, head);
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_report_in_a_table() {
        let table = table("second\t3\t120\t0.1\tall\nfirst model\t2\t7\t0.0\tcut off\nnonsense\n");
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[1].starts_with("first model") && lines[1].ends_with("cut off"), "{table}");
        assert!(lines[2].contains("120"), "{table}");
    }
}
