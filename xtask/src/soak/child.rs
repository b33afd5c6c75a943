//! A lane's process: what it says is passed on, and read for its result.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::process;

/// The line that a lane ends with.
#[derive(Debug, Default, Deserialize)]
pub(super) struct LaneResult {
    pub(super) lane: String,
    pub(super) n: u64,
    pub(super) unit: String,
    pub(super) failures: u64,
    #[serde(flatten)]
    pub(super) measured: BTreeMap<String, f64>,
}

/// What a run of tests said.
#[derive(Debug, Default)]
pub(super) struct Said {
    pub(super) result: Option<LaneResult>,
    /// How far the lane was when it last said so.
    pub(super) progress: u64,
    /// Tests that passed.
    pub(super) passed: u64,
}

impl Said {
    fn hear(&mut self, line: &str) {
        if let Some(result) = line.strip_prefix("lane-result ") {
            self.result = serde_json::from_str(result).ok();
        } else if let Some(n) = line.strip_prefix("lane-progress ").and_then(|n| n.parse().ok()) {
            self.progress = n;
        } else if let Some(rest) = line.strip_prefix("test result: ok. ") {
            self.passed += rest.split(' ').next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
        }
    }
}

/// Runs a lane. What was said before it failed is in `said`.
///
/// # Errors
/// When it cannot be started, or fails.
pub(super) fn watch(command: &mut Command, said: &mut Said) -> Result<()> {
    let line = process::line(command);
    println!("  $ {line}");
    let mut child =
        command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot start `{line}`"))?;
    if let Some(out) = child.stdout.take() {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            println!("  {line}");
            said.hear(&line);
        }
    }
    let status = child.wait().with_context(|| format!("cannot wait for `{line}`"))?;
    if !status.success() {
        bail!("`{line}` failed ({status}); the seed is in its output");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_is_understood() {
        let mut said = Said::default();
        said.hear("lane-progress 12");
        said.hear(r#"lane-result {"lane":"kill","n":20,"unit":"kills","failures":0,"max_ms":1.5}"#);
        said.hear("test result: ok. 3 passed; 0 failed; 0 ignored");
        let result = said.result.unwrap();
        assert_eq!((result.n, result.measured["max_ms"], said.progress, said.passed), (20, 1.5, 12, 3));
    }

    #[test]
    fn what_was_said_before_a_failure_is_kept() {
        let mut said = Said::default();
        let mut command = Command::new("sh");
        let error = watch(command.args(["-c", "echo lane-progress 7; exit 3"]), &mut said).unwrap_err();
        assert!(error.to_string().contains("failed") && said.progress == 7, "{error}");
    }
}
