//! Real ranks under a real launcher: `cascade-store/tests/ranks`.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::mpi::{Kind, Mpi};
use crate::process::{output, run};
use crate::steps::Steps;

/// Ranks, and how they reach each other. `cargo xtask test` runs the first of them, with MPICH; the lane all, with each MPI.
const JOBS: [(u32, &str); 7] =
    [(2, "rma"), (4, "rma"), (4, "message"), (2, "shm"), (1, "rma"), (2, "message"), (4, "shm")];
const FEW: usize = 4;

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
        let mut clippy = mpi.cargo(&["clippy", "--tests", "-p", "cascade-mpi"]);
        run(clippy.args(selection).args(["--", "-D", "warnings"]))?;
    }
    let program = build(mpi, &selection)?;
    for (ranks, path) in jobs {
        let folder = tempfile::tempdir().context("no temporary folder")?;
        let mut launch = mpi.launch(*ranks, &program);
        run(launch.args(["--path", path, "--seconds", seconds, "--folder"]).arg(folder.path()))?;
    }
    let jobs: Vec<String> = jobs.iter().map(|(ranks, path)| format!("{ranks} {path}")).collect();
    Ok(format!("{} ranks: {}", mpi.kind().name(), jobs.join(", ")))
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
