//! `cascade doctor`: what on this machine would keep an arena from working, from lasting, or from being fast.

mod cpu;
mod directory;
mod files;
mod hits;
mod limits;
mod logind;
mod machine;
mod memory;
mod mounts;
mod numa;
mod pages;
mod slurm;
#[cfg(test)]
mod tests;
mod writers;

use std::path::PathBuf;

use cascade_core::units::format_size;
use cascade_pfs::PfsConfig;
use clap::Args;
use serde::Serialize;

use super::out::{Done, Failure, Out};
use super::place::Place;
use super::text::of;
use machine::Machine;

const HELP: &str = "\
Examples:
  cascade doctor
  cascade doctor --quiet
  cascade doctor --pfs /scratch/me/cascade
  CASCADE_SHM_CAPACITY=200GiB cascade doctor --json | jq '.findings[].found'

It changes nothing, but that it tries out a directory of files in a folder of its own, which it
removes again. Cures that begin with `sudo` need an administrator. A note is something to
know, or to gain speed by. Exit status: 0 no problem, 1 at least one problem, 2 it could not look.
JSON: docs/cli.md.";

/// Options of `cascade doctor`.
#[derive(Args, Debug)]
#[command(after_help = HELP)]
pub(super) struct Options {
    #[command(flatten)]
    place: Place,
    /// Look at a directory of files (tier 4) too [without DIR: the configured one, which is looked at anyway].
    #[arg(long, value_name = "DIR", num_args = 0..=1)]
    #[allow(clippy::option_option, reason = "absent, present without a directory, with one")]
    pfs: Option<Option<PathBuf>>,
    /// Show problems and notes only.
    #[arg(long, short)]
    quiet: bool,
    /// Print one JSON document on one line.
    #[arg(long)]
    json: bool,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Severity {
    /// As it should be.
    Ok,
    /// To be known, or slower than it could be.
    Note,
    /// The arena will not work, not last, or take other processes down.
    Problem,
}

/// One answer of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Finding {
    /// Stable name, `group.what`.
    check: &'static str,
    severity: Severity,
    found: String,
    /// Where it was read.
    source: String,
    /// What to do, as a command where there is one.
    cure: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, source: impl Into<String>, found: impl Into<String>) -> Self {
        Self { check, severity: Severity::Ok, found: found.into(), source: source.into(), cure: None }
    }

    fn note(
        check: &'static str,
        source: impl Into<String>,
        found: impl Into<String>,
        cure: impl Into<String>,
    ) -> Self {
        Self { severity: Severity::Note, cure: Some(cure.into()), ..Self::ok(check, source, found) }
    }

    fn problem(
        check: &'static str,
        source: impl Into<String>,
        found: impl Into<String>,
        cure: impl Into<String>,
    ) -> Self {
        Self { severity: Severity::Problem, cure: Some(cure.into()), ..Self::ok(check, source, found) }
    }
}

#[derive(Debug, Serialize)]
struct Document {
    schema: &'static str,
    dir: PathBuf,
    node: String,
    /// Bytes of the arena that is there or configured; `null` where the default decides.
    capacity_bytes: Option<u64>,
    problems: usize,
    notes: usize,
    findings: Vec<Finding>,
}

impl Options {
    /// The directory of files to look at, and whether its capacity is the configured one.
    fn files(&self) -> cascade_core::Result<Option<(PfsConfig, bool)>> {
        let configured = self.place.files()?;
        match &self.pfs {
            Some(Some(dir)) => {
                let same = configured.filter(|config| config.dir == *dir).map(|config| (config, true));
                Ok(Some(same.unwrap_or_else(|| (PfsConfig::new(dir, 1 << 30), false))))
            }
            Some(None) if configured.is_none() => Err(super::files::unconfigured()),
            _ => Ok(configured.map(|config| (config, true))),
        }
    }
}

pub(super) fn run(options: &Options, out: &mut Out) -> Done {
    let config = options.place.resolve()?;
    let machine = Machine::here(&config);
    let mut findings = examine(&machine);
    findings.extend(hits::check(&config));
    if let Some((config, bounded)) = options.files()? {
        findings.extend(files::check(&machine, &config, bounded));
        findings.extend(writers::check(&config.dir));
    }
    let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
    let document = Document {
        schema: "cascade.doctor/1",
        dir: config.dir.clone(),
        node: config.node_name(),
        capacity_bytes: machine.capacity_bytes,
        problems: count(Severity::Problem),
        notes: count(Severity::Note),
        findings,
    };
    if options.json {
        out.json(&document)?
    } else {
        print(&document, options.quiet, out)?
    }
    Ok(u8::from(document.problems > 0))
}

/// Every check, those of the directory first.
fn examine(machine: &Machine) -> Vec<Finding> {
    let checks: [fn(&Machine) -> Vec<Finding>; 9] = [
        directory::check,
        memory::check,
        logind::check,
        slurm::check,
        limits::check,
        pages::check,
        numa::check,
        cpu::check,
        cpu::kernel,
    ];
    checks.iter().flat_map(|check| check(machine)).collect()
}

fn print(document: &Document, quiet: bool, out: &mut Out) -> Result<(), Failure> {
    let capacity = document
        .capacity_bytes
        .map_or_else(|| "of default size".into(), |bytes| format!("of {}", format_size(bytes)));
    out.line(&format!("An arena {capacity} in {}, node {}\n", document.dir.display(), document.node))?;
    for finding in document.findings.iter().filter(|finding| !quiet || finding.severity != Severity::Ok) {
        let word = match finding.severity {
            Severity::Ok => "ok",
            Severity::Note => "note",
            Severity::Problem => "PROBLEM",
        };
        out.line(&format!("{word:8} {:21} {}", finding.check, finding.found))?;
        if finding.severity != Severity::Ok {
            out.line(&format!("{:30} read: {}", "", finding.source))?;
        }
        if let Some(cure) = &finding.cure {
            out.line(&format!("{:30} cure: {cure}", ""))?;
        }
    }
    out.line(&format!("\n{}, {}", of(document.problems as u64, "problem"), of(document.notes as u64, "note")))
}
