//! Real ranks under a real launcher: `cascade-store/tests/ranks`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::mpi::{Kind, Mpi};
use crate::process::{command, output, run};
use crate::steps::Steps;
use crate::venv::Python;
use crate::workspace;

/// Ranks, and how they reach each other. `cargo xtask test` runs the first of them, with MPICH; the lane all, with each MPI.
const JOBS: [(u32, &str); 10] = [
    (2, "rma"),
    (4, "message"),
    (2, "stop"),
    (4, "rma"),
    (4, "shm"),
    (3, "stop"),
    (1, "rma"),
    (2, "message"),
    (2, "shm"),
    (4, "faults"),
];
const FEW: usize = 3;

const NAME: &str = "ranks over MPI";
const CURE: &str = "the command above alone shows what each rank says";

/// With each MPI, everything; one that is not there and cannot be had is a failure.
pub(super) fn add_lane(steps: &mut Steps) {
    for kind in Kind::ALL {
        steps.run(&format!("{NAME}: {}", kind.name()), CURE, || test(&Mpi::get(kind)?, &JOBS, "3"));
    }
}

/// With MPICH, a part of it; left out, with the reason, where no MPI is there and none can be had.
pub(super) fn add_step(steps: &mut Steps, left_out: Option<&str>) {
    if let Some(why) = left_out {
        return steps.leave_out(NAME, why);
    }
    match Mpi::get(Kind::Mpich) {
        Ok(mpi) => {
            steps.run(NAME, CURE, || test(&mpi, &JOBS[..FEW], "1"));
        }
        Err(error) => steps.leave_out(NAME, &format!("not run, there is no MPI: {error:#}")),
    }
}

fn test(mpi: &Mpi, jobs: &[(u32, &str)], seconds: &str) -> Result<String> {
    let selection = ["-p", "cascade-store", "--features", "mpi"];
    if mpi.kind() == Kind::Mpich {
        mpi.forget_others()?;
        let mut clippy = mpi.cargo(&["clippy", "--tests", "-p", "cascade-mpi"]);
        run(clippy.args(selection).args(["--", "-D", "warnings"]))?;
    }
    let programs = build(mpi, &selection)?;
    let program = |name: &str| programs.get(name).with_context(|| format!("cargo built no test `{name}`"));
    for (ranks, path) in jobs {
        let folder = tempfile::tempdir().context("no temporary folder")?;
        let mut launch = mpi.launch(*ranks, program("ranks")?);
        match *path {
            "stop" => launch.args(["--path", "message", "--scenario", "stop"]),
            "faults" => launch.args(["--path", "message", "--scenario", "faults"]),
            path => launch.args(["--path", path]),
        };
        run(launch.args(["--seconds", seconds, "--folder"]).arg(folder.path()))?;
    }
    let python = python(mpi)?;
    let mut agents = command(program("agents")?);
    run(agents.arg("--launch").args(mpi.words(2)))?;
    let jobs: Vec<String> = jobs.iter().map(|(ranks, path)| format!("{ranks} {path}")).collect();
    Ok(format!("agents and engines; {python}; {} ranks: {}", mpi.kind().name(), jobs.join(", ")))
}

/// Python programs that are ranks themselves, with an extension that has MPI in it.
fn python(mpi: &Mpi) -> Result<String> {
    run(&mut mpi.cargo(&["build", "-p", "cascade-py", "--features", "mpi"]))?;
    let packages = tempfile::tempdir().context("no temporary folder")?;
    let package = packages.path().join("cascade_kv");
    let sources = workspace::root().join("cascade-py/python/cascade_kv");
    run(command("cp").arg("-r").arg(&sources).arg(&package))?;
    let built = mpi.programs().join("lib_native.so");
    std::fs::copy(&built, package.join("_native.abi3.so")).context("cargo built no extension")?;
    let interpreter = Python::with(&[])?;
    for ranks in [2, 4] {
        let arenas = tempfile::Builder::new().prefix("cascade-python-").tempdir_in("/dev/shm");
        let arenas = arenas.context("no folder in memory")?;
        let mut launch = mpi.launch(ranks, interpreter.program());
        launch.env("PYTHONPATH", packages.path()).arg("cascade-py/tests_mpi/ranks.py");
        run(launch.arg(arenas.path()).arg(ranks.to_string()))?;
    }
    Ok("DistributedStore of 2 and 4 ranks".into())
}

/// The test programs by name, from what cargo says of them.
pub(crate) fn build(mpi: &Mpi, selection: &[&str]) -> Result<BTreeMap<String, PathBuf>> {
    let tests = ["test", "--no-run", "--test", "ranks", "--test", "agents", "--message-format", "json"];
    let messages = output(mpi.cargo(&tests).args(selection))?;
    let parsed = messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let built = parsed.filter_map(|message| {
        let name = message["target"]["name"].as_str()?.to_owned();
        Some((name, message["executable"].as_str()?.into()))
    });
    Ok(built.collect())
}
