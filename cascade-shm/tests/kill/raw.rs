//! A forked child that does nothing: engines fork, and their children outlive them.

/// Forks a child that holds what it inherits and sleeps, a few seconds; gives its process id to the parent.
pub fn sleeping_child() -> i32 {
    // SAFETY: the child calls nothing but async-signal-safe functions.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: as above.
        unsafe {
            libc::sleep(5);
            libc::_exit(0);
        }
    }
    child
}
