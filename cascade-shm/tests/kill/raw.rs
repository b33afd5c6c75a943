//! A forked child that does nothing: engines fork, and their children outlive them.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Forks a child that holds what it inherits, and ends when `folder` is gone; gives its process id to the parent.
pub fn sleeping_child(folder: &Path) -> i32 {
    let folder = CString::new(folder.as_os_str().as_bytes()).unwrap();
    // SAFETY: the child calls nothing but async-signal-safe functions, with memory that it has a copy of.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: as above.
        unsafe {
            // The test's output must not stay open: who runs the test waits for its end.
            let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
            (0..3).for_each(|fd| {
                libc::dup2(null, fd);
            });
            // A minute at most, whatever becomes of the test.
            for _ in 0..1200 {
                if libc::access(folder.as_ptr(), libc::F_OK) != 0 {
                    break;
                }
                libc::usleep(50_000);
            }
            libc::_exit(0);
        }
    }
    child
}
