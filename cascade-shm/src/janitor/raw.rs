//! The one system call that no wrapper offers.

use std::os::fd::{FromRawFd, OwnedFd};

/// A descriptor that becomes readable when process `pid` ends; `None` when there is none, or the kernel has no such thing.
pub(super) fn pidfd(pid: u64) -> Option<OwnedFd> {
    let pid = libc::pid_t::try_from(pid).ok()?;
    // SAFETY: takes two numbers and touches no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0)?;
    // SAFETY: just opened for us, and owned by nobody else.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}
