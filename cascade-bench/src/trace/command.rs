//! The run: workloads x capacities x policies, the table and the files.

use std::fmt::Write as _;
use std::io::IsTerminal;

use cascade_core::{Error, ErrorKind, Result};
use indicatif::{ProgressBar, ProgressStyle};

use super::cli::Arguments;
use super::format::Workload;
use super::optimum::{infinite, optimum};
use super::policies::Policy;
use super::real::{self, Plan, Replayed, replay};
use super::simulate::{Outcome, simulate};
use crate::plot;
use crate::report::{Replay, Report, Row};
use crate::stats::{Latency, Spread};
use crate::tiers::{Scratch, check_room};

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
                let outcome = simulated(workload, *policy, *capacity, *seed);
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
    let mut rows: Vec<Row> = cells.iter().filter_map(|cell| row(cell, &cells, &workloads)).collect();
    print!("{}", table(&rows, &policies, &arguments.capacity));
    if arguments.real {
        let real = real_rows(arguments, &workloads[0])?;
        print!("{}", real_table(&real));
        rows.extend(real);
    }
    if let Some(path) = &arguments.outputs.plot {
        plot::hit_rates(path, &format!("Hits of {}", workloads[0].name), &rows)?;
    }
    if let Some(path) = &arguments.outputs.json {
        let simulated = "tier simulated: blocks are counted, no bytes are moved".to_owned();
        Report::here(rows.clone(), vec![simulated]).save(path)?;
    }
    let wrong = rows.iter().filter(|row| row.verified == Some(false)).count();
    if wrong == 0 {
        return Ok(());
    }
    Err(Error::new(ErrorKind::System, format!("{wrong} replays gave bytes that were not those put")))
}

/// The requests through a store at each capacity.
fn real_rows(arguments: &Arguments, workload: &Workload) -> Result<Vec<Row>> {
    let scratch = Scratch::new(&arguments.dir)?;
    let files = arguments.files.as_deref().map(Scratch::new).transpose()?;
    let block_bytes = usize::try_from(arguments.block).unwrap_or(usize::MAX);
    let mut rows = Vec::new();
    let done = |policy: &Policy| policy.setting().map(|eviction| (*policy, eviction));
    let policies: Vec<(Policy, &str)> = arguments.policy.iter().filter_map(done).collect();
    if policies.is_empty() {
        let what = "--real runs what an arena can do: --policy default, lru";
        return Err(Error::new(ErrorKind::InvalidArgument, what));
    }
    let runs =
        arguments.capacity.iter().flat_map(|blocks| policies.iter().map(move |policy| (blocks, policy)));
    for (capacity, (policy, eviction)) in runs {
        check_room(&arguments.dir, real::needed_bytes(*capacity, block_bytes), 1 << 30)?;
        let plan = Plan {
            memory: real::folder(scratch.path(), *capacity),
            files: files.as_ref().map(|files| real::folder(files.path(), *capacity)),
            block_bytes,
            blocks: *capacity,
            eviction,
        };
        let bar = progress_bar(workload.requests.len() as u64);
        bar.set_message(format!("{} through a store of {capacity} blocks, {policy}", workload.name));
        let replayed = replay(workload, &plan, &mut |done| bar.set_position(done as u64))?;
        bar.finish_and_clear();
        for folder in [Some(&plan.memory), plan.files.as_ref()].into_iter().flatten() {
            // What stays here goes with the scratch folder.
            drop(std::fs::remove_dir_all(folder));
        }
        rows.push(real_row(workload, &replayed, *policy, plan.files.is_some()));
    }
    Ok(rows)
}

fn real_row(workload: &Workload, replayed: &Replayed, policy: Policy, has_files: bool) -> Row {
    let Replayed { capacity, outcome, moved } = replayed;
    let at = |policy| simulated(workload, policy, *capacity, 1).hit_rate();
    let (rate, lru, best) = (outcome.hit_rate(), at(Policy::Lru), at(Policy::Belady));
    let mut row = Row::new("store", "replay", "requests", moved.block_bytes);
    row.n = 1;
    row.verified = Some(moved.wrong == 0);
    row.replay = Some(Replay {
        workload: workload.name.clone(),
        policy: format!("{policy}: store ({})", if has_files { "arena, files" } else { "arena" }),
        capacity_blocks: *capacity as u64,
        hit_rate: rate,
        hit_rates: Spread { min: rate, median: rate, max: rate },
        gap_closed: (best > lru).then(|| (rate - lru) / (best - lru)),
        references: outcome.references,
        orphans: outcome.orphans,
        puts: outcome.puts,
        evictions: outcome.evictions,
    });
    row.moved = Some(moved.clone());
    row
}

/// Capacities are those that the arena has: whole regions.
fn real_table(rows: &[Row]) -> String {
    let bytes = rows.iter().find_map(|row| Some(row.moved.as_ref()?.block_bytes)).unwrap_or(0);
    let size = cascade_core::units::format_size(bytes);
    let mut text =
        format!("\nthrough a store, blocks of {size}, a request at a time (us: p50, p99 of a request)\n");
    let head = "policy   blocks hits % gap %      look-up    get: arena     get: files          put";
    let _ = writeln!(text, "{head}  GB out  GB in refused from files");
    for (replay, moved) in rows.iter().filter_map(|row| Some((row.replay.as_ref()?, row.moved.as_ref()?))) {
        let times = |of: &Option<Latency>| {
            of.map_or_else(|| "-".to_owned(), |of| format!("{:.0}, {:.0}", of.p50, of.p99))
        };
        let gap = replay.gap_closed.map_or_else(|| "-".to_owned(), |gap| format!("{:.0}", gap * 100.0));
        let _ = writeln!(
            text,
            "{:<8} {:>6} {:>6.2} {gap:>5} {:>12} {:>13} {:>14} {:>12} {:>7.2} {:>6.2} {:>7} {:>10}",
            replay.policy.split(':').next().unwrap_or_default(),
            replay.capacity_blocks,
            replay.hit_rate * 100.0,
            times(&moved.lookup_us),
            times(&moved.get_us),
            times(&moved.get_files_us),
            times(&moved.put_us),
            moved.bytes_out as f64 / 1e9,
            moved.bytes_in as f64 / 1e9,
            moved.refused,
            moved.from_files,
        );
    }
    text
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

fn simulated(workload: &Workload, policy: Policy, capacity: usize, seed: u64) -> Outcome {
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
