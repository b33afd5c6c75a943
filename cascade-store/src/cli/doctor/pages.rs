//! Huge pages: fewer misses of the address cache, and growth several times as fast.

use std::fmt::Display;

use cascade_core::units::{format_size, parse_size};

use super::Finding;
use super::cpu;
use super::machine::Machine;
use super::mounts::{self, Mount, TABLE};

const NAME: &str = "pages.huge";
const POOL: &str = "pages.pool";
const POLICY: &str = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";
const POOLS: &str = "/sys/kernel/mm/hugepages";
/// The largest page that an arena can be made of.
const MOST_PAGE_BYTES: u64 = 2 << 20;
/// The first Linux that puts pages of tmpfs together when asked to, whatever the mount says.
const COLLAPSE: (u32, u32) = (6, 1);
/// Below this an arena gains little.
const LARGE_BYTES: u64 = 1 << 30;

pub(super) fn check(machine: &Machine) -> Vec<Finding> {
    let Some(mount) = mounts::of(machine, TABLE, &machine.dir) else { return Vec::new() };
    if mount.kind == "hugetlbfs" {
        pool(machine, &mount).into_iter().collect()
    } else {
        vec![transparent(machine, &mount)]
    }
}

/// On hugetlbfs every page comes from a pool that is set up beforehand.
fn pool(machine: &Machine, mount: &Mount) -> Option<Finding> {
    let size = mount.option("pagesize").and_then(|size| parse_size(&format!("{size}iB")).ok())?;
    let text = format_size(size);
    if size > MOST_PAGE_BYTES {
        let found = format!(
            "{} has pages of {text}, and an arena is made of pages of at most 2MiB",
            mount.point.display()
        );
        let cure = format!(
            "sudo mount -t hugetlbfs -o pagesize=2M,uid=$(id -u),mode=0700 none {}",
            machine.dir.display()
        );
        return Some(Finding::problem(POOL, TABLE, found, cure));
    }
    let dir = format!("{POOLS}/hugepages-{}kB", size / 1024);
    let number = |name: &str| machine.number(format!("{dir}/{name}_hugepages"));
    let (total, free) = (number("nr")?, number("free")?);
    let free = free.saturating_sub(number("resv").unwrap_or(0));
    let found = format!("{free} of {total} pages of {text} free");
    let missing = machine.missing_bytes().map_or(0, |missing| missing.div_ceil(size));
    if missing <= free {
        return Some(Finding::ok(POOL, dir, found));
    }
    let cure = format!("echo {} | sudo tee {dir}/nr_hugepages", total + missing - free);
    Some(Finding::problem(POOL, dir, format!("{found}, and the arena still needs {missing}"), cure))
}

/// Ordinary pages that an arena puts together itself.
fn collapsing(machine: &Machine, point: &impl Display) -> Finding {
    let huge = &machine.huge;
    let share = |bytes: u64| bytes as f64 * 100.0 / machine.taken_bytes.max(1) as f64;
    match huge.reason() {
        // Some pages are refused now and then, and tried again.
        Some(why) if share(huge.bytes) < 90.0 => {
            let found = format!(
                "{:.0} % of the arena is in huge pages: the system refused {} ({why})",
                share(huge.bytes),
                huge.refusals
            );
            Finding::note(
                NAME,
                "the arena's counters",
                found,
                "echo 1 | sudo tee /proc/sys/vm/compact_memory",
            )
        }
        _ => {
            let found = format!("{point} gives 4KiB pages, and arenas put them together into huge ones");
            Finding::ok(NAME, TABLE, found)
        }
    }
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
        _ if cpu::version_of(machine).is_some_and(|version| version >= COLLAPSE) => {
            collapsing(machine, &point)
        }
        _ if machine.capacity_bytes.is_some_and(|bytes| bytes < LARGE_BYTES) => Finding::ok(
            NAME,
            TABLE,
            format!("{point} gives 4KiB pages, which is good enough for a small arena"),
        ),
        _ => {
            let found = format!(
                "{point} gives 4KiB pages, and this Linux does not put them together (6.1): growth, first reads and lookups in \
                 a large arena are slower"
            );
            Finding::note(NAME, TABLE, found, format!("sudo mount -o remount,huge=within_size {point}"))
        }
    }
}
