//! Reading the variables of each launcher.

use std::collections::BTreeMap;
use std::str::FromStr;

use cascade_core::{Error, ErrorKind, Result};

use super::{Launch, Launcher, ProcessManagement};

type Environment = BTreeMap<String, String>;

/// From here on Slurm's step numbers name steps that it made itself (batch script, interactive shell, prolog).
const FIRST_SPECIAL_STEP: u32 = 0xFFFF_FF00;

/// Variables that only hydra sets; with them, `PMI_RANK` is not Slurm's even inside a step.
const HYDRA_MARKS: [&str; 3] = ["MPI_LOCALRANKID", "MPI_LOCALNRANKS", "HYDI_CONTROL_FD"];

pub(super) fn open_mpi(environment: &Environment) -> Result<Option<Launch>> {
    let names = ["OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"];
    let Some((rank, size)) = rank_and_size(environment, names)? else { return Ok(None) };
    let launch = Launch {
        launcher: Launcher::OpenMpi,
        process_management: ProcessManagement::Pmix,
        rank,
        size,
        local_rank: number(environment, "OMPI_COMM_WORLD_LOCAL_RANK")?,
        local_size: number(environment, "OMPI_COMM_WORLD_LOCAL_SIZE")?,
    };
    checked(launch, "OMPI_COMM_WORLD_*").map(Some)
}

pub(super) fn hydra(environment: &Environment) -> Result<Option<Launch>> {
    let by_hydra = HYDRA_MARKS.iter().any(|name| environment.contains_key(*name));
    if in_srun_step(environment)? && !by_hydra {
        return Ok(None);
    }
    let Some((rank, size)) = rank_and_size(environment, ["PMI_RANK", "PMI_SIZE"])? else { return Ok(None) };
    let launch = Launch {
        launcher: Launcher::Hydra,
        process_management: ProcessManagement::Pmi,
        rank,
        size,
        local_rank: number(environment, "MPI_LOCALRANKID")?,
        local_size: number(environment, "MPI_LOCALNRANKS")?,
    };
    checked(launch, "PMI_* and MPI_LOCAL*").map(Some)
}

pub(super) fn srun(environment: &Environment) -> Result<Option<Launch>> {
    if !in_srun_step(environment)? {
        return Ok(None);
    }
    let names = ["SLURM_PROCID", "SLURM_STEP_NUM_TASKS"];
    let Some((rank, size)) = rank_and_size(environment, names)? else { return Ok(None) };
    let management = [
        ("PMIX_RANK", ProcessManagement::Pmix),
        ("PMI_RANK", ProcessManagement::Pmi),
        ("PALS_RANKID", ProcessManagement::Cray),
    ];
    let found = management.into_iter().find(|(name, _)| environment.contains_key(*name));
    if let Some((name, _)) = found
        && let Some(other) = number::<u32>(environment, name)?
        && other != rank
    {
        return Err(config(format!(
            "srun says rank {rank} (SLURM_PROCID), but {name} is {other}, left over from another launcher. \
             Start srun by `env -u {name}`"
        )));
    }
    let launch = Launch {
        launcher: Launcher::Srun,
        process_management: found.map_or(ProcessManagement::None, |(_, management)| management),
        rank,
        size,
        local_rank: number(environment, "SLURM_LOCALID")?,
        local_size: tasks_on_this_node(environment)?,
    };
    checked(launch, "SLURM_*").map(Some)
}

/// No launcher is known. If there are traces of one all the same, going on as a world of one would be wrong.
pub(super) fn alone(environment: &Environment) -> Result<Launch> {
    for name in ["PMIX_RANK", "PALS_RANKID"] {
        if environment.contains_key(name) {
            return Err(config(format!(
                "{name} is set, but nothing says how many processes there are: this launcher is not known. \
                 Start by srun, mpirun or mpiexec, or unset {name} to run as one process"
            )));
        }
    }
    Ok(Launch {
        launcher: Launcher::None,
        process_management: ProcessManagement::None,
        rank: 0,
        size: 1,
        local_rank: Some(0),
        local_size: Some(1),
    })
}

/// Whether the process is a task of a step that a user started. The script of a batch job has `SLURM_PROCID`
/// and `SLURM_NTASKS` too, but no step (or one of Slurm's own): it is one process whatever they say.
fn in_srun_step(environment: &Environment) -> Result<bool> {
    Ok(number(environment, "SLURM_STEP_ID")?.is_some_and(|step: u32| step < FIRST_SPECIAL_STEP))
}

/// Slurm writes the tasks of each node as `4(x2),3`: nodes 0 and 1 have 4, node 2 has 3.
fn tasks_on_this_node(environment: &Environment) -> Result<Option<u32>> {
    let name = "SLURM_STEP_TASKS_PER_NODE";
    let (Some(node), Some(list)) = (number::<u32>(environment, "SLURM_NODEID")?, environment.get(name))
    else {
        return Ok(None);
    };
    let mut first_node = 0u32;
    for run in list.split(',') {
        let (tasks, nodes) = match run.split_once("(x") {
            Some((tasks, nodes)) => (tasks, nodes.trim_end_matches(')')),
            None => (run, "1"),
        };
        first_node = first_node.saturating_add(parse(name, nodes)?);
        if node < first_node {
            return parse(name, tasks).map(Some);
        }
    }
    Err(config(format!("SLURM_NODEID is {node}, but {name}={list} has no such node; start by a fresh srun")))
}

fn checked(launch: Launch, variables: &str) -> Result<Launch> {
    let Launch { rank, size, local_rank, local_size, .. } = launch;
    let local_fits = match (local_rank, local_size) {
        (Some(rank), Some(local)) => rank < local && local <= size,
        (Some(rank), None) => rank < size,
        (None, _) => true,
    };
    if rank < size && local_fits {
        return Ok(launch);
    }
    Err(config(format!(
        "{variables} say rank {rank} of {size}, local rank {local_rank:?} of {local_size:?}, which cannot be. \
         They are left over from another launch: unset them, or start by a fresh launcher"
    )))
}

/// Both or neither: half a pair is an environment that somebody edited.
fn rank_and_size(environment: &Environment, names: [&str; 2]) -> Result<Option<(u32, u32)>> {
    let [rank_name, size_name] = names;
    match (number(environment, rank_name)?, number(environment, size_name)?) {
        (Some(rank), Some(size)) => Ok(Some((rank, size))),
        (None, None) => Ok(None),
        (Some(_), None) => Err(half(rank_name, size_name)),
        (None, Some(_)) => Err(half(size_name, rank_name)),
    }
}

fn half(there: &str, missing: &str) -> Error {
    config(format!(
        "{there} is set but {missing} is not; unset both, or start by a launcher, which sets both"
    ))
}

fn number<N: FromStr<Err: std::error::Error + Send + Sync + 'static>>(
    environment: &Environment,
    name: &str,
) -> Result<Option<N>> {
    environment.get(name).map(|text| parse(name, text)).transpose()
}

fn parse<N: FromStr<Err: std::error::Error + Send + Sync + 'static>>(name: &str, text: &str) -> Result<N> {
    let wrong =
        |error| config(format!("{name}: {text:?} is not a number; a launcher sets one")).with_source(error);
    text.parse().map_err(wrong)
}

fn config(context: String) -> Error {
    Error::new(ErrorKind::Config, context)
}
