"""A secondary tier of vLLM's own offloading: chunks that leave its host memory stay in Cascade.

"secondary_tiers": [{"type": "cascade", "shm_path": "/dev/shm/kv", "shm_capacity_bytes": 8589934592}]

The connector above is `CascadeOffloadingConnector`: vLLM's own, which says what the key of a chunk leaves out.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

from vllm.logger import init_logger
from vllm.v1.kv_offload.base import (
    Locality,
    LookupResult,
    Medium,
    OffloadingEvent,
    OffloadKey,
    ReqContext,
    RequestOffloadingContext,
)
from vllm.v1.kv_offload.tiering.base import JobResult, SecondaryTierManager, TransferJob

from cascade_kv import BlockId, KeySpace
from cascade_kv.vllm.identity import UnsupportedModelError, checkpoint_fingerprint, digest
from cascade_kv.vllm.offloading import ENGINE
from cascade_kv.vllm.settings import Settings, SharedStore

logger = init_logger(__name__)

# Settings of the connector alone.
_NOT_HERE = ("load_async", "save_async", "by_layer", "save_decode", "pending_ms")


class CascadeTier(SecondaryTierManager):
    """Stores and loads vLLM's chunks; lookups are answered at once from the node's memory.

    A chunk is what vLLM keeps of `blocks_per_chunk` blocks, of all layers and workers, in one row of its host memory.
    """

    medium: ClassVar[Medium] = Medium.STORAGE

    def __init__(
        self,
        offloading_spec: Any,
        primary_kv_view: memoryview,
        tier_type: str,
        backpressure_detector: Any = None,
        locality: str | None = None,
        threads: int = 2,
        **extra: Any,
    ) -> None:
        """Open the store.

        Args:
            threads: threads that copy.
            extra: settings of the store, and `weights_fingerprint`, `tenant_secret`, `prefix`.

        Raises:
            ValueError, OSError, MemoryError: a wrong setting; the store cannot be opened; no weights to fingerprint; the
                connector above is vLLM's own, and `weights_fingerprint` is not set.
        """
        super().__init__(offloading_spec, primary_kv_view, tier_type, backpressure_detector)
        wrong = [name for name in _NOT_HERE if name in extra]
        if wrong:
            raise ValueError(f"{', '.join(wrong)}: settings of CascadeConnector, not of the tier")
        if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= 64:
            raise ValueError(f"threads = {threads!r}: 1 to 64")
        settings = Settings.from_extra(extra)
        self.locality = Locality(locality) if locality else None
        self._prefix = settings.prefix
        self._config, self._settings = offloading_spec.config, settings
        self._epoch = self._present_epoch()
        self._space = _key_space(offloading_spec.config, self.block_size_bytes, settings)
        self._flat = primary_kv_view.cast("B")
        self._shared = SharedStore(settings.store)
        self._threads = ThreadPoolExecutor(threads, "cascade-tier")
        self._lock = threading.Condition()
        self._finished: list[JobResult] = []
        self._in_flight = 0
        # What a load could not bring: asked again, the request would be offered the same block for ever.
        self._missed: set[OffloadKey] = set()
        wanted = offloading_spec.config.enable_kv_cache_events
        self._events: list[OffloadingEvent] | None = [] if wanted else None

    def on_new_request(self, req_context: ReqContext) -> RequestOffloadingContext:
        """Chunk by chunk."""
        return RequestOffloadingContext()

    def lookup(self, key: OffloadKey, req_context: ReqContext) -> LookupResult:
        """Hit or miss, without waiting."""
        if key in self._missed:
            return LookupResult.MISS
        try:
            found = self._shared.store.contains(self._id(key))
        except Exception:
            logger.exception("Cascade: a lookup failed")
            return LookupResult.MISS
        return LookupResult.HIT if found else LookupResult.MISS

    def _present_epoch(self) -> str:
        return str(self._config.extra_config.get(ENGINE, {}).get("epoch", ""))

    def _id(self, key: OffloadKey) -> BlockId:
        if self._epoch != (now := self._present_epoch()):
            self._space = _key_space(self._config, self.block_size_bytes, self._settings)
            self._epoch = now
        return self._space.foreign(bytes(key))

    def _row(self, chunk: int) -> memoryview:
        size = self.block_size_bytes
        return self._flat[chunk * size : (chunk + 1) * size]

    def submit_store(self, job_metadata: TransferJob) -> None:
        """Begin to store chunks."""
        self._submit(job_metadata, self._store)

    def submit_load(self, job_metadata: TransferJob) -> None:
        """Begin to load chunks."""
        self._submit(job_metadata, self._load)

    def _submit(self, job: TransferJob, work: Any) -> None:
        with self._lock:
            self._in_flight += 1
        try:
            rows = [self._row(int(chunk)) for chunk in job.chunk_ids]
            self._threads.submit(self._run, job, work, rows)
        except Exception:
            # vLLM waits for the end of every job.
            logger.exception("Cascade: job %d could not begin", job.job_id)
            self._end(job, [], 0.0)

    def _run(self, job: TransferJob, work: Any, rows: list[memoryview]) -> None:
        start = time.monotonic()
        try:
            good = work(list(job.keys), rows)
        except Exception:
            logger.exception("Cascade: job %d failed", job.job_id)
            good = []
        self._end(job, good, time.monotonic() - start)

    def _end(self, job: TransferJob, good: list[OffloadKey], seconds: float) -> None:
        count = len(list(job.keys))
        if job.is_promotion:
            self._missed.update(set(job.keys) - set(good))
        done = JobResult(
            job_id=job.job_id,
            success=len(good) == count,
            successful_keys=tuple(good) if len(good) < count else None,
            transfer_time=seconds,
            transfer_bytes=len(good) * self.block_size_bytes,
        )
        with self._lock:
            self._finished.append(done)
            self._in_flight -= 1
            self._lock.notify_all()

    def _store(self, keys: list[OffloadKey], rows: list[memoryview]) -> list[OffloadKey]:
        results = self._shared.store.put_batch([self._id(key) for key in keys], rows, prefix=self._prefix)
        stored = [key for key, result in zip(keys, results, strict=True) if result == "stored"]
        self._missed.difference_update(
            key for key, result in zip(keys, results, strict=True) if result in ("stored", "exists")
        )
        if self._events is not None and stored:
            event = OffloadingEvent(keys=stored, medium=self.medium, removed=False, locality=self.locality)
            self._events.append(event)
        # A chunk that the store has no room for is a later miss, no failure.
        return keys

    def _load(self, keys: list[OffloadKey], rows: list[memoryview]) -> list[OffloadKey]:
        lengths = self._shared.store.get_batch([self._id(key) for key in keys], rows)
        size = self.block_size_bytes
        return [key for key, length in zip(keys, lengths, strict=True) if length == size]

    def get_finished_jobs(self) -> Iterable[JobResult]:
        """What has ended since the last call."""
        with self._lock:
            done, self._finished = self._finished, []
        return done

    def has_pending_work(self) -> bool:
        """Whether results are to come: an idle engine asks on."""
        return self._in_flight > 0 or bool(self._finished)

    def take_events(self) -> Iterable[OffloadingEvent]:
        """Chunks newly stored."""
        if not self._events:
            return ()
        events, self._events = self._events, []
        return events

    def touch(self, keys: Collection[OffloadKey], req_context: ReqContext) -> None:
        """The store counts what it is asked for by itself."""

    def drain_jobs(self) -> None:
        """Wait until nothing reads or writes vLLM's rows."""
        with self._lock:
            self._lock.wait_for(lambda: self._in_flight == 0)

    def shutdown(self) -> None:
        """End the threads and close the store."""
        self._threads.shutdown(wait=True)
        self._flat.release()
        self._shared.close()


def _key_space(config: Any, row_bytes: int, settings: Settings) -> KeySpace:
    """What vLLM's key of a chunk leaves out, from its offloading configuration."""
    parallel, cache = config.parallel, config.cache
    engine = config.extra_config.get(ENGINE)
    if engine is None and not settings.weights_fingerprint:
        raise UnsupportedModelError(
            "vLLM tells its tiers neither the model's configuration nor its quantisation: set kv_connector to "
            "CascadeOffloadingConnector, which does, or weights_fingerprint to a name for all that decides the values of the cache"
        )
    shape = {
        "groups": [[group.tokens_per_block, list(group.layer_names)] for group in config.groups],
        "chunk": [cache.tokens_per_hash, cache.blocks_per_chunk, row_bytes],
        "canonical": config.canonical_layout,
        "parallel": None
        if parallel.is_parallelism_agnostic
        else [parallel.tp_size, parallel.pp_size, parallel.pcp_size, parallel.dcp_size],
        "replicated": config.replicated_layout,
        "weights": settings.weights_fingerprint or checkpoint_fingerprint(*engine["weights"]),
        "engine": engine and [engine["config"], engine["epoch"]],
    }
    layers = sum(len(group.layer_names) for group in config.groups)
    return KeySpace(
        model="vllm-chunks",
        weights=digest(shape),
        dtype=str(config.model.dtype),
        layout=f"vllm1-tier:{config.kv_cache_layout}",
        block_tokens=cache.tokens_per_hash * cache.blocks_per_chunk,
        layers=layers,
        # Heads of all workers lie in one row, whose length is in the fingerprint.
        kv_heads=1,
        tenant_secret=settings.tenant_secret.encode() if settings.tenant_secret else None,
    )
