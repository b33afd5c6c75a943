//! Huge pages: fewer misses of the address cache, and growth several times as fast.

use cascade_core::units::format_size;

use super::Finding;
use super::machine::Machine;
use super::mounts::{self, Mount, TABLE};

const NAME: &str = "pages.huge";
const POOL: &str = "pages.pool";
const POLICY: &str = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";
const MEMINFO: &str = "/proc/meminfo";
/// Below this an arena gains little.
const LARGE_BYTES: u64 = 1 << 30;

pub(super) fn check(machine: &Machine) -> Vec<Finding> {
    let Some(mount) = mounts::of(machine, TABLE, &machine.dir) else { return Vec::new() };
    if mount.kind == "hugetlbfs" {
        pool(machine).into_iter().collect()
    } else {
        vec![transparent(machine, &mount)]
    }
}

/// On hugetlbfs every page comes from a pool that is set up beforehand.
fn pool(machine: &Machine) -> Option<Finding> {
    let size = machine.kib(MEMINFO, "Hugepagesize")?;
    let number = |name| machine.kib(MEMINFO, name).map(|kib| kib / 1024);
    let (total, free) = (number("HugePages_Total")?, number("HugePages_Free")?);
    let found = format!("{free} of {total} pages of {} free", format_size(size));
    let Some(missing) = machine.missing_bytes() else { return Some(Finding::ok(POOL, MEMINFO, found)) };
    let pages = missing.div_ceil(size);
    if pages <= free {
        return Some(Finding::ok(POOL, MEMINFO, found));
    }
    let found = format!("{found}, and the arena still needs {pages}");
    let cure = format!("sudo sysctl vm.nr_hugepages={}", total - free + pages);
    Some(Finding::problem(POOL, MEMINFO, found, cure))
}

fn transparent(machine: &Machine, mount: &Mount) -> Finding {
    let policy = machine.read(POLICY).and_then(|text| {
        let chosen = text.split_whitespace().find_map(|word| word.strip_prefix('[')?.strip_suffix(']'))?;
        Some(chosen.to_owned())
    });
    let point = mount.point.display();
    let of_mount = mount.option("huge").filter(|value| *value != "never");
    match (policy.as_deref(), of_mount) {
        (Some("force"), _) => Finding::ok(NAME, POLICY, "every tmpfs gives huge pages (force)"),
        (Some("deny"), _) => {
            let cure =
                format!("echo never | sudo tee {POLICY}; sudo mount -o remount,huge=within_size {point}");
            Finding::note(
                NAME,
                POLICY,
                "no tmpfs gives huge pages (deny): growth and first reads are slower",
                cure,
            )
        }
        (_, Some(value)) => Finding::ok(NAME, TABLE, format!("{point} gives huge pages (huge={value})")),
        _ if machine.capacity_bytes.is_some_and(|bytes| bytes < LARGE_BYTES) => Finding::ok(
            NAME,
            TABLE,
            format!("{point} gives 4KiB pages, which is good enough for a small arena"),
        ),
        _ => {
            let found =
                format!("{point} gives 4KiB pages: growth and first reads of a large arena are slower");
            Finding::note(NAME, TABLE, found, format!("sudo mount -o remount,huge=within_size {point}"))
        }
    }
}
