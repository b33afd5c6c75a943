//! Miri on `cascade-core`: undefined behaviour in copies, lists, leases, reservations and the tier in memory.

use std::process::Command;

use anyhow::{Result, bail};

use crate::process::{self, run, succeeds};
use crate::steps::Steps;
use crate::workspace::target;

/// Tests that Miri runs. The others are safe code that takes it hours (hashing), or use the clock.
const CHECKED: [&str; 10] = [
    "batch::",
    "copy::tests::",
    "copy::settings::",
    "digest::",
    "memory::",
    "memory_tier::",
    "quarantine::",
    "testing::fault::",
    "units::",
    "planted::",
];
/// Take minutes there, and show nothing that the others do not.
const SKIPPED: [&str; 2] = ["the_same_seed_gives_the_same_faults", "eight_callers_at_once"];
/// Helper threads of the copies live as long as the process, which Miri takes for a leak.
const WITH_HELPERS: &str = "copy::pool::";
/// parking_lot keeps pointers as integers.
const FLAGS: &str = "-Zmiri-disable-isolation -Zmiri-permissive-provenance";

/// Adds the step, or says why it was not run.
pub(crate) fn add_step(steps: &mut Steps) {
    const NAME: &str = "Miri on cascade-core";
    match set_up() {
        Err(why) => steps.leave_out(NAME, &format!("NOT RUN: {why:#}")),
        Ok(()) => {
            let cure = "run the command above alone; Miri names the access and the borrow that it breaks";
            steps.run(NAME, cure, || {
                run(miri(FLAGS).arg("--").args(CHECKED).args(skips()))?;
                run(miri(&format!("{FLAGS} -Zmiri-ignore-leaks")).args(["--", WITH_HELPERS]).args(skips()))?;
                Ok(format!("{} and {WITH_HELPERS}", CHECKED.join(" ")))
            });
        }
    }
}

/// Whether there is a nightly with Miri; it is fetched where rustup can.
fn set_up() -> Result<()> {
    if succeeds(Command::new("cargo").args(["+nightly", "miri", "--version"])) {
        return Ok(());
    }
    if !succeeds(Command::new("rustup").arg("--version")) {
        bail!("there is no rustup to get a nightly toolchain with");
    }
    let arguments =
        ["toolchain", "install", "nightly", "--profile", "minimal", "-c", "miri", "-c", "rust-src"];
    if run(process::command("rustup").args(arguments)).is_err() {
        bail!("rustup cannot get a nightly toolchain with Miri");
    }
    Ok(())
}

fn skips() -> impl Iterator<Item = &'static str> {
    SKIPPED.into_iter().flat_map(|name| ["--skip", name])
}

fn miri(flags: &str) -> Command {
    // Through rustup's cargo: the one that runs this program knows no `+nightly`.
    let mut command = process::command("cargo");
    command.args(["+nightly", "miri", "test", "-p", "cascade-core", "--lib"]);
    command.arg("--target-dir").arg(target().join("miri"));
    // The scalar kernel on one thread: Miri knows neither vector instructions nor cache flushes, which calibration uses.
    command.env("CASCADE_COPY_KERNEL", "scalar:plain").env("CASCADE_COPY_THREADS", "1");
    command.env("MIRIFLAGS", flags);
    for name in ["CARGO", "RUSTC", "RUSTUP_TOOLCHAIN", "RUSTDOC"] {
        command.env_remove(name);
    }
    command
}
