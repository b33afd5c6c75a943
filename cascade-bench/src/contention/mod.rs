//! Leases by many processes or threads at once, on one block that all want and on keys of a Zipf distribution, beside one
//! process alone. Members are real processes: this program again, told what to do on its standard input, each with its own
//! handle on the arena. All count in the same stretch of time.

mod worker;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cascade_core::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

use crate::lap::FreshIds;
use crate::latency::{self, BLOCK_BYTES, check_fits};
use crate::member::Member;
use crate::memory;
use crate::report::{Row, Throughput};
use crate::run::{Results, Stored};
use crate::shm;
use crate::stats::{Latency, Spread};
use crate::tiers::Wanted;

pub use worker::work;

/// Exponent of the Zipf distribution.
const ZIPF_S: f64 = 0.99;
/// Keys that are drawn from.
const KEYS: u64 = 100_000;
/// What takes part beside one process alone: (processes, threads of each).
const GROUPS: [(usize, usize); 3] = [(1, 1), (8, 1), (1, 16)];
/// From all being ready to the start.
const LEAD: Duration = Duration::from_millis(30);

/// What a process is told: one line of JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Job {
    /// Folder of the arena.
    folder: PathBuf,
    threads: usize,
    /// Blocks `0..keys` of the run are leased.
    keys: u64,
    /// Exponent of the Zipf distribution; `None`: the first block alone.
    zipf_s: Option<f64>,
    seed: u64,
    milliseconds: u64,
}

/// What one thread did: a line of JSON for each process has those of all its threads.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Done {
    leases: u64,
    missed: u64,
    seconds: f64,
    /// Times of some leases with their release, in nanoseconds.
    each_ns: Vec<u32>,
}

/// How long each repetition counts, and how often.
#[derive(Clone, Debug)]
pub struct Options {
    /// Folder for the arena.
    pub dir: PathBuf,
    /// This program.
    pub program: PathBuf,
    /// Repetitions.
    pub reps: usize,
    /// Length of each.
    pub milliseconds: u64,
}

/// Measures all groups in turns.
///
/// # Errors
/// What making the arena and starting processes give.
pub fn measure(
    options: &Options,
    tier_name: &str,
    say: &mut dyn FnMut(usize, usize, &str),
) -> Result<Results> {
    let mut results = Results::default();
    let stored = Stored { blocks: KEYS, is_index_only: false };
    if let Err(error) = check_fits(&options.dir, stored, 1) {
        results.notes.push(format!("leases by many at once not run: {error}"));
        return Ok(results);
    }
    // Twice the slots, so that every key stays.
    let wanted = Wanted { slots: Some(2 * KEYS), ..latency::wanted(stored, 1) };
    let arena = shm::make(&options.dir, &wanted)?;
    let mut source = memory::random(latency::PLACES * BLOCK_BYTES as usize, 78)?;
    latency::put(&arena, &FreshIds::default().take(KEYS as usize), &source.split(1)[0])?;
    for (step, zipf_s) in [None, Some(ZIPF_S)].into_iter().enumerate() {
        let keys = zipf_s.map_or_else(|| "hot".to_owned(), |s| format!("zipf{s}"));
        let mut groups: Vec<Group> = GROUPS.iter().map(|of| Group::new(*of)).collect();
        for rep in 0..options.reps {
            say(step * options.reps + rep, 2 * options.reps, &format!("leases by many at once, {keys}"));
            for group in &mut groups {
                let job = Job {
                    folder: arena.folder.clone(),
                    threads: group.threads,
                    keys: KEYS,
                    zipf_s,
                    seed: rep as u64 * 1000,
                    milliseconds: options.milliseconds,
                };
                group.add(run(&options.program, group.processes, &job)?);
            }
        }
        let one = Spread::of(&groups[0].totals).map_or(0.0, |one| one.median);
        results.rows.extend(groups.iter().filter_map(|group| group.row(tier_name, &keys, one)));
    }
    Ok(results)
}

/// What a group of processes or threads did in all repetitions.
#[derive(Debug)]
struct Group {
    processes: usize,
    threads: usize,
    totals: Vec<f64>,
    members: Vec<f64>,
    each_us: Vec<f64>,
    missed: u64,
}

impl Group {
    fn new((processes, threads): (usize, usize)) -> Self {
        Self { processes, threads, totals: Vec::new(), members: Vec::new(), each_us: Vec::new(), missed: 0 }
    }

    fn add(&mut self, done: Vec<Done>) {
        let rates: Vec<f64> = done.iter().map(|done| done.leases as f64 / done.seconds).collect();
        self.totals.push(rates.iter().sum());
        self.members.extend(rates);
        self.missed += done.iter().map(|done| done.missed).sum::<u64>();
        self.each_us.extend(done.into_iter().flat_map(|done| done.each_ns).map(|ns| f64::from(ns) / 1e3));
    }

    fn row(&self, tier_name: &str, keys: &str, one: f64) -> Option<Row> {
        let what = match (self.processes, self.threads) {
            (processes, 1) => format!("processes{processes}"),
            (_, threads) => format!("threads{threads}"),
        };
        let mut row = Row::new(tier_name, "lease", &format!("{what} {keys}"), BLOCK_BYTES);
        row.threads = self.processes * self.threads;
        row.ranks = self.processes;
        row.blocks = Some(if keys == "hot" { 1 } else { KEYS });
        row.n = self.totals.len();
        row.latency_us = Latency::of(&self.each_us);
        row.verified = Some(self.missed == 0);
        let per_second = Spread::of(&self.totals)?;
        row.throughput = Some(Throughput {
            per_second,
            member_per_second: Spread::of(&self.members)?,
            of_one: per_second.median / one,
        });
        Some(row)
    }
}

/// Runs `job` in so many processes at once.
fn run(program: &Path, processes: usize, job: &Job) -> Result<Vec<Done>> {
    let start = |process: usize| begin(program, &Job { seed: job.seed + process as u64, ..job.clone() });
    let mut members = (0..processes).map(start).collect::<Result<Vec<_>>>()?;
    for member in &mut members {
        let line = member.line()?;
        if line != "ready" {
            return Err(Error::new(ErrorKind::System, format!("a process answered {line:?}, not ready")));
        }
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let at = (now + LEAD).as_nanos().to_string();
    members.iter_mut().try_for_each(|member| member.say(&at))?;
    let mut done = Vec::new();
    for member in &mut members {
        let line = member.line()?;
        let of_threads: Vec<Done> =
            serde_json::from_str(&line).map_err(|error| failed().with_source(error))?;
        done.extend(of_threads);
    }
    Ok(done)
}

fn begin(program: &Path, job: &Job) -> Result<Member> {
    let mut command = Command::new(program);
    command.args(["--tier", "shm", "--pass", "worker"]).env("CASCADE_COPY_THREADS", "1");
    Member::start(command, job)
}

fn failed() -> Error {
    Error::new(ErrorKind::System, "a process that was to lease blocks failed; what it said is above")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_added_up_and_compared_with_one() {
        let done = |leases| Done { leases, missed: 0, seconds: 0.5, each_ns: vec![500, 1500] };
        let mut group = Group::new((2, 1));
        group.add(vec![done(100), done(300)]);
        group.add(vec![done(200), done(200)]);
        let row = group.row("shm", "hot", 400.0).unwrap();
        assert_eq!((row.path.as_str(), row.threads, row.ranks, row.n), ("processes2 hot", 2, 2, 2));
        let throughput = row.throughput.unwrap();
        assert_eq!((throughput.per_second.median, throughput.of_one), (800.0, 2.0));
        assert_eq!((throughput.member_per_second.min, throughput.member_per_second.max), (200.0, 600.0));
        assert_eq!((row.latency_us.unwrap().p50, row.verified), (0.5, Some(true)));
        group.add(vec![Done { missed: 1, ..done(1) }]);
        assert_eq!(group.row("shm", "hot", 400.0).unwrap().verified, Some(false));
        assert!(Group::new((1, 16)).row("shm", "hot", 1.0).is_none());
    }
}
