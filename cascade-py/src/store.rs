//! The store.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use cascade_core::batch::Outcome;
use cascade_core::id;
use cascade_core::metrics::Distribution;
use cascade_core::tier::{BlockMeta, Class, Lookup, MissReason};
use cascade_core::{Error, ErrorKind};
use cascade_store::remote::Client;
use cascade_store::{
    Level, Located, Pin, Pinned, Put, Reach, Recompute, StoreConfig, StoreConfigBuilder, outcome_name,
};
use parking_lot::RwLock;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::buffers::{Buffer, check_apart, check_lengths};
use crate::device::{DeviceArray, DeviceLease};
use crate::ids::{to_id, to_ids};
use crate::lease::Lease;
use crate::pages::{Fill, Pages};
use crate::raise;
use crate::submit;
use crate::ticket::{Ticket, wait_with_signals};

/// A store embedded in this process.
#[pyclass(frozen, module = "cascade_kv")]
pub(crate) struct Store {
    inner: RwLock<Option<cascade_store::Store>>,
}

pub(crate) fn put_meta(prefix: bool, wait: &str) -> PyResult<Put> {
    let reach = match wait {
        "found" => Reach::Found,
        "queued" => Reach::Queued,
        "files" => Reach::Files,
        "durable" => Reach::Durable,
        other => {
            let what = format!("wait = {other:?}: \"found\", \"queued\", \"files\" or \"durable\" is needed");
            return Err(PyValueError::new_err(what));
        }
    };
    let put = if prefix { Put::prefix() } else { Put::default() };
    Ok(put.until(reach))
}

pub(crate) fn timeout(seconds: f64) -> PyResult<Instant> {
    let wrong = || PyValueError::new_err(format!("a timeout is a number of seconds, not {seconds}"));
    let length = Duration::try_from_secs_f64(seconds).map_err(|_| wrong())?;
    Instant::now().checked_add(length).ok_or_else(wrong)
}

/// A flush answers at its deadline; a file system that hangs may keep it from that.
const FLUSH_SLACK: Duration = Duration::from_secs(5);

fn flush_failed() -> Error {
    Error::new(ErrorKind::Deadline, "flush: the deadline passed")
}

/// The name of a tier, the length of a block, whether it is of a prefix, and where it is in the arena.
type Place = (&'static str, u64, bool, Option<u64>);

/// Settings of a store, by name.
pub(crate) fn settings(
    config_file: Option<std::path::PathBuf>,
    settings: Option<&Bound<'_, PyDict>>,
) -> PyResult<StoreConfigBuilder> {
    let mut builder = StoreConfig::builder();
    if let Some(path) = config_file {
        builder = builder.file(path);
    }
    for (name, value) in settings.into_iter().flatten() {
        if !value.is_none() {
            let value = value.str()?;
            builder = builder.set(&name.str()?.to_string_lossy(), value.to_string_lossy()).map_err(raise)?;
        }
    }
    Ok(builder)
}

impl Store {
    pub(crate) fn of(store: cascade_store::Store) -> Self {
        Self { inner: RwLock::new(Some(store)) }
    }

    pub(crate) fn open(&self) -> PyResult<cascade_store::Store> {
        self.inner.read().clone().ok_or_else(|| PyValueError::new_err("the store is closed"))
    }
}

fn too_short(need: u64, room: usize) -> PyErr {
    PyValueError::new_err(format!(
        "the block has {need} bytes and the array only {room}: nothing was written"
    ))
}

/// The length of each block that there is.
fn lengths(store: &cascade_store::Store, ids: &[id::BlockId]) -> Vec<Option<u64>> {
    let len = |answer| if let Lookup::Hit(meta) = answer { Some(meta.len) } else { None };
    store.lookup(ids).into_iter().map(len).collect()
}

#[pymethods]
impl Store {
    #[new]
    #[pyo3(signature = (*, config_file=None, **settings))]
    fn new(
        py: Python<'_>,
        config_file: Option<std::path::PathBuf>,
        settings: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        let builder = self::settings(config_file, settings)?;
        let opened = py.detach(|| builder.resolve().and_then(|config| cascade_store::Store::open(&config)));
        Ok(Self::of(opened.map_err(raise)?))
    }

    /// Every setting in force, with its origin, as TOML.
    fn config(&self) -> PyResult<String> {
        Ok(self.open()?.in_force())
    }

    /// The arena's file.
    #[getter]
    fn path(&self) -> PyResult<std::path::PathBuf> {
        Ok(self.open()?.arena().path().to_owned())
    }

    #[pyo3(signature = (id, data, prefix=false, wait="found", stream=None))]
    fn put(
        &self,
        py: Python<'_>,
        id: &Bound<'_, PyAny>,
        data: &Bound<'_, PyAny>,
        prefix: bool,
        wait: &str,
        stream: Option<u64>,
    ) -> PyResult<&'static str> {
        let put = put_meta(prefix, wait)?;
        let (store, id) = (self.open()?, to_id(id)?);
        let buffer = match Buffer::to_read(data) {
            Ok(buffer) => buffer,
            Err(error) => {
                let array = DeviceArray::of(data, stream)?.ok_or(error)?;
                return Ok(outcome_name(array.put(py, &store, id, put)));
            }
        };
        if buffer.len() == 0 {
            return Err(PyValueError::new_err("a block has at least one byte"));
        }
        let bytes = buffer.bytes();
        Ok(outcome_name(py.detach(|| store.put(&id, bytes, put))))
    }

    #[pyo3(signature = (id, out, stream=None))]
    fn get(
        &self,
        py: Python<'_>,
        id: &Bound<'_, PyAny>,
        out: &Bound<'_, PyAny>,
        stream: Option<u64>,
    ) -> PyResult<Option<u64>> {
        let (store, id) = (self.open()?, to_id(id)?);
        let (answer, room) = match Buffer::to_write(out) {
            Ok(mut buffer) => {
                let (room, bytes) = (buffer.len(), buffer.bytes_mut());
                (py.detach(|| store.get(&id, bytes)), room)
            }
            Err(error) => {
                let array = DeviceArray::of(out, stream)?.ok_or(error)?;
                (array.get(py, &store, id), array.len())
            }
        };
        match answer {
            Ok(BlockMeta { len, .. }) => Ok(Some(len)),
            Err(MissReason::Destination) => {
                let need = lengths(&store, &[id]).pop().flatten();
                Err(too_short(need.unwrap_or(0), room))
            }
            Err(_) => Ok(None),
        }
    }

    /// Pins a block on its device, brought up where it is not there.
    fn get_gpu_ptr(&self, py: Python<'_>, id: &Bound<'_, PyAny>) -> PyResult<Option<DeviceLease>> {
        let (store, id) = (self.open()?, to_id(id)?);
        Ok(py.detach(|| store.get_gpu_ptr(&id)).ok().map(DeviceLease::new))
    }

    fn lease(&self, py: Python<'_>, id: &Bound<'_, PyAny>) -> PyResult<Option<Lease>> {
        let (store, id) = (self.open()?, to_id(id)?);
        Ok(py.detach(|| store.lease(&id)).ok().map(Lease::new))
    }

    #[pyo3(signature = (ids, data, prefix=false, wait="found"))]
    fn put_batch(
        &self,
        py: Python<'_>,
        ids: &Bound<'_, PyAny>,
        data: &Bound<'_, PyAny>,
        prefix: bool,
        wait: &str,
    ) -> PyResult<Vec<&'static str>> {
        let put = put_meta(prefix, wait)?;
        let (store, ids) = (self.open()?, to_ids(ids)?);
        let buffers: Vec<Buffer> =
            data.try_iter()?.map(|one| Buffer::to_read(&one?)).collect::<PyResult<_>>()?;
        check_lengths(ids.len(), buffers.len())?;
        let blocks: Vec<(id::BlockId, &[u8])> =
            ids.into_iter().zip(buffers.iter().map(Buffer::bytes)).collect();
        let outcomes: Vec<Outcome> = py.detach(|| store.put_batch(&blocks, put));
        Ok(outcomes.into_iter().map(outcome_name).collect())
    }

    fn get_batch(
        &self,
        py: Python<'_>,
        ids: &Bound<'_, PyAny>,
        outs: &Bound<'_, PyAny>,
    ) -> PyResult<Vec<Option<u64>>> {
        let (store, ids) = (self.open()?, to_ids(ids)?);
        let mut buffers: Vec<Buffer> =
            outs.try_iter()?.map(|one| Buffer::to_write(&one?)).collect::<PyResult<_>>()?;
        check_lengths(ids.len(), buffers.len())?;
        check_apart(&buffers)?;
        let mut wanted: Vec<(id::BlockId, &mut [u8])> =
            ids.into_iter().zip(buffers.iter_mut().map(Buffer::bytes_mut)).collect();
        let answers = py.detach(|| store.get_batch(&mut wanted));
        Ok(answers.into_iter().map(|answer| answer.ok().map(|meta| meta.len)).collect())
    }

    /// Begins to copy blocks into arrays, which must be left alone until the ticket has ended.
    #[pyo3(signature = (ids, outs, *, timeout_s=None))]
    fn submit_get(
        &self,
        py: Python<'_>,
        ids: &Bound<'_, PyAny>,
        outs: &Bound<'_, PyAny>,
        timeout_s: Option<f64>,
    ) -> PyResult<Ticket> {
        submit::get(py, &self.open()?, to_ids(ids)?, outs, timeout_s)
    }

    /// Begins to store blocks.
    #[pyo3(signature = (ids, data, prefix=false, wait="found", *, timeout_s=None))]
    fn submit_put(
        &self,
        py: Python<'_>,
        ids: &Bound<'_, PyAny>,
        data: &Bound<'_, PyAny>,
        prefix: bool,
        wait: &str,
        timeout_s: Option<f64>,
    ) -> PyResult<Ticket> {
        submit::put(py, &self.open()?, to_ids(ids)?, data, put_meta(prefix, wait)?, timeout_s)
    }

    /// Begins to bring blocks up into the arena.
    fn submit_prefetch(&self, py: Python<'_>, ids: &Bound<'_, PyAny>) -> PyResult<Ticket> {
        let (store, ids) = (self.open()?, to_ids(ids)?);
        Ok(Ticket::new(py.detach(|| store.prefetch(&ids)), None))
    }

    fn lease_batch(&self, py: Python<'_>, ids: &Bound<'_, PyAny>) -> PyResult<Vec<Option<Lease>>> {
        let (store, ids) = (self.open()?, to_ids(ids)?);
        let leases = py.detach(|| store.lease_batch(&ids));
        Ok(leases.into_iter().map(|lease| lease.ok().map(Lease::new)).collect())
    }

    /// Stores a block from each row of the pages.
    #[pyo3(signature = (ids, pages, rows, prefix=false))]
    fn put_pages(
        &self,
        py: Python<'_>,
        ids: &Bound<'_, PyAny>,
        pages: &Bound<'_, Pages>,
        rows: Vec<usize>,
        prefix: bool,
    ) -> PyResult<Vec<&'static str>> {
        let outcomes = pages.get().put(py, &self.open()?, &to_ids(ids)?, &rows, prefix)?;
        Ok(outcomes.into_iter().map(outcome_name).collect())
    }

    /// Loads a block into each row of the pages; for each whether it was loaded.
    fn get_pages(
        &self,
        py: Python<'_>,
        ids: &Bound<'_, PyAny>,
        pages: &Bound<'_, Pages>,
        rows: Vec<usize>,
    ) -> PyResult<Vec<bool>> {
        pages.get().get(py, &self.open()?, &to_ids(ids)?, &rows)
    }

    /// Room for blocks that are filled from the pages part by part.
    #[pyo3(signature = (ids, pages, rows, prefix=false))]
    fn fill_pages(
        &self,
        py: Python<'_>,
        ids: &Bound<'_, PyAny>,
        pages: Py<Pages>,
        rows: Vec<usize>,
        prefix: bool,
    ) -> PyResult<Fill> {
        Fill::new(py, &self.open()?, &to_ids(ids)?, pages, rows, prefix)
    }

    fn longest_prefix(&self, ids: &Bound<'_, PyAny>) -> PyResult<usize> {
        Ok(self.open()?.longest_prefix(&to_ids(ids)?))
    }

    /// The tier of each block that every shard has, before the first that is not, and why it ends.
    fn prefix(&self, shards: &Bound<'_, PyAny>) -> PyResult<(Vec<&'static str>, Option<&'static str>)> {
        let shards: Vec<Vec<id::BlockId>> =
            shards.try_iter()?.map(|ids| to_ids(&ids?)).collect::<PyResult<_>>()?;
        let shards: Vec<&[id::BlockId]> = shards.iter().map(Vec::as_slice).collect();
        let found = self.open()?.prefix(&shards);
        let why = |answer| match answer {
            Lookup::Pending => "pending",
            Lookup::Miss(why) => why.name(),
            Lookup::Hit(_) => "hit",
        };
        Ok((found.levels.iter().map(|level| level.name()).collect(), found.end.map(why)))
    }

    /// For each id the length of its block, or `None`.
    fn lookup(&self, ids: &Bound<'_, PyAny>) -> PyResult<Vec<Option<u64>>> {
        Ok(lengths(&self.open()?, &to_ids(ids)?))
    }

    /// For each id the name of the highest tier that has its block and the block's length, or `None`.
    fn locate(&self, ids: &Bound<'_, PyAny>) -> PyResult<Vec<Option<(&'static str, u64)>>> {
        let found = self.open()?.locate(&to_ids(ids)?);
        let place = |found: Located| match (found.level, found.answer) {
            (Some(level), Lookup::Hit(meta)) => Some((level.name(), meta.len)),
            _ => None,
        };
        Ok(found.into_iter().map(place).collect())
    }

    /// Of a block: the tier that has it, its length, whether it is of a prefix, and where it is in the arena.
    fn place(&self, id: &Bound<'_, PyAny>) -> PyResult<Option<Place>> {
        let (store, id) = (self.open()?, to_id(id)?);
        let found = store.locate(std::slice::from_ref(&id)).pop();
        let Some(Located { level: Some(level), answer: Lookup::Hit(meta), .. }) = found else {
            return Ok(None);
        };
        let offset = store.arena().exposed(&id).map(|exposed| exposed.offset);
        Ok(Some((level.name(), meta.len, meta.class == Class::Prefix, offset)))
    }

    /// Brings blocks up into the arena; waits for that only as long as `timeout_s` says.
    #[pyo3(signature = (ids, timeout_s=0.0))]
    fn prefetch(
        &self,
        py: Python<'_>,
        ids: &Bound<'_, PyAny>,
        timeout_s: f64,
    ) -> PyResult<Option<Vec<&'static str>>> {
        let (store, ids, deadline) = (self.open()?, to_ids(ids)?, timeout(timeout_s)?);
        let outcomes = py.detach(|| store.prefetch(&ids).wait(deadline));
        Ok(outcomes.map(|outcomes| outcomes.into_iter().map(outcome_name).collect()))
    }

    /// Keeps blocks in the arena.
    #[pyo3(signature = (ids, soft=false, seconds=None))]
    fn pin(
        &self,
        py: Python<'_>,
        ids: &Bound<'_, PyAny>,
        soft: bool,
        seconds: Option<f64>,
    ) -> PyResult<Vec<&'static str>> {
        let (store, ids) = (self.open()?, to_ids(ids)?);
        let lasts = seconds.map(duration).transpose()?;
        let pinned = py.detach(|| store.pin(&ids, Pin { is_soft: soft, lasts }));
        Ok(pinned.into_iter().map(Pinned::name).collect())
    }

    /// Lets go of pins.
    fn unpin(&self, py: Python<'_>, ids: &Bound<'_, PyAny>) -> PyResult<Vec<bool>> {
        let (store, ids) = (self.open()?, to_ids(ids)?);
        Ok(py.detach(|| store.unpin(&ids)))
    }

    /// Copies blocks to files and takes them out of the arena.
    fn demote(&self, py: Python<'_>, ids: &Bound<'_, PyAny>) -> PyResult<Vec<&'static str>> {
        let (store, ids) = (self.open()?, to_ids(ids)?);
        let outcomes = py.detach(|| store.demote(&ids));
        Ok(outcomes.into_iter().map(outcome_name).collect())
    }

    fn contains(&self, id: &Bound<'_, PyAny>) -> PyResult<bool> {
        Ok(self.open()?.contains(&to_id(id)?))
    }

    fn __contains__(&self, id: &Bound<'_, PyAny>) -> PyResult<bool> {
        self.contains(id)
    }

    fn delete(&self, py: Python<'_>, id: &Bound<'_, PyAny>) -> PyResult<bool> {
        let (store, id) = (self.open()?, to_id(id)?);
        Ok(py.detach(|| store.delete(&id)))
    }

    fn clear(&self, py: Python<'_>) -> PyResult<()> {
        let store = self.open()?;
        py.detach(|| store.clear()).map_err(raise)
    }

    #[pyo3(signature = (timeout_s=60.0))]
    fn flush(&self, py: Python<'_>, timeout_s: f64) -> PyResult<()> {
        let (store, deadline) = (self.open()?, timeout(timeout_s)?);
        // On a thread of its own, which goes on when a signal ends the wait for it.
        let (done, flushed) = mpsc::sync_channel(1);
        let flush = move || done.send(store.flush(deadline));
        std::thread::Builder::new().name("cascade-flush".to_owned()).spawn(flush)?;
        let patience = deadline + FLUSH_SLACK;
        let wait = move |until: Instant| match flushed
            .recv_timeout(until.saturating_duration_since(Instant::now()))
        {
            Err(mpsc::RecvTimeoutError::Timeout) => None,
            Err(mpsc::RecvTimeoutError::Disconnected) => Some(Err(flush_failed())),
            Ok(result) => Some(result),
        };
        wait_with_signals(py, patience, wait)?.unwrap_or_else(|| Err(flush_failed())).map_err(raise)
    }

    /// The whole store's counters, and under `tiers`, `moves` and `miss_reasons` what they are made of.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let found = self.open()?.stats();
        let stats = dict(py, &found.total().fields())?;
        let tiers = PyDict::new(py);
        for (level, of) in &found.tiers {
            let tier = dict(py, &of.fields())?;
            tier.set_item("served", found.hits(*level))?;
            for (_, served) in found.served.iter().filter(|(of, _)| of == level) {
                tier.set_item("served_bytes", served.served_bytes)?;
                tier.set_item("saved_tokens", served.saved_tokens)?;
                tier.set_item("latency_us", latency(py, &served.latency)?)?;
            }
            if *level == Level::Files {
                found.file_fields().iter().try_for_each(|(name, value)| tier.set_item(name, value))?;
            }
            tiers.set_item(level.name(), tier)?;
        }
        stats.set_item("tiers", tiers)?;
        stats.set_item("put_latency_us", latency(py, &found.put_latency)?)?;
        stats.set_item("pins", dict(py, &found.pins.fields())?)?;
        stats.set_item("moves", dict(py, &found.moves.fields())?)?;
        let reasons: Vec<_> = found.misses.iter().map(|(why, count)| (why.name(), *count)).collect();
        stats.set_item("miss_reasons", dict(py, &reasons)?)?;
        Ok(stats)
    }

    /// Tokens of a block, for `saved_tokens` of the statistics.
    fn set_block_tokens(&self, tokens: u64) -> PyResult<()> {
        self.open()?.set_block_tokens(tokens);
        Ok(())
    }

    /// How much of a prefix to load, and from where.
    #[pyo3(signature = (ids, block_tokens, tokens_per_s=None))]
    fn plan<'py>(
        &self,
        py: Python<'py>,
        ids: &Bound<'_, PyAny>,
        block_tokens: u64,
        tokens_per_s: Option<f64>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let recompute = tokens_per_s.map_or(Recompute::Learned, Recompute::TokensPerSecond);
        let plan = self.open()?.plan(&to_ids(ids)?, block_tokens, recompute).map_err(raise)?;
        let found = PyDict::new(py);
        found.set_item("load", plan.load)?;
        found.set_item("found", plan.found)?;
        let from: Vec<_> = plan.from.iter().map(|(level, blocks)| (level.name(), *blocks as u64)).collect();
        found.set_item("from", dict(py, &from)?)?;
        found.set_item("load_s", plan.load_time.as_secs_f64())?;
        found.set_item("recompute_s", plan.recompute_time.map(|time| time.as_secs_f64()))?;
        Ok(found)
    }

    /// Notes how long a prefill took.
    fn observe_prefill(&self, tokens: u64, seconds: f64) -> PyResult<()> {
        self.open()?.observe_prefill(tokens, duration(seconds)?);
        Ok(())
    }

    /// Waits until every page of the arena exists; false when the time passed first.
    #[pyo3(signature = (timeout_s=60.0))]
    fn wait_ready(&self, py: Python<'_>, timeout_s: f64) -> PyResult<bool> {
        let (store, deadline) = (self.open()?, timeout(timeout_s)?);
        Ok(py.detach(|| store.arena().wait_ready(deadline)))
    }

    /// Whether an agent answers for this arena now.
    fn agent_answers(&self, py: Python<'_>) -> PyResult<bool> {
        let store = self.open()?;
        Ok(py.detach(|| Client::new(store.arena().path()).is_served()))
    }

    fn close(&self, py: Python<'_>) {
        let store = self.inner.write().take();
        py.detach(|| drop(store));
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, pyo3::types::PyTuple>) {
        self.close(py);
    }
}

pub(crate) fn duration(seconds: f64) -> PyResult<Duration> {
    let wrong = |_| PyValueError::new_err(format!("a duration is a number of seconds, not {seconds}"));
    Duration::try_from_secs_f64(seconds).map_err(wrong)
}

fn dict<'py>(py: Python<'py>, fields: &[(&str, u64)]) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    fields.iter().try_for_each(|(name, value)| dict.set_item(name, value))?;
    Ok(dict)
}

fn latency<'py>(py: Python<'py>, of: &Distribution) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("count", of.count())?;
    for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
        dict.set_item(name, of.quantile(share).map(|time| time.as_secs_f64() * 1e6))?;
    }
    Ok(dict)
}
