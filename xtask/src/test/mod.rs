//! `cargo xtask test`: everything that a change must pass, from a fresh clone, in one command.
//!
//! Which steps exist follows from the files that exist: a crate gets its standalone build by having
//! `examples/standalone.rs`, its kill lane by `tests/kill*.rs`, its models by `tests/loom*.rs` and `tests/shuttle*.rs`.

pub(crate) mod mpi;
mod python;
mod rust;
mod slurm;
mod standalone;
mod vllm;

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::lint;
use crate::steps::Steps;
use crate::workspace::Metadata;

/// Options of `cargo xtask test`.
#[derive(Args)]
pub(crate) struct Options {
    /// Leave out what takes longest: kill lanes, loom models, fuzz targets, the wheel and its tests.
    #[arg(long)]
    quick: bool,
    /// Leave out the tests with the real vLLM, which installs 6 GB of packages once.
    #[arg(long)]
    skip_vllm: bool,
    /// Leave out the ranks over MPI, which installs MPICH once.
    #[arg(long)]
    skip_mpi: bool,
    /// Leave out the jobs under a real SLURM, which installs Debian's once.
    #[arg(long)]
    skip_slurm: bool,
    /// Run this lane alone.
    #[arg(long, conflicts_with = "quick")]
    lane: Option<Lane>,
}

/// Lanes that prove the proofs; each has a build of its own.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Lane {
    /// Models under loom and shuttle.
    Models,
    /// Planted bugs, each of which must be caught.
    Negative,
    /// `cascade-core` under Miri.
    Miri,
    /// The real vLLM with Cascade under it.
    Vllm,
    /// Ranks of real MPI jobs.
    Mpi,
    /// Batch jobs under a real SLURM.
    Slurm,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let metadata = Metadata::read()?;
    let mut steps = Steps::new("test");
    if let Some(lane) = options.lane {
        match lane {
            Lane::Vllm => python::add_vllm_alone(&mut steps),
            Lane::Mpi => mpi::add_lane(&mut steps),
            Lane::Slurm => slurm::add_step(&mut steps, None),
            _ => rust::add_lane(&mut steps, &metadata, lane),
        }
        return steps.finish();
    }
    lint::add_steps(&mut steps)?;
    rust::add_unit_steps(&mut steps);
    rust::add_lanes(&mut steps, &metadata, options.quick);
    rust::add_fuzz(&mut steps, options.quick);
    let without_mpi = options.quick.then_some("--quick").or(options.skip_mpi.then_some("--skip-mpi"));
    mpi::add_step(&mut steps, without_mpi);
    let without_slurm = without_mpi.or(options.skip_slurm.then_some("--skip-slurm"));
    slurm::add_step(&mut steps, without_slurm);
    standalone::add_steps(&mut steps, &metadata);
    python::add_steps(&mut steps, options.quick, options.skip_vllm);
    steps.finish()
}
