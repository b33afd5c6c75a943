//! Limits of this process.

use cascade_core::units::format_size;

use super::Finding;
use super::machine::Machine;
use super::mounts::{self, TABLE};

const LIMITS: &str = "/proc/self/limits";
/// Descriptors that some handles of an arena and a program around them need.
const FEW_FILES: u64 = 256;

pub(super) fn check(machine: &Machine) -> Vec<Finding> {
    let mut found = vec![process(machine)];
    let Some(table) = machine.read(LIMITS) else { return found };
    let soft = |name: &str| limit(&table, name);
    found.extend(soft("Max open files").map(files));
    found.extend(soft("Max locked memory").map(|most| locked(machine, most)));
    let needed = machine.needed_bytes().unwrap_or(0);
    let whole = [
        ("limits.address_space", "Max address space", "ulimit -v unlimited", "the arena cannot be mapped"),
        (
            "limits.file_size",
            "Max file size",
            "ulimit -f unlimited",
            "growing the arena's file ends the process (SIGXFSZ)",
        ),
    ];
    for (check, name, cure, harm) in whole {
        let Some(most) = soft(name) else { continue };
        // Without a configured size any limit may be too low.
        let is_low = most.is_some_and(|most| needed == 0 || most < needed);
        found.push(if is_low {
            let text = format_size(most.unwrap_or(0));
            Finding::problem(check, LIMITS, format!("{text}: {harm}"), cure)
        } else {
            Finding::ok(check, LIMITS, most.map_or_else(|| "unlimited".into(), format_size))
        });
    }
    found
}

/// The soft limit of a line; `None` inside means unlimited.
fn limit(table: &str, name: &str) -> Option<Option<u64>> {
    let value = table.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?;
    if value == "unlimited" { Some(None) } else { value.parse().ok().map(Some) }
}

fn files(most: Option<u64>) -> Finding {
    const NAME: &str = "limits.open_files";
    match most {
        Some(most) if most < FEW_FILES => {
            let found =
                format!("{most} descriptors: a handle takes three, and one for each process that it watches");
            Finding::problem(NAME, LIMITS, found, "ulimit -n 4096")
        }
        _ => Finding::ok(NAME, LIMITS, most.map_or_else(|| "unlimited".into(), |most| most.to_string())),
    }
}

fn locked(machine: &Machine, most: Option<u64>) -> Finding {
    const NAME: &str = "limits.memlock";
    let Some(most) = most else { return Finding::ok(NAME, LIMITS, "unlimited") };
    if machine.needed_bytes().is_some_and(|needed| needed <= most) {
        return Finding::ok(NAME, LIMITS, format_size(most));
    }
    let found =
        format!("{}: shared memory works with it, pinning it for network cards does not", format_size(most));
    let cure = "ulimit -l unlimited (for all: sudo, `* - memlock unlimited` in /etc/security/limits.conf; systemd: \
                LimitMEMLOCK=infinity; Slurm: PropagateResourceLimitsExcept=MEMLOCK)";
    Finding::note(NAME, LIMITS, found, cure)
}

/// Owners are judged by file locks and by /proc; neither needs a right that ptrace restrictions take away.
fn process(machine: &Machine) -> Finding {
    const NAME: &str = "process.liveness";
    if machine.read("/proc/self/stat").is_none() {
        let found =
            "/proc is not mounted: a dead owner whose fork lives on counts as alive, and keeps what it held";
        return Finding::problem(NAME, "/proc/self/stat", found, "sudo mount -t proc proc /proc");
    }
    let hides = mounts::of(machine, TABLE, "/proc".as_ref()).and_then(|mount| {
        mount.option("hidepid").filter(|value| !matches!(*value, "0" | "off")).map(str::to_owned)
    });
    match hides {
        Some(value) => {
            Finding::ok(NAME, TABLE, format!("/proc with hidepid={value} still shows this user's processes"))
        }
        None => Finding::ok(NAME, "/proc/self/stat", "by file locks and /proc; ptrace and yama play no part"),
    }
}
