//! Threads that start together and are timed as one.

use std::sync::Barrier;
use std::time::{Duration, Instant};

/// Calls `work` with each of `members` at the same time, one thread each, and gives the time from the first start to the
/// last end. A member alone is called on this thread.
pub(crate) fn timed<S: Send, T: Send>(
    members: &mut [S],
    work: impl Fn(&mut S) -> T + Sync,
) -> (Duration, Vec<T>) {
    if let [alone] = members {
        let start = Instant::now();
        let value = work(alone);
        return (start.elapsed(), vec![value]);
    }
    let barrier = Barrier::new(members.len());
    let (barrier, work) = (&barrier, &work);
    let runs: Vec<_> = std::thread::scope(|scope| {
        let run = |member| {
            scope.spawn(move || {
                barrier.wait();
                let start = Instant::now();
                let value = work(member);
                (start, Instant::now(), value)
            })
        };
        let threads: Vec<_> = members.iter_mut().map(run).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| match thread.join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        threads.into_iter().map(join).collect()
    });
    let start = runs.iter().map(|run| run.0).min();
    let end = runs.iter().map(|run| run.1).max();
    let time = start.zip(end).map_or(Duration::ZERO, |(start, end)| end - start);
    (time, runs.into_iter().map(|run| run.2).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_member_works_and_the_slowest_counts() {
        let mut members = [1u64, 30];
        let (time, values) = timed(&mut members, |milliseconds| {
            std::thread::sleep(Duration::from_millis(*milliseconds));
            *milliseconds += 1;
            *milliseconds
        });
        assert_eq!((values, members), (vec![2, 31], [2, 31]));
        assert!(time >= Duration::from_millis(30));
    }
}
