//! Leases as read-only buffers over the arena.

use std::ffi::c_int;

use cascade_core::lease;
use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

/// A pinned block. Its memory is read-only and not copied; arrays made from it keep it pinned.
#[pyclass(frozen, module = "cascade_kv")]
pub(crate) struct Lease {
    inner: Mutex<Option<lease::Lease>>,
    len: usize,
    exports: AtomicUsize,
}

impl Lease {
    pub(crate) fn new(inner: lease::Lease) -> Self {
        Self { len: inner.len(), inner: Mutex::new(Some(inner)), exports: AtomicUsize::new(0) }
    }

    /// What `copy` says of the pinned block; `false` when it is pinned no more. The pin is held meanwhile.
    pub(crate) fn with(&self, copy: impl FnOnce(&lease::Lease) -> bool) -> bool {
        self.inner.lock().as_ref().filter(|lease| lease.is_valid()).is_some_and(copy)
    }
}

#[pymethods]
impl Lease {
    fn __len__(&self) -> usize {
        self.len
    }

    /// Whether the block is still pinned by this lease.
    #[getter]
    fn valid(&self) -> bool {
        self.inner.lock().as_ref().is_some_and(lease::Lease::is_valid)
    }

    /// Gives the pin back; refused while arrays made from it exist.
    fn release(&self) -> PyResult<()> {
        let mut inner = self.inner.lock();
        if self.exports.load(Ordering::Acquire) > 0 {
            let what = "arrays made from this lease still exist: delete them first";
            return Err(PyBufferError::new_err(what));
        }
        *inner = None;
        Ok(())
    }

    /// The block as a read-only NumPy array of `dtype` and `shape`, without a copy.
    #[pyo3(signature = (dtype=None, shape=None))]
    fn numpy<'py>(
        slf: Bound<'py, Self>,
        dtype: Option<Bound<'py, PyAny>>,
        shape: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let numpy = slf.py().import("numpy")?;
        let dtype = match dtype {
            Some(dtype) => dtype,
            None => numpy.getattr("uint8")?,
        };
        let array = numpy.call_method1("frombuffer", (slf, dtype))?;
        match shape {
            Some(shape) => array.call_method1("reshape", (shape,)),
            None => Ok(array),
        }
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    /// Releases the pin; while arrays made from the lease exist, it goes with the last of them.
    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, _exception: &Bound<'_, pyo3::types::PyTuple>) {
        let mut inner = self.inner.lock();
        if self.exports.load(Ordering::Acquire) == 0 {
            *inner = None;
        }
    }

    /// # Safety
    /// Called by the interpreter with its own `view`.
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let this = slf.get();
        let inner = this.inner.lock();
        let lease = inner.as_ref().filter(|lease| lease.is_valid());
        let memory = lease.ok_or_else(|| PyBufferError::new_err("the lease was released"))?.memory();
        this.exports.fetch_add(1, Ordering::AcqRel);
        // SAFETY: `view` is the interpreter's; the block is pinned as long as an export is counted, because `release` refuses.
        let filled =
            unsafe { crate::raw::export(slf.clone().into_any(), view, flags, memory.as_ptr(), this.len) };
        if filled.is_err() {
            this.exports.fetch_sub(1, Ordering::AcqRel);
        }
        filled
    }

    /// # Safety
    /// Called by the interpreter with a view that `__getbuffer__` filled.
    unsafe fn __releasebuffer__(&self, _view: *mut ffi::Py_buffer) {
        self.exports.fetch_sub(1, Ordering::AcqRel);
    }
}
