//! fork, waitpid and the copy under test, behind safe functions.

use std::time::{Duration, Instant};

use cascade_core::copy::{Direction, copy_chunks};
use cascade_core::digest::chunk_count;

/// Sets `CASCADE_COPY_THREADS`; the plan reads it once, before the first copy.
pub(crate) fn set_copy_threads(threads: &str) {
    // SAFETY: this test binary has one test, and no thread of it reads the environment meanwhile.
    unsafe { std::env::set_var("CASCADE_COPY_THREADS", threads) };
}

/// Chunk digests of a copy with as many threads as the plan has.
pub(crate) fn copy(dst: &mut [u8], src: &[u8]) -> Vec<u64> {
    assert_eq!(dst.len(), src.len());
    let mut digests = vec![0; chunk_count(src.len())];
    // SAFETY: two slices of that length, one of them exclusive, so they do not overlap.
    unsafe { copy_chunks(dst.as_mut_ptr(), src.as_ptr(), src.len(), Direction::Put, &mut digests) };
    digests
}

/// A forked process; killed when dropped.
pub(crate) struct Child(libc::pid_t);

impl Child {
    /// Runs `work` in a child, which exits with status 0 if it returns true, else 1.
    pub(crate) fn fork(work: impl FnOnce() -> bool) -> Self {
        // SAFETY: the child runs on a copy of this thread only, and leaves by `_exit`; the allocator is usable after
        // fork with glibc, and the work takes no lock that another thread of the test may hold.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0, "fork failed");
        if pid == 0 {
            let status = i32::from(!work());
            // SAFETY: ends the process without running the parent's exit handlers.
            unsafe { libc::_exit(status) };
        }
        Self(pid)
    }

    /// Exit status; `None` if the child still runs at `deadline` or was killed.
    pub(crate) fn status_before(&self, deadline: Instant) -> Option<i32> {
        while Instant::now() < deadline {
            let mut status = 0;
            // SAFETY: waits for a child of this process into a local.
            let pid = unsafe { libc::waitpid(self.0, &mut status, libc::WNOHANG) };
            if pid == self.0 {
                return libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        None
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let mut status = 0;
        // SAFETY: the pid is that of our child; if it was waited for already, both calls fail with an error.
        unsafe {
            if libc::waitpid(self.0, &mut status, libc::WNOHANG) == 0 {
                libc::kill(self.0, libc::SIGKILL);
                libc::waitpid(self.0, &mut status, 0);
            }
        }
    }
}
