//! Other ranks' memory: rank 0 measures what comes from there beside what MPI itself does; the others serve.

mod alone;
pub mod cli;
mod gets;
mod job;
mod puts;
mod scaling;

use cascade_core::Result;
use cascade_mpi::Path;

use crate::report::{Ranked, Report, Row};
use cli::{Arguments, Suite, Way};
use job::Rank;

/// What a rank has to tell at the end.
#[derive(Debug, Default)]
pub struct Results {
    /// Measurements; none but on rank 0.
    pub rows: Vec<Row>,
    /// What was left out or is to be known.
    pub notes: Vec<String>,
    /// Whether this is the rank that speaks.
    pub is_first: bool,
}

/// Runs as one rank of the job. Collective.
///
/// # Errors
/// When the job cannot be joined, the arena does not fit, or another rank is gone.
pub fn run(arguments: &Arguments, progress: &mut dyn FnMut(usize, usize, &str)) -> Result<Results> {
    let rank = Rank::start(arguments)?;
    let mut results = Results { is_first: rank.rank() == 0, ..Results::default() };
    if results.is_first {
        let fabric = rank.fabric();
        let asked = format!("{:?}", rank.way).to_lowercase();
        results.notes.push(format!(
            "{} ranks of {}; path asked for: {asked}; MPI gives: {}",
            rank.ranks(),
            fabric.library(),
            fabric.path().name()
        ));
    }
    let reps = arguments.reps as usize;
    match arguments.suite {
        Some(Suite::Scaling) => scaling::run(&rank, arguments, &mut results, progress)?,
        None => {
            let blocks = &arguments.block.0;
            for (number, block) in blocks.iter().enumerate() {
                if results.is_first {
                    progress(
                        number,
                        blocks.len() + 1,
                        &format!("{} blocks", crate::units::format_size(*block)),
                    );
                }
                let shape = Shape::new(*block as usize, arguments.lap, &rank, number as u64);
                gets::run(&rank, &shape, reps, &mut results)?;
                puts::run(&rank, &shape, reps, &mut results)?;
            }
            if results.is_first {
                progress(blocks.len(), blocks.len() + 1, "lookups, rests");
            }
            alone::run(&rank, reps, &mut results)?;
        }
    }
    rank.end()?;
    Ok(results)
}

/// Adds to what is in the file already.
///
/// # Errors
/// When that is no report.
pub fn add_to(report: &mut Report, path: &std::path::Path) -> Result<()> {
    if path.exists() {
        let mut older = Report::load(path)?;
        older.results.append(&mut report.results);
        older.notes.append(&mut report.notes);
        *report = older;
    }
    Ok(())
}

/// The blocks of one size.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) block: usize,
    /// Of a repetition.
    pub(crate) count: usize,
    /// Where its numbers begin.
    first: u64,
    ranks: u32,
}

impl Shape {
    fn new(block: usize, lap: u64, rank: &Rank, number: u64) -> Self {
        let ranks = rank.ranks();
        let others = ranks.saturating_sub(1).max(1) as usize;
        // The same number of each other rank.
        let count = (lap as usize / block.max(1)).clamp(1, 512) / others * others;
        Self { block, count: count.max(others), first: (number + 1) << 40, ranks }
    }

    /// Block `at` of the repetition, and who has it: all but rank 0 in turns.
    fn number(&self, at: usize) -> u64 {
        self.first + at as u64
    }

    fn owner(&self, at: usize) -> u32 {
        match self.ranks {
            0 | 1 => 0,
            ranks => 1 + at as u32 % (ranks - 1),
        }
    }

    fn numbers(&self) -> Vec<u64> {
        (0..self.count).map(|at| self.number(at)).collect()
    }

    fn bytes(&self) -> u64 {
        (self.count * self.block) as u64
    }
}

/// The way that blocks took since `before`, by what the tier counted.
fn path_taken(rank: &Rank, before: cascade_mpi::MpiStats) -> &'static str {
    let now = rank.tier.mpi_stats();
    match (now.fetched > before.fetched, now.mapped > before.mapped) {
        (true, true) => "mixed",
        (false, true) => "shm",
        (true, false) => rank.fabric().path().name(),
        (false, false) => "none",
    }
}

/// A row of this job.
fn row(rank: &Rank, op: &str, path: &str, block: u64) -> Row {
    let mut row = Row::new("mpi", op, path, block);
    row.ranks = rank.ranks() as usize;
    let library = rank.fabric().library();
    let library: String = library.chars().take(60).collect();
    row.remote = Some(Ranked { library, ..Ranked::default() });
    row
}

/// What the ceiling of this way is.
fn ceiling_name(rank: &Rank) -> String {
    let what = match (rank.way, rank.fabric().path()) {
        (Way::Shm, _) => "a plain copy out of the mapped arena",
        (_, Path::Rma) => "MPI_Get and MPI_Win_flush",
        (_, Path::Message | Path::Alone) => "a request and its answer as messages",
    };
    what.to_owned()
}
