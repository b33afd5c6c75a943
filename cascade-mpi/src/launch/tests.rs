use super::*;

/// An environment in the form that `env` prints.
fn environment(lines: &str) -> BTreeMap<String, String> {
    let pair = |line: &str| line.trim().split_once('=').map(|(name, value)| (name.into(), value.into()));
    lines.lines().filter_map(pair).collect()
}

fn launch(lines: &str) -> Launch {
    detect(&environment(lines)).unwrap()
}

/// The text of the error, which must name `needed`.
fn refused(lines: &str, needed: &[&str]) {
    let error = detect(&environment(lines)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    for word in needed {
        assert!(error.to_string().contains(word), "{word:?} is not in: {error}");
    }
}

fn place(launch: &Launch) -> (Launcher, ProcessManagement, u32, u32, Option<u32>, Option<u32>) {
    let Launch { launcher, process_management, rank, size, local_rank, local_size } = launch.clone();
    (launcher, process_management, rank, size, local_rank, local_size)
}

/// What `srun -n 2` sets for the second task, whatever `--mpi` is.
const SRUN: &str = "SLURM_JOB_ID=1
    SLURM_LOCALID=1
    SLURM_NODEID=0
    SLURM_NPROCS=2
    SLURM_NTASKS=2
    SLURM_PROCID=1
    SLURM_STEPID=0
    SLURM_STEP_ID=0
    SLURM_STEP_NUM_NODES=1
    SLURM_STEP_NUM_TASKS=2
    SLURM_STEP_TASKS_PER_NODE=2
    SLURM_TASKS_PER_NODE=2";
const PMI2: &str = "PMI_FD=13\nPMI_JOBID=1.0\nPMI_RANK=1\nPMI_SIZE=2";
const CRAY: &str = "PALS_APID=3.0\nPALS_NODEID=0\nPALS_RANKID=1";
const HYDRA: &str = "HYDI_CONTROL_FD=7
    MPI_LOCALNRANKS=2
    MPI_LOCALRANKID=1
    PMI_FD=11
    PMI_RANK=1
    PMI_SIZE=2";
const OPEN_MPI: &str = "OMPI_COMM_WORLD_LOCAL_RANK=1
    OMPI_COMM_WORLD_LOCAL_SIZE=2
    OMPI_COMM_WORLD_RANK=1
    OMPI_COMM_WORLD_SIZE=2
    PMIX_NAMESPACE=prterun-vm-22596@1
    PMIX_RANK=1
    PRTE_LAUNCHED=1";
/// A batch script's own environment: it has a rank and a number of tasks, but it is one process.
const BATCH_SCRIPT: &str = "SLURM_JOB_ID=4
    SLURM_LOCALID=0
    SLURM_NODEID=0
    SLURM_NPROCS=2
    SLURM_NTASKS=2
    SLURM_PROCID=0
    SLURM_TASKS_PER_NODE=2";
/// hydra started from a batch script: its proxy on each node is the task of a step of its own.
const HYDRA_PROXY_STEP: &str = "SLURM_LOCALID=0
    SLURM_NODEID=0
    SLURM_NTASKS=1
    SLURM_PROCID=0
    SLURM_STEP_ID=0
    SLURM_STEP_NUM_TASKS=1
    SLURM_STEP_TASKS_PER_NODE=1";

fn both(a: &str, b: &str) -> String {
    format!("{a}\n{b}")
}

#[test]
fn no_launcher_is_one_process() {
    let alone = (Launcher::None, ProcessManagement::None, 0, 1, Some(0), Some(1));
    assert_eq!(place(&launch("HOME=/root")), alone);
    assert_eq!(place(&launch(BATCH_SCRIPT)), alone);
    // The shell of `salloc` with use_interactive_step, and the batch step where Slurm names it.
    for step in ["4294967290", "4294967291"] {
        assert_eq!(place(&launch(&both(BATCH_SCRIPT, &format!("SLURM_STEP_ID={step}")))), alone);
    }
}

#[test]
fn srun_with_each_service() {
    let second = |management| (Launcher::Srun, management, 1, 2, Some(1), Some(2));
    assert_eq!(place(&launch(SRUN)), second(ProcessManagement::None));
    assert_eq!(place(&launch(&both(SRUN, PMI2))), second(ProcessManagement::Pmi));
    assert_eq!(place(&launch(&both(SRUN, CRAY))), second(ProcessManagement::Cray));
    assert_eq!(place(&launch(&both(SRUN, "PMIX_RANK=1"))), second(ProcessManagement::Pmix));
}

#[test]
fn a_step_smaller_than_its_job_has_its_own_size() {
    let step = SRUN.replace("SLURM_NTASKS=2", "SLURM_NTASKS=64");
    assert_eq!(launch(&step).size, 2);
}

#[test]
fn mpiexec_and_mpirun() {
    let hydra = (Launcher::Hydra, ProcessManagement::Pmi, 1, 2, Some(1), Some(2));
    assert_eq!(place(&launch(HYDRA)), hydra);
    let open_mpi = (Launcher::OpenMpi, ProcessManagement::Pmix, 1, 2, Some(1), Some(2));
    assert_eq!(place(&launch(OPEN_MPI)), open_mpi);
}

#[test]
fn inside_a_slurm_job_the_ranks_are_those_of_the_inner_launcher() {
    let in_job = launch(&both(HYDRA_PROXY_STEP, &HYDRA.replace("HYDI_CONTROL_FD=7", "")));
    assert_eq!((in_job.launcher, in_job.rank, in_job.size), (Launcher::Hydra, 1, 2));
    for around in [BATCH_SCRIPT, HYDRA_PROXY_STEP] {
        let in_job = launch(&both(around, OPEN_MPI));
        assert_eq!((in_job.launcher, in_job.rank, in_job.size), (Launcher::OpenMpi, 1, 2));
    }
}

#[test]
fn tasks_of_uneven_nodes() {
    for (list, node, local) in [("4(x2),3", 0, 4), ("4(x2),3", 1, 4), ("4(x2),3", 2, 3), ("1,2", 1, 2)] {
        let lines = format!(
            "SLURM_STEP_ID=0\nSLURM_PROCID=2\nSLURM_STEP_NUM_TASKS=11\nSLURM_LOCALID=0\n\
             SLURM_NODEID={node}\nSLURM_STEP_TASKS_PER_NODE={list}"
        );
        assert_eq!(launch(&lines).local_size, Some(local), "{list} node {node}");
    }
    refused(&SRUN.replace("SLURM_NODEID=0", "SLURM_NODEID=1"), &["SLURM_NODEID is 1", "srun"]);
}

#[test]
fn a_launcher_inside_another_is_refused_with_the_cure() {
    refused(&both(HYDRA, OPEN_MPI), &["rank 1 of 2", "env -u PMI_RANK"]);
    refused(
        &both(SRUN, &PMI2.replace("PMI_RANK=1", "PMI_RANK=0")),
        &["SLURM_PROCID", "PMI_RANK is 0", "env -u PMI_RANK"],
    );
}

#[test]
fn what_cannot_be_is_refused() {
    refused(&HYDRA.replace("PMI_RANK=1", "PMI_RANK=2"), &["rank 2 of 2", "unset"]);
    refused(&HYDRA.replace("MPI_LOCALRANKID=1", "MPI_LOCALRANKID=2"), &["local rank Some(2)"]);
    refused(&HYDRA.replace("MPI_LOCALNRANKS=2", "MPI_LOCALNRANKS=3"), &["of Some(3)"]);
    refused(&HYDRA.replace("PMI_SIZE=2", ""), &["PMI_RANK is set but PMI_SIZE is not"]);
    refused(&OPEN_MPI.replace("OMPI_COMM_WORLD_RANK=1", ""), &["OMPI_COMM_WORLD_RANK is not"]);
    refused("PMI_RANK=0\nPMI_SIZE=0", &["rank 0 of 0"]);
    for wrong in ["", "-1", "two", "4294967296"] {
        refused(
            &SRUN.replace("SLURM_PROCID=1", &format!("SLURM_PROCID={wrong}")),
            &["SLURM_PROCID", "not a number"],
        );
    }
}

#[test]
fn an_unknown_launcher_is_not_taken_for_none() {
    refused("PMIX_RANK=3\nPMIX_NAMESPACE=x", &["PMIX_RANK", "srun, mpirun or mpiexec"]);
    refused("PALS_RANKID=3", &["PALS_RANKID"]);
}

#[test]
fn an_mpi_of_another_launcher_is_found_out() {
    for (lines, cure) in
        [(SRUN, "--mpi=pmi2"), (HYDRA, "mpiexec that belongs"), (OPEN_MPI, "mpiexec that belongs")]
    {
        let launch = launch(lines);
        assert!(launch.confirm(1, 2).is_ok());
        let error = launch.confirm(0, 1).unwrap_err().to_string();
        assert!(
            error.contains("rank 1 of 2") && error.contains("rank 0 of 1") && error.contains(cure),
            "{error}"
        );
    }
    assert!(launch("").confirm(0, 1).is_ok());
}

#[test]
fn advice_where_a_way_of_starting_has_a_trap() {
    assert!(launch(SRUN).advice()[0].contains("--mpi=pmi2"));
    assert!(launch(HYDRA).advice()[0].contains("srun -K0"));
    assert!(launch(OPEN_MPI).advice()[0].contains("ulfm"));
    assert!(launch(&both(SRUN, PMI2)).advice().is_empty());
    assert!(launch("").advice().is_empty());
}
