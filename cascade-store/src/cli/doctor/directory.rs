//! The arena's directory: what it is on, how much goes in, and whose it is.

use std::os::unix::fs::MetadataExt;

use cascade_core::units::format_size;

use super::Finding;
use super::machine::Machine;
use super::mounts::{self, Mount, TABLE};

/// Below this a default arena (half of what is free) is of little use; containers often get 64 MiB.
const LITTLE_BYTES: u64 = 1 << 30;

pub(super) fn check(machine: &Machine) -> Vec<Finding> {
    let mount = mounts::of(machine, TABLE, &machine.dir);
    let mut found = vec![filesystem(machine, mount.as_ref())];
    found.extend(size(machine, mount.as_ref()));
    found.push(owner(machine));
    found.extend(umask(machine));
    found.push(arena(machine));
    found
}

fn filesystem(machine: &Machine, mount: Option<&Mount>) -> Finding {
    const NAME: &str = "shm.filesystem";
    let Some(mount) = mount else {
        return Finding::note(NAME, TABLE, "the mount table cannot be read", "mount -t proc proc /proc");
    };
    let (dir, point) = (machine.dir.display(), mount.point.display());
    let elsewhere = "export CASCADE_SHM_PATH=/dev/shm/cascade";
    match mount.kind.as_str() {
        "tmpfs" | "hugetlbfs" if mount.option("ro").is_some() => {
            let cure = format!("sudo mount -o remount,rw {point}");
            Finding::problem(NAME, TABLE, format!("{dir} is on {point}, which is read-only"), cure)
        }
        "tmpfs" | "hugetlbfs" => Finding::ok(NAME, TABLE, format!("{dir} is on {point} ({})", mount.kind)),
        kind => Finding::problem(NAME, TABLE, format!("{dir} is on {kind}, which is not memory"), elsewhere),
    }
}

fn size(machine: &Machine, mount: Option<&Mount>) -> Option<Finding> {
    const NAME: &str = "shm.size";
    let space = machine.space?;
    let point =
        mount.map_or_else(|| machine.dir.display().to_string(), |mount| mount.point.display().to_string());
    let source = format!("statvfs {point}");
    let [total, free] = [space.total_bytes, space.free_bytes].map(format_size);
    let Some(needed) = machine.needed_bytes() else {
        let found =
            format!("{point} has {free} free of {total}; a default arena takes half of that, at most 64GiB");
        return Some(if space.total_bytes < LITTLE_BYTES {
            Finding::problem(NAME, source, found, larger(&point, 8 << 30))
        } else {
            Finding::ok(NAME, source, found)
        });
    };
    let wanted = format_size(needed);
    if space.total_bytes < needed {
        let found = format!("{point} is {total} in all, and the arena needs {wanted} with its tables");
        return Some(Finding::problem(NAME, source, found, larger(&point, needed)));
    }
    if machine.missing_bytes().is_some_and(|missing| space.free_bytes < missing) {
        let found =
            format!("{point} has {free} free of {total}, and the arena needs {wanted} with its tables");
        let cure = format!("cascade gc --dry-run; ls -lS {point}");
        return Some(Finding::problem(NAME, source, found, cure));
    }
    let found = format!("{point} has {free} free of {total}; the arena takes {wanted} with its tables");
    Some(Finding::ok(NAME, source, found))
}

fn larger(point: &str, bytes: u64) -> String {
    let mib = bytes.div_ceil(1 << 20) * 11 / 10;
    format!(
        "sudo mount -o remount,size={mib}m {point} (in Docker: `docker run --shm-size={mib}m`), or set \
         CASCADE_SHM_CAPACITY to less"
    )
}

fn owner(machine: &Machine) -> Finding {
    const NAME: &str = "shm.directory";
    let dir = machine.dir.display();
    let at = machine.at(&machine.dir);
    let source = format!("lstat {dir}");
    let Ok(metadata) = std::fs::symlink_metadata(&at) else {
        let parent = machine.dir.parent().unwrap_or(&machine.dir);
        if machine.at(parent).is_dir() {
            return Finding::ok(
                NAME,
                source,
                format!("{dir} is not there yet: a store makes it with mode 0700"),
            );
        }
        let found = format!("{dir} cannot be made: {} is not there", parent.display());
        return Finding::problem(NAME, source, found, format!("mkdir -p {}", parent.display()));
    };
    if !metadata.is_dir() {
        let found = format!("{dir} is not a directory (symbolic links are refused)");
        return Finding::problem(NAME, source, found, format!("mv {dir} {dir}.old"));
    }
    if machine.uid().is_some_and(|uid| uid != metadata.uid()) {
        let found =
            format!("{dir} belongs to uid {}: each user needs a directory of their own", metadata.uid());
        return Finding::problem(NAME, source, found, "export CASCADE_SHM_PATH=/dev/shm/cascade-$USER");
    }
    let mode = metadata.mode() & 0o777;
    if mode & 0o077 != 0 {
        let found = format!("{dir} has mode {mode:04o}, open to others: stores refuse it");
        return Finding::problem(NAME, source, found, format!("chmod go-rwx {dir}"));
    }
    Finding::ok(NAME, source, format!("{dir} is this user's alone (mode {mode:04o})"))
}

fn arena(machine: &Machine) -> Finding {
    const NAME: &str = "shm.arena";
    let source = "the arena's superblock";
    match &machine.arena {
        None => Finding::ok(NAME, source, "none is there yet: the first store makes one"),
        Some(Ok(what)) => Finding::ok(NAME, source, what.clone()),
        Some(Err(why)) => Finding::problem(NAME, source, why.clone(), "cascade stat; cascade gc --dry-run"),
    }
}

fn umask(machine: &Machine) -> Option<Finding> {
    const NAME: &str = "shm.umask";
    let umask = u32::from_str_radix(&machine.status("Umask")?, 8).ok()?;
    let source = "/proc/self/status, Umask";
    Some(if umask & 0o700 == 0 {
        Finding::ok(
            NAME,
            source,
            format!("{umask:04o}: files are made 0600 and the directory 0700 under any such mask"),
        )
    } else {
        let found = format!(
            "{umask:04o} takes rights away from this user: its own new arena could not be opened again"
        );
        Finding::problem(NAME, source, found, "umask 022")
    })
}
