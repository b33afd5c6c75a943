//! A program that is a rank of an MPI job itself, and what started it.

use std::path::PathBuf;

use cascade_mpi::launch;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::raise;
use crate::store::Store;

/// Who started this process: (rank, ranks, launcher).
#[pyfunction]
pub(crate) fn launched() -> PyResult<(u32, u32, String)> {
    let environment = std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()));
    let found = launch::detect(&environment.collect()).map_err(raise)?;
    Ok((found.rank, found.size, found.launcher.to_string()))
}

/// This process as a rank, with a store of its own.
#[pyclass(frozen, module = "cascade_kv")]
pub(crate) struct Rank {
    #[cfg(feature = "mpi")]
    inner: parking_lot::RwLock<Option<std::sync::Arc<cascade_store::remote::Job>>>,
}

#[cfg(not(feature = "mpi"))]
#[pymethods]
impl Rank {
    #[classattr]
    const IS_BUILT: bool = false;

    #[new]
    #[pyo3(signature = (*, config_file=None, **settings))]
    fn new(config_file: Option<PathBuf>, settings: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
        let _ = crate::store::settings(config_file, settings)?;
        Err(without())
    }

    #[getter]
    fn rank(&self) -> PyResult<u32> {
        Err(without())
    }

    #[getter]
    fn world_size(&self) -> PyResult<u32> {
        Err(without())
    }

    /// How bytes come from other ranks, really.
    #[getter]
    fn path(&self) -> PyResult<&'static str> {
        Err(without())
    }

    fn store(&self) -> PyResult<Store> {
        Err(without())
    }

    fn owner(&self, id: &Bound<'_, PyAny>, timeout_s: f64) -> PyResult<Option<(u32, u64)>> {
        let _ = (id, timeout_s);
        Err(without())
    }

    fn barrier(&self, timeout_s: f64) -> PyResult<()> {
        let _ = timeout_s;
        Err(without())
    }

    fn publish(&self, timeout_s: f64) -> PyResult<()> {
        let _ = timeout_s;
        Err(without())
    }

    fn leave(&self, timeout_s: f64) -> PyResult<bool> {
        let _ = timeout_s;
        Err(without())
    }
}

#[cfg(not(feature = "mpi"))]
fn without() -> PyErr {
    let what = "this cascade_kv was built without MPI: build a wheel with it by `cargo xtask wheel --mpi`, or let the node's agent \
                (`cascade serve`) ask the other nodes: cascade_kv.connect()";
    raise(cascade_core::Error::new(cascade_core::ErrorKind::Unsupported, what))
}

#[cfg(feature = "mpi")]
mod with_mpi {
    use std::sync::Arc;
    use std::time::Duration;

    use cascade_core::tier::Tier;
    use cascade_core::{Error, ErrorKind};
    use cascade_store::remote::{Job, JobConfig};
    use parking_lot::RwLock;

    use super::{Bound, PathBuf, PyAny, PyDict, PyResult, Python, Rank, Store, pymethods, raise};
    use crate::ids::to_id;
    use crate::store::{duration, settings, timeout};

    impl Rank {
        fn job(&self) -> PyResult<Arc<Job>> {
            let left = || raise(Error::new(ErrorKind::InvalidArgument, "this rank has left its job"));
            self.inner.read().clone().ok_or_else(left)
        }
    }

    #[pymethods]
    impl Rank {
        #[classattr]
        const IS_BUILT: bool = true;

        /// Joins the other ranks: every one of the job does it, once.
        #[new]
        #[pyo3(signature = (*, config_file=None, **settings))]
        fn new(
            py: Python<'_>,
            config_file: Option<PathBuf>,
            settings: Option<&Bound<'_, PyDict>>,
        ) -> PyResult<Self> {
            let builder = self::settings(config_file, settings)?;
            let started =
                py.detach(|| builder.resolve().and_then(|config| Job::start(&config, JobConfig::default())));
            Ok(Self { inner: RwLock::new(Some(Arc::new(started.map_err(raise)?))) })
        }

        #[getter]
        fn rank(&self) -> PyResult<u32> {
            Ok(self.job()?.fabric().rank())
        }

        #[getter]
        fn world_size(&self) -> PyResult<u32> {
            Ok(self.job()?.fabric().ranks())
        }

        /// How bytes come from other ranks, really.
        #[getter]
        fn path(&self) -> PyResult<&'static str> {
            Ok(self.job()?.fabric().path().name())
        }

        /// The store of this rank, which asks the others for what it lacks.
        fn store(&self) -> PyResult<Store> {
            Ok(Store::of(self.job()?.store().clone()))
        }

        /// The rank that has a block, and where in its arena.
        fn owner(
            &self,
            py: Python<'_>,
            id: &Bound<'_, PyAny>,
            timeout_s: f64,
        ) -> PyResult<Option<(u32, u64)>> {
            let (job, id, deadline) = (self.job()?, to_id(id)?, timeout(timeout_s)?);
            Ok(py.detach(|| job.tier().owner_until(&id, deadline)))
        }

        /// Returns once every rank has called it as often.
        fn barrier(&self, py: Python<'_>, timeout_s: f64) -> PyResult<()> {
            let (job, deadline) = (self.job()?, timeout(timeout_s)?);
            py.detach(|| job.fabric().barrier(deadline)).map_err(raise)
        }

        /// Returns when what was put is told to the ranks that keep its entries.
        fn publish(&self, py: Python<'_>, timeout_s: f64) -> PyResult<()> {
            let (job, deadline) = (self.job()?, timeout(timeout_s)?);
            py.detach(|| job.tier().flush(deadline)).map_err(raise)
        }

        /// Leaves the job, once every rank does or the time is over: whether MPI was ended in good order.
        fn leave(&self, py: Python<'_>, timeout_s: f64) -> PyResult<bool> {
            let patience: Duration = duration(timeout_s)?;
            let Some(job) = self.inner.write().take() else { return Ok(true) };
            Ok(py.detach(|| job.fabric().stop(patience)))
        }
    }
}
