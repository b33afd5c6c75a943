"""Keep the KV cache of Hugging Face Transformers models in a Cascade store, by prefix chain.

The longest stored prefix of a prompt is loaded, only the rest is prefilled:

    import cascade_kv as ck
    from cascade_kv.transformers import PrefixCache

    with ck.Store(shm_path="/dev/shm/kv", shm_capacity="8GiB") as store:
        prefixes = PrefixCache(store, model)
        cache, n = prefixes.load(ids[0])                       # ids: [1, T]
        out = model(input_ids=ids[:, n:], past_key_values=cache, use_cache=True)
        prefixes.save(ids[0], out.past_key_values)

One block holds the keys and values of `block_tokens` tokens, contiguous, as
``[layers, 2 (keys, values), kv_heads, block_tokens, head_dim]``. Its id follows from the key space (model, weights,
dtype, layout, tenant) and all tokens up to its end, so it is known before any prefill, in every process.

Bit-equality: loaded blocks are the bytes that were saved. Logits equal those of the same split into forward passes;
another split of the same prompt may differ in the last bits, as it does in Transformers itself.

With a model on a GPU and a store that keeps blocks there (`gpu_capacity`), keys and values go from and to device memory without
a copy in pageable memory.

Limits: batch of one without left padding; plain full-attention layers (anything else raises
:class:`UnsupportedCacheError` with the reason); the model on one device.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from transformers import DynamicCache

from cascade_kv import BlockId, KeySpace
from cascade_kv._transformers_model import (
    Geometry,
    UnsupportedCacheError,
    check_layers,
    fingerprint,
    geometry_of,
    has_adapter,
    weights_version,
)

if TYPE_CHECKING:
    from cascade_kv import Store

__all__ = ["Geometry", "PrefixCache", "PrefixStats", "SaveReport", "UnsupportedCacheError"]

# Keys and values of this layout; the number is the major version of Transformers whose cache has it.
_LAYOUT = "hf5:L2HTD"

# Host memory of one batch of puts, and bytes pinned by the leases of one batch of loads.
_BATCH_BYTES = 64 << 20

# Blocks that only files have are waited for so long before they are read one by one.
_PREFETCH_SECONDS = 60.0

Tokens: TypeAlias = Sequence[int] | np.ndarray | torch.Tensor


@dataclass(frozen=True, slots=True)
class SaveReport:
    """What one :meth:`PrefixCache.save` did.

    Attributes:
        tokens: leading tokens whose blocks are now in the store (whole blocks, without a gap).
        blocks: whole blocks that the cache covers.
        present: blocks that were there already; they were neither gathered nor copied.
        stored: blocks newly stored.
        refused: reason -> number of blocks that the store did not take (throttled, full); the rest is stored all the same.
        bytes_stored: payload bytes newly stored.
        seconds: wall time of the call.
    """

    tokens: int
    blocks: int
    present: int
    stored: int
    refused: dict[str, int]
    bytes_stored: int
    seconds: float


@dataclass(slots=True)
class PrefixStats:
    """Running totals of one :class:`PrefixCache`; tokens, bytes and seconds."""

    loads: int = 0
    tokens_asked: int = 0
    tokens_loaded: int = 0
    bytes_loaded: int = 0
    load_seconds: float = 0.0
    shortened: int = 0  # loads that ended early: a block vanished or failed its check after the lookup
    saves: int = 0
    blocks_present: int = 0
    blocks_stored: int = 0
    bytes_stored: int = 0
    save_seconds: float = 0.0
    refused: Counter[str] = field(default_factory=Counter)


class PrefixCache:
    """Loads and saves the KV cache of one model as prefix blocks.

    Args:
        store: an open `cascade_kv.Store`; it must outlive this object.
        model: a decoder-only Transformers model with its weights loaded, on one device.
        block_tokens: tokens in a block; part of the key space, so every process must use the same.
        tenant_secret: at least 16 bytes; only holders of the same secret find these blocks.
        adapter: name of the active PEFT adapter; required when the model carries one.
        prefix: class the blocks as shared prefixes, which outlive ordinary blocks under eviction.
        plan: load only as many blocks as are estimated to be quicker than their prefill, once `store.observe_prefill` was
            told of prefills; else every stored one.

    The weights are fingerprinted here, once, and again whenever a parameter was replaced or written in place (writes
    through `.data` escape that check: make a new PrefixCache after them).

    Raises:
        UnsupportedCacheError: the model's cache cannot be kept by prefix blocks.
        ValueError: `block_tokens` is not positive.
    """

    def __init__(
        self,
        store: Store,
        model: Any,
        *,
        block_tokens: int = 64,
        tenant_secret: bytes | None = None,
        adapter: str | None = None,
        prefix: bool = True,
        plan: bool = False,
    ) -> None:
        if block_tokens < 1:
            raise ValueError(f"block_tokens must be at least 1, got {block_tokens}")
        if adapter is None and has_adapter(model):
            raise UnsupportedCacheError("the model carries a PEFT adapter: name the active one with adapter='...'")
        self.geometry: Geometry = geometry_of(model)
        self.block_tokens: int = block_tokens
        self.stats: PrefixStats = PrefixStats()
        self._store = store
        self._model = model
        self._tenant_secret = tenant_secret
        self._adapter = adapter
        self._prefix = prefix
        self._on_device = model.device.type == "cuda" and "hbm" in store.stats()["tiers"]
        self._plan = plan
        store.set_block_tokens(block_tokens)
        self._version = weights_version(model)
        self._key_space = self._make_key_space()

    @property
    def block_bytes(self) -> int:
        """Payload bytes of one block."""
        return self.geometry.token_bytes * self.block_tokens

    def block_ids(self, tokens: Tokens, extra: Sequence[bytes | None] | None = None) -> list[BlockId]:
        """Ids of the whole blocks of `tokens` (shape [T] or [1, T]), in order.

        Args:
            extra: for each whole block, bytes that its content depends on besides the tokens (a cache salt), or None.
        """
        return self._ids(_token_list(tokens), extra)

    def load(self, tokens: Tokens, *, extra: Sequence[bytes | None] | None = None) -> tuple[DynamicCache, int]:
        """Load the longest stored prefix of a prompt.

        At least one token is always left over, because the next logits need a forward pass of one token.

        Args:
            tokens: the whole prompt, token ids, shape [T] or [1, T].
            extra: as for :meth:`block_ids`.

        Returns:
            A `DynamicCache` on the model's device, layers of shape [1, kv_heads, n, head_dim], and n, the number of
            leading tokens in it: a multiple of `block_tokens`, 0 on a miss (then the cache is empty). A block that is
            evicted or damaged ends the prefix before it.

        Raises:
            ValueError: `tokens` is not one sequence of token ids.
        """
        start = time.perf_counter()
        prompt = _token_list(tokens)
        usable = max(len(prompt) - 1, 0) // self.block_tokens
        ids = self._ids(prompt, extra)[:usable]
        found = self._found(ids)
        data = self._empty(found)
        copy = self._copy_on_device if self._on_device else self._copy_leased
        blocks = copy(ids[:found], data)
        if blocks < found:
            self.stats.shortened += 1
            # A fresh tensor: kernels may choose another path, with other last bits, for other strides.
            data = data[..., : blocks * self.block_tokens, :].contiguous()
        cache = self._to_cache(data)
        count = blocks * self.block_tokens
        self._count_load(len(prompt), count, time.perf_counter() - start)
        return cache, count

    def save(self, tokens: Tokens, cache: Any, *, extra: Sequence[bytes | None] | None = None) -> SaveReport:
        """Store the whole blocks of a cache that are not stored yet.

        Args:
            tokens: ids of the tokens whose keys and values are in `cache`, from position 0, shape [T] or [1, T]. After
                `generate` the last token has none yet; tokens beyond the cache are ignored, and so is cache beyond them.
            cache: the model's `DynamicCache`, batch of one.
            extra: as for :meth:`block_ids`.

        Raises:
            UnsupportedCacheError: another kind of cache, or layers that differ in shape or dtype from the model's.
            ValueError: a batch other than one, or `tokens` is not one sequence of token ids.
        """
        start = time.perf_counter()
        layers = self._checked_layers(cache)
        prompt = _token_list(tokens)
        covered = min(len(prompt), layers[0][0].shape[2] if layers else 0)
        ids = self._ids(prompt, extra)[: covered // self.block_tokens]
        missing = [i for i, length in enumerate(self._store.lookup(ids)) if length is None]
        outcome: Counter[str] = Counter()
        failed: set[int] = set()
        for batch in _runs(missing, max(1, _BATCH_BYTES // self.block_bytes)):
            results = self._put([ids[i] for i in batch], self._gather(layers, batch))
            for index, result in zip(batch, results, strict=True):
                outcome[str(result)] += 1
                if str(result) not in ("stored", "exists"):
                    failed.add(index)
        return self._report(ids, missing, outcome, failed, time.perf_counter() - start)

    # --- keys -----------------------------------------------------------------------------------------------------

    def _make_key_space(self) -> KeySpace:
        geometry = self.geometry
        return KeySpace(
            model=self._model.config.model_type,
            weights=fingerprint(self._model),
            dtype=str(geometry.dtype).removeprefix("torch."),
            layout=f"{_LAYOUT}:D{geometry.head_dim}",
            block_tokens=self.block_tokens,
            layers=geometry.layers,
            kv_heads=geometry.kv_heads,
            adapter=self._adapter,
            tenant_secret=self._tenant_secret,
        )

    def _ids(self, prompt: list[int], extra: Sequence[bytes | None] | None) -> list[BlockId]:
        version = weights_version(self._model)
        if version != self._version:
            self._key_space = self._make_key_space()
            self._version = version
        return self._key_space.chain(prompt, extra=extra)

    # --- loading --------------------------------------------------------------------------------------------------

    def _empty(self, blocks: int) -> torch.Tensor:
        """Uninitialised memory for `blocks` blocks, shape [layers, 2, kv_heads, tokens, head_dim]: the device's, or the host's."""
        g = self.geometry
        shape = (g.layers, 2, g.kv_heads, blocks * self.block_tokens, g.head_dim)
        if self._on_device:
            return torch.empty(shape, dtype=g.dtype, device=self._model.device)
        return torch.empty(shape, dtype=g.dtype, pin_memory=blocks > 0 and self._model.device.type == "cuda")

    def _copy_on_device(self, ids: list[BlockId], data: torch.Tensor) -> int:
        """Copy stored blocks to their place in device memory; the number of leading blocks that were really there."""
        g = self.geometry
        shape = (g.layers, 2, g.kv_heads, self.block_tokens, g.head_dim)
        below = [id_ for id_, place in zip(ids, self._store.locate(ids), strict=True) if place and place[0] == "files"]
        if below:
            # Files are read several at once; what does not come in time is read when its turn comes.
            self._store.prefetch(below, timeout_s=_PREFETCH_SECONDS)
        for index, id_ in enumerate(ids):
            place = data[:, :, :, index * self.block_tokens : (index + 1) * self.block_tokens]
            lease = self._store.get_gpu_ptr(id_)
            if lease is not None and len(lease) == self.block_bytes:
                # The lease ends behind this copy, on the stream that torch told it.
                place.copy_(lease.torch(g.dtype, shape))
                continue
            block = torch.empty(shape, dtype=g.dtype, device=data.device)
            if self._store.get(id_, block) != self.block_bytes:
                return index
            place.copy_(block)
        return len(ids)

    def _found(self, ids: list[BlockId]) -> int:
        """How many leading blocks to load: all that are there, or as many as are worth it."""
        if not ids:
            return 0
        if self._plan:
            return int(self._store.plan(ids, self.block_tokens)["load"])
        return self._store.longest_prefix(ids)

    def _copy_leased(self, ids: list[BlockId], host: torch.Tensor) -> int:
        """Copy stored blocks to their place in `host`; the number of leading blocks that were really there."""
        target = host.view(torch.uint8).numpy()  # NumPy has no bfloat16; bytes serve every dtype
        step = max(1, _BATCH_BYTES // self.block_bytes)
        for first in range(0, len(ids), step):
            leases = self._store.lease_batch(ids[first : first + step])
            try:
                for offset, lease in enumerate(leases):
                    if lease is None or not self._copy_block(lease, target, first + offset):
                        return first + offset
            finally:
                for lease in leases:
                    if lease is not None:
                        lease.release()
        return len(ids)

    def _copy_block(self, lease: Any, target: np.ndarray, block: int) -> bool:
        if len(lease) != self.block_bytes:
            return False
        begin = block * self.block_tokens
        place = target[:, :, :, begin : begin + self.block_tokens]
        # The lease is read-only memory of the arena: it is only ever read, and nothing of it is kept.
        np.copyto(place, lease.numpy(np.uint8, place.shape))
        return True

    def _to_cache(self, host: torch.Tensor) -> DynamicCache:
        cache = DynamicCache(config=self._model.config)
        if host.shape[3] == 0:
            return cache
        data = host.to(self._model.device)
        for layer, (keys, values) in zip(cache.layers, data.unsqueeze(2), strict=True):
            # `DynamicCache(data, config=...)` would copy every layer once more (it concatenates with an empty tensor).
            layer.lazy_initialization(keys, values)
            layer.keys, layer.values = keys, values
        return cache

    def _count_load(self, asked: int, loaded: int, seconds: float) -> None:
        stats = self.stats
        stats.loads += 1
        stats.tokens_asked += asked
        stats.tokens_loaded += loaded
        stats.bytes_loaded += loaded * self.geometry.token_bytes
        stats.load_seconds += seconds

    # --- saving ---------------------------------------------------------------------------------------------------

    def _checked_layers(self, cache: Any) -> list[tuple[torch.Tensor, torch.Tensor]]:
        g = self.geometry
        check_layers(cache, g.layers)
        if cache.get_seq_length() == 0:
            return []
        layers = [(layer.keys, layer.values) for layer in cache.layers]
        batch, _, tokens, _ = layers[0][0].shape
        if batch != 1:
            raise ValueError(
                f"the cache holds a batch of {batch} sequences; save them one by one, each in a batch of 1"
            )
        for index, tensor in ((i, t) for i, pair in enumerate(layers) for t in pair):
            want = (1, g.kv_heads, tokens, g.head_dim)
            if tuple(tensor.shape) != want or tensor.dtype != g.dtype:
                raise UnsupportedCacheError(
                    f"layer {index} holds {list(tensor.shape)} {tensor.dtype}, the model's configuration says "
                    f"{list(want)} {g.dtype}: layers of differing shape or dtype (MLA, autocast) are not supported"
                )
        return layers

    def _put(self, ids: list[BlockId], blocks: torch.Tensor) -> list[str]:
        """Store adjacent blocks, shape [blocks, ...]; a result for each."""
        if self._on_device:
            return [
                str(self._store.put(id_, block, prefix=self._prefix)) for id_, block in zip(ids, blocks, strict=True)
            ]
        payload = blocks.cpu().view(torch.uint8).numpy().reshape(len(ids), self.block_bytes)
        return [str(result) for result in self._store.put_batch(ids, list(payload), prefix=self._prefix)]

    def _gather(self, layers: list[tuple[torch.Tensor, torch.Tensor]], batch: range) -> torch.Tensor:
        """Adjacent blocks, shape [blocks, layers, 2, kv_heads, tokens, head_dim], gathered where the cache lives."""
        g = self.geometry
        span = slice(batch.start * self.block_tokens, batch.stop * self.block_tokens)
        shape = (len(batch), g.layers, 2, g.kv_heads, self.block_tokens, g.head_dim)
        staging = torch.empty(shape, dtype=g.dtype, device=layers[0][0].device)
        for index, pair in enumerate(layers):
            for which, tensor in enumerate(pair):
                cut = tensor[0, :, span].unflatten(1, (len(batch), self.block_tokens))
                staging[:, index, which].copy_(cut.transpose(0, 1))
        return staging

    def _report(
        self, ids: list[BlockId], missing: list[int], outcome: Counter[str], failed: set[int], seconds: float
    ) -> SaveReport:
        stored = outcome.pop("stored", 0)
        present = len(ids) - len(missing) + outcome.pop("exists", 0)
        leading = min(failed, default=len(ids))
        stats = self.stats
        stats.saves += 1
        stats.blocks_present += present
        stats.blocks_stored += stored
        stats.bytes_stored += stored * self.block_bytes
        stats.save_seconds += seconds
        stats.refused.update(outcome)
        return SaveReport(
            tokens=leading * self.block_tokens,
            blocks=len(ids),
            present=present,
            stored=stored,
            refused=dict(outcome),
            bytes_stored=stored * self.block_bytes,
            seconds=seconds,
        )


def _token_list(tokens: Any) -> list[int]:
    """Token ids as plain integers, from shape [T] or [1, T]."""
    if isinstance(tokens, (torch.Tensor, np.ndarray)):
        if tokens.ndim == 2 and tokens.shape[0] == 1:
            tokens = tokens[0]
        if tokens.ndim != 1:
            raise ValueError(
                f"tokens must be one sequence, shape [T] or [1, T], got {list(tokens.shape)}: batch size must be 1"
            )
        return [int(token) for token in tokens.tolist()]
    listed = list(tokens)
    if listed and not isinstance(listed[0], (int, np.integer)):
        raise ValueError("tokens must be one flat sequence of token ids: batch size must be 1")
    return [int(token) for token in listed]


def _runs(indices: list[int], longest: int) -> Iterator[range]:
    """Cut sorted indices into runs of adjacent ones, each of at most `longest`."""
    at = 0
    while at < len(indices):
        end = at + 1
        while end < len(indices) and end - at < longest and indices[end] == indices[end - 1] + 1:
            end += 1
        yield range(indices[at], indices[end - 1] + 1)
        at = end
