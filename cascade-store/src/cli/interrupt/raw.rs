//! Signal handlers.

use std::ffi::c_int;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

static CAME: AtomicBool = AtomicBool::new(false);

const SIGNALS: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

extern "C" fn note(_signal: c_int) {
    CAME.store(true, Ordering::Relaxed);
}

/// While it lives, the first SIGINT, SIGTERM or SIGHUP is noted; a second one of its kind ends the process as ever.
#[derive(Debug)]
pub(in crate::cli) struct Interrupts {
    before: Vec<(Signal, SigAction)>,
}

impl Interrupts {
    pub(in crate::cli) fn watch() -> Self {
        CAME.store(false, Ordering::Relaxed);
        let flags = SaFlags::SA_RESTART | SaFlags::SA_RESETHAND;
        let action = SigAction::new(SigHandler::Handler(note), flags, SigSet::empty());
        let set = |signal: Signal| {
            // SAFETY: the handler only stores to an atomic, which is safe at any point of any thread.
            unsafe { sigaction(signal, &action) }.ok().map(|before| (signal, before))
        };
        Self { before: SIGNALS.into_iter().filter_map(set).collect() }
    }

    /// Whether one came.
    pub(in crate::cli) fn came(&self) -> bool {
        CAME.load(Ordering::Relaxed)
    }
}

impl Drop for Interrupts {
    fn drop(&mut self) {
        for (signal, before) in &self.before {
            // SAFETY: restores the action that the process had before; its handler is as good as it was then.
            let _ = unsafe { sigaction(*signal, before) };
        }
    }
}
