//! Who this process is, whether another still lives, and what `fork` leaves behind.

mod fork;

use std::os::fd::AsFd;
use std::time::{Duration, SystemTime};

use crate::owner::Process;

pub use fork::{ForkGuard, epoch as fork_epoch};

/// Offset of the lock byte of row 0: beyond any arena, so that the bytes guard nothing else.
const LOCK_BASE: i64 = 1 << 60;

/// This process.
#[must_use]
pub fn current() -> Process {
    let pid = u64::from(std::process::id());
    Process { pid, started: stat(pid).map_or(0, |stat| stat.started), pid_namespace: pid_namespace() }
}

/// Inode of our pid namespace; 0 where /proc is missing or shows the processes of another namespace (`unshare --pid` without
/// `--mount-proc`): process ids then say nothing, neither ours to others nor theirs to us.
fn pid_namespace() -> u64 {
    use std::os::unix::fs::MetadataExt;
    let shown = std::fs::read_link("/proc/self").ok();
    let is_ours = shown.is_some_and(|shown| shown.as_os_str() == std::process::id().to_string().as_str());
    let inode = || std::fs::metadata("/proc/self/ns/pid").map_or(0, |metadata| metadata.ino());
    if is_ours { inode() } else { 0 }
}

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

/// Whether `process` can be looked for by its id: not in another pid namespace, nor where /proc shows another one.
#[must_use]
pub fn is_visible(process: Process) -> bool {
    process.pid_namespace != 0 && process.pid_namespace == pid_namespace()
}

/// Whether `process` is certainly gone. One that cannot be looked for counts as there.
#[must_use]
pub fn is_gone(process: Process) -> bool {
    if !is_visible(process) {
        return false;
    }
    match stat(process.pid) {
        None => std::path::Path::new("/proc/self/stat").exists(),
        // A zombie leader may have threads that still run; a process whose start time differs is another one.
        Some(stat) => {
            stat.started != process.started || (matches!(stat.state, b'Z' | b'X') && stat.threads <= 1)
        }
    }
}

/// Whether `process` is still to be seen, so that its kernel objects (open transfers of devices) may be, too.
#[must_use]
pub fn is_seen(process: Process) -> bool {
    is_visible(process) && !is_gone(process)
}

/// When `process` started, by the wall clock; `None` when it cannot be seen from here.
#[must_use]
pub fn since(process: Process) -> Option<SystemTime> {
    let table = std::fs::read_to_string("/proc/stat").ok()?;
    let boot: u64 = table.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    let ticks = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok()??;
    let ticks = u64::try_from(ticks).ok().filter(|ticks| *ticks > 0)?;
    is_seen(process).then(|| SystemTime::UNIX_EPOCH + Duration::from_secs(boot + process.started / ticks))
}

/// The name of the command that `process` runs; `None` when it cannot be seen from here.
#[must_use]
pub fn command(process: Process) -> Option<String> {
    let name = std::fs::read(format!("/proc/{}/comm", process.pid)).ok().filter(|_| is_seen(process))?;
    Some(String::from_utf8_lossy(&name).trim_end().to_owned())
}

fn row_lock(row: u16, kind: i32) -> libc::flock {
    libc::flock {
        l_type: kind as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: LOCK_BASE + i64::from(row),
        l_len: 1,
        l_pid: 0,
    }
}

/// The lock bytes of all rows that an arena can have.
fn all_rows(kind: i32) -> libc::flock {
    libc::flock { l_len: i64::from(u16::MAX) + 1, ..row_lock(0, kind) }
}

/// Takes the file lock of who compares notes; `false` when another open file has it.
#[must_use]
pub fn lock_note(fd: &impl AsFd) -> bool {
    let lock = libc::flock { l_start: LOCK_BASE - 1, ..row_lock(0, libc::F_WRLCK) };
    nix::fcntl::fcntl(fd.as_fd(), nix::fcntl::FcntlArg::F_OFD_SETLK(&lock)).is_ok()
}

/// Whether any open file but that of `fd` holds the lock of any row: a living owner, or a fork of one.
#[must_use]
pub fn is_any_row_locked(fd: &impl AsFd) -> bool {
    is_locked(fd, all_rows(libc::F_WRLCK))
}

/// Takes the file locks of all rows, so that nobody joins; `false` when another open file has one.
#[must_use]
pub fn lock_all_rows(fd: &impl AsFd) -> bool {
    let lock = all_rows(libc::F_WRLCK);
    nix::fcntl::fcntl(fd.as_fd(), nix::fcntl::FcntlArg::F_OFD_SETLK(&lock)).is_ok()
}

/// Takes the file lock of `row` for the open file of `fd`; `false` when another open file has it.
#[must_use]
pub fn lock_row(fd: &impl AsFd, row: u16) -> bool {
    let lock = row_lock(row, libc::F_WRLCK);
    nix::fcntl::fcntl(fd.as_fd(), nix::fcntl::FcntlArg::F_OFD_SETLK(&lock)).is_ok()
}

/// Gives the file lock of `row` back.
pub fn unlock_row(fd: &impl AsFd, row: u16) {
    let lock = row_lock(row, libc::F_UNLCK);
    // Unlocking what is locked cannot fail; and closing the file would do it anyway.
    let _ = nix::fcntl::fcntl(fd.as_fd(), nix::fcntl::FcntlArg::F_OFD_SETLK(&lock));
}

/// Whether another open file than that of `fd` holds the file lock of `row`.
#[must_use]
pub fn is_row_locked(fd: &impl AsFd, row: u16) -> bool {
    is_locked(fd, row_lock(row, libc::F_WRLCK))
}

fn is_locked(fd: &impl AsFd, mut lock: libc::flock) -> bool {
    match nix::fcntl::fcntl(fd.as_fd(), nix::fcntl::FcntlArg::F_OFD_GETLK(&mut lock)) {
        Ok(_) => i32::from(lock.l_type) != libc::F_UNLCK,
        // In doubt an owner lives: its pins are honoured.
        Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_lives_and_another_start_time_does_not() {
        let me = current();
        assert!(!is_gone(me));
        assert!(is_gone(Process { started: me.started + 1, ..me }));
        assert!(!is_gone(Process { pid_namespace: me.pid_namespace + 1, pid: u64::MAX, started: 0 }));
        // An owner whose /proc showed another namespace: its process id means nothing.
        assert!(!is_gone(Process { pid_namespace: 0, ..me }) && !is_seen(Process { pid_namespace: 0, ..me }));
    }

    #[test]
    fn a_reaped_child_is_gone() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = u64::from(child.id());
        let process = Process { pid, started: stat(pid).unwrap().started, pid_namespace: pid_namespace() };
        child.wait().unwrap();
        assert!(is_gone(process));
    }

    #[test]
    fn row_locks_belong_to_open_files() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let (a, b) = (file.reopen().unwrap(), file.reopen().unwrap());
        assert!(lock_row(&a, 3) && !lock_row(&b, 3) && lock_row(&b, 4));
        assert!(is_row_locked(&b, 3) && !is_row_locked(&a, 3));
        unlock_row(&a, 3);
        assert!(!is_row_locked(&b, 3));
    }
}
