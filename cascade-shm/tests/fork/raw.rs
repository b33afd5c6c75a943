//! Forked children, and how they end.

/// Runs `work` in a forked child; gives the child's process id to the parent. The child ends without unwinding.
pub fn child(work: impl FnOnce() -> bool) -> i32 {
    // SAFETY: the child uses the arena, which is made for it, and otherwise what glibc allows after fork (its allocator).
    let child = unsafe { libc::fork() };
    if child == 0 {
        let well = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).unwrap_or(false);
        // SAFETY: ends this process only.
        unsafe { libc::_exit(i32::from(!well)) };
    }
    assert!(child > 0, "fork failed");
    child
}

/// Waits for `child`: its exit code, or the signal that killed it, negative.
pub fn end_of(child: i32) -> i32 {
    let mut status = 0;
    // SAFETY: our own child, and a valid place for its status.
    let waited = unsafe { libc::waitpid(child, &mut status, 0) };
    assert_eq!(waited, child);
    if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { -libc::WTERMSIG(status) }
}
