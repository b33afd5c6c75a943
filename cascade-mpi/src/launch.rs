//! Which launcher started this process, and as which rank.
//!
//! A pure function over the environment, so that it can be asked before `MPI_Init` and tested without MPI.
//! The variables were read from real runs of Slurm 22.05, MPICH 5.0 and Open MPI 5.0; those runs are the tests.

use std::collections::BTreeMap;
use std::fmt;

use cascade_core::{Error, ErrorKind, Result};

mod read;

/// What started this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Launcher {
    /// Nothing that knows of ranks: a shell, or the script of a batch job.
    None,
    /// Slurm's `srun`.
    Srun,
    /// Open MPI's `mpirun` or `mpiexec`.
    OpenMpi,
    /// MPICH's `mpiexec` (hydra), or another launcher that only speaks PMI.
    Hydra,
}

impl fmt::Display for Launcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "no launcher",
            Self::Srun => "srun",
            Self::OpenMpi => "Open MPI's mpirun",
            Self::Hydra => "mpiexec (PMI)",
        })
    }
}

/// The service through which an MPI library asks the launcher for its rank and its peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProcessManagement {
    /// None: an MPI library sees a world of one rank.
    None,
    /// PMI-1 or PMI-2 (MPICH, Intel MPI).
    Pmi,
    /// `PMIx` (Open MPI).
    Pmix,
    /// Cray's (`srun --mpi=cray_shasta`).
    Cray,
}

/// This process's place in the job that the launcher started.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Launch {
    /// Who started it.
    pub launcher: Launcher,
    /// How an MPI library finds its peers.
    pub process_management: ProcessManagement,
    /// Number of this process, from 0.
    pub rank: u32,
    /// Processes in all, at least 1.
    pub size: u32,
    /// Number of this process among those of its node, where the launcher says it.
    pub local_rank: Option<u32>,
    /// Processes on this node, where the launcher says it.
    pub local_size: Option<u32>,
}

/// Reads this process's place from `environment`, such as `std::env::vars().collect()`.
///
/// # Errors
/// [`ErrorKind::Config`] when the variables contradict each other, as they do when one launcher was started
/// inside another and inherited its variables, or when a launcher is not known. The text names the variables
/// and the cure.
pub fn detect(environment: &BTreeMap<String, String>) -> Result<Launch> {
    match (read::open_mpi(environment)?, read::hydra(environment)?) {
        (Some(open_mpi), Some(hydra)) => Err(nested(&open_mpi, &hydra)),
        // Both launchers may start their daemons by srun, so a step around them says nothing about the ranks.
        (Some(launch), None) | (None, Some(launch)) => Ok(launch),
        (None, None) => match read::srun(environment)? {
            Some(launch) => Ok(launch),
            None => read::alone(environment),
        },
    }
}

fn nested(a: &Launch, b: &Launch) -> Error {
    Error::new(
        ErrorKind::Config,
        format!(
            "two launchers claim this process: {} as rank {} of {} (OMPI_COMM_WORLD_*) and {} as rank {} of {} (PMI_*). \
             One was started inside the other. Use one of them, or start the inner one by \
             `env -u PMI_RANK -u PMI_SIZE -u PMI_FD` or without the OMPI_COMM_WORLD_* variables",
            a.launcher, a.rank, a.size, b.launcher, b.rank, b.size
        ),
    )
}

impl Launch {
    /// Checks what the MPI library says after `MPI_Init` against what the launcher said.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when they differ, which means that the library and the launcher belong to
    /// different MPIs; the text names the cure. Going on would give every process a store of its own.
    pub fn confirm(&self, mpi_rank: u32, mpi_size: u32) -> Result<()> {
        if (mpi_rank, mpi_size) == (self.rank, self.size) || self.launcher == Launcher::None {
            return Ok(());
        }
        let cure = match self.launcher {
            Launcher::Srun => {
                "Give srun the service that this MPI speaks: --mpi=pmi2 for MPICH, --mpi=cray_shasta for Cray MPICH, \
                 --mpi=pmix for Open MPI"
            }
            _ => "Use the mpiexec that belongs to the MPI library that the program is linked with",
        };
        Err(Error::new(
            ErrorKind::Config,
            format!(
                "{} started this process as rank {} of {}, but the MPI library says rank {mpi_rank} of {mpi_size}. {cure}",
                self.launcher, self.rank, self.size
            ),
        ))
    }

    /// What a user should know about this way of starting, one sentence each.
    #[must_use]
    pub fn advice(&self) -> Vec<&'static str> {
        let mut advice = Vec::new();
        if self.launcher == Launcher::Srun
            && self.size > 1
            && self.process_management == ProcessManagement::None
        {
            advice.push(
                "srun runs without a process-management service, so MPI would see many worlds of one rank; give it \
                 --mpi=pmi2, --mpi=pmix or --mpi=cray_shasta",
            );
        }
        if self.size > 1 {
            match (self.launcher, self.process_management) {
                (Launcher::Hydra, _) => {
                    advice.push("mpiexec ends the whole job when one rank dies; srun -K0 --mpi=pmi2 does not");
                }
                (Launcher::OpenMpi, _) => advice.push(
                    "mpirun ends the whole job when one rank dies; mpiexec --with-ft ulfm (Open MPI 5) does not",
                ),
                (Launcher::Srun, ProcessManagement::Pmix) => {
                    advice.push("Slurm's pmix plugin aborts the step when one rank dies, with -K0 too");
                }
                _ => {}
            }
        }
        advice
    }
}

#[cfg(test)]
mod tests;
