//! `cargo xtask gpu-kit`: what a machine with a GPU and no toolchain needs to test and measure the GPU tier.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::process::{cargo, output, run};
use crate::venv::{Python, WHEEL};
use crate::wheel;
use crate::workspace;

/// The kit must be small enough to be carried anywhere.
const MOST_BYTES: u64 = 60 << 20;

/// Runs the tests on the devices, then the benchmark; what it writes lies beside it, or where `CASCADE_OUT` says.
const SCRIPT: &str = include_str!("gpu_kit/run.sh");

/// Options of `cargo xtask gpu-kit`.
#[derive(Args)]
pub(crate) struct Options {
    /// Where to put the kit.
    #[arg(long, value_name = "DIR", default_value = "target/gpu-kit")]
    to: PathBuf,
    /// Adds the Python package, for a machine that has torch: `run.sh` then runs `cascade_kv.gpu_check` too.
    #[arg(long)]
    python: bool,
}

/// Tests of devices: package, test, and its name in the kit.
const TESTS: [(&str, &str, &str); 2] =
    [("cascade-gpu", "real_device", "real-device"), ("cascade-store", "gpu", "store-gpu")];

pub(crate) fn command(options: &Options) -> Result<()> {
    let folder = std::env::current_dir().context("no current folder")?.join(&options.to);
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let bench = ["build", "--release", "--package", "cascade-bench", "--bin", "cascade-bench"];
    run(&mut cargo(&bench))?;
    let mut programs = vec![(workspace::target().join("release/cascade-bench"), "cascade-bench")];
    for (package, test, name) in TESTS {
        programs.push((test_binary(package, test)?, name));
    }
    for (program, name) in &programs {
        copy(program, &folder.join(name))?;
        // Debug information is most of a binary, and the machine with the GPU has nothing to read it with.
        run(crate::process::command("strip").arg(folder.join(name)))?;
    }
    if options.python {
        let python = Python::with(&[&WHEEL])?;
        let wheel = wheel::build(&python)?;
        let unpack = ["-m".as_ref(), "zipfile".as_ref(), "-e".as_ref(), wheel.as_os_str()];
        run(python.command(unpack).arg(folder.join("python")))?;
    }
    fs::write(folder.join("run.sh"), SCRIPT).context("cannot write run.sh")?;
    let commit =
        output(crate::process::command("git").args(["describe", "--always", "--dirty", "--abbrev=40"]))?;
    fs::write(folder.join("commit"), commit).context("cannot write the commit")?;
    let bytes = size(&folder)?;
    if bytes > MOST_BYTES {
        bail!("the kit has {} MiB, the most is {}", bytes >> 20, MOST_BYTES >> 20);
    }
    println!("{} MiB in {}; there: sh run.sh", bytes.div_ceil(1 << 20), folder.display());
    Ok(())
}

/// A test program that runs on devices.
fn test_binary(package: &str, test: &str) -> Result<PathBuf> {
    let args =
        ["test", "--release", "--package", package, "--test", test, "--no-run", "--message-format=json"];
    let messages = output(&mut cargo(&args))?;
    let found = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .find_map(|message| {
            let is_it = message["target"]["name"] == test;
            message["executable"].as_str().filter(|_| is_it).map(PathBuf::from)
        });
    found.with_context(|| format!("cargo named no program for the test {test}"))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    Ok(())
}

fn size(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let data = entry.metadata()?;
        bytes += if data.is_dir() { size(&entry.path())? } else { data.len() };
    }
    Ok(bytes)
}
