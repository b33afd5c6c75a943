//! Slices over the buffers of Python callers, for the time of one call, and the buffer protocol of leases.

use std::ffi::c_int;
use std::os::raw::c_void;
use std::ptr;

use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;

use cascade_core::memory::{Piece, SgList};

use crate::buffers::Buffer;

impl Buffer {
    /// The bytes, to be read without the GIL.
    pub(crate) fn bytes(&self) -> &[u8] {
        if self.len() == 0 {
            return &[];
        }
        // SAFETY: exported and contiguous as long as `self` lives (`Buffer::to_read`). Another Python thread that writes to it
        // meanwhile breaks the rule of every API that releases the GIL; the digest is of the bytes that were stored.
        unsafe { std::slice::from_raw_parts(self.as_ptr(), self.len()) }
    }

    /// The bytes, to be written without the GIL. Each buffer is used by one call at a time.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        if self.len() == 0 {
            return &mut [];
        }
        // SAFETY: as above, and writable (`Buffer::to_write`).
        unsafe { std::slice::from_raw_parts_mut(self.as_ptr(), self.len()) }
    }

    /// The bytes, to be read by an operation that keeps the buffer.
    pub(crate) fn to_take(&self) -> SgList {
        // SAFETY: exported and contiguous as long as the buffer is kept, which `Kept::lists` sees to: the piece holds it.
        unsafe { Piece::host_read(self.as_ptr(), self.len()) }.into()
    }

    /// The bytes, to be written by an operation that keeps the buffer. Each buffer is used by one call at a time.
    pub(crate) fn to_fill(&self) -> SgList {
        // SAFETY: as above, and writable (`Buffer::to_write`).
        unsafe { Piece::host_write(self.as_ptr(), self.len()) }.into()
    }
}

/// Fills a buffer request with read-only bytes that `owner` keeps in place.
///
/// # Safety
/// `view` must be the pointer that the interpreter gave `__getbuffer__`, and `bytes` valid for `len` bytes as long as `owner`
/// lives.
pub(crate) unsafe fn export(
    owner: Bound<'_, PyAny>,
    view: *mut ffi::Py_buffer,
    flags: c_int,
    bytes: *const u8,
    len: usize,
) -> PyResult<()> {
    if view.is_null() {
        return Err(PyBufferError::new_err("no view to fill"));
    }
    let len = isize::try_from(len).map_err(|_| PyBufferError::new_err("the block is too long for a view"))?;
    // SAFETY: `view` is the interpreter's (not null, checked); the call fills it and takes its own reference to `owner`, and
    // refuses a writable view of read-only bytes.
    let filled = unsafe {
        ffi::PyBuffer_FillInfo(view, owner.as_ptr(), bytes.cast_mut().cast::<c_void>(), len, 1, flags)
    };
    if filled == 0 {
        return Ok(());
    }
    // SAFETY: `view` is not null; a failed request must say that it holds no object.
    unsafe { (*view).obj = ptr::null_mut() };
    Err(PyErr::take(owner.py()).unwrap_or_else(|| PyBufferError::new_err("leases are read-only")))
}
