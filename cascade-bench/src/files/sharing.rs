//! Several processes on one directory: how long after its acknowledgement others see a block, and rates of all together.
//!
//! Members are this program again, each with a handle of its own, told what to do on its standard input. Times are of the clock
//! that all processes of a machine share.

mod worker;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cascade_core::Result;
use serde::{Deserialize, Serialize};

use super::cli::Plan;
use super::system::failed;
use crate::member::Member;
use crate::report::{Files, Row};
use crate::run::{Progress, Results};
use crate::stats::{Latency, Spread};
use crate::units::gbps;

pub use worker::work;

/// From all being ready to the start.
const LEAD: Duration = Duration::from_millis(100);
/// Processes that write, and that read, at once.
const GROUPS: [(usize, usize); 3] = [(1, 1), (2, 2), (4, 4)];
/// Blocks whose visibility is measured, and their distance in time.
const SEEN_BYTES: usize = 64 << 10;
const SEEN_EVERY_MS: u64 = 10;
/// Blocks of the rates, and how many each writer stores.
const RATE_BYTES: usize = 1 << 20;
const MOST_RATE_BYTES: u64 = 1 << 30;

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Role {
    /// Stores a block now and then.
    Pace,
    /// Looks for the blocks of all who store.
    See,
    /// Stores as fast as it goes.
    Write,
    /// Fetches, over and over, blocks that were there before.
    Read,
}

/// What a process is told: one line of JSON. Then a line with the time to start at, in nanoseconds since 1970.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Job {
    folder: PathBuf,
    role: Role,
    /// Number among those of its kind.
    number: usize,
    /// Processes that store.
    writers: usize,
    /// Bytes of a block.
    block: usize,
    /// Blocks that each writer stores.
    blocks: usize,
    milliseconds: u64,
}

/// What a process did: one line of JSON.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Done {
    /// Writer, block, and when it was acknowledged or seen, in nanoseconds since 1970.
    times: Vec<(usize, usize, u64)>,
    bytes: u64,
    /// From the first operation to the last, in nanoseconds since 1970.
    span: (u64, u64),
    /// Blocks that came back wrong or not at all.
    wrong: u64,
}

/// Measures all groups.
pub(super) fn measure(plan: &Plan, dir: &Path, results: &mut Results, progress: Progress<'_>) -> Result<()> {
    let program = std::env::current_exe()
        .map_err(|error| failed("where this program is, is unknown").with_source(error))?;
    let reps = if plan.milliseconds < 1000 { 1 } else { plan.reps.min(5) };
    for (step, group) in GROUPS.into_iter().enumerate() {
        let (writers, readers) = group;
        let mut seen = Seen::default();
        let (mut puts, mut gets, mut wrong) = (Vec::new(), Vec::new(), 0);
        for rep in 0..reps {
            let what = format!("{writers} processes write, {readers} read");
            progress(step * reps + rep, GROUPS.len() * reps, &what);
            let folder = dir.join("shared");
            seen.add(&visibility(&program, &folder, group, plan.milliseconds)?);
            clean(&folder)?;
            let done = rates(&program, &folder, group, plan)?;
            clean(&folder)?;
            puts.push(rate(&done[..writers]));
            gets.push(rate(&done[writers..]));
            wrong += done.iter().map(|done| done.wrong).sum::<u64>();
        }
        results.rows.push(seen.row(group, reps));
        for (op, rates) in [("put", puts), ("get", gets)] {
            let mut row = row(op, group, RATE_BYTES, rates.len());
            row.gbps = Spread::of(&rates);
            row.verified = Some(wrong == 0);
            results.rows.push(row);
        }
    }
    Ok(())
}

fn row(op: &str, (writers, readers): (usize, usize), block: usize, n: usize) -> Row {
    let mut row = Row::new("pfs", op, &format!("{writers} write, {readers} read"), block as u64);
    (row.ranks, row.n) = (writers + readers, n);
    "new".clone_into(&mut row.state);
    let durability = "segment".to_owned();
    row.files = Some(Files {
        durability,
        engine: "cascade-pfs".to_owned(),
        io_bytes: block as u64,
        depth: 1,
        ..Files::default()
    });
    row
}

/// All bytes over the time in which anybody was at work.
fn rate(done: &[Done]) -> f64 {
    let from = done.iter().map(|done| done.span.0).min().unwrap_or(0);
    let to = done.iter().map(|done| done.span.1).max().unwrap_or(0);
    gbps(done.iter().map(|done| done.bytes).sum(), to.saturating_sub(from).max(1) as f64 / 1e9)
}

/// Delays from acknowledgement to sight.
#[derive(Default)]
struct Seen {
    delays_us: Vec<f64>,
    wrong: u64,
}

impl Seen {
    /// Takes what writers and readers say; a block that a reader did not see, or saw wrong, is wrong.
    fn add(&mut self, done: &[Done]) {
        let (sights, acknowledged): (Vec<&Done>, Vec<&Done>) = done.iter().partition(|done| done.bytes == 0);
        let at: std::collections::HashMap<(usize, usize), u64> = acknowledged
            .iter()
            .flat_map(|done| &done.times)
            .map(|(writer, block, at)| ((*writer, *block), *at))
            .collect();
        self.wrong += done.iter().map(|done| done.wrong).sum::<u64>();
        for sight in sights {
            self.wrong += (at.len() - at.len().min(sight.times.len())) as u64;
            let delay = |(writer, block, seen): &(usize, usize, u64)| {
                // A block may be seen before its writer has heard that it is stored.
                at.get(&(*writer, *block)).map(|at| seen.saturating_sub(*at) as f64 / 1e3)
            };
            self.delays_us.extend(sight.times.iter().filter_map(delay));
        }
    }

    fn row(&self, group: (usize, usize), reps: usize) -> Row {
        let mut row = row("visible", group, SEEN_BYTES, reps);
        row.latency_us = Latency::of(&self.delays_us);
        row.blocks = Some(self.delays_us.len() as u64);
        row.verified = Some(self.wrong == 0 && !self.delays_us.is_empty());
        row.files = None;
        row
    }
}

fn clean(folder: &Path) -> Result<()> {
    std::fs::remove_dir_all(folder)
        .map_err(|error| failed(format!("cannot remove {}", folder.display())).with_source(error))
}

fn visibility(
    program: &Path,
    folder: &Path,
    (writers, readers): (usize, usize),
    milliseconds: u64,
) -> Result<Vec<Done>> {
    let blocks = (milliseconds / SEEN_EVERY_MS) as usize;
    let job = Job {
        folder: folder.to_owned(),
        role: Role::Pace,
        number: 0,
        writers,
        block: SEEN_BYTES,
        blocks,
        milliseconds,
    };
    let jobs = (0..writers).map(|number| Job { number, ..job.clone() });
    let jobs = jobs.chain((0..readers).map(|number| Job { role: Role::See, number, ..job.clone() }));
    together(program, &jobs.collect::<Vec<_>>())
}

fn rates(
    program: &Path,
    folder: &Path,
    (writers, readers): (usize, usize),
    plan: &Plan,
) -> Result<Vec<Done>> {
    let bytes = plan.lap_bytes.min(MOST_RATE_BYTES / writers as u64);
    let blocks = (bytes as usize / RATE_BYTES).max(1);
    let milliseconds = plan.milliseconds;
    let job = Job {
        folder: folder.to_owned(),
        role: Role::Write,
        number: 0,
        writers,
        block: RATE_BYTES,
        blocks,
        milliseconds,
    };
    // What is read has been there before: the blocks of one more writer.
    together(program, &[Job { number: writers, ..job.clone() }])?;
    let jobs = (0..writers).map(|number| Job { number, ..job.clone() });
    let jobs = jobs.chain((0..readers).map(|number| Job { role: Role::Read, number, ..job.clone() }));
    together(program, &jobs.collect::<Vec<_>>())
}

/// Runs `jobs` at once, each in a process of its own.
fn together(program: &Path, jobs: &[Job]) -> Result<Vec<Done>> {
    let mut members = jobs.iter().map(|job| start(program, job)).collect::<Result<Vec<_>>>()?;
    for member in &mut members {
        let line = member.line()?;
        if line != "ready" {
            return Err(failed(format!("a process answered {line:?}, not ready")));
        }
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let at = (now + LEAD).as_nanos().to_string();
    members.iter_mut().try_for_each(|member| member.say(&at))?;
    let done = |member: &mut Member| {
        serde_json::from_str(&member.line()?).map_err(|error| ended().with_source(error))
    };
    members.iter_mut().map(done).collect()
}

fn start(program: &Path, job: &Job) -> Result<Member> {
    let mut command = Command::new(program);
    command.args(["--tier", "pfs", "--worker"]);
    Member::start(command, job)
}

fn ended() -> cascade_core::Error {
    failed("a process of several on one directory failed; what it said is above")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_are_paired_by_block_and_what_nobody_saw_is_wrong() {
        let writer = Done { times: vec![(0, 0, 1000), (0, 1, 2000)], bytes: 1, ..Done::default() };
        let reader = Done { times: vec![(0, 0, 4000), (0, 1, 1500)], ..Done::default() };
        let mut seen = Seen::default();
        seen.add(&[writer.clone(), reader]);
        assert_eq!((seen.delays_us.clone(), seen.wrong), (vec![3.0, 0.0], 0));
        assert_eq!(seen.row((1, 1), 1).verified, Some(true));
        seen.add(&[writer, Done { times: vec![(0, 0, 4000)], ..Done::default() }]);
        assert_eq!(seen.wrong, 1);
        assert_eq!(seen.row((1, 1), 1).verified, Some(false));
    }

    #[test]
    fn the_rate_is_that_of_all_from_the_first_to_the_last() {
        let done = |span| Done { bytes: 1_000_000_000, span, ..Done::default() };
        assert_eq!(rate(&[done((0, 1_000_000_000)), done((1_000_000_000, 2_000_000_000))]), 1.0);
    }
}
