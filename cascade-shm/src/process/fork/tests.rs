use std::os::fd::{AsFd, AsRawFd};

use super::*;
use crate::process::{is_row_locked, lock_row};

#[test]
fn a_forked_child_keeps_no_lock() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let guard = ForkGuard::new(file.reopen().unwrap());
    let other = file.reopen().unwrap();
    assert!(lock_row(&guard, 1) && is_row_locked(&other, 1));
    let fd = guard.as_fd().as_raw_fd();
    // SAFETY: the child calls nothing but async-signal-safe functions.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: as above.
        unsafe {
            let open = libc::fcntl(fd, libc::F_GETFD) != -1;
            libc::sleep(1);
            libc::_exit(i32::from(open || guard.is_ours()));
        }
    }
    drop(guard);
    // The child closes its copy when it first runs, which may be a moment later; it then lives on for a second.
    let deadline = std::time::Instant::now() + std::time::Duration::from_millis(800);
    while is_row_locked(&other, 1) {
        assert!(std::time::Instant::now() < deadline, "the child's copy of the descriptor holds the lock");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let mut status = 0;
    // SAFETY: our own child, and a valid place for its status.
    unsafe { libc::waitpid(child, &mut status, 0) };
    assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0);
}
