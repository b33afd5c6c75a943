//! `cargo xtask lint`: the rules of the house, each with what cures a violation.

mod arrows;
mod cargo;
mod core_io;
mod licences;
mod manifests;
mod python;
mod source;
mod text;

use anyhow::{Result, bail};

use crate::steps::Steps;
use crate::workspace::{self, Metadata};

/// A broken rule at a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    place: String,
    rule: String,
}

impl Violation {
    fn new(place: impl Into<String>, rule: impl Into<String>) -> Self {
        Self { place: place.into(), rule: rule.into() }
    }
}

pub(crate) fn run() -> Result<()> {
    let mut steps = Steps::new("lint");
    add_steps(&mut steps)?;
    steps.finish()
}

/// Adds every check as one step; `cargo xtask test` starts with them too.
pub(crate) fn add_steps(steps: &mut Steps) -> Result<()> {
    let metadata = Metadata::read()?;
    let files = workspace::text_files()?;
    let count = format!("{} files", files.len());
    steps.run("text", "remove or reword the lines named above", || {
        verdict(text::check(&files), count.clone())
    });
    steps.run("source rules", "move or split what is named above", || {
        verdict([source::check(&files), core_io::check(&files), manifests::check(&files)].concat(), count)
    });
    steps.run(
        "dependency arrows",
        "drop the dependency, or move the code to the crate that may have it",
        || verdict(arrows::check(&metadata), format!("{} crates", metadata.members().count())),
    );
    steps.run("licences", "choose another crate, or name its licence in xtask/src/lint/licences.rs", || {
        verdict(licences::check(&metadata), format!("{} packages", metadata.packages.len()))
    });
    cargo::add_steps(steps, &metadata);
    python::add_steps(steps, &files);
    Ok(())
}

fn verdict(violations: Vec<Violation>, note: String) -> Result<String> {
    for violation in &violations {
        eprintln!("{}: {}", violation.place, violation.rule);
    }
    match violations.len() {
        0 => Ok(note),
        n => bail!("{n} violations"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_violation_fails_the_check() {
        assert!(verdict(vec![], "none".into()).is_ok());
        assert!(verdict(vec![Violation::new("a.rs:1", "rule")], "one".into()).is_err());
    }
}
