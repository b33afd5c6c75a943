//! Ids and key spaces.

use cascade_core::{id, keyspace, units};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyString};

use crate::buffers::Buffer;
use crate::raise;

/// Id of a block: 32 bytes.
#[pyclass(frozen, eq, hash, ord, module = "cascade_kv")]
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct BlockId(pub(crate) id::BlockId);

#[pymethods]
impl BlockId {
    /// The id of a name.
    #[staticmethod]
    fn named(name: &str) -> Self {
        Self(id::BlockId::named(name))
    }

    /// The id of some bytes.
    #[staticmethod]
    fn content(py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<Self> {
        let buffer = Buffer::to_read(data)?;
        let bytes = buffer.bytes();
        Ok(Self(py.detach(|| id::BlockId::content(bytes))))
    }

    /// An id from its 32 bytes.
    #[staticmethod]
    fn from_bytes(data: &[u8]) -> PyResult<Self> {
        let bytes: [u8; 32] = data
            .try_into()
            .map_err(|_| PyValueError::new_err(format!("an id has 32 bytes, not {}", data.len())))?;
        Ok(Self(id::BlockId::from_bytes(bytes)))
    }

    /// An id from 64 hexadecimal digits.
    #[staticmethod]
    fn from_hex(text: &str) -> PyResult<Self> {
        text.parse().map(Self).map_err(|error| PyValueError::new_err(format!("{error}")))
    }

    /// 64 hexadecimal digits.
    fn hex(&self) -> String {
        self.0.to_hex()
    }

    fn __bytes__<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.0.as_bytes())
    }

    fn __repr__(&self) -> String {
        format!("BlockId({})", self.0.to_hex())
    }
}

/// An id, or a string that names one.
pub(crate) fn to_id(object: &Bound<'_, PyAny>) -> PyResult<id::BlockId> {
    if let Ok(id) = object.cast::<BlockId>() {
        return Ok(id.get().0);
    }
    if let Ok(name) = object.cast::<PyString>() {
        return Ok(id::BlockId::named(&name.to_string_lossy()));
    }
    Err(PyTypeError::new_err(format!("a BlockId or a string is needed, not {}", object.get_type())))
}

/// Ids, or strings that name some.
pub(crate) fn to_ids(objects: &Bound<'_, PyAny>) -> PyResult<Vec<id::BlockId>> {
    objects.try_iter()?.map(|object| to_id(&object?)).collect()
}

/// Everything that decides whether two models' blocks are the same.
#[pyclass(frozen, module = "cascade_kv")]
pub(crate) struct KeySpace {
    space: keyspace::KeySpace,
    root: cascade_core::chain::ChainRoot,
}

#[pymethods]
impl KeySpace {
    #[new]
    #[pyo3(signature = (*, model, dtype, layout, block_tokens, layers, kv_heads, weights=None, revision=None,
        quantisation=None, kv_group=None, head_range=None, layer_range=None, adapter=None, tenant_secret=None))]
    #[expect(clippy::too_many_arguments, reason = "a key space has as many fields; Python names them")]
    fn new(
        model: &str,
        dtype: &str,
        layout: &str,
        block_tokens: u32,
        layers: u32,
        kv_heads: u32,
        weights: Option<&str>,
        revision: Option<&str>,
        quantisation: Option<&str>,
        kv_group: Option<u32>,
        head_range: Option<(u32, u32)>,
        layer_range: Option<(u32, u32)>,
        adapter: Option<&str>,
        tenant_secret: Option<&[u8]>,
    ) -> PyResult<Self> {
        let mut builder = keyspace::KeySpace::builder(model)
            .dtype(dtype)
            .layout(layout)
            .block_tokens(block_tokens)
            .layers(layers)
            .kv_heads(kv_heads);
        if weights.is_some() == revision.is_some() {
            let what = "give exactly one of `weights` (a fingerprint of the parameters) and `revision`";
            return Err(PyValueError::new_err(what));
        }
        if let Some(weights) = weights {
            builder = builder.fingerprint(weights);
        }
        if let Some(revision) = revision {
            builder = builder.revision(revision);
        }
        if let Some(quantisation) = quantisation {
            builder = builder.quantisation(quantisation);
        }
        if let Some(group) = kv_group {
            builder = builder.kv_group(group);
        }
        if let Some((first, end)) = head_range {
            builder = builder.head_range(first..end);
        }
        if let Some((first, end)) = layer_range {
            builder = builder.layer_range(first..end);
        }
        if let Some(adapter) = adapter {
            builder = builder.adapter(adapter);
        }
        if let Some(secret) = tenant_secret {
            builder = builder.tenant_secret(secret);
        }
        let space = builder.build().map_err(|error| raise(error.into()))?;
        let root = space.root();
        Ok(Self { space, root })
    }

    /// Tokens of a block.
    #[getter]
    fn block_tokens(&self) -> u32 {
        self.space.block_tokens()
    }

    /// Name of the model.
    #[getter]
    fn model(&self) -> &str {
        self.space.model()
    }

    /// The ids of every whole block of `tokens`, each covering all tokens before it.
    #[pyo3(signature = (tokens, extra=None))]
    fn chain(
        &self,
        py: Python<'_>,
        tokens: Vec<u32>,
        extra: Option<Vec<Option<Vec<u8>>>>,
    ) -> PyResult<Vec<BlockId>> {
        let ids = py.detach(|| match extra {
            None => Ok(self.root.chain(&tokens)),
            Some(extra) => {
                let extras: Vec<&[u8]> = extra.iter().map(|one| one.as_deref().unwrap_or_default()).collect();
                self.root.chain_with(&tokens, &extras)
            }
        });
        let ids = ids.map_err(|error| raise(error.into()))?;
        Ok(ids.into_iter().map(BlockId).collect())
    }

    /// An engine's own block hash as an id of this key space.
    fn foreign(&self, hash: &[u8]) -> BlockId {
        BlockId(id::BlockId::foreign(&self.root, hash))
    }

    /// Many of them.
    fn foreign_batch(&self, hashes: Vec<PyBackedBytes>) -> Vec<BlockId> {
        hashes.iter().map(|hash| BlockId(id::BlockId::foreign(&self.root, hash))).collect()
    }

    fn __repr__(&self) -> String {
        format!("{:?}", self.space)
    }
}

/// Bytes of a size such as `512MiB`.
#[pyfunction]
pub(crate) fn parse_size(text: &str) -> PyResult<u64> {
    units::parse_size(text).map_err(raise)
}
