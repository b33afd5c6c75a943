//! DLPack, both ways, and the stream of whoever uses a block on a device.

use std::ffi::{CStr, c_void};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use cascade_core::batch::{Outcome, Refusal};
use cascade_core::id::BlockId;
use cascade_core::memory::{Piece, SgList};
use cascade_core::tier::{BlockMeta, MissReason};
use cascade_gpu::device::Stream;
use cascade_gpu::lease;
use cascade_store::Put;
use parking_lot::Mutex;
use pyo3::exceptions::{PyBufferError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::{CUDA, DEFAULT_STREAM, DeviceArray, contiguous, interface, wrong};

/// Name of a capsule that nobody has consumed yet.
const FRESH: &CStr = c"dltensor";

// The structures of dlpack.h, version 0.8, which every producer still gives to who asks for no newer one.
#[repr(C)]
struct Tensor {
    data: *mut c_void,
    device_kind: i32,
    device_id: i32,
    ndim: i32,
    code: u8,
    bits: u8,
    lanes: u16,
    shape: *mut i64,
    strides: *mut i64,
    byte_offset: u64,
}

#[repr(C)]
struct Managed {
    tensor: Tensor,
    context: *mut c_void,
    deleter: Option<unsafe extern "C" fn(*mut Managed)>,
}

/// The array that a capsule describes. The capsule is not consumed: it ends its tensor when it is dropped.
pub(super) fn import(capsule: &Bound<'_, PyAny>, stream: u64) -> PyResult<DeviceArray> {
    // SAFETY: any object may be asked; a pointer comes from a capsule of this name alone, which DLPack says is of this structure.
    let managed = unsafe { ffi::PyCapsule_GetPointer(capsule.as_ptr(), FRESH.as_ptr()) };
    let Some(managed) = NonNull::new(managed.cast::<Managed>()) else {
        return Err(PyErr::take(capsule.py()).unwrap_or_else(|| wrong("gave no DLPack capsule")));
    };
    // SAFETY: the producer's structure, alive as long as the capsule.
    let tensor = unsafe { &managed.as_ref().tensor };
    let ndim = usize::try_from(tensor.ndim).unwrap_or(0);
    let axes = |first: *mut i64| {
        // SAFETY: DLPack says that both arrays have `ndim` entries, where they are not null.
        (!first.is_null()).then(|| unsafe { std::slice::from_raw_parts(first, ndim) }.to_vec())
    };
    let shape = if ndim == 0 { Some(Vec::new()) } else { axes(tensor.shape) };
    let shape: Option<Vec<usize>> =
        shape.and_then(|shape| shape.into_iter().map(|extent| usize::try_from(extent).ok()).collect());
    let strides =
        axes(tensor.strides).map(|all| all.into_iter().map(|stride| stride as isize).collect::<Vec<_>>());
    let count = contiguous(&shape.ok_or_else(|| wrong("has no shape"))?, strides.as_deref())?;
    let bits = usize::from(tensor.bits) * usize::from(tensor.lanes);
    let (CUDA, Ok(device)) = (tensor.device_kind, u32::try_from(tensor.device_id)) else {
        return Err(wrong("is not on a CUDA device"));
    };
    Ok(DeviceArray {
        address: (tensor.data as usize).wrapping_add(tensor.byte_offset as usize),
        len: count.saturating_mul(bits).div_ceil(8),
        device,
        stream,
        _keep: capsule.clone().unbind(),
    })
}

/// A stream of the caller's; DLPack calls the legacy default stream 1, the driver 0.
fn of_caller(stream: u64) -> Stream {
    let handle = if stream <= DEFAULT_STREAM { 0 } else { stream };
    // SAFETY: Python gave it as a stream of the array's device; that is the contract of `stream` in DLPack.
    unsafe { Stream::of_caller(handle) }
}

fn list(array: &DeviceArray) -> Option<SgList> {
    let address = NonNull::new(array.address as *mut u8)?;
    // SAFETY: the array's owner says that these bytes are there, and they stay until `array` is dropped, after the operation.
    Some(unsafe { Piece::device(array.device, address, array.len) }.into())
}

/// Stores the array; over when this returns.
pub(super) fn put(array: &DeviceArray, store: &cascade_store::Store, id: BlockId, put: Put) -> Outcome {
    let Some(list) = list(array) else { return Outcome::Refused(Refusal::Memory) };
    let outcomes = store.put_device(&[(id, list)], put, Some(of_caller(array.stream)));
    outcomes.first().copied().unwrap_or(Outcome::Refused(Refusal::Unavailable))
}

/// Fills the array; over when this returns.
pub(super) fn get(
    array: &DeviceArray,
    store: &cascade_store::Store,
    id: BlockId,
) -> Result<BlockMeta, MissReason> {
    let Some(list) = list(array) else { return Err(MissReason::Destination) };
    let mut answers = store.get_device(&[(id, list)], Some(of_caller(array.stream)));
    answers.pop().unwrap_or(Err(MissReason::Unavailable))
}

/// A block pinned on its device. Tensors made from it keep it pinned.
#[pyclass(frozen, module = "cascade_kv")]
pub(crate) struct DeviceLease {
    inner: Mutex<Option<lease::DeviceLease>>,
    address: u64,
    len: usize,
    device: u32,
    generation: u32,
    exports: AtomicUsize,
    /// Whether anybody was told where the block is: only then can work on it be queued.
    is_told: AtomicBool,
    /// The stream that used it last, as far as was said.
    stream: AtomicU64,
}

impl DeviceLease {
    pub(crate) fn new(inner: lease::DeviceLease) -> Self {
        Self {
            address: inner.address(),
            len: inner.len(),
            device: inner.device(),
            generation: inner.generation(),
            inner: Mutex::new(Some(inner)),
            exports: AtomicUsize::new(0),
            is_told: AtomicBool::new(false),
            stream: AtomicU64::new(DEFAULT_STREAM),
        }
    }

    fn end(&self) {
        if let Some(lease) = self.inner.lock().take()
            && self.is_told.load(Ordering::Relaxed)
        {
            lease.release_after(of_caller(self.stream.load(Ordering::Relaxed)));
        }
    }
}

impl Drop for DeviceLease {
    fn drop(&mut self) {
        self.end();
    }
}

#[pymethods]
impl DeviceLease {
    /// Device address of the first byte.
    #[getter]
    fn ptr(&self) -> u64 {
        self.is_told.store(true, Ordering::Relaxed);
        self.address
    }

    fn __len__(&self) -> usize {
        self.len
    }

    /// Number of the CUDA device.
    #[getter]
    fn device(&self) -> u32 {
        self.device
    }

    /// Changes when the place is used for another block.
    #[getter]
    fn generation(&self) -> u32 {
        self.generation
    }

    /// Whether the block is still pinned by this lease.
    #[getter]
    fn valid(&self) -> bool {
        self.inner.lock().as_ref().is_some_and(lease::DeviceLease::is_valid)
    }

    /// Gives the pin back when what `stream` has queued is over; refused while tensors made from it exist.
    #[pyo3(signature = (stream=None))]
    fn release(&self, stream: Option<u64>) -> PyResult<()> {
        if self.exports.load(Ordering::Acquire) > 0 {
            return Err(PyBufferError::new_err(
                "tensors made from this lease still exist: delete them first",
            ));
        }
        if let Some(stream) = stream {
            self.stream.store(stream, Ordering::Relaxed);
        }
        self.end();
        Ok(())
    }

    #[getter]
    fn __cuda_array_interface__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        if !self.valid() {
            return Err(PyBufferError::new_err("the lease was released"));
        }
        self.is_told.store(true, Ordering::Relaxed);
        interface(py, self.address, self.len)
    }

    fn __dlpack_device__(&self) -> (i32, u32) {
        (CUDA, self.device)
    }

    /// The bytes as a DLPack capsule; what is queued on `stream` until the tensor ends is waited for before the place is used again.
    #[pyo3(signature = (*, stream=None, max_version=None, dl_device=None, copy=None))]
    fn __dlpack__<'py>(
        slf: Bound<'py, Self>,
        stream: Option<i64>,
        max_version: Option<Bound<'py, PyAny>>,
        dl_device: Option<Bound<'py, PyAny>>,
        copy: Option<bool>,
    ) -> PyResult<Bound<'py, PyAny>> {
        // Unversioned capsules are what every consumer takes.
        drop((max_version, dl_device));
        if copy == Some(true) {
            return Err(PyBufferError::new_err("a lease makes no copies"));
        }
        let this = slf.get();
        let inner = this.inner.lock();
        if !inner.as_ref().is_some_and(lease::DeviceLease::is_valid) {
            return Err(PyBufferError::new_err("the lease was released"));
        }
        if let Some(stream) = stream.and_then(|stream| u64::try_from(stream).ok()) {
            this.stream.store(stream, Ordering::Relaxed);
        }
        this.is_told.store(true, Ordering::Relaxed);
        this.exports.fetch_add(1, Ordering::AcqRel);
        drop(inner);
        capsule(slf)
    }

    /// The block as a torch tensor of `dtype` and `shape`, without a copy. It must not be written.
    #[pyo3(signature = (dtype=None, shape=None))]
    fn torch<'py>(
        slf: Bound<'py, Self>,
        dtype: Option<Bound<'py, PyAny>>,
        shape: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let torch = slf.py().import("torch")?;
        let mut tensor = torch.call_method1("from_dlpack", (slf,))?;
        if let Some(dtype) = dtype {
            tensor = tensor.call_method1("view", (dtype,))?;
        }
        match shape {
            Some(shape) => tensor.call_method1("view", (shape,)),
            None => Ok(tensor),
        }
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    /// Releases the pin; while tensors made from the lease exist, it goes with the last of them.
    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, _exception: &Bound<'_, PyTuple>) {
        if self.exports.load(Ordering::Acquire) == 0 {
            self.end();
        }
    }
}

/// What a consumer holds of a lease.
struct Export {
    managed: Managed,
    shape: [i64; 1],
    owner: Py<DeviceLease>,
}

/// A capsule over a lease, one export of which is counted.
fn capsule(owner: Bound<'_, DeviceLease>) -> PyResult<Bound<'_, PyAny>> {
    let (py, this) = (owner.py(), owner.get());
    let shape = [i64::try_from(this.len).map_err(|_| PyValueError::new_err("the block is too long"))?];
    let tensor = Tensor {
        data: this.address as *mut c_void,
        device_kind: CUDA,
        device_id: this.device.cast_signed(),
        ndim: 1,
        // Unsigned integers of 8 bits.
        code: 1,
        bits: 8,
        lanes: 1,
        shape: ptr::null_mut(),
        strides: ptr::null_mut(),
        byte_offset: 0,
    };
    let managed = Managed { tensor, context: ptr::null_mut(), deleter: Some(delete) };
    let export = Box::into_raw(Box::new(Export { managed, shape, owner: owner.clone().unbind() }));
    // SAFETY: just made, and nobody else has it; the shape lies in the box itself, which does not move.
    let managed = unsafe {
        (*export).managed.context = export.cast();
        (*export).managed.tensor.shape = (&raw mut (*export).shape).cast();
        &raw mut (*export).managed
    };
    // SAFETY: a live pointer, a name that lives for ever, and a destructor for capsules of this name.
    let made = unsafe { ffi::PyCapsule_New(managed.cast(), FRESH.as_ptr(), Some(discard)) };
    // SAFETY: a new reference, or null with the error set.
    match unsafe { Bound::from_owned_ptr_or_err(py, made) } {
        Ok(capsule) => Ok(capsule),
        Err(error) => {
            // SAFETY: made above and handed to nobody.
            unsafe { delete(managed) };
            Err(error)
        }
    }
}

/// Ends an export. Consumers call it from any thread.
unsafe extern "C" fn delete(managed: *mut Managed) {
    if managed.is_null() {
        return;
    }
    // SAFETY: DLPack calls it once, with what `capsule` made; its context is the box.
    let export = unsafe { Box::from_raw((*managed).context.cast::<Export>()) };
    Python::attach(|_py| {
        export.owner.get().exports.fetch_sub(1, Ordering::AcqRel);
        drop(export);
    });
}

/// Destructor of a capsule: one that was consumed has another name, and its consumer ends the export.
unsafe extern "C" fn discard(capsule: *mut ffi::PyObject) {
    // SAFETY: the interpreter's capsule; asked for by its name first.
    unsafe {
        if ffi::PyCapsule_IsValid(capsule, FRESH.as_ptr()) == 1 {
            delete(ffi::PyCapsule_GetPointer(capsule, FRESH.as_ptr()).cast());
        }
    }
}
