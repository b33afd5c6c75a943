//! The copy kernels that this CPU has, and what this kernel of the system has.

use cascade_core::copy::Kernel;

use super::Finding;
use super::machine::Machine;

const RELEASE: &str = "/proc/sys/kernel/osrelease";

pub(super) fn check(machine: &Machine) -> Vec<Finding> {
    const NAME: &str = "cpu.copy_kernel";
    let asked = machine.variable("CASCADE_COPY_KERNEL");
    let plan = machine.copy_plan.clone();
    let source = "CPU features, and a measurement of some milliseconds";
    let mut found = vec![match (machine.kernel, asked) {
        (Kernel::Scalar, Some(asked)) => Finding::problem(
            NAME,
            "CASCADE_COPY_KERNEL",
            format!("{plan}: CASCADE_COPY_KERNEL={asked} makes copies several times as slow"),
            "unset CASCADE_COPY_KERNEL",
        ),
        (Kernel::Scalar, None) => Finding::problem(
            NAME,
            source,
            format!("{plan}: without carry-less multiplication copies are several times as slow"),
            "give the virtual machine the features of its CPU (QEMU: -cpu host), or use another machine",
        ),
        (Kernel::Sse, None) => Finding::note(
            NAME,
            source,
            format!("{plan}: 16 bytes at once; AVX2 or AVX-512 with VPCLMULQDQ is faster"),
            "give the virtual machine the features of its CPU (QEMU: -cpu host)",
        ),
        _ => Finding::ok(NAME, source, plan),
    }];
    found.extend(machine.copy_notes.iter().map(|note| {
        let variable = note.split('=').next().unwrap_or("CASCADE_COPY_KERNEL").to_owned();
        Finding::note("cpu.copy_setting", variable.clone(), note.clone(), format!("unset {variable}"))
    }));
    found
}

/// What of the system's kernel the arena uses, with the version that it came with.
pub(super) fn kernel(machine: &Machine) -> Vec<Finding> {
    const NAME: &str = "system.kernel";
    let Some(release) = machine.read(RELEASE) else { return Vec::new() };
    let release = release.trim();
    let version = version(release);
    let newer = "a newer kernel; on a cluster, nodes of a newer image";
    vec![if version < (3, 15) {
        let found = format!("Linux {release} has no locks of open files (3.15): no arena works");
        Finding::problem(NAME, RELEASE, found, newer)
    } else if version < (5, 14) {
        let pidfd = if version < (5, 3) {
            "deaths are noticed by looking, within a second (pidfd: 5.3); "
        } else {
            ""
        };
        let found = format!(
            "Linux {release}: {pidfd}pages are touched one by one when the arena grows (MADV_POPULATE_WRITE: 5.14)"
        );
        Finding::note(NAME, RELEASE, found, newer)
    } else {
        Finding::ok(NAME, RELEASE, format!("Linux {release} has all that is used"))
    }]
}

/// Version and patch level of the system's kernel.
pub(super) fn version_of(machine: &Machine) -> Option<(u32, u32)> {
    machine.read(RELEASE).map(|release| version(release.trim()))
}

fn version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}
