//! `cascade`: see `--help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    cascade_store::cli::run(std::env::args_os()).into()
}
