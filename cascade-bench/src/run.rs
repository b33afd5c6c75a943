//! A whole run of one tier: which shapes, in which order, and what is left out.

use std::path::PathBuf;

use cascade_core::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

use crate::bandwidth::{Bench, Drive};
use crate::baseline::Python;
use crate::buffers::{Buffers, needs};
use crate::lap::FreshIds;
use crate::latency::{self, Filled, clock_us};
use crate::report::Row;
use crate::shape::Shape;
use crate::tiers::{Open, Wanted, check_room};
use crate::units::format_size;

/// Bytes that a repetition should move at least: small blocks are repeated, so that starting and timing do not count.
pub const LAP_BYTES: u64 = 256 << 20;

/// An arena must hold so many repetitions, or what was put would be gone before it is got.
const LEAST_LAPS: u64 = 2;

/// How the threads of a process take part. The number of threads that share a copy is fixed for a process, so each kind
/// of pass is a process of its own: see [`Pass::copy_threads`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pass {
    /// Each of these numbers of callers, every one copying its own blocks alone.
    Callers(Vec<usize>),
    /// One caller, whose large copies are shared by so many threads.
    Pool(usize),
}

impl Pass {
    /// Value of `CASCADE_COPY_THREADS` that the process needs.
    #[must_use]
    pub fn copy_threads(&self) -> usize {
        match self {
            Self::Callers(_) => 1,
            Self::Pool(threads) => *threads,
        }
    }
}

/// Stored blocks at which lookups and leases are timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// How many.
    pub blocks: u64,
    /// Whether they share their data, so that only the index is as large as it would be.
    pub is_index_only: bool,
}

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// Block sizes in bytes.
    pub blocks: Vec<u64>,
    /// Repetitions of each measurement.
    pub reps: usize,
    /// Least bytes that each repetition moves, such as [`LAP_BYTES`].
    pub lap_bytes: u64,
    /// Where shared memory is.
    pub dir: PathBuf,
    /// Bytes of the arena; `None`: three laps of the largest shape, at least 1 GiB.
    pub capacity_bytes: Option<u64>,
    /// Whether Python's file I/O is measured beside it.
    pub baseline: bool,
    /// Stored blocks for lookups and leases.
    pub stored_blocks: Vec<Stored>,
}

/// Is told what is about to be measured: steps done, steps in all, and the name of the next.
pub type Progress<'a> = &'a mut dyn FnMut(usize, usize, &str);

/// What a pass measured, and what it left out and why.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Results {
    /// The figures.
    pub rows: Vec<Row>,
    /// One sentence for each thing left out.
    pub notes: Vec<String>,
    /// Measurements that the tier could not do.
    pub failures: usize,
}

/// Measures tiers made by `open`, called `tier_name` in the rows.
///
/// # Errors
/// `NoSpace` when a shape with one caller does not fit; what `open` and the tier answer.
pub fn run(
    options: &Options,
    pass: &Pass,
    tier_name: &str,
    open: Open<'_>,
    progress: Progress<'_>,
) -> Result<Results> {
    let mut results = Results::default();
    let plans = plans(options, pass, &mut results.notes)?;
    let stored = stored_blocks(options, pass, &mut results.notes);
    let steps = plans.len() * 2 + stored.len();
    let mut run = Run { options, tier_name, open, progress, done: 0, steps, results };
    run.bandwidth(&plans)?;
    if !stored.is_empty() {
        let note =
            format!("reading the clock takes {:.3} us of each single lookup, lease and release", clock_us());
        run.results.notes.push(note);
    }
    for stored in stored {
        run.latency(pass, stored)?;
    }
    run.step("");
    Ok(run.results)
}

/// One block size, driven in one way.
#[derive(Clone, Copy, Debug)]
struct Plan {
    hot: Shape,
    first_touch: Shape,
    drive: Drive,
}

/// Every block size with every number of callers, less what does not fit.
fn plans(options: &Options, pass: &Pass, notes: &mut Vec<String>) -> Result<Vec<Plan>> {
    let (callers, path, threads): (&[usize], _, _) = match pass {
        Pass::Callers(callers) => (callers, "callers", None),
        Pass::Pool(threads) => (&[1], "pool", Some(*threads)),
    };
    let mut plans: Vec<Plan> = Vec::new();
    for (callers, block) in
        callers.iter().flat_map(|callers| options.blocks.iter().map(move |b| (*callers, *b)))
    {
        let threads = threads.unwrap_or(callers);
        let path = if threads == 1 { "single" } else { path };
        // Smaller blocks are copied by their caller alone, so the pool has no part in them.
        if path == "pool" && (block as usize) < cascade_core::copy::plan().threads_from_bytes {
            continue;
        }
        let drive = Drive { path, threads, baseline: options.baseline && path == "single" };
        let plan = Plan {
            hot: Shape::hot(block, callers, options.lap_bytes),
            first_touch: Shape::first_touch(block, callers, options.lap_bytes),
            drive,
        };
        let together: Vec<_> = plans.iter().chain([&plan]).copied().collect();
        match room(options, &together) {
            Ok(()) => plans.push(plan),
            Err(error) if callers > 1 => {
                notes.push(format!("{} with {callers} callers left out: {error}", format_size(block)));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(plans)
}

/// Whether the arena, the ceilings' mapping and the baseline's files fit, and the private buffers beside them.
fn room(options: &Options, plans: &[Plan]) -> Result<()> {
    let shapes: Vec<_> = plans.iter().map(|plan| plan.hot).collect();
    let (private, shared) = needs(&shapes);
    let least = LEAST_LAPS * shapes.iter().map(Shape::lap_bytes).max().unwrap_or(0);
    if let Some(capacity) = options.capacity_bytes.filter(|capacity| *capacity < least) {
        let what = "holds too little: what a repetition puts must still be there to be got, which takes";
        let context = format!("a capacity of {} {what} {} here", format_size(capacity), format_size(least));
        return Err(Error::new(ErrorKind::InvalidArgument, context));
    }
    let files = if options.baseline { 2 * shared } else { shared };
    check_room(&options.dir, wanted(options, plans).capacity_bytes + files, 2 * private)
}

/// One arena for all of `plans`.
fn wanted(options: &Options, plans: &[Plan]) -> Wanted {
    let largest = plans.iter().map(|plan| plan.hot.wanted(true).capacity_bytes).max().unwrap_or(0);
    let capacity_bytes = options.capacity_bytes.unwrap_or(largest);
    let threads = plans.iter().map(|plan| plan.drive.threads).max().unwrap_or(1);
    Wanted { capacity_bytes, slots: None, touched: true, threads, index_only: None }
}

/// Numbers of stored blocks that fit. The pool takes no part in lookups.
fn stored_blocks(options: &Options, pass: &Pass, notes: &mut Vec<String>) -> Vec<Stored> {
    let Pass::Callers(callers) = pass else { return Vec::new() };
    let threads = callers.iter().copied().max().unwrap_or(1);
    let mut fitting = Vec::new();
    for stored in &options.stored_blocks {
        match latency::check_fits(&options.dir, *stored, threads) {
            Ok(()) => fitting.push(*stored),
            Err(error) => {
                notes.push(format!("lookup and lease at {} blocks not run: {error}", stored.blocks))
            }
        }
    }
    fitting
}

struct Run<'a> {
    options: &'a Options,
    tier_name: &'a str,
    open: Open<'a>,
    progress: Progress<'a>,
    done: usize,
    steps: usize,
    results: Results,
}

impl Run<'_> {
    fn step(&mut self, next: &str) {
        (self.progress)(self.done, self.steps, next);
        self.done += 1;
    }

    fn bandwidth(&mut self, plans: &[Plan]) -> Result<()> {
        if plans.is_empty() {
            return Ok(());
        }
        let shapes: Vec<_> = plans.iter().map(|plan| plan.hot).collect();
        let mut bench = Bench {
            open: self.open,
            tier_name: self.tier_name,
            reps: self.options.reps,
            buffers: Buffers::new(&self.options.dir, &shapes)?,
            ids: FreshIds::default(),
            python: self.python(plans),
            notes: Vec::new(),
        };
        self.step(&format!("touching the arena, then {}", name(&plans[0])));
        let tier = (self.open)(&wanted(self.options, plans))?.tier;
        for (index, plan) in plans.iter().enumerate() {
            if index > 0 {
                self.step(&name(plan));
            }
            let rows = bench.hot(&tier, &plan.hot, plan.drive);
            self.keep("hot", plan, rows);
        }
        // Its memory goes back before others are made.
        drop(tier);
        for plan in plans {
            self.step(&format!("first touch, {}", name(plan)));
            let row = bench.first_touch(&plan.first_touch, plan.drive);
            self.keep("first touch", plan, row.map(|row| vec![row]));
        }
        self.results.notes.append(&mut bench.notes);
        Ok(())
    }

    /// Rows are kept; a measurement that failed becomes a note, so that the others are not lost.
    fn keep(&mut self, state: &str, plan: &Plan, rows: Result<Vec<Row>>) {
        match rows {
            Ok(rows) => self.results.rows.extend(rows),
            Err(error) => {
                self.results.failures += 1;
                self.results.notes.push(format!("{state}, {} FAILED: {error}", name(plan)));
            }
        }
    }

    fn python(&mut self, plans: &[Plan]) -> Option<Python> {
        if !plans.iter().any(|plan| plan.drive.baseline) {
            return None;
        }
        match Python::start(&self.options.dir) {
            Ok(python) => Some(python),
            Err(error) => {
                self.results.notes.push(format!("the baseline python-file is left out: {error}"));
                None
            }
        }
    }

    fn latency(&mut self, pass: &Pass, stored: Stored) -> Result<()> {
        let Pass::Callers(callers) = pass else { return Ok(()) };
        let threads = callers.iter().copied().max().unwrap_or(1);
        self.step(&format!("lookup and lease at {} blocks", stored.blocks));
        let mut filled = Filled::new(self.open, &mut FreshIds::default(), stored, threads)?;
        if filled.len() < stored.blocks {
            let asked = stored.blocks;
            let note = format!("of {asked} blocks for lookup and lease {} stayed in the index", filled.len());
            self.results.notes.push(note);
        }
        for threads in callers {
            self.results.rows.extend(filled.measure(self.tier_name, *threads, self.options.reps));
        }
        Ok(())
    }
}

fn name(plan: &Plan) -> String {
    format!("{} {} x{}", format_size(plan.hot.block as u64), plan.drive.path, plan.drive.threads)
}
