//! A forked child that keeps every descriptor of its parent, the owner's lock among them.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// As `fork`, but past the handlers that libraries set for it, as some launchers do it. The child ends when `folder` is gone.
pub fn bare_child(folder: &Path) -> i32 {
    let folder = CString::new(folder.as_os_str().as_bytes()).unwrap();
    // SAFETY: without flags and with no stack `clone` is `fork`; the child makes system calls only, with memory that it has a
    // copy of.
    let child = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) } as i32;
    if child == 0 {
        // SAFETY: as above.
        unsafe {
            // The test's pipes must not stay open.
            let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
            (0..3).for_each(|fd| {
                libc::dup2(null, fd);
            });
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
