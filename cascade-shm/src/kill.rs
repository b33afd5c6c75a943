//! Named points at which a test kills the process. Without the feature `kill-points` they are nothing.

/// Every named point, in the order of a block's life.
pub const POINTS: &[&str] = &[
    "attach.before_row",
    "attach.joined",
    "attach.reaping",
    "reap.entry",
    "claim.intent",
    "claim.writing",
    "claim.claiming",
    "put.reserved",
    "alloc.locked",
    "alloc.marked",
    "put.allocated",
    "put.half_copied",
    "seal.digests",
    "seal.before",
    "seal.after",
    "replace.hidden",
    "evict.begun",
    "evict.scanned",
    "evict.freeing",
    "free.locked",
    "free.cleared",
    "free.unlocked",
    "retire.decided",
    "unpin.retired",
    "grow.allocated",
    "janitor.holding",
];

/// Passes `name`: dies by SIGKILL when `CASCADE_KILL_POINT` is `name:count` and this is the count-th passage.
#[cfg(all(feature = "kill-points", not(loom)))]
pub fn point(name: &str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static TARGET: OnceLock<Option<(String, u64)>> = OnceLock::new();
    static PASSED: AtomicU64 = AtomicU64::new(0);
    let target = TARGET.get_or_init(|| {
        let value = std::env::var("CASCADE_KILL_POINT").ok()?;
        let (name, count) = value.split_once(':')?;
        Some((name.to_owned(), count.parse().ok()?))
    });
    if let Some((wanted, count)) = target
        && wanted == name
        && PASSED.fetch_add(1, Ordering::Relaxed) + 1 == *count
    {
        // Nothing to do if it fails: the test then sees a process that was not killed.
        let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
    }
}

/// Passes a named point: nothing in this build.
#[cfg(not(all(feature = "kill-points", not(loom))))]
#[inline(always)]
pub fn point(_name: &str) {}
