//! Whether other jobs see the same /dev/shm.

use std::path::PathBuf;

use super::Finding;
use super::machine::Machine;
use super::mounts::{self, Mount, TABLE};

const NAME: &str = "session.private_shm";
const CONFIGS: [&str; 3] =
    ["/etc/slurm/slurm.conf", "/run/slurm/conf/slurm.conf", "/etc/slurm-llnl/slurm.conf"];

pub(super) fn check(machine: &Machine) -> Vec<Finding> {
    let found =
        private_by_slurm(machine).or_else(|| private_by_mount(machine)).or_else(|| container(machine));
    vec![found.unwrap_or_else(|| {
        Finding::ok(NAME, TABLE, "other jobs of this user on this node see the same directory")
    })]
}

/// By Slurm's own configuration.
fn private_by_slurm(machine: &Machine) -> Option<Finding> {
    let named = machine.variable("SLURM_CONF").map(PathBuf::from);
    let file = named.into_iter().chain(CONFIGS.map(PathBuf::from)).find(|file| machine.at(file).is_file())?;
    let text = machine.read(&file)?;
    let plugin = value(&text, "JobContainerType").or_else(|| value(&text, "NamespaceType"))?;
    if !plugin.ends_with("/tmpfs") {
        return None;
    }
    let container = file.with_file_name("job_container.conf");
    let dirs = machine.read(&container).and_then(|text| value(&text, "Dirs"));
    let dirs = dirs.unwrap_or_else(|| "/tmp,/dev/shm".into());
    let hidden = dirs.split(',').find(|dir| !dir.is_empty() && machine.dir.starts_with(dir))?;
    let found = format!(
        "Slurm ({plugin}) gives each job a {hidden} of its own: the arena ends with its job, and other jobs do not see it. \
         Steps of one job share it"
    );
    let cure = format!(
        "export CASCADE_SHM_PATH to a tmpfs directory outside of {dirs}, or ask the administrator to leave {hidden} out of \
         `Dirs=` in {}",
        container.display()
    );
    Some(Finding::note(NAME, format!("{}, {}", file.display(), container.display()), found, cure))
}

/// By the mount table: another file system than that of process 1, or a part of one.
fn private_by_mount(machine: &Machine) -> Option<Finding> {
    let job = machine.variable("SLURM_JOB_ID")?;
    let mine = mounts::of(machine, TABLE, &machine.dir)?;
    let first = mounts::of(machine, "/proc/1/mountinfo", &machine.dir);
    let differs = |first: &Mount| first.device != mine.device || first.part != mine.part;
    if mine.part == "/" && !first.as_ref().is_some_and(differs) {
        return None;
    }
    let point = mine.point.display();
    let found = format!(
        "job {job} has a {point} of its own: the arena ends with the job, and other jobs do not see it"
    );
    let cure =
        "export CASCADE_SHM_PATH to a tmpfs directory that the node shares, or ask for a shared /dev/shm";
    Some(Finding::note(NAME, TABLE, found, cure))
}

fn container(machine: &Machine) -> Option<Finding> {
    let mark = ["/.dockerenv", "/run/.containerenv"].into_iter().find(|file| machine.at(file).exists())?;
    let found = "in a container: other containers, and the node, see another /dev/shm unless it was started to share it";
    let dir = machine.dir.display();
    let cure = format!("docker run --ipc=host, or --volume {dir}:{dir} in every container");
    Some(Finding::note(NAME, mark, found, cure))
}

/// The value of `name=value`, names without regard to case, comments cut.
fn value(text: &str, name: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let line = line.split('#').next()?;
        line.split_whitespace().find_map(|word| {
            let (found, value) = word.split_once('=')?;
            found.eq_ignore_ascii_case(name).then(|| value.to_owned())
        })
    })
}
