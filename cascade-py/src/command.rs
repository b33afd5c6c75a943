//! The command line `cascade`.

use std::ffi::OsString;

use pyo3::prelude::*;

/// Runs the program `cascade` with these arguments, the first being its name, on the process's own output. Gives the exit status.
#[pyfunction]
pub(crate) fn run_command(py: Python<'_>, arguments: Vec<OsString>) -> u8 {
    py.detach(|| cascade_store::cli::run(arguments))
}
