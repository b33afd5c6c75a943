//! `cargo xtask test`: everything that a change must pass, from a fresh clone, in one command.
//!
//! Which steps exist follows from the files that exist: a crate gets its standalone build by having
//! `examples/standalone.rs`, its kill lane by `tests/kill*.rs`, its loom models by `tests/loom*.rs`.

mod python;
mod rust;
mod standalone;

use anyhow::Result;
use clap::Args;

use crate::lint;
use crate::steps::Steps;
use crate::workspace::Metadata;

/// Options of `cargo xtask test`.
#[derive(Args)]
pub(crate) struct Options {
    /// Leave out what takes longest: kill lanes, loom models, fuzz targets, the wheel and its tests.
    #[arg(long)]
    quick: bool,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let metadata = Metadata::read()?;
    let mut steps = Steps::new("test");
    lint::add_steps(&mut steps)?;
    rust::add_unit_steps(&mut steps);
    rust::add_lanes(&mut steps, &metadata, options.quick);
    rust::add_fuzz(&mut steps, options.quick);
    standalone::add_steps(&mut steps, &metadata);
    python::add_steps(&mut steps, options.quick);
    steps.finish()
}
