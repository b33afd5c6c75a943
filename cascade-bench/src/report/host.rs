//! The machine and the sources that a report speaks of.

use std::num::NonZero;
use std::process::Command;

use serde::{Deserialize, Serialize};

/// The machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Host {
    /// Model name of the CPU.
    pub cpu: String,
    /// CPUs that this process may use.
    pub cores: usize,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Release of the kernel.
    pub kernel: String,
    /// How copies are made: kernel, stores, threads.
    pub copy_plan: String,
    /// Load average over one minute before the run: what else the machine was doing.
    pub load_before: Option<f64>,
}

impl Host {
    /// This machine. What the system does not tell reads `unknown` or 0.
    #[must_use]
    pub fn detect() -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let known = |text: Option<String>| text.unwrap_or_else(|| "unknown".to_owned());
        let kernel = read("/proc/sys/kernel/osrelease").trim().to_owned();
        Self {
            cpu: known(field(&read("/proc/cpuinfo"), &["model name", "CPU part"])),
            cores: std::thread::available_parallelism().map_or(1, NonZero::get),
            memory_bytes: kib(&read("/proc/meminfo"), "MemTotal").unwrap_or(0),
            kernel: known(Some(kernel).filter(|kernel| !kernel.is_empty())),
            copy_plan: cascade_core::copy::plan().to_string(),
            load_before: read("/proc/loadavg").split(' ').next().and_then(|load| load.parse().ok()),
        }
    }
}

/// Bytes of memory that can be used without swapping; `None` when the system does not say.
#[must_use]
pub fn available_memory_bytes() -> Option<u64> {
    kib(&std::fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable")
}

/// The first of `names` in lines of the form `name : value`.
fn field(text: &str, names: &[&str]) -> Option<String> {
    let value = |name: &&str| {
        text.lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(key, _)| key.trim() == *name)
            .map(|(_, v)| v)
    };
    names.iter().find_map(value).map(|value| value.trim().to_owned())
}

fn kib(meminfo: &str, name: &str) -> Option<u64> {
    let value = field(meminfo, &[name])?;
    value.split(' ').next()?.parse::<u64>().ok()?.checked_mul(1024)
}

/// Commit of the sources that this program was built from, and whether they differ from it now. A program that was carried
/// to another machine is told by `CASCADE_COMMIT`, which ends in `-dirty` where they did.
#[must_use]
pub fn source_state() -> (Option<String>, bool) {
    if let Ok(told) = std::env::var("CASCADE_COMMIT") {
        let (commit, is_dirty) = match told.trim().strip_suffix("-dirty") {
            Some(commit) => (commit, true),
            None => (told.trim(), false),
        };
        return (Some(commit.to_owned()), is_dirty);
    }
    let git = |arguments: &[&str]| {
        let mut git = Command::new("git");
        let output = git.args(["-C", env!("CARGO_MANIFEST_DIR")]).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = git(&["rev-parse", "HEAD"]);
    let is_dirty =
        commit.is_some() && git(&["status", "--porcelain"]).is_some_and(|status| !status.is_empty());
    (commit, is_dirty)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "MemTotalX: 1 kB\nMemTotal:       24 kB\nMemAvailable:   12 kB\n";
        assert_eq!(kib(text, "MemTotal"), Some(24 * 1024));
        assert_eq!(kib(text, "SwapTotal"), None);
        assert_eq!(field("model name\t: A CPU\n", &["model name"]).as_deref(), Some("A CPU"));
    }

    #[test]
    fn this_machine_is_known() {
        let host = Host::detect();
        assert!(host.cores >= 1 && host.memory_bytes > 0, "{host:?}");
        assert!(host.copy_plan.starts_with("copy kernel "), "{host:?}");
    }
}
