//! The tier of files beside fio, a plain loop, and other ways to keep blocks in files.

mod bandwidth;
pub mod cli;
mod cold;
mod counting;
mod counts;
mod fio;
mod opening;
mod plain;
mod raw;
mod rivals;
mod sharing;
mod system;
mod tier;

use cascade_core::Result;

use crate::run::{Progress, Results};
use crate::tiers::Scratch;
use cli::{Arguments, RowKind};
pub use sharing::work;

pub(crate) use cold::drop_caches;

/// Measures what `arguments` ask for.
///
/// # Errors
/// What the file system answers.
pub fn run(arguments: &Arguments, progress: Progress<'_>) -> Result<Results> {
    let plan = arguments.plan();
    let scratch = Scratch::new(&arguments.dir)?;
    let mut results = Results::default();
    if plan.rows.contains(&RowKind::Bandwidth) {
        bandwidth::measure(&plan, scratch.path(), &mut results, &mut *progress)?;
    }
    if plan.rows.contains(&RowKind::Counts) {
        progress(0, 1, "counting files and calls");
        counts::measure(&plan, scratch.path(), &mut results)?;
    }
    if plan.rows.contains(&RowKind::Open) {
        opening::measure(&plan, scratch.path(), &mut results, &mut *progress)?;
    }
    if plan.rows.contains(&RowKind::Concurrency) {
        sharing::measure(&plan, scratch.path(), &mut results, &mut *progress)?;
    }
    progress(1, 1, "");
    Ok(results)
}
