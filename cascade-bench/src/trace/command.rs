//! The run: workloads x capacities x policies, the table and the files.

use std::fmt::Write as _;
use std::io::IsTerminal;

use cascade_core::{Error, ErrorKind, Result};
use indicatif::{ProgressBar, ProgressStyle};

use super::cli::Arguments;
use super::format::Workload;
use super::optimum::{infinite, optimum};
use super::policies::Policy;
use super::simulate::{Outcome, simulate};
use crate::plot;
use crate::report::{Replay, Report, Row};
use crate::stats::Spread;

/// Hit rates of one policy at one capacity, one for each seed.
struct Cell {
    policy: Policy,
    capacity: usize,
    rates: Vec<f64>,
    last: Outcome,
}

/// Runs the suite.
///
/// # Errors
/// `NotFound` and `Format` for a trace that cannot be read, `InvalidArgument` when no request is left, `System` when a file
/// cannot be written.
pub fn run(arguments: &Arguments) -> Result<()> {
    let workloads = workloads(arguments)?;
    let mut policies = arguments.policy.clone();
    policies.dedup();
    let bar = progress_bar((workloads.len() * arguments.capacity.len() * policies.len()) as u64);
    let mut cells: Vec<Cell> = Vec::new();
    for (workload, seed) in workloads.iter().zip(&arguments.seed) {
        for capacity in &arguments.capacity {
            for policy in &policies {
                bar.set_message(format!("{}: {policy} at {capacity}", workload.name));
                let outcome = replay(workload, *policy, *capacity, *seed);
                let of = |cell: &&mut Cell| (cell.policy, cell.capacity) == (*policy, *capacity);
                match cells.iter_mut().find(of) {
                    Some(cell) => {
                        cell.rates.push(outcome.hit_rate());
                        cell.last = outcome;
                    }
                    None => {
                        let rates = vec![outcome.hit_rate()];
                        cells.push(Cell { policy: *policy, capacity: *capacity, rates, last: outcome });
                    }
                }
                bar.inc(1);
            }
        }
    }
    bar.finish_and_clear();
    print!("{}", describe(&workloads));
    let rows: Vec<Row> = cells.iter().filter_map(|cell| row(cell, &cells, &workloads)).collect();
    print!("{}", table(&rows, &policies, &arguments.capacity));
    if let Some(path) = &arguments.plot {
        plot::hit_rates(path, &format!("Hits of {}", workloads[0].name), &rows)?;
    }
    if let Some(path) = &arguments.json {
        let simulated = "simulated: blocks are counted, no bytes are moved".to_owned();
        Report::here(rows, vec![simulated]).save(path)?;
    }
    Ok(())
}

/// One for each seed.
fn workloads(arguments: &Arguments) -> Result<Vec<Workload>> {
    let mut workloads = Vec::new();
    for seed in &arguments.seed {
        let mut workload = match (&arguments.trace, arguments.synthetic) {
            (Some(path), _) => Workload::load(path, *seed)?,
            (None, Some(family)) => family.workload(*seed),
            (None, None) => Workload::default(),
        };
        if let Some((from, to)) = arguments.minutes {
            workload = workload.minutes(from, to);
        }
        if let Some(nth) = arguments.every {
            workload = workload.every(nth as usize);
        }
        if arguments.reversed {
            workload = workload.reversed();
        }
        if workload.requests.is_empty() {
            let what = format!("no request with a block is left of {}", workload.name);
            return Err(Error::new(ErrorKind::InvalidArgument, what));
        }
        workloads.push(workload);
    }
    Ok(workloads)
}

fn replay(workload: &Workload, policy: Policy, capacity: usize, seed: u64) -> Outcome {
    match (policy.build(capacity, seed), policy) {
        (Some(mut policy), _) => simulate(workload, capacity, policy.as_mut()),
        (None, Policy::Infinite) => infinite(workload),
        (None, _) => optimum(workload, capacity),
    }
}

fn median(cells: &[Cell], policy: Policy, capacity: usize) -> Option<f64> {
    let cell = cells.iter().find(|cell| cell.policy == policy && cell.capacity == capacity)?;
    Some(Spread::of(&cell.rates)?.median)
}

fn row(cell: &Cell, cells: &[Cell], workloads: &[Workload]) -> Option<Row> {
    let rate = Spread::of(&cell.rates)?;
    let end = |policy| median(cells, policy, cell.capacity);
    let gap = match (end(Policy::Lru), end(Policy::Belady)) {
        (Some(lru), Some(best)) if best > lru => Some((rate.median - lru) / (best - lru)),
        _ => None,
    };
    let mut row = Row::new("simulated", "replay", "requests", 0);
    row.n = cell.rates.len();
    row.replay = Some(Replay {
        workload: workloads.first()?.name.clone(),
        policy: cell.policy.to_string(),
        capacity_blocks: cell.capacity as u64,
        hit_rate: rate.median,
        hit_rates: rate,
        gap_closed: gap,
        references: cell.last.references,
        orphans: cell.last.orphans,
        puts: cell.last.puts,
        evictions: cell.last.evictions,
    });
    Some(row)
}

fn describe(workloads: &[Workload]) -> String {
    let mut text = String::new();
    for workload in workloads {
        let (requests, references) = (workload.requests.len(), workload.references());
        let _ = writeln!(
            text,
            "{}: {requests} requests, {references} blocks named, {} different",
            workload.name, workload.blocks
        );
    }
    text
}

/// Hits in percent of blocks named, and the share of the gap from LRU to Belady in brackets.
fn table(rows: &[Row], policies: &[Policy], capacities: &[usize]) -> String {
    let mut text = format!("{:<17}", "hits % (gap %)");
    for capacity in capacities {
        let _ = write!(text, " {capacity:>14}");
    }
    for policy in policies {
        let _ = write!(text, "\n{:<17}", policy.to_string());
        for capacity in capacities {
            let of = |replay: &&Replay| {
                replay.policy == policy.to_string() && replay.capacity_blocks == *capacity as u64
            };
            let Some(replay) = rows.iter().filter_map(|row| row.replay.as_ref()).find(of) else { continue };
            let gap = replay.gap_closed.map_or_else(String::new, |gap| format!("({:.0})", gap * 100.0));
            let _ = write!(text, " {:>8.2} {gap:>5}", replay.hit_rate * 100.0);
        }
    }
    text + "\n"
}

fn progress_bar(len: u64) -> ProgressBar {
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new(len) } else { ProgressBar::hidden() };
    match ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} {msg}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
