//! Runs a model and reports how many executions it took: a model that explored a handful proves little.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Explores `work` with at most `bound` preemptions, or `LOOM_MAX_PREEMPTIONS` if that is more.
///
/// Gives a line to standard output, and to the file that `CASCADE_LOOM_REPORT` names: model, bound, executions, seconds, and
/// whether all were explored (`LOOM_MAX_DURATION` ends a model early).
pub(crate) fn model(bound: usize, work: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    let bound = bound.max(builder.preemption_bound.unwrap_or(0));
    builder.preemption_bound = Some(bound);
    builder.max_branches = 50_000;
    let limit = builder.max_duration;
    let executions = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&executions);
    let started = Instant::now();
    builder.check(move || {
        counter.fetch_add(1, Ordering::Relaxed);
        work();
    });
    let took = started.elapsed();
    let whole = if limit.is_some_and(|limit| took >= limit) { "cut off" } else { "all" };
    let count = executions.load(Ordering::Relaxed);
    let name = std::thread::current().name().unwrap_or("?").to_owned();
    let line = format!("{name}\t{bound}\t{count}\t{:.1}\t{whole}\n", took.as_secs_f64());
    print!("{line}");
    if let Some(path) = std::env::var_os("CASCADE_LOOM_REPORT") {
        let file = std::fs::File::options().create(true).append(true).open(path);
        let written = file.and_then(|mut file| file.write_all(line.as_bytes()));
        assert!(written.is_ok(), "cannot report what was explored: {written:?}");
    }
}
