//! The command line `cascade`: what is in the arenas of this user on this node, and what to do about it.
//!
//! It is a library module so that the program of this crate and the Python package's console script are the same code.
//! Exit status of every command: 0 all is well, 1 something was found (damaged blocks, problems), 2 it could not be done.

mod doctor;
mod files;
mod gc;
mod interrupt;
mod out;
mod place;
mod serve;
mod stat;
mod text;
mod verify;
mod why;

use std::ffi::OsString;

use clap::{Parser, Subcommand};

use out::{Failure, Out};

const EXAMPLES: &str = "\
Examples:
  cascade stat                    what the arenas of this user hold
  cascade stat --watch --json     one line of JSON every two seconds
  cascade verify --repair         drop blocks whose bytes are damaged
  cascade gc --dry-run            what could be removed, and why
  cascade why name:greeting       why a block is no hit
  cascade doctor                  what is wrong with this machine, with cures
  cascade verify --pfs DIR        the same for a directory of files (also stat, gc, doctor)

Every command looks where the store looks: --dir over CASCADE_SHM_PATH over the file of --config
or CASCADE_CONFIG, else /dev/shm/cascade.
Exit status: 0 all is well, 1 something was found, 2 it could not be done.";

/// Looks after the shared-memory arenas of this user on this node.
#[derive(Debug, Parser)]
#[command(name = "cascade", bin_name = "cascade", version, after_help = EXAMPLES)]
#[command(subcommand_required = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show what the arenas of this node hold, and who uses them.
    Stat(stat::Options),
    /// Compare every block with its digests, and the tables with each other.
    Verify(verify::Options),
    /// List and remove arenas that are of no use any more.
    Gc(gc::Options),
    /// Say why an id is no hit: never put, evicted, deleted, damaged, pending.
    Why(why::Options),
    /// Offer this node's arena to other nodes over MPI, and bring their blocks here for its engines.
    Serve(serve::Options),
    /// Look for what on this machine keeps an arena from working, lasting or being fast.
    Doctor(doctor::Options),
}

/// Runs the command that `arguments` name (the first is the program), on this process's standard output. Gives the exit
/// status: 0 all is well, 1 something was found, 2 it could not be done.
#[must_use]
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help goes to the standard output and is no error; nothing can be told when neither can be written.
            drop(error.print());
            return u8::try_from(error.exit_code()).unwrap_or(2);
        }
    };
    let mut out = Out::standard();
    let done = match &cli.command {
        Command::Stat(options) => stat::run(options, &mut out),
        Command::Verify(options) => verify::run(options, &mut out),
        Command::Gc(options) => gc::run(options, &mut out),
        Command::Why(options) => why::run(options, &mut out),
        Command::Serve(options) => serve::run(options, &mut out),
        Command::Doctor(options) => doctor::run(options, &mut out),
    };
    match done.and_then(|code| out.flush().map(|()| code)) {
        Ok(code) => code,
        // Who reads our output has seen enough.
        Err(Failure::Closed) => 0,
        Err(Failure::Error(error)) => {
            eprintln!("error: {error}");
            2
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_and_option_has_help_and_every_command_examples() {
        for command in Cli::command().get_subcommands() {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(after.contains(&format!("cascade {}", command.get_name())), "{}", command.get_name());
            for option in command.get_arguments() {
                assert!(option.get_help().is_some(), "{} {}", command.get_name(), option.get_id());
            }
        }
    }
}
