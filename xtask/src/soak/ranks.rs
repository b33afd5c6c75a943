//! The lane of ranks over MPI: by windows and by messages with MPICH while one is stopped again and again, then with Open MPI, whose
//! launcher lets the others live, while one is killed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};

use super::child::{self, Said};
use super::lanes::Found;
use crate::mpi::{Kind, Mpi};
use crate::test::mpi::build;

const RANKS: u32 = 4;
const SHARED_MEMORY: &str = "/dev/shm";
/// How Open MPI's segments are called, which it leaves behind when a job is killed.
const SEGMENTS: &str = "vader_segment.";

pub(super) fn run(time: Duration, found: &mut Found) -> Result<()> {
    found.unit = "fetches".into();
    let third = (time.as_secs() / 3).max(2);
    let mpich = Mpi::get(Kind::Mpich)?;
    mpich.forget_others()?;
    job(&mpich, "rma", "faults", third, found)?;
    job(&mpich, "message", "faults", third, found)?;
    job(&Mpi::get(Kind::Openmpi)?, "message", "kill", third, found)
}

fn job(mpi: &Mpi, path: &str, scenario: &str, seconds: u64, found: &mut Found) -> Result<()> {
    let programs = build(mpi, &["-p", "cascade-store", "--features", "mpi"])?;
    let program = programs.get("ranks").context("cargo built no test `ranks`")?;
    let folder = tempfile::tempdir().context("no temporary folder")?;
    let is_kill = scenario == "kill";
    let mut launch = if is_kill {
        mpi.launch_that_survives(RANKS, program).context("this launcher ends a job when one rank dies")?
    } else {
        mpi.launch(RANKS, program)
    };
    launch.args(["--path", path, "--scenario", scenario, "--seconds", &seconds.to_string(), "--folder"]);
    launch.arg(folder.path());
    // A killed rank leaves its arena.
    let arenas = tempfile::Builder::new().prefix("cascade-soak-").tempdir_in(SHARED_MEMORY);
    let arenas = arenas.context("no folder in shared memory")?;
    launch.arg("--arenas").arg(arenas.path());
    let (segments, began) = (Segments::now(), SystemTime::now());
    let mut said = Said::default();
    let verdict = child::watch(&mut launch, &mut said);
    segments.sweep(began);
    // A launcher that has lost a rank says so at its end, whatever the others did.
    if !is_kill {
        verdict?;
    }
    let result = said.result.with_context(|| format!("{scenario}: the ranks ended without a result"))?;
    found.n += result.n;
    found.failures += result.failures;
    for (name, value) in result.measured {
        found.measured.insert(format!("{scenario}_{path}_{name}"), value);
    }
    Ok(())
}

/// Open MPI's files in shared memory before a job.
struct Segments(BTreeSet<PathBuf>);

impl Segments {
    fn now() -> Self {
        let entries = std::fs::read_dir(SHARED_MEMORY).into_iter().flatten().flatten();
        let is_one = |path: &PathBuf| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(SEGMENTS))
        };
        Self(entries.map(|entry| entry.path()).filter(is_one).collect())
    }

    /// Removes what was made while the job ran and no process maps: what its dead left.
    fn sweep(&self, began: SystemTime) {
        let ended = SystemTime::now();
        for path in Self::now().0.difference(&self.0) {
            let made = path.metadata().and_then(|meta| meta.modified());
            let is_ours = made.is_ok_and(|made| made >= began && made <= ended);
            if is_ours && !is_mapped(path) && std::fs::remove_file(path).is_ok() {
                println!("  removed {}, which a killed rank left", path.display());
            }
        }
    }
}

fn is_mapped(path: &Path) -> bool {
    let name = path.to_string_lossy();
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut maps = processes.filter_map(|entry| std::fs::read_to_string(entry.path().join("maps")).ok());
    maps.any(|maps| maps.contains(&*name))
}
