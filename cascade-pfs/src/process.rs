//! Who this process is, and whether another of the same boot still lives.
//!
//! The arena's crate asks `/proc` the same: tiers do not see each other, and what they share (`cascade-core`) does no I/O.

use crate::layout::{Identity, WriterId};

struct Stat {
    state: u8,
    threads: u64,
    started: u64,
}

fn stat(pid: u64) -> Option<Stat> {
    let line = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command name may hold anything, also brackets: fields count from the last one.
    let fields: Vec<&str> = line.get(line.rfind(')')? + 2..)?.split(' ').collect();
    Some(Stat {
        state: *fields.first()?.as_bytes().first()?,
        threads: fields.get(17)?.parse().ok()?,
        started: fields.get(19)?.parse().ok()?,
    })
}

/// Inode of our pid namespace; 0 where /proc is missing or shows the processes of another one (`unshare --pid` without
/// `--mount-proc`): process ids then say nothing, neither ours to others nor theirs to us.
fn pid_namespace() -> u64 {
    use std::os::unix::fs::MetadataExt;
    let shown = std::fs::read_link("/proc/self").ok();
    let is_ours = shown.is_some_and(|shown| shown.as_os_str() == std::process::id().to_string().as_str());
    let inode = || std::fs::metadata("/proc/self/ns/pid").map_or(0, |metadata| metadata.ino());
    if is_ours { inode() } else { 0 }
}

fn boot() -> [u8; 16] {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    u128::from_str_radix(&digits, 16).unwrap_or(0).to_be_bytes()
}

/// 128 bits that no other writer has.
fn random() -> [u8; 16] {
    use std::io::Read;
    let mut bytes = [0; 16];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut bytes));
    if read.is_err() {
        // Without a source of random bits: who, when and a hash of addresses. `O_EXCL` would catch a second of the same name.
        use std::hash::{BuildHasher, RandomState};
        let hash = RandomState::new().hash_one((std::process::id(), crate::catalog::now()));
        bytes[..8].copy_from_slice(&hash.to_le_bytes());
        bytes[8..].copy_from_slice(&crate::catalog::now().to_le_bytes());
    }
    bytes
}

/// A new writer of this process.
pub(crate) fn new_identity() -> Identity {
    let pid = u64::from(std::process::id());
    let host = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned());
    Identity {
        writer: WriterId(random()),
        pid,
        started: stat(pid).map_or(0, |stat| stat.started),
        pid_namespace: pid_namespace(),
        boot: boot(),
        host: host.unwrap_or_default(),
        capacity_bytes: 0,
    }
}

/// Whether `other` runs, or ran, under the same boot of the same node as `me`, so that its locks and pid can be judged.
pub(crate) fn is_neighbour(me: &Identity, other: &Identity) -> bool {
    me.boot == other.boot && me.boot != [0; 16]
}

/// Whether the process of `other`, a neighbour, is certainly gone. One of another or an unknown pid namespace cannot be seen,
/// and counts as there.
pub(crate) fn is_gone(me: &Identity, other: &Identity) -> bool {
    if me.pid_namespace == 0 || me.pid_namespace != other.pid_namespace {
        return false;
    }
    match stat(other.pid) {
        None => std::path::Path::new("/proc/self/stat").exists(),
        // A zombie leader may have threads that still run; a process whose start time differs is another one.
        Some(stat) => {
            stat.started != other.started || (matches!(stat.state, b'Z' | b'X') && stat.threads <= 1)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_lives_and_a_reaped_child_is_gone() {
        let me = new_identity();
        assert!(is_neighbour(&me, &me) && !is_gone(&me, &me));
        assert!(is_gone(&me, &Identity { started: me.started + 1, ..me.clone() }));
        assert_ne!(me.writer, new_identity().writer);
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let other = Identity { pid: u64::from(child.id()), ..me.clone() };
        child.wait().unwrap();
        assert!(is_gone(&me, &other));
        assert!(!is_gone(&me, &Identity { pid_namespace: 1, ..other.clone() }));
        // Neither knows its namespace: the pid may be anybody's.
        let unknown = |identity: &Identity| Identity { pid_namespace: 0, ..identity.clone() };
        assert!(!is_gone(&unknown(&me), &unknown(&other)));
    }
}
