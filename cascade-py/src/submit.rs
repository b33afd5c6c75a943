//! Batches that Python hands over and does not wait for.

use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

use cascade_core::batch::{Batch, Op};
use cascade_core::id::BlockId;
use cascade_core::memory::SgList;
use cascade_store::{Put, Reach};
use pyo3::prelude::*;

use crate::buffers::{Buffer, check_apart, check_lengths};
use crate::kept::{Kept, sweep};
use crate::store::timeout;
use crate::ticket::Ticket;

fn deadline(timeout_s: Option<f64>) -> PyResult<Option<Instant>> {
    timeout_s.map(timeout).transpose()
}

impl Kept {
    /// Lists over buffers, which the kept keep.
    fn lists(buffers: Vec<Buffer>, piece: impl Fn(&Buffer) -> SgList) -> (Arc<Self>, Vec<SgList>) {
        let lists: Vec<SgList> = buffers.iter().map(piece).collect();
        let kept = Arc::new(Self::new(buffers));
        let hold = |list: SgList| {
            let mut held = SgList::new();
            for piece in list.pieces() {
                held.push(piece.clone().kept_by(Arc::clone(&kept) as Arc<dyn Any + Send + Sync>));
            }
            held
        };
        let lists = lists.into_iter().map(hold).collect();
        (kept, lists)
    }
}

/// Begins to copy blocks into arrays.
pub(crate) fn get(
    py: Python<'_>,
    store: &cascade_store::Store,
    ids: Vec<BlockId>,
    outs: &Bound<'_, PyAny>,
    timeout_s: Option<f64>,
) -> PyResult<Ticket> {
    sweep(py);
    let buffers: Vec<Buffer> =
        outs.try_iter()?.map(|one| Buffer::to_write(&one?)).collect::<PyResult<_>>()?;
    check_lengths(ids.len(), buffers.len())?;
    check_apart(&buffers)?;
    let (kept, lists) = Kept::lists(buffers, Buffer::to_fill);
    let ops = ids.into_iter().zip(lists).map(|(id, into)| Op::Fetch { id, into }).collect();
    let batch = Batch { ops, deadline: deadline(timeout_s)? };
    let ticket = py.detach(|| store.submit_until(batch, Reach::Found));
    Ok(Ticket::new(ticket, Some(kept)))
}

/// Begins to store blocks.
pub(crate) fn put(
    py: Python<'_>,
    store: &cascade_store::Store,
    ids: Vec<BlockId>,
    data: &Bound<'_, PyAny>,
    put: Put,
    timeout_s: Option<f64>,
) -> PyResult<Ticket> {
    sweep(py);
    let buffers: Vec<Buffer> = data.try_iter()?.map(|one| Buffer::to_read(&one?)).collect::<PyResult<_>>()?;
    check_lengths(ids.len(), buffers.len())?;
    let (kept, lists) = Kept::lists(buffers, Buffer::to_take);
    let op = |(id, from)| Op::Store { id, from, meta: put.meta(&id) };
    let ops = ids.into_iter().zip(lists).map(op).collect();
    let batch = Batch { ops, deadline: deadline(timeout_s)? };
    let ticket = py.detach(|| store.submit_until(batch, put.reach));
    Ok(Ticket::new(ticket, Some(kept)))
}
