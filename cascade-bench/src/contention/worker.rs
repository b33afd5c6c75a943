//! One process of many that lease at once.

use std::hint::black_box;
use std::io::{BufRead, Write};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cascade_core::id::BlockId;
use cascade_core::tier::Addressable;
use cascade_core::{Error, ErrorKind, Result};
use cascade_shm::{Arena, ArenaConfig};

use super::{Done, Job};
use crate::draw::{Random, Zipf};
use crate::lap::FreshIds;
use crate::team::timed;

/// Ids that a process takes turns in.
const DRAWS: usize = 1 << 16;
/// Leases between two looks at the clock; the first of them is timed by itself.
const STRETCH: usize = 256;
/// Spun through before the start; the sleep before it is not that exact.
const SPIN: Duration = Duration::from_millis(1);

/// Does one job read from `orders`, and tells of it on `answers`: `ready`, and after the start what was done.
///
/// # Errors
/// `System` when the orders cannot be read, and what opening the arena gives.
pub fn work(mut orders: impl BufRead, mut answers: impl Write) -> Result<()> {
    let failed = |error: std::io::Error| {
        Error::new(ErrorKind::System, "the orders of the starting process are lost").with_source(error)
    };
    let mut line = String::new();
    orders.read_line(&mut line).map_err(failed)?;
    let job: Job = serde_json::from_str(&line).map_err(|error| failed(error.into()))?;
    let arena = Arena::open(&ArenaConfig::new(&job.folder))?;
    let ids = draws(&job);
    for id in &ids {
        // Joins the arena and brings its tables into the page table, before anything counts.
        drop(arena.lease(id));
    }
    writeln!(answers, "ready").and_then(|()| answers.flush()).map_err(failed)?;
    line.clear();
    orders.read_line(&mut line).map_err(failed)?;
    let start: u64 = line
        .trim()
        .parse()
        .map_err(|_| Error::new(ErrorKind::System, format!("{line:?} is no time to start at")))?;
    let start = instant_of(Duration::from_nanos(start));
    let end = start + Duration::from_millis(job.milliseconds);
    // Threads share the ids, so that they do not push each other out of the caches, and begin at different ones.
    let mut firsts: Vec<usize> = (0..job.threads).map(|thread| thread * ids.len() / job.threads).collect();
    let (_, done) = timed(&mut firsts, |first| lease(&arena, &ids, *first, start, end));
    let text = serde_json::to_string(&done).map_err(|error| failed(error.into()))?;
    writeln!(answers, "{text}").and_then(|()| answers.flush()).map_err(failed)
}

/// The ids to lease, over and over.
fn draws(job: &Job) -> Vec<BlockId> {
    let ids = FreshIds::default().take(if job.zipf_s.is_some() { job.keys as usize } else { 1 });
    let zipf = job.zipf_s.map(|s| Zipf::new(ids.len(), s));
    let mut random = Random::new(job.seed);
    (0..DRAWS).map(|_| ids[zipf.as_ref().map_or(0, |zipf| zipf.draw(&mut random))]).collect()
}

/// The moment that is so long after 1970.
fn instant_of(since_epoch: Duration) -> Instant {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Instant::now() + since_epoch.saturating_sub(now)
}

fn lease(arena: &Arena, ids: &[BlockId], first: usize, start: Instant, end: Instant) -> Done {
    std::thread::sleep((start - SPIN).saturating_duration_since(Instant::now()));
    while Instant::now() < start {
        std::hint::spin_loop();
    }
    let mut done = Done { leases: 0, missed: 0, seconds: 0.0, each_ns: Vec::with_capacity(1 << 16) };
    let mut now = start;
    for ids in ids.chunks_exact(STRETCH).cycle().skip(first / STRETCH) {
        let before = Instant::now();
        done.missed += u64::from(black_box(arena.lease(&ids[0])).is_err());
        let after = Instant::now();
        done.each_ns.push(u32::try_from((after - before).as_nanos()).unwrap_or(u32::MAX));
        for id in &ids[1..] {
            done.missed += u64::from(black_box(arena.lease(id)).is_err());
        }
        done.leases += STRETCH as u64;
        now = Instant::now();
        if now >= end {
            break;
        }
    }
    done.seconds = (now - start).as_secs_f64();
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hot_draws_are_one_block_and_zipf_draws_mostly_the_first() {
        let job = Job { folder: "/".into(), threads: 2, keys: 1000, zipf_s: None, seed: 1, milliseconds: 1 };
        let first = FreshIds::default().take(1)[0];
        assert!(draws(&job).iter().all(|id| *id == first));
        let zipf = draws(&Job { zipf_s: Some(0.99), ..job.clone() });
        assert_ne!(zipf, draws(&Job { zipf_s: Some(0.99), seed: 2, ..job }), "each process draws its own");
        let share = zipf.iter().filter(|id| **id == first).count() as f64 / DRAWS as f64;
        assert!((0.11..0.16).contains(&share), "one in 7.5 of 1000 keys at s = 0.99: {share}");
    }
}
