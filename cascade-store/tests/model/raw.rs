//! A forked process that ends by SIGKILL.

use std::io::{Read, Write};

use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork, getpid};

/// Runs `work` in a forked process until it reports a number; that process is then killed where it stands. Gives the number.
pub(crate) fn killed(work: impl FnOnce(&dyn Fn(u64))) -> u64 {
    let (mut reader, writer) = std::io::pipe().unwrap();
    // SAFETY: the child uses what survives a fork: glibc's allocator, the copy pool and the arena's handles, all of which
    // reset themselves in a forked child; it never returns, so no destructor of the test runs twice.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            let die = |number: u64| {
                let _ = (&writer).write_all(&number.to_le_bytes());
                let _ = nix::sys::signal::kill(getpid(), Signal::SIGKILL);
            };
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&die)));
            // SAFETY: ends the process without running anything of the parent's.
            unsafe { libc::_exit(3) }
        }
        ForkResult::Parent { child } => {
            drop(writer);
            let mut number = [0; 8];
            let said = reader.read_exact(&mut number);
            let status = waitpid(child, None).unwrap();
            assert!(
                matches!(status, WaitStatus::Signaled(_, Signal::SIGKILL, _)) && said.is_ok(),
                "the process that was to be killed ended otherwise: {status:?}"
            );
            u64::from_le_bytes(number)
        }
    }
}
