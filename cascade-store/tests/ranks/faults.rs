//! Everybody puts, evicts and fetches at random with short deadlines, while the last rank is stopped again and again, or killed in the
//! middle of it all: misses have reasons, bytes are right, and nobody takes much longer than the deadline.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use cascade_core::batch::{Batch, Op, Outcome};
use cascade_core::memory::HostBuffer;
use cascade_core::tier::Tier;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::content::{bytes_of, id_of, len_of};
use crate::job::{self, Job};

/// Blocks that all ranks draw from: more than the arenas hold.
const UNIVERSE: u64 = 1200;
const DEADLINE: Duration = Duration::from_millis(400);
/// Beyond the deadline: other ranks, and builds, want the cores too.
const SLACK: Duration = Duration::from_secs(20);
const STOPPED: Duration = Duration::from_millis(700);
const RUNS: Duration = Duration::from_millis(1300);

#[derive(Debug, Default)]
struct Counts {
    hits: u64,
    puts: u64,
    misses: BTreeMap<&'static str, u64>,
    longest: Duration,
}

/// Whether the last rank is killed; it never comes back.
pub(crate) fn is_to_die() -> bool {
    job::option("--scenario").is_some_and(|name| name == "kill")
}

pub(crate) fn one_rank_fails_while_all_are_at_work(job: &Job) {
    assert!(job.ranks() > 1, "one rank fails, another goes on");
    let last = job.ranks() - 1;
    if job.rank() == last {
        std::fs::write(job.shared("process"), std::process::id().to_string()).unwrap();
    }
    job.meet("at work");
    let process = std::fs::read_to_string(job.shared("process")).unwrap().parse().unwrap();
    let process = Pid::from_raw(process);
    let is_over = AtomicBool::new(false);
    let counts = std::thread::scope(|scope| {
        if job.rank() == 0 {
            scope.spawn(|| if is_to_die() { die(process, job.seconds) } else { stop(process, &is_over) });
        }
        let counts = work(job);
        is_over.store(true, Relaxed);
        counts
    });
    println!("ranks: rank {}: {counts:?}", job.rank());
    assert!(counts.hits + counts.puts > 0, "rank {} got nothing done", job.rank());
    tell(job, &counts);
}

fn stop(process: Pid, is_over: &AtomicBool) {
    while !is_over.load(Relaxed) {
        std::thread::sleep(RUNS);
        kill(process, Signal::SIGSTOP).unwrap();
        std::thread::sleep(STOPPED);
        kill(process, Signal::SIGCONT).unwrap();
    }
}

/// In the middle: it reads from others then, and others from it.
fn die(process: Pid, seconds: u64) {
    std::thread::sleep(Duration::from_secs(seconds) / 2);
    kill(process, Signal::SIGKILL).unwrap();
    println!("ranks: the last rank was killed");
}

fn work(job: &Job) -> Counts {
    let until = Instant::now() + Duration::from_secs(job.seconds);
    let mut state = u64::from(job.rank()) + 88_172_645_463_325_252;
    let mut counts = Counts::default();
    while Instant::now() < until {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let number = 0xfa1_0000_0000 | state % UNIVERSE;
        let mut buffer = HostBuffer::zeroed(len_of(number));
        let op = Op::Fetch { id: id_of(number), into: buffer.piece().into() };
        let began = Instant::now();
        let batch = Batch { ops: vec![op], deadline: Some(began + DEADLINE) };
        let outcome =
            job.tier.submit(batch).wait(began + DEADLINE + SLACK).expect("answered about in time")[0];
        counts.longest = counts.longest.max(began.elapsed());
        assert!(began.elapsed() < DEADLINE + SLACK, "a fetch took {:?}", began.elapsed());
        match outcome {
            Outcome::Fetched(_) => {
                let bytes = buffer.bytes_mut().expect("nobody holds the buffer after the end");
                assert!(bytes == bytes_of(number), "wrong bytes for {number:x} on rank {}", job.rank());
                counts.hits += 1;
            }
            Outcome::Miss(why) => {
                *counts.misses.entry(why.name()).or_insert(0) += 1;
                let put = job.put(number);
                assert!(matches!(put, Outcome::Stored | Outcome::Exists | Outcome::Refused(_)), "{put:?}");
                counts.puts += u64::from(put == Outcome::Stored);
            }
            other => panic!("a fetch ended with {other:?}"),
        }
    }
    counts
}

/// Rank 0 adds up what those that live have counted, in the form of a lane.
fn tell(job: &Job, counts: &Counts) {
    let misses: u64 = counts.misses.values().sum();
    let line = format!("{} {} {misses} {}", counts.hits, counts.puts, counts.longest.as_millis());
    // Whole or not at all: another rank reads it.
    let (part, whole) =
        (job.shared(&format!("part {}", job.rank())), job.shared(&format!("counts {}", job.rank())));
    std::fs::write(&part, line).unwrap();
    std::fs::rename(&part, whole).unwrap();
    if job.rank() > 0 {
        return;
    }
    let living = if is_to_die() { job.ranks() - 1 } else { job.ranks() };
    let mut sums = [0_u64; 4];
    for rank in 0..living {
        let (path, until) =
            (job.shared(&format!("counts {rank}")), Instant::now() + Duration::from_secs(120));
        while !path.exists() {
            assert!(Instant::now() < until, "rank {rank} says nothing");
            std::thread::sleep(Duration::from_millis(10));
        }
        let text = std::fs::read_to_string(path).unwrap();
        let numbers: Vec<u64> = text.split(' ').map(|number| number.parse().unwrap()).collect();
        (0..3).for_each(|at| sums[at] += numbers[at]);
        sums[3] = sums[3].max(numbers[3]);
    }
    let [hits, puts, misses, longest] = sums;
    assert!(hits > 0 && puts > 0, "{hits} hits, {puts} puts");
    println!(
        "lane-result {{\"lane\":\"ranks\",\"n\":{},\"unit\":\"fetches\",\"failures\":0,\"hits\":{hits},\"puts\":{puts},\"misses\":{misses},\"longest_ms\":{longest}}}",
        hits + misses
    );
}
