//! Device memory of Python callers (torch, CuPy, JAX), and blocks on devices for them. What crosses the border is C by its nature, so
//! most of it is in `raw`.

mod raw;

use cascade_core::batch::Outcome;
use cascade_core::id::BlockId;
use cascade_core::tier::{BlockMeta, MissReason};
use cascade_store::Put;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

pub(crate) use raw::DeviceLease;

/// `kDLCUDA` of DLPack.
const CUDA: i32 = 2;
/// The legacy default stream, as DLPack numbers it.
const DEFAULT_STREAM: u64 = 1;

/// An array in device memory, in place until this is dropped. What its owner's stream had queued comes before the stream that it was
/// asked for with.
pub(crate) struct DeviceArray {
    address: usize,
    len: usize,
    device: u32,
    stream: u64,
    _keep: Py<PyAny>,
}

fn wrong(what: &str) -> PyErr {
    PyValueError::new_err(format!("the array on the device {what}"))
}

impl DeviceArray {
    /// `None` for what is not in device memory. `stream`: the caller's, as DLPack numbers it.
    pub(crate) fn of(object: &Bound<'_, PyAny>, stream: Option<u64>) -> PyResult<Option<Self>> {
        let stream = stream.unwrap_or(DEFAULT_STREAM).max(DEFAULT_STREAM);
        let array = if is_dlpack(object)? {
            let named = PyDict::new(object.py());
            named.set_item("stream", stream)?;
            raw::import(&object.call_method("__dlpack__", (), Some(&named))?, stream)?
        } else if object.hasattr("__cuda_array_interface__")? {
            by_interface(object, stream)?
        } else {
            return Ok(None);
        };
        if array.len == 0 {
            return Err(wrong("is empty: a block has at least one byte"));
        }
        Ok(Some(array))
    }

    pub(crate) fn put(&self, py: Python<'_>, store: &cascade_store::Store, id: BlockId, put: Put) -> Outcome {
        py.detach(|| raw::put(self, store, id, put))
    }

    pub(crate) fn get(
        &self,
        py: Python<'_>,
        store: &cascade_store::Store,
        id: BlockId,
    ) -> Result<BlockMeta, MissReason> {
        py.detach(|| raw::get(self, store, id))
    }

    /// Length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

fn is_dlpack(object: &Bound<'_, PyAny>) -> PyResult<bool> {
    if !object.hasattr("__dlpack_device__")? || !object.hasattr("__dlpack__")? {
        return Ok(false);
    }
    let (kind, _): (i32, i32) = object.call_method0("__dlpack_device__")?.extract()?;
    Ok(kind == CUDA)
}

/// By `__cuda_array_interface__`, version 2 or newer. Its device is not told: it is the object's `device.id` (CuPy), else 0.
fn by_interface(object: &Bound<'_, PyAny>, stream: u64) -> PyResult<DeviceArray> {
    let found = object.getattr("__cuda_array_interface__")?;
    let (address, _readonly): (usize, bool) = found.get_item("data")?.extract()?;
    let kind: String = found.get_item("typestr")?.extract()?;
    let item: usize =
        kind.get(2..).and_then(|size| size.parse().ok()).ok_or_else(|| wrong("has no plain type"))?;
    let shape: Vec<usize> = found.get_item("shape")?.extract()?;
    let strides: Option<Vec<isize>> = match found.get_item("strides") {
        Ok(strides) => strides.extract()?,
        Err(_) => None,
    };
    let strides =
        strides.map(|all| all.into_iter().map(|stride| stride / item.max(1) as isize).collect::<Vec<_>>());
    let len = contiguous(&shape, strides.as_deref())?.saturating_mul(item);
    let device = object.getattr("device").and_then(|device| device.getattr("id"));
    let device = device.and_then(|id| id.extract::<u32>()).unwrap_or(0);
    Ok(DeviceArray { address, len, device, stream, _keep: object.clone().unbind() })
}

/// Elements of an array, which must lie one behind the other; strides in elements.
fn contiguous(shape: &[usize], strides: Option<&[isize]>) -> PyResult<usize> {
    let mut count = 1_usize;
    for (axis, extent) in shape.iter().enumerate().rev() {
        let stride = strides.and_then(|strides| strides.get(axis));
        if *extent > 1 && stride.is_some_and(|stride| usize::try_from(*stride) != Ok(count)) {
            return Err(wrong("is not C-contiguous: pass tensor.contiguous()"));
        }
        count = count.saturating_mul(*extent);
    }
    Ok(count)
}

/// What `__cuda_array_interface__` says of a lease: bytes, whose writes are over.
fn interface<'py>(py: Python<'py>, address: u64, len: usize) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("shape", PyTuple::new(py, [len])?)?;
    dict.set_item("typestr", "|u1")?;
    // Torch refuses arrays that say that they are read-only.
    dict.set_item("data", (address, false))?;
    dict.set_item("strides", py.None())?;
    dict.set_item("version", 3)?;
    Ok(dict)
}
