//! Buffers of Python callers, checked: C-contiguous, and writable where they are written.

use pyo3::buffer::PyUntypedBuffer;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;

/// A C-contiguous buffer that stays exported, and so in place, while this lives.
pub(crate) struct Buffer {
    inner: PyUntypedBuffer,
}

impl Buffer {
    /// To be read from.
    pub(crate) fn to_read(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        let inner = PyUntypedBuffer::get(object).map_err(|_| {
            let type_name = object.get_type();
            PyTypeError::new_err(format!("a bytes-like object or array is needed, not {type_name}"))
        })?;
        if !inner.is_c_contiguous() {
            let what =
                "the array is not C-contiguous: pass numpy.ascontiguousarray(array), or tensor.contiguous()";
            return Err(PyValueError::new_err(what));
        }
        Ok(Self { inner })
    }

    /// To be written to.
    pub(crate) fn to_write(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        let buffer = Self::to_read(object)?;
        if buffer.inner.readonly() {
            return Err(PyValueError::new_err("the array is read-only: pass one that may be written"));
        }
        Ok(buffer)
    }

    /// Length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.inner.len_bytes()
    }

    /// First byte; meaningless when the length is 0.
    pub(crate) fn as_ptr(&self) -> *mut u8 {
        self.inner.buf_ptr().cast()
    }
}

/// As many ids as buffers.
pub(crate) fn check_lengths(ids: usize, buffers: usize) -> PyResult<()> {
    if ids == buffers {
        return Ok(());
    }
    Err(PyValueError::new_err(format!("{ids} ids and {buffers} arrays: there must be as many of each")))
}

/// Two outputs that overlap would be written by two copies at once.
pub(crate) fn check_apart(buffers: &[Buffer]) -> PyResult<()> {
    let mut ranges: Vec<(usize, usize)> =
        buffers.iter().filter(|one| one.len() > 0).map(|one| (one.as_ptr() as usize, one.len())).collect();
    ranges.sort_unstable();
    if ranges.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0) {
        return Ok(());
    }
    Err(PyValueError::new_err("two of the output arrays overlap"))
}
