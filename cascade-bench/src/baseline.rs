//! The baseline: a Python process that does file I/O in the same file system, one command a line.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use cascade_core::{Error, ErrorKind, Result};

use crate::report::Row;
use crate::shape::Shape;
use crate::stats::Spread;
use crate::units::gbps;

const SCRIPT: &str = include_str!("baseline.py");

/// A way of file I/O, measured beside an operation of Cascade.
#[derive(Debug)]
pub(crate) struct Way {
    op: &'static str,
    name: &'static str,
    state: &'static str,
    rates: Vec<f64>,
    is_right: bool,
}

impl Way {
    fn new(op: &'static str, name: &'static str, state: &'static str) -> Self {
        Self { op, name, state, rates: Vec::new(), is_right: true }
    }

    /// The ways to write.
    pub(crate) fn puts() -> Vec<Self> {
        // A file that is opened to be written anew loses its pages: only `rewrite` finds them warm.
        vec![Self::new("put", "write", "first_touch"), Self::new("put", "rewrite", "hot")]
    }

    /// The ways to read.
    pub(crate) fn gets() -> Vec<Self> {
        vec![Self::new("get", "read", "hot"), Self::new("get", "readinto", "hot")]
    }

    /// The row of what was measured, if anything was.
    pub(crate) fn row(&self, tier: &str, shape: &Shape) -> Option<Row> {
        let mut row = Row::new(tier, self.op, self.name, shape.block as u64);
        "python-file".clone_into(&mut row.system);
        self.state.clone_into(&mut row.state);
        row.n = self.rates.len();
        row.set_rate(Some(Spread::of(&self.rates)?), None);
        row.verified = Some(self.is_right);
        Some(row)
    }
}

/// The process. Its end is awaited when this is dropped.
#[derive(Debug)]
pub(crate) struct Python {
    child: Child,
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Python {
    /// Starts it, to work in `folder`.
    pub(crate) fn start(folder: &Path) -> Result<Self> {
        let failed = || Error::new(ErrorKind::NotFound, "no python3 could be started");
        let folder = folder.join("python-file");
        std::fs::create_dir_all(&folder).map_err(|error| failed().with_source(error))?;
        let mut command = Command::new("python3");
        command.args(["-c", SCRIPT]).arg(folder).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|error| failed().with_source(error))?;
        let (commands, answers) = (child.stdin.take(), child.stdout.take());
        let answers = answers.map(BufReader::new).ok_or_else(failed)?;
        Ok(Self { child, commands, answers })
    }

    /// Moves a lap of `shape` in `way`.
    pub(crate) fn lap(&mut self, way: &mut Way, shape: &Shape) -> Result<()> {
        let died = || Error::new(ErrorKind::System, format!("the Python baseline stopped in {}", way.name));
        let commands = self.commands.as_mut().ok_or_else(died)?;
        writeln!(commands, "{} {} {}", way.name, shape.block, shape.blocks)
            .map_err(|error| died().with_source(error))?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer).map_err(|error| died().with_source(error))?;
        let (seconds, verified) = answer.trim().split_once(' ').ok_or_else(died)?;
        let seconds: f64 = seconds.parse().map_err(|error| died().with_source(error))?;
        way.rates.push(gbps(shape.lap_bytes(), seconds));
        way.is_right &= verified == "1";
        Ok(())
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        // The end of its input is what ends it.
        drop(self.commands.take());
        drop(self.child.wait());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_moves_its_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let mut python = Python::start(folder.path()).expect("the tests need python3");
        let shape = Shape { block: 10_000, callers: 1, blocks: 3, places: 1 };
        for mut way in Way::puts().into_iter().chain(Way::gets()) {
            python.lap(&mut way, &shape).unwrap();
            let row = way.row("shm", &shape).unwrap();
            assert_eq!((row.system.as_str(), row.n, row.verified), ("python-file", 1, Some(true)));
            assert!(row.gbps.unwrap().median > 0.0);
        }
        drop(python);
        assert_eq!(std::fs::read_dir(folder.path().join("python-file")).unwrap().count(), 0);
    }
}
