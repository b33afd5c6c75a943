//! `cascade_kv._native`: the store, ids and leases for Python. No logic lives here; what a name does is said in the stubs.

mod buffers;
mod command;
mod device;
mod ids;
mod kept;
mod lease;
mod pages;
mod rank;
mod raw;
mod store;
mod submit;
mod ticket;

use pyo3::exceptions::{
    PyFileNotFoundError, PyMemoryError, PyOSError, PyPermissionError, PyTimeoutError, PyValueError,
};
use pyo3::prelude::*;

use cascade_core::{Error, ErrorKind};

/// The Python exception that says what `error` says.
fn raise(error: Error) -> PyErr {
    let text = error.to_string();
    match error.kind() {
        ErrorKind::InvalidArgument | ErrorKind::TooShort | ErrorKind::Config | ErrorKind::Format => {
            PyValueError::new_err(text)
        }
        ErrorKind::NotFound => PyFileNotFoundError::new_err(text),
        ErrorKind::Permission => PyPermissionError::new_err(text),
        ErrorKind::NoSpace => PyMemoryError::new_err(text),
        ErrorKind::Deadline => PyTimeoutError::new_err(text),
        _ => PyOSError::new_err(text),
    }
}

/// The extension module.
#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<device::DeviceLease>()?;
    module.add_class::<ids::BlockId>()?;
    module.add_class::<ids::KeySpace>()?;
    module.add_class::<lease::Lease>()?;
    module.add_class::<pages::Fill>()?;
    module.add_class::<pages::Pages>()?;
    module.add_class::<rank::Rank>()?;
    module.add_class::<store::Store>()?;
    module.add_class::<ticket::Ticket>()?;
    module.add_class::<ticket::CompletionQueue>()?;
    module.add_function(wrap_pyfunction!(ids::parse_size, module)?)?;
    module.add_function(wrap_pyfunction!(rank::launched, module)?)?;
    module.add_function(wrap_pyfunction!(command::run_command, module)?)?;
    Ok(())
}
