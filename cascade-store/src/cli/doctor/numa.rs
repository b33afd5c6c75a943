//! Memory nodes.

use std::collections::BTreeSet;

use cascade_core::units::format_size;

use super::Finding;
use super::machine::Machine;
use super::mounts::{self, TABLE};

const NAME: &str = "numa.nodes";
const ONLINE: &str = "/sys/devices/system/node/has_memory";

pub(super) fn check(machine: &Machine) -> Vec<Finding> {
    let Some(all) = machine.read(ONLINE).map(|text| list(&text)) else {
        return vec![Finding::ok(NAME, ONLINE, "one node: the system tells of no others")];
    };
    let mut found = vec![nodes(machine, &all)];
    if all.len() > 1 {
        found.extend(policy(machine));
    }
    found
}

fn nodes(machine: &Machine, all: &BTreeSet<u32>) -> Finding {
    let status = "/proc/self/status, Mems_allowed_list";
    let allowed = machine.status("Mems_allowed_list").map_or_else(|| all.clone(), |text| list(&text));
    let mine: BTreeSet<u32> = all.intersection(&allowed).copied().collect();
    let memory = |node: &u32| {
        let file = format!("/sys/devices/system/node/node{node}/meminfo");
        machine.kib(&file, "MemTotal").unwrap_or(0)
    };
    let bytes: u64 = mine.iter().map(memory).sum();
    let (has, names) = (format_size(bytes), join(&mine));
    let needed = machine.needed_bytes().filter(|needed| bytes > 0 && *needed > bytes);
    if let Some(needed) = needed {
        let found = format!(
            "this process may use node {names} only, with {has}, and the arena needs {}",
            format_size(needed)
        );
        let cure = "let the job have all nodes (Slurm: --exclusive, or --mem-bind=none; else without numactl --membind)";
        return Finding::problem(NAME, status, found, cure);
    }
    if mine.len() < all.len() {
        let found = format!(
            "this process may use node {names} of {}: who grows the arena decides where it lies, so others read from afar",
            join(all)
        );
        let cure =
            "start the process that opens the arena first without numactl --membind and without a cpuset";
        return Finding::note(NAME, status, found, cure);
    }
    let found = match mine.len() {
        0 | 1 => "one node".to_owned(),
        count => format!("{count} nodes; the arena's regions lie on them in turn"),
    };
    Finding::ok(NAME, ONLINE, found)
}

/// A policy of the mount outvotes that of the threads that touch the pages.
fn policy(machine: &Machine) -> Option<Finding> {
    let mount = mounts::of(machine, TABLE, &machine.dir)?;
    let policy = mount.option("mpol")?;
    let point = mount.point.display();
    let found = format!("{point} has mpol={policy}, which outvotes the placement of regions");
    Some(if policy.starts_with("interleave") || policy.starts_with("local") || policy == "default" {
        Finding::ok("numa.policy", TABLE, found)
    } else {
        Finding::note("numa.policy", TABLE, found, format!("sudo mount -o remount,mpol=default {point}"))
    })
}

/// Numbers of a list such as `0-2,5`.
fn list(text: &str) -> BTreeSet<u32> {
    let ranges = text.trim().split(',').filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(first.trim().parse::<u32>().ok()?..=last.trim().parse::<u32>().ok()?.min(4096))
    });
    ranges.flatten().collect()
}

fn join(nodes: &BTreeSet<u32>) -> String {
    let names: Vec<String> = nodes.iter().map(u32::to_string).collect();
    names.join(",")
}
