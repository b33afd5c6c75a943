//! Named points at which a test kills or stops the process. Without the feature `kill-points` they are nothing.

/// Every named point, in the order of a block's life.
pub const POINTS: &[&str] = &[
    "create.tables",
    "create.named",
    "attach.before_row",
    "attach.locked",
    "attach.last_row",
    "attach.joined",
    "recover.locked",
    "recover.epoch",
    "recover.repaired",
    "recover.entry",
    "recover.finished",
    "recover.leaving",
    "rebuild.cleared",
    "grow.locked",
    "grow.allocated",
    "grow.opened",
    "grow.counted",
    "claim.intent",
    "claim.writing",
    "claim.claiming",
    "claim.given_up",
    "put.reserved",
    "alloc.locked",
    "alloc.half",
    "alloc.marked",
    "put.allocated",
    "put.half_copied",
    "flight.started",
    "flight.completed",
    "quarantine.freeing",
    "quarantine.kept",
    "quarantine.ended",
    "seal.digests",
    "seal.before",
    "seal.after",
    "replace.hidden",
    "replace.sealed",
    "lease.announced",
    "lease.held",
    "batch.announced",
    "unpin.intent",
    "unpin.retired",
    "evict.claimed",
    "evict.begun",
    "evict.scanned",
    "evict.freeing",
    "retire.decided",
    "reclaim.begun",
    "free.locked",
    "free.cleared",
    "free.half",
    "free.unlocked",
    "free.untagged",
    "leave.emptied",
    "janitor.holding",
];

/// How long the space of an abandoned transfer is kept. Tests that kill processes at its end cannot wait as long.
pub const QUARANTINE: std::time::Duration = if cfg!(feature = "kill-points") {
    std::time::Duration::from_millis(20)
} else {
    std::time::Duration::from_secs(30)
};

#[cfg(all(feature = "kill-points", not(any(loom, shuttle))))]
pub use reached::point;

/// Passes a named point: nothing in this build.
#[cfg(not(all(feature = "kill-points", not(any(loom, shuttle)))))]
#[inline(always)]
pub fn point(_name: &str) {}

#[cfg(all(feature = "kill-points", not(any(loom, shuttle))))]
mod reached {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use nix::sys::signal::Signal;

    struct Target {
        name: String,
        passage: u64,
        signal: Signal,
    }

    impl Target {
        fn from_environment() -> Option<Self> {
            let value = std::env::var("CASCADE_KILL_POINT").ok()?;
            let mut parts = value.split(':');
            let (name, passage) = (parts.next()?.to_owned(), parts.next()?.parse().ok()?);
            let signal = if parts.next() == Some("stop") { Signal::SIGSTOP } else { Signal::SIGKILL };
            Some(Self { name, passage, signal })
        }
    }

    /// Passes `name`: when `CASCADE_KILL_POINT` is `name:n` and this is the n-th passage, says so in the file
    /// `CASCADE_KILL_REPORT` and dies by SIGKILL; when it is `name:n:stop`, is stopped instead.
    pub fn point(name: &str) {
        static TARGET: OnceLock<Option<Target>> = OnceLock::new();
        static PASSED: AtomicU64 = AtomicU64::new(0);
        if let Some(target) = TARGET.get_or_init(Target::from_environment)
            && target.name == name
            && PASSED.fetch_add(1, Ordering::Relaxed) + 1 == target.passage
        {
            // Nothing to do if either fails: the test then misses the report, or sees a process that was not killed.
            if let Some(report) = std::env::var_os("CASCADE_KILL_REPORT") {
                let _ = std::fs::write(report, name);
            }
            let _ = nix::sys::signal::raise(target.signal);
        }
    }
}
