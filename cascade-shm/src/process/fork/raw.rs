//! The fork handler and what it touches: nothing that is not async-signal-safe.

use std::os::fd::{AsFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::Once;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

/// Files that a child closes. More than this in one process stay open in the child: of locks, the pid check covers that.
const REGISTERED: usize = 1024;
const NONE: i32 = -1;

static EPOCH: AtomicU64 = AtomicU64::new(0);
static FILES: [AtomicI32; REGISTERED] = [const { AtomicI32::new(NONE) }; REGISTERED];

/// Counts the forks between the first user of an arena and this process.
#[inline]
#[must_use]
pub fn epoch() -> u64 {
    EPOCH.load(Ordering::Relaxed)
}

extern "C" fn in_child() {
    EPOCH.fetch_add(1, Ordering::Relaxed);
    for file in &FILES {
        let fd = file.swap(NONE, Ordering::Relaxed);
        if fd != NONE {
            // SAFETY: `close` is async-signal-safe; the descriptor was registered by its owner, whose `ForkGuard` in this child
            // sees another epoch and will not close it again.
            unsafe { libc::close(fd) };
        }
    }
}

fn install() {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| {
        // SAFETY: the handler touches atomics and calls `close` only, as a child of a threaded process must.
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    });
}

/// An open file that does not survive `fork`: the child's copy is closed at once, so that a lock on it dies with the parent.
#[derive(Debug)]
pub struct ForkGuard {
    fd: RawFd,
    epoch: u64,
    place: Option<usize>,
}

impl ForkGuard {
    /// Takes `file` over.
    #[must_use]
    pub fn new(file: impl Into<OwnedFd>) -> Self {
        install();
        let fd = file.into().into_raw_fd();
        let free =
            |file: &AtomicI32| file.compare_exchange(NONE, fd, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        Self { fd, epoch: epoch(), place: FILES.iter().position(free) }
    }

    /// Whether this process is the one that opened the file.
    #[inline]
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.epoch == epoch()
    }
}

impl AsFd for ForkGuard {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: open as long as `self` lives, except in a forked child, whose system calls then fail with EBADF; sessions are
        // asked `is_ours` before they use the file.
        unsafe { BorrowedFd::borrow_raw(self.fd) }
    }
}

impl Drop for ForkGuard {
    fn drop(&mut self) {
        if !self.is_ours() {
            return;
        }
        if let Some(place) = self.place {
            FILES[place].store(NONE, Ordering::Relaxed);
        }
        // SAFETY: taken over in `new`, not closed by the fork handler (same epoch), and closed once.
        unsafe { libc::close(self.fd) };
    }
}
