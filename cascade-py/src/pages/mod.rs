//! Memory of an engine's pages: a block is gathered from, and scattered to, one row of each of many arrays.

mod fill;
mod raw;

use cascade_core::batch::{Op, Outcome};
use cascade_core::id::BlockId;
use cascade_core::tier::{Class, OnExisting, PutMeta};
use pyo3::buffer::PyUntypedBuffer;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

pub(crate) use fill::Fill;

use crate::lease::Lease;

/// One array: rows of `len` contiguous bytes, `stride` bytes apart.
struct Part {
    buffer: PyUntypedBuffer,
    rows: usize,
    stride: usize,
    len: usize,
    /// Where its bytes are in a block.
    offset: usize,
}

/// Arrays of an engine, exported as long as this lives. Row `r` of all of them, one after the other, is a block.
#[pyclass(frozen, module = "cascade_kv")]
pub(crate) struct Pages {
    parts: Vec<Part>,
    rows: usize,
    block_bytes: usize,
}

#[pymethods]
impl Pages {
    #[new]
    fn new(arrays: &Bound<'_, PyAny>) -> PyResult<Self> {
        let mut parts: Vec<Part> = Vec::new();
        let mut block_bytes = 0;
        for array in arrays.try_iter()? {
            let part = Part::new(PyUntypedBuffer::get(&array?)?, block_bytes)?;
            block_bytes += part.len;
            parts.push(part);
        }
        let Some(rows) = parts.first().map(|part| part.rows) else {
            return Err(PyValueError::new_err("at least one array is needed"));
        };
        if parts.iter().any(|part| part.rows != rows) {
            return Err(PyValueError::new_err("the arrays have different numbers of rows"));
        }
        Ok(Self { parts, rows, block_bytes })
    }

    /// Rows of each array.
    #[getter]
    fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes of a block: a row of every array.
    #[getter]
    fn block_bytes(&self) -> usize {
        self.block_bytes
    }

    /// Number of arrays.
    fn __len__(&self) -> usize {
        self.parts.len()
    }

    /// Copies part `part` of leased blocks to its rows; for each whether it was copied.
    fn scatter(
        &self,
        py: Python<'_>,
        leases: Vec<Option<Py<Lease>>>,
        rows: Vec<usize>,
        part: usize,
    ) -> PyResult<Vec<bool>> {
        self.check_rows(leases.len(), &rows)?;
        let target = self.part(part)?;
        Ok(py.detach(|| {
            let each = leases.iter().zip(&rows);
            each.map(|(lease, row)| {
                lease.as_ref().is_some_and(|lease| self.copy_part(lease.get(), *row, target))
            })
            .collect()
        }))
    }
}

impl Part {
    fn new(buffer: PyUntypedBuffer, offset: usize) -> PyResult<Self> {
        let wrong = |what: &str| Err(PyValueError::new_err(format!("array {what}")));
        if buffer.readonly() {
            return wrong("is read-only: pages are written when blocks are loaded");
        }
        if buffer.suboffsets().is_some() || buffer.dimensions() < 2 {
            return wrong("needs two dimensions or more, the first for the rows");
        }
        let mut len = buffer.item_size();
        for (extent, stride) in buffer.shape().iter().zip(buffer.strides()).skip(1).rev() {
            if *extent > 1 && usize::try_from(*stride) != Ok(len) {
                return wrong("has rows that are not contiguous");
            }
            len = len.saturating_mul(*extent);
        }
        let rows = buffer.shape()[0];
        let stride = usize::try_from(buffer.strides()[0]).unwrap_or(0);
        if rows == 0 || len == 0 || (rows > 1 && stride < len) {
            return wrong("has no rows, empty rows, or rows that overlap");
        }
        Ok(Self { buffer, rows, stride, len, offset })
    }
}

impl Pages {
    fn part(&self, part: usize) -> PyResult<&Part> {
        let what = || PyValueError::new_err(format!("part {part} of {}", self.parts.len()));
        self.parts.get(part).ok_or_else(what)
    }

    /// Each row there, and asked for once: two copies into one row would race.
    fn check_rows(&self, blocks: usize, rows: &[usize]) -> PyResult<()> {
        if blocks != rows.len() {
            let what = format!("{blocks} blocks and {} rows: there must be as many of each", rows.len());
            return Err(PyValueError::new_err(what));
        }
        let mut sorted = rows.to_vec();
        sorted.sort_unstable();
        if sorted.last().is_some_and(|last| *last >= self.rows) {
            return Err(PyValueError::new_err(format!("a row beyond the last of {}", self.rows)));
        }
        if sorted.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(PyValueError::new_err("a row is named twice"));
        }
        Ok(())
    }

    /// Stores a block from each row.
    pub(crate) fn put(
        &self,
        py: Python<'_>,
        store: &cascade_store::Store,
        ids: &[BlockId],
        rows: &[usize],
        is_prefix: bool,
    ) -> PyResult<Vec<Outcome>> {
        self.check_rows(ids.len(), rows)?;
        let make = |(id, row): (&BlockId, &usize)| {
            let from = self.list(*row, false);
            Op::Store { id: *id, from, meta: meta(id, is_prefix) }
        };
        Ok(py.detach(|| raw::run(self, store, || ids.iter().zip(rows).map(make).collect())))
    }

    /// Loads a block into each row; for each whether all of the row was loaded.
    pub(crate) fn get(
        &self,
        py: Python<'_>,
        store: &cascade_store::Store,
        ids: &[BlockId],
        rows: &[usize],
    ) -> PyResult<Vec<bool>> {
        self.check_rows(ids.len(), rows)?;
        let make = |(id, row): (&BlockId, &usize)| Op::Fetch { id: *id, into: self.list(*row, true) };
        let outcomes = py.detach(|| raw::run(self, store, || ids.iter().zip(rows).map(make).collect()));
        let is_whole = |outcome: &Outcome| matches!(outcome, Outcome::Fetched(meta) if meta.len == self.block_bytes as u64);
        Ok(outcomes.iter().map(is_whole).collect())
    }
}

/// What a put says of a block: names replace, every other id is of these bytes alone.
fn meta(id: &BlockId, is_prefix: bool) -> PutMeta {
    let on_existing = if id.kind().replaceable() { OnExisting::Replace } else { OnExisting::Keep };
    let class = if is_prefix { Class::Prefix } else { Class::default() };
    PutMeta { class, on_existing, ..PutMeta::default() }
}
