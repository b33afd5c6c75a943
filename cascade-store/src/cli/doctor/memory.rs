//! Memory: the machine's, the job's, and whether it can be paged out.

use std::path::{Path, PathBuf};

use cascade_core::units::format_size;

use super::Finding;
use super::machine::Machine;
use super::mounts::{self, TABLE};

const MEMINFO: &str = "/proc/meminfo";

pub(super) fn check(machine: &Machine) -> Vec<Finding> {
    let mut found: Vec<Finding> = available(machine).into_iter().collect();
    found.push(cgroup(machine));
    found.extend(swap(machine));
    found
}

fn available(machine: &Machine) -> Option<Finding> {
    const NAME: &str = "memory.available";
    let free = machine.kib(MEMINFO, "MemAvailable")?;
    let text = format_size(free);
    Some(match machine.missing_bytes() {
        Some(missing) if missing > free => {
            let found =
                format!("{text} of memory available, and the arena still needs {}", format_size(missing));
            let cure = format!("export CASCADE_SHM_CAPACITY={}MiB", (free / 2) >> 20);
            Finding::problem(NAME, MEMINFO, found, cure)
        }
        _ => Finding::ok(NAME, MEMINFO, format!("{text} of memory available")),
    })
}

/// The least limit on the way from this process's group to the root, with the file that says it, and what is used of it.
struct Limit {
    bytes: u64,
    used_bytes: u64,
    file: PathBuf,
}

fn cgroup(machine: &Machine) -> Finding {
    const NAME: &str = "memory.cgroup";
    let Some(limit) = least_limit(machine) else {
        return Finding::ok(NAME, "/proc/self/cgroup", "no limit on this process's group");
    };
    let (source, text) = (limit.file.display().to_string(), format_size(limit.bytes));
    let free = limit.bytes.saturating_sub(limit.used_bytes);
    // Without a size the default arena looks at this limit itself.
    let Some(missing) = machine.missing_bytes().filter(|missing| *missing > free) else {
        let found = format!("limit {text}, {} of it free: shared memory counts there", format_size(free));
        return Finding::ok(NAME, source, found);
    };
    let found = format!(
        "limit {text}, {} of it free, and the arena still needs {}: shared memory counts for the group that touches it \
         first, and beyond the limit the kernel kills processes of the job",
        format_size(free),
        format_size(missing)
    );
    let cure = if machine.variable("SLURM_JOB_ID").is_some() {
        format!(
            "sbatch --mem={}M, or CASCADE_SHM_CAPACITY={}MiB",
            (limit.used_bytes + missing * 11 / 10) >> 20,
            (free / 2) >> 20
        )
    } else {
        format!(
            "export CASCADE_SHM_CAPACITY={}MiB, or raise the limit in {source} (Docker: --memory, systemd: MemoryMax=)",
            (free / 2) >> 20
        )
    };
    Finding::problem(NAME, source, found, cure)
}

fn least_limit(machine: &Machine) -> Option<Limit> {
    let groups = machine.read("/proc/self/cgroup")?;
    let second = groups.lines().find_map(|line| line.strip_prefix("0::"));
    let first = groups.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        controllers.split(',').any(|controller| controller == "memory").then_some(path)
    });
    let second = second.map(|path| ("/sys/fs/cgroup", path, "memory.max", "memory.current"));
    let first =
        first.map(|path| ("/sys/fs/cgroup/memory", path, "memory.limit_in_bytes", "memory.usage_in_bytes"));
    second.into_iter().chain(first).flat_map(|place| limits(machine, place)).min_by_key(|limit| limit.bytes)
}

/// The limits of a group and all above it. In a container the path can lie outside of what is mounted: then only the root says
/// something.
fn limits(machine: &Machine, (base, path, most, now): (&str, &str, &str, &str)) -> Vec<Limit> {
    let group = Path::new(path.trim_start_matches('/'));
    let limit = |group: &Path| {
        let dir = Path::new(base).join(group);
        let bytes = machine.number(dir.join(most))?;
        // Version 1 writes a number near 2^63 for none, version 2 the word max.
        let used_bytes = machine.number(dir.join(now)).unwrap_or(0);
        (bytes < 1 << 60).then(|| Limit { bytes, used_bytes, file: dir.join(most) })
    };
    group.ancestors().filter_map(limit).collect()
}

fn swap(machine: &Machine) -> Option<Finding> {
    const NAME: &str = "memory.swap";
    let total = machine.kib(MEMINFO, "SwapTotal")?;
    let mount = mounts::of(machine, TABLE, &machine.dir);
    let stays =
        mount.as_ref().is_some_and(|mount| mount.kind == "hugetlbfs" || mount.option("noswap").is_some());
    if total == 0 || stays {
        return Some(Finding::ok(NAME, MEMINFO, "the arena cannot be paged out"));
    }
    let point = mount.map_or_else(|| "/dev/shm".into(), |mount| mount.point.display().to_string());
    let found = format!(
        "{} of swap: under pressure the arena is paged out, and its reads wait for a disk",
        format_size(total)
    );
    let cure = format!("sudo mount -o remount,noswap {point} (Linux 6.4 and later), or `sudo swapoff -a`");
    Some(Finding::note(NAME, MEMINFO, found, cure))
}
