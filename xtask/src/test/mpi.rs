//! Real ranks under a real launcher: `cascade-store/tests/ranks`.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::mpi::{Kind, Mpi};
use crate::process::{output, run};
use crate::steps::Steps;

/// Ranks, and how they reach each other.
const JOBS: [(u32, &str); 4] = [(1, "rma"), (2, "rma"), (4, "rma"), (2, "message")];

pub(super) fn add_steps(steps: &mut Steps, skip: bool) {
    let name = "ranks over MPI";
    if skip {
        return steps.leave_out(name, "--skip-mpi");
    }
    for kind in Kind::ALL {
        let cure = "the command above alone shows what each rank says; without an MPI, or a network to get one: --skip-mpi";
        steps.run(&format!("{name}: {}", kind.name()), cure, || test(kind));
    }
}

fn test(kind: Kind) -> Result<String> {
    let mpi = Mpi::get(kind)?;
    let selection = ["-p", "cascade-store", "--no-default-features", "--features", "mpi"];
    if kind == Kind::Mpich {
        let mut clippy = mpi.cargo(&["clippy", "--tests", "-p", "cascade-mpi"]);
        run(clippy.args(selection).args(["--", "-D", "warnings"]))?;
    }
    let program = build(&mpi, &selection)?;
    let jobs = JOBS.iter().chain([&(2, "shm")]);
    for (ranks, path) in jobs {
        let folder = tempfile::tempdir().context("no temporary folder")?;
        let mut launch = mpi.launch(*ranks, &program);
        run(launch.args(["--path", path, "--seconds", "3", "--folder"]).arg(folder.path()))?;
    }
    Ok("1, 2 and 4 ranks; rma, message, shm".into())
}

/// The test program, by what cargo says of it.
fn build(mpi: &Mpi, selection: &[&str]) -> Result<PathBuf> {
    let mut cargo = mpi.cargo(&["test", "--no-run", "--test", "ranks", "--message-format", "json"]);
    let messages = output(cargo.args(selection))?;
    let parsed = messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut programs = parsed.filter(|message| message["target"]["name"] == "ranks");
    let program = programs.find_map(|message| message["executable"].as_str().map(PathBuf::from));
    program.context("cargo built no program `ranks`")
}
