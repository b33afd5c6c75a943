//! The store over arena and files, beside each tier itself: what going through all of it costs, and whether both work at once.

pub mod cli;
mod rig;
mod turns;

use std::time::{Duration, Instant};

use cascade_core::{Error, ErrorKind, Result};
use cascade_store::GetTime;

use crate::report::{Ceiling, Phases, Row};
use crate::run::{Progress, Results};
use crate::stats::Spread;
use crate::tiers::Scratch;
use cli::Arguments;
use rig::Rig;
use turns::{TURNS, Turn};

/// What one turn took, in seconds.
#[derive(Clone, Copy, Debug, Default)]
struct Took {
    through: f64,
    alone: f64,
}

/// Repetitions of one turn.
#[derive(Debug, Default)]
struct Series {
    took: Vec<Took>,
    /// By the store's own clocks, of what was got through it.
    of_gets: Vec<GetTime>,
    lookup_us: Vec<f64>,
    queue_us: Vec<f64>,
    verify_us: Vec<f64>,
    wrong: usize,
}

/// Measures what `arguments` ask for.
///
/// # Errors
/// What the tiers and the file system answer.
pub fn run(arguments: &Arguments, progress: Progress<'_>) -> Result<Results> {
    let memory = Scratch::new(&arguments.shm_dir)?;
    let files = Scratch::new(&arguments.dir)?;
    let mut results = Results::default();
    let steps = arguments.block.0.len() * arguments.reps as usize;
    let mut done = 0;
    for block in &arguments.block.0 {
        let mut rig = Rig::open(memory.path(), files.path(), *block, arguments.blocks)?;
        let mut series: Vec<Series> = TURNS.iter().map(|_| Series::default()).collect();
        // Not counted: pages are touched, and the first segment is made.
        rig.lap(usize::MAX)?;
        turns::all(&mut rig, &mut TURNS.iter().map(|_| Series::default()).collect::<Vec<_>>())?;
        for rep in 0..arguments.reps as usize {
            progress(done, steps, &format!("blocks of {block} bytes, repetition {}", rep + 1));
            rig.lap(rep)?;
            turns::all(&mut rig, &mut series)?;
            done += 1;
        }
        results.rows.extend(TURNS.iter().zip(series).map(|(turn, series)| row(turn, &rig, &series)));
        results.notes.push(rig.note());
    }
    progress(steps, steps, "");
    Ok(results)
}

fn row(turn: &Turn, rig: &Rig, series: &Series) -> Row {
    let mut row = Row::new("store", turn.op, turn.path, rig.block);
    let bytes = (rig.block * rig.blocks as u64) as f64;
    let rates = |of: fn(&Took) -> f64| -> Vec<f64> {
        series.took.iter().map(|took| bytes / of(took) / 1e9).collect()
    };
    let ceiling = Spread::of(&rates(|took| took.alone))
        .map(|gbps| Ceiling { what: turn.ceiling.to_owned(), gbps: gbps.median });
    (row.n, row.blocks, row.state) = (series.took.len(), Some(rig.blocks as u64), turn.state.to_owned());
    row.set_rate(Spread::of(&rates(|took| took.through)), ceiling);
    row.verified = Some(series.wrong == 0);
    let median = |samples: &[f64]| Spread::of(samples).map_or(0.0, |spread| spread.median);
    let whole_us: Vec<f64> = series.took.iter().map(|took| took.through * 1e6).collect();
    let (verify_us, whole) = (median(&series.verify_us), median(&whole_us));
    let of = |time: fn(&GetTime) -> Duration| {
        median(&series.of_gets.iter().map(|got| time(got).as_secs_f64() * 1e6).collect::<Vec<_>>())
    };
    let mut phases = Phases {
        lookup_us: of(|got| got.lookup),
        queue_us: of(|got| got.queue),
        transfer_us: of(|got| got.transfer),
        copy_us: of(|got| got.copy),
        verify_us,
        rest_us: 0.0,
    };
    if series.of_gets.is_empty() {
        (phases.lookup_us, phases.queue_us) = (median(&series.lookup_us), median(&series.queue_us));
        phases.copy_us = (whole - phases.lookup_us - phases.queue_us).max(0.0);
    }
    let known = phases.lookup_us + phases.queue_us + phases.transfer_us + phases.copy_us;
    phases.rest_us = (whole - known).max(0.0);
    row.phases = Some(phases);
    row
}

fn failed(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::System, what)
}

/// Seconds that `work` takes, and what it gives.
fn timed<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let start = Instant::now();
    let given = work();
    (start.elapsed().as_secs_f64(), given)
}
