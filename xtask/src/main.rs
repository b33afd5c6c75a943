//! Commands of the Cascade workspace: `cargo xtask` lists them.
//!
//! Each command sets up what it needs (a virtual environment at `target/venv`, a model at `target/models`), says what
//! it does while it does it, and does set-up once. A failing check names what cures it.

mod bench;
mod demo;
mod doctor;
mod fuzz;
mod gpu_kit;
mod kernels;
mod lint;
mod loom;
mod miri;
mod model;
mod mpi;
mod negative;
mod process;
mod slurm;
mod soak;
mod steps;
mod test;
mod venv;
mod wheel;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory, Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "Commands of the Cascade workspace")]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Check style: format, clippy, dependency arrows, unsafe, sizes, licences, text.
    Lint,
    /// Set up and run everything that a change must pass.
    Test(test::Options),
    /// Run lanes of the tests for hours, and state what that says about the rate of failures.
    Soak(soak::Options),
    /// Run every fuzz target for some time.
    Fuzz(fuzz::Options),
    /// Build the Python wheel into target/wheels.
    Wheel(wheel::Options),
    /// The main job on real input: a model's KV survives the death of its process.
    Demo(demo::Options),
    /// Measure a tier against the ceilings of this machine.
    Bench(bench::Options),
    /// Find or set up an MPI, and print what a shell must set to build with it.
    Mpi(mpi::Options),
    /// Write a batch script for SLURM: a command on some nodes, and the agents beside it; and submit it.
    Slurm(Box<slurm::Options>),
    /// Compile the GPU kernels to the PTX that the repository keeps; needs no GPU.
    Kernels(kernels::Options),
    /// Put the binaries that measure and test the GPU tier into a folder, for a machine with a GPU and no toolchain.
    GpuKit(gpu_kit::Options),
    /// Say what this machine has and lacks for working on Cascade and for running it, with cures.
    Doctor,
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    match cli.command {
        None => Ok(Cli::command().print_help()?),
        Some(Command::Lint) => lint::run(),
        Some(Command::Test(options)) => test::run(&options),
        Some(Command::Soak(options)) => soak::command(&options),
        Some(Command::Fuzz(options)) => fuzz::command(&options),
        Some(Command::Wheel(options)) => wheel::command(&options),
        Some(Command::Demo(options)) => demo::command(&options),
        Some(Command::Bench(options)) => bench::command(&options),
        Some(Command::Mpi(options)) => mpi::command_line(&options),
        Some(Command::Slurm(options)) => slurm::command_line(&options),
        Some(Command::Kernels(options)) => kernels::command(&options),
        Some(Command::GpuKit(options)) => gpu_kit::command(&options),
        Some(Command::Doctor) => doctor::command_line(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_one_line_of_help() {
        for command in Cli::command().get_subcommands() {
            assert!(command.get_about().is_some(), "{} has no help line", command.get_name());
        }
    }
}
