//! fio, run as a program: one file, direct I/O.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use cascade_core::Result;
use serde_json::Value;

use super::cli::Durability;
use super::system::{Data, Manner, Reading, System, Work, failed};
use crate::units::format_size;

/// What an installation of fio is.
#[derive(Clone, Debug)]
pub(super) struct Installed {
    /// Such as `fio-3.33`.
    pub(super) version: String,
    engine: &'static str,
}

/// How fio is had where it is not there.
pub(super) const CURE: &str = "it is not installed (apt-get install fio, or your system's package of it)";

fn said(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

impl Installed {
    /// The fio of the path, with the fastest engine that works here: `io_uring` may be forbidden, `libaio` is a library.
    pub(super) fn find() -> Option<Self> {
        let version = said(Command::new("fio").arg("--version"))?.trim().to_owned();
        let works = |engine: &&str| {
            let mut probe = Command::new("fio");
            probe.args([
                "--name=probe",
                "--filename=/dev/zero",
                "--rw=read",
                "--bs=4k",
                "--size=4k",
                "--iodepth=1",
            ]);
            said(probe.arg(format!("--ioengine={engine}")).arg("--output-format=json")).is_some()
        };
        let engine = ["io_uring", "libaio", "psync"].into_iter().find(works)?;
        Some(Self { version, engine })
    }
}

/// fio with calls of these lengths.
#[derive(Debug)]
pub(super) struct Fio {
    installed: Installed,
    write: (u64, usize),
    read: (u64, usize),
    name_io: bool,
}

impl Fio {
    /// With calls of so many bytes, and so many at once, to write and to read.
    pub(super) fn new(installed: &Installed, write: (u64, usize), read: (u64, usize)) -> Self {
        Self { installed: installed.clone(), write, read, name_io: false }
    }

    /// As `new`, with the length of calls in the name of its rows.
    pub(super) fn of_blocks(installed: &Installed, write: (u64, usize), read: (u64, usize)) -> Self {
        Self { name_io: true, ..Self::new(installed, write, read) }
    }

    fn run(&self, work: &Work, direction: &str, (io_bytes, depth): (u64, usize)) -> Result<f64> {
        let mut fio = Command::new("fio");
        fio.arg("--name=cascade").arg(format!("--filename={}", path(work).display()));
        fio.args([
            format!("--rw={direction}"),
            format!("--bs={io_bytes}"),
            format!("--size={}", work.bytes()),
        ]);
        fio.arg(format!("--ioengine={}", self.installed.engine))
            .arg("--direct=1")
            .arg("--output-format=json");
        match self.installed.engine {
            // Synchronous calls are as many at once as there are threads, each with its part of the file.
            "psync" => {
                let each = work.bytes() / io_bytes / depth as u64 * io_bytes;
                fio.args([
                    format!("--numjobs={depth}"),
                    format!("--size={each}"),
                    format!("--offset_increment={each}"),
                ]);
                fio.args(["--thread", "--group_reporting"]);
            }
            _ => drop(fio.arg(format!("--iodepth={depth}"))),
        }
        match (direction, work.durability) {
            ("write", Durability::End) => drop(fio.arg("--end_fsync=1")),
            ("write", Durability::Block) => drop(fio.arg("--fdatasync=1")),
            _ => {}
        }
        let output =
            fio.stdin(Stdio::null()).output().map_err(|error| failed("cannot run fio").with_source(error))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(failed(format!("fio failed: {}", said.lines().last().unwrap_or("it says nothing"))));
        }
        seconds(&output.stdout, direction, work.bytes())
            .ok_or_else(|| failed("fio did not say how long it took"))
    }
}

fn path(work: &Work) -> PathBuf {
    work.folder.join("fio")
}

/// Seconds that `bytes` take at the rate that fio reports of its own bytes: with some engines it rounds the size down to whole calls.
fn seconds(report: &[u8], direction: &str, bytes: u64) -> Option<f64> {
    // Warnings may stand before the document.
    let start = report.iter().position(|byte| *byte == b'{')?;
    let document: Value = serde_json::from_slice(report.get(start..)?).ok()?;
    let side = document.get("jobs")?.get(0)?.get(direction)?;
    let milliseconds = side.get("runtime")?.as_f64().filter(|time| *time > 0.0)?;
    let moved = side.get("io_bytes")?.as_f64().filter(|moved| *moved > 0.0)?;
    Some(milliseconds / 1e3 * bytes as f64 / moved)
}

impl System for Fio {
    fn name(&self) -> &'static str {
        "fio"
    }

    fn variant(&self) -> String {
        if self.name_io { format!(", calls of {}", format_size(self.write.0)) } else { String::new() }
    }

    fn write(&mut self, work: &Work, _: &mut Data) -> Result<f64> {
        self.run(work, "write", self.write)
    }

    fn read(&mut self, work: &Work, _: &mut Data) -> Result<Reading> {
        Ok(Reading { seconds: self.run(work, "read", self.read)?, is_right: None })
    }

    fn manners(&self) -> (Manner, Manner) {
        let manner = |(io_bytes, depth): (u64, usize)| Manner {
            engine: format!("{} {}", self.installed.version, self.installed.engine),
            io_bytes,
            depth,
            direct: Some(true),
        };
        (manner(self.write), manner(self.read))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_that_of_the_bytes_asked_for() {
        let report = br#"note: something
{"jobs": [{"write": {"io_bytes": 1000000, "runtime": 500}, "read": {"io_bytes": 0, "runtime": 0}}]}"#;
        assert_eq!(seconds(report, "write", 2_000_000), Some(1.0));
        assert_eq!(seconds(report, "read", 2_000_000), None);
        assert_eq!(seconds(b"no document", "read", 1), None);
    }
}
