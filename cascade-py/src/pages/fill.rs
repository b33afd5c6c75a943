//! Blocks that are filled part by part (an engine's layers), then sealed.

use cascade_core::batch::Refusal;
use cascade_core::id::BlockId;
use cascade_core::reservation::{Reservation, Reserve, Sealed};
use cascade_core::tier::Class;
use cascade_store::Put;
use parking_lot::Mutex;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::Pages;

enum Slot {
    Open(Reservation),
    Done(&'static str),
}

/// Reserved blocks. Dropped before `seal`, they were never there.
#[pyclass(frozen, module = "cascade_kv")]
pub(crate) struct Fill {
    pages: Py<Pages>,
    rows: Vec<usize>,
    slots: Mutex<Vec<Slot>>,
    /// Which parts were copied. Memory of a reservation holds what was there before: a block that lacks one is never seen.
    written: Mutex<Vec<bool>>,
}

impl Fill {
    pub(crate) fn new(
        py: Python<'_>,
        store: &cascade_store::Store,
        ids: &[BlockId],
        pages: Py<Pages>,
        rows: Vec<usize>,
        is_prefix: bool,
    ) -> PyResult<Self> {
        let of = pages.get();
        of.check_rows(ids.len(), &rows)?;
        let put = if is_prefix { Put::prefix() } else { Put { class: Class::default(), ..Put::default() } };
        let len = of.block_bytes as u64;
        let slots = py.detach(|| ids.iter().map(|id| slot(store.reserve(id, len, put))).collect());
        let written = Mutex::new(vec![false; of.parts.len()]);
        Ok(Self { pages, rows, slots: Mutex::new(slots), written })
    }
}

fn slot(answer: Reserve) -> Slot {
    match answer {
        Reserve::Reserved(reservation) => Slot::Open(reservation),
        Reserve::Exists(_) => Slot::Done("exists"),
        Reserve::Refused(why) => Slot::Done(Refusal::name(why)),
    }
}

#[pymethods]
impl Fill {
    /// Copies one part of every row into its block.
    fn part(&self, py: Python<'_>, part: usize) -> PyResult<()> {
        let source = self.pages.get().part(part)?;
        py.detach(|| {
            let mut slots = self.slots.lock();
            for (slot, row) in slots.iter_mut().zip(&self.rows) {
                if let Slot::Open(reservation) = slot
                    && !reservation.write_at(source.offset, source.row(*row))
                {
                    *slot = Slot::Done("unavailable");
                }
            }
        });
        self.written.lock()[part] = true;
        Ok(())
    }

    /// Makes the blocks visible: a result for each; `incomplete` when a part was never copied.
    fn seal(&self, py: Python<'_>) -> PyResult<Vec<&'static str>> {
        let slots = std::mem::take(&mut *self.slots.lock());
        if slots.len() != self.rows.len() {
            return Err(PyValueError::new_err("the blocks were sealed before"));
        }
        let is_whole = self.written.lock().iter().all(|is_written| *is_written);
        let seal = |slot| match slot {
            Slot::Done(result) => result,
            // Dropped, it was never there.
            Slot::Open(_) if !is_whole => "incomplete",
            Slot::Open(reservation) => match reservation.seal() {
                Sealed::Stored(_) => "stored",
                Sealed::Exists(_) => "exists",
                Sealed::Lost => "unavailable",
            },
        };
        Ok(py.detach(|| slots.into_iter().map(seal).collect()))
    }
}
