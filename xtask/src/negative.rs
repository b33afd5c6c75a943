//! Negative controls: each planted bug must be caught by the lane that is there for it, else the lane proves nothing.
//!
//! The tests are built once with the feature `planted`; a bug is chosen when a test binary is run (`CASCADE_PLANTED`). Every
//! chosen test first runs without a bug and must pass: it is the bug that is caught. Models are only looked for then, since
//! their own lane runs them whole. Of a simulation the seed that failed is run again without the bug, and must pass: among ten
//! thousand seeds one could show a fault of the store itself.

mod build;
mod controls;

use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::workspace::target;
use build::Binary;
use controls::{CONTROLS, Control, SIMULATION};

/// A control that takes longer hangs, and a hang is not a verdict.
const LIMIT: Duration = Duration::from_secs(240);

/// What a run of tests came to.
struct Outcome {
    passed: bool,
    /// Tests that failed, or how the process died.
    failed: Vec<String>,
    text: String,
}

/// Builds, runs every control, prints the table; fails when a bug was not caught.
pub(crate) fn run() -> Result<String> {
    let binaries = build::all()?;
    let mut missed = Vec::new();
    let mut lines = Vec::new();
    for control in CONTROLS {
        let binary = binaries.iter().find(|binary| (binary.build, binary.name.as_str()) == control.binary);
        let binary = binary.with_context(|| format!("there is no test binary {:?}", control.binary))?;
        let verdict = check(control, binary);
        let (word, note) = match &verdict {
            Ok(by) => ("caught", by.clone()),
            Err(why) => ("MISSED", format!("{why:#}")),
        };
        let line = format!("{:24} {:18} {word}  {note}", control.bug, binary.name);
        println!("  {line}");
        if verdict.is_err() {
            missed.push(control.bug);
        }
        lines.push(line);
    }
    println!("\nplanted bug              lane               verdict\n{}", lines.join("\n"));
    if !missed.is_empty() {
        bail!("not caught: {}", missed.join(", "));
    }
    let bugs: BTreeSet<_> = CONTROLS.iter().map(|control| control.bug).collect();
    Ok(format!("{} planted bugs, each caught, by {} controls", bugs.len(), CONTROLS.len()))
}

/// How many controls there are.
pub(crate) fn count() -> u64 {
    CONTROLS.len() as u64
}

/// The tests that caught the bug.
fn check(control: &Control, binary: &Binary) -> Result<String> {
    let sound = if matches!(binary.build, "plain" | "kill" | "files") {
        execute(binary, control, None)?.passed
    } else {
        listed(binary, control.test)?
    };
    if !sound {
        bail!("`{}` fails, or is gone, without any bug", control.test);
    }
    let outcome = execute(binary, control, Some(control.bug))?;
    if outcome.text.contains("names no bug") {
        bail!("the build does not know this bug");
    }
    if outcome.passed || outcome.failed.is_empty() {
        bail!("`{}` stayed green", control.test);
    }
    if control.test == SIMULATION {
        let seed = seed(&outcome.text).context("the simulation failed and named no seed")?;
        let again = Control { environment: &[("CASCADE_SIM_SEEDS", "1")], ..*control };
        if !execute_with(binary, &again, None, &[("CASCADE_SEED", seed.as_str())])?.passed {
            bail!("seed {seed} fails without the bug too: a fault of the store, not a catch");
        }
        return Ok(format!("{} with seed {seed}, which passes without it", outcome.failed.join(", ")));
    }
    Ok(outcome.failed.join(", "))
}

/// The seed that a simulation says it broke at.
fn seed(text: &str) -> Option<String> {
    let digits = text.split("CASCADE_SEED=").nth(1)?;
    let seed: String = digits.chars().take_while(char::is_ascii_digit).collect();
    (!seed.is_empty()).then_some(seed)
}

fn command(binary: &Binary) -> Command {
    let mut command = Command::new(&binary.path);
    command.current_dir(&binary.folder).env_remove("CASCADE_PLANTED").env("RUST_BACKTRACE", "0");
    command
}

fn listed(binary: &Binary, test: &str) -> Result<bool> {
    let output = command(binary).args(["--list", "--exact", test]).output().context("cannot list tests")?;
    Ok(String::from_utf8_lossy(&output.stdout).contains(&format!("{test}: test")))
}

/// A folder for one run alone.
fn private(parent: impl AsRef<Path>) -> Result<tempfile::TempDir> {
    tempfile::Builder::new().prefix("cascade-negative-").tempdir_in(parent).context("no temporary folder")
}

fn execute(binary: &Binary, control: &Control, bug: Option<&str>) -> Result<Outcome> {
    execute_with(binary, control, bug, &[])
}

fn execute_with(
    binary: &Binary,
    control: &Control,
    bug: Option<&str>,
    more: &[(&str, &str)],
) -> Result<Outcome> {
    let log = target().join("negative.log");
    let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut command = command(binary);
    command.args(["--exact", control.test]).envs(control.environment.iter().copied());
    command.envs(more.iter().copied());
    // A process that its bug ends leaves its folders: they are in this one.
    let (memory, disk) = (private("/dev/shm")?, private(std::env::temp_dir())?);
    command.env("CASCADE_TEST_MEMORY", memory.path()).env("TMPDIR", disk.path());
    if let Some(bug) = bug {
        command.env("CASCADE_PLANTED", bug);
    }
    let (out, err) = (file.try_clone()?, file);
    let mut child =
        command.stdin(Stdio::null()).stdout(out).stderr(err).spawn().context("cannot start it")?;
    let deadline = Instant::now() + LIMIT;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            bail!("`{}` hangs with this bug", control.test);
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let text = String::from_utf8_lossy(&std::fs::read(Path::new(&log))?).into_owned();
    let ran = text.contains("test result: ok. 1 passed");
    let mut failed = failures(&text);
    if failed.is_empty() && !status.success() {
        failed.push(format!("{} ({status})", control.test));
    }
    Ok(Outcome { passed: status.success() && ran, failed, text })
}

/// Names of the tests that a run reports as failed.
fn failures(text: &str) -> Vec<String> {
    let failed = text.lines().filter(|line| line.starts_with("test ") && line.ends_with("FAILED"));
    failed.filter_map(|line| line.split(' ').nth(1)).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_tests_are_named() {
        let text = "running 2 tests\ntest a::b ... ok\ntest a::c ... FAILED\ntest result: FAILED. 1 passed\n";
        assert_eq!(failures(text), ["a::c"]);
    }

    #[test]
    fn the_seed_of_a_failure_is_read() {
        let text = "seed 412 (Back) broke; again with `CASCADE_SEED=412 CASCADE_SIM_SEEDS=1 cargo test`";
        assert_eq!(seed(text).as_deref(), Some("412"));
        assert_eq!(seed("CASCADE_SEED= nothing").or(seed("no seed at all")), None);
    }

    #[test]
    fn a_test_that_stays_green_is_no_catch() {
        let folder = tempfile::tempdir().unwrap();
        let path = std::env::current_exe().unwrap();
        let binary = Binary { build: "loom", name: "xtask".into(), path, folder: folder.path().into() };
        let green = Control {
            bug: "none",
            binary: ("loom", "xtask"),
            test: "negative::tests::failed_tests_are_named",
            environment: &[],
        };
        std::fs::create_dir_all(target()).unwrap();
        assert!(check(&green, &binary).unwrap_err().to_string().contains("stayed green"));
        let gone = Control { test: "no::such::test", ..green };
        assert!(check(&gone, &binary).unwrap_err().to_string().contains("is gone"));
    }
}
