"""vLLM's KV connector over Cascade: the class that vLLM loads, in the scheduler and in each worker.

No exception leaves a method once the engine runs: a lookup that fails is a miss, a load that fails is reported by block and
recomputed, a save that fails is a later miss. At start it raises, with the reason, for what could not be right.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from vllm.distributed.kv_events import KVCacheEvent
from vllm.distributed.kv_transfer.kv_connector.v1.base import (
    KVConnectorBase_V1,
    KVConnectorMetadata,
    KVConnectorRole,
    KVConnectorWorkerMetadata,
    SupportsHMA,
)
from vllm.distributed.kv_transfer.kv_connector.v1.metrics import KVConnectorPromMetrics, KVConnectorStats
from vllm.logger import init_logger
from vllm.v1.metrics.cache_hit_source import CacheHitSource

from cascade_kv.vllm.identity import Identity, check_supported
from cascade_kv.vllm.metrics import CascadeProm, CascadeStats
from cascade_kv.vllm.scheduler import SchedulerSide
from cascade_kv.vllm.settings import Settings, SharedStore
from cascade_kv.vllm.transfer import Plan
from cascade_kv.vllm.worker import WorkerSide

logger = init_logger(__name__)

Method = TypeVar("Method", bound=Callable[..., Any])


def _survives(default: Callable[[], Any]) -> Callable[[Method], Method]:
    """Turns an exception into a logged, counted `default()`."""

    def decorate(method: Method) -> Method:
        @functools.wraps(method)
        def guarded(self: CascadeConnector, *args: Any, **kwargs: Any) -> Any:
            try:
                return method(self, *args, **kwargs)
            except Exception:
                self._erred(method.__name__)
                return default()

        return guarded  # type: ignore[return-value]

    return decorate


class CascadeConnector(KVConnectorBase_V1, SupportsHMA):
    """KV of prompts from and to Cascade: docs/vllm.md."""

    _cache_hit_source = CacheHitSource.HOST

    def __init__(self, vllm_config: Any, role: KVConnectorRole, kv_cache_config: Any) -> None:
        """Open the store.

        Raises:
            UnsupportedModelError: this model or configuration could not be right.
            ValueError, OSError, MemoryError: a wrong setting; the store cannot be opened.
        """
        super().__init__(vllm_config=vllm_config, role=role, kv_cache_config=kv_cache_config)
        transfer = self._kv_transfer_config
        if transfer.kv_load_failure_policy != "recompute":
            raise ValueError(
                'kv_load_failure_policy is "fail" (vLLM\'s default): a block that is evicted between lookup and load would '
                'fail its request. Set it to "recompute", as cascade_kv.vllm.kv_transfer_config does'
            )
        settings = Settings.from_extra(transfer.kv_connector_extra_config)
        check_supported(vllm_config, kv_cache_config)
        events = vllm_config.kv_events_config
        with_events = events is not None and events.enable_kv_cache_events
        identity = Identity(vllm_config, kv_cache_config, settings.weights_fingerprint, settings.tenant_secret)
        settings = settings.for_shards(identity.shards)
        self._shared = SharedStore(settings.store)
        self._scheduler: SchedulerSide | None = None
        self._worker: WorkerSide | None = None
        if role == KVConnectorRole.SCHEDULER:
            self._scheduler = SchedulerSide(self._shared.store, identity, settings, with_events)
        else:
            shard = vllm_config.parallel_config.rank % vllm_config.parallel_config.tensor_parallel_size
            self._worker = WorkerSide(self._shared.store, identity, settings, shard, with_events)

    def _erred(self, where: str) -> None:
        logger.exception("Cascade: unexpected error in %s; the engine goes on", where)
        side = self._scheduler or self._worker
        if side is not None:
            side.erred()

    @property
    def requires_kv_delivery(self) -> bool:
        """A save that is lost is a later miss."""
        return False

    @classmethod
    def requires_piecewise_for_cudagraph(cls, extra_config: dict[str, Any]) -> bool:
        """Layer by layer needs Python between the layers."""
        return bool(extra_config.get("by_layer", False))

    # --- scheduler ------------------------------------------------------------------------------------------------

    @_survives(lambda: (0, False))
    def get_num_new_matched_tokens(self, request: Any, num_computed_tokens: int) -> tuple[int | None, bool]:
        """As the base class."""
        if self._scheduler is None or self._scheduler.gave_up:
            return 0, False
        start = time.perf_counter()
        try:
            return self._scheduler.match(request, num_computed_tokens)
        finally:
            self._scheduler.count("lookup_seconds", time.perf_counter() - start)

    def update_state_after_alloc(self, request: Any, blocks: Any, num_external_tokens: int) -> None:
        """As the base class."""
        if self._scheduler is None:
            return
        try:
            self._scheduler.allocated(request, blocks, num_external_tokens)
        except Exception:
            self._erred("update_state_after_alloc")
            # A load that vLLM counts on and nobody makes would be a wrong answer.
            if num_external_tokens > 0:
                self._scheduler.refuse(request, blocks)

    @_survives(dict)
    def get_external_cache_hit_sources(self, request: Any, num_external_tokens: int) -> dict[CacheHitSource, int]:
        """As the base class."""
        if self._scheduler is None or num_external_tokens == 0:
            return {}
        return self._scheduler.sources(request, num_external_tokens)

    def build_connector_meta(self, scheduler_output: Any) -> KVConnectorMetadata:
        """As the base class."""
        if self._scheduler is None:
            return Plan(0, 0)
        plan = self._scheduler.plan()
        self._add_saves(self._scheduler, plan, scheduler_output)
        return plan

    @_survives(lambda: None)
    def _add_saves(self, scheduler: SchedulerSide, plan: Plan, output: Any) -> None:
        if not scheduler.gave_up:
            scheduler.add_saves(plan, output)

    @_survives(lambda: None)
    def update_connector_output(self, connector_output: Any) -> None:
        """As the base class."""
        if self._scheduler is not None:
            self._scheduler.reported(connector_output)

    @_survives(lambda: (False, None))
    def request_finished(self, request: Any, block_ids: list[int]) -> tuple[bool, dict[str, Any] | None]:
        """As the base class."""
        return self._scheduler is not None and self._scheduler.finished(request), None

    def request_finished_all_groups(
        self, request: Any, block_ids: tuple[list[int], ...]
    ) -> tuple[bool, dict[str, Any] | None]:
        """As the base class; there is one group."""
        return self.request_finished(request, block_ids[0] if block_ids else [])

    @_survives(tuple)
    def take_events(self) -> Iterable[KVCacheEvent]:
        """As the base class."""
        return list(self._scheduler.events()) if self._scheduler is not None else ()

    # --- worker ---------------------------------------------------------------------------------------------------

    def register_kv_caches(self, kv_caches: dict[str, Any]) -> None:
        """As the base class; raises ValueError at start for tensors that it cannot reach."""
        if self._worker is not None:
            self._worker.register(kv_caches, self._kv_cache_config)

    def _plan(self) -> Plan:
        plan = self._connector_metadata
        return plan if isinstance(plan, Plan) else Plan(0, 0)

    @_survives(lambda: None)
    def start_load_kv(self, forward_context: Any, **kwargs: Any) -> None:
        """As the base class."""
        if self._worker is not None:
            self._worker.start_loads(self._plan())

    def wait_for_layer_load(self, layer_name: str) -> None:
        """As the base class."""
        if self._worker is not None:
            self._worker.wait_layer(layer_name, self._plan())

    @_survives(lambda: None)
    def save_kv_layer(self, layer_name: str, kv_layer: Any, attn_metadata: Any, **kwargs: Any) -> None:
        """As the base class."""
        if self._worker is not None:
            self._worker.save_layer(layer_name, self._plan())

    @_survives(lambda: None)
    def wait_for_save(self) -> None:
        """As the base class."""
        if self._worker is not None:
            self._worker.finish_step(self._plan())

    @_survives(lambda: None)
    def handle_preemptions(self, kv_connector_metadata: KVConnectorMetadata) -> None:
        """As the base class."""
        if self._worker is not None:
            self._worker.wait_saves()

    @_survives(lambda: (None, None))
    def get_finished(self, finished_req_ids: set[str]) -> tuple[set[str] | None, set[str] | None]:
        """As the base class."""
        if self._worker is None:
            return None, None
        saved, loaded = self._worker.transfers_done(finished_req_ids)
        return saved or None, loaded or None

    @_survives(set)
    def get_block_ids_with_load_errors(self) -> set[int]:
        """As the base class."""
        return self._worker.take_bad() if self._worker is not None else set()

    @_survives(lambda: None)
    def build_connector_worker_meta(self) -> KVConnectorWorkerMetadata | None:
        """As the base class."""
        return self._worker.report() if self._worker is not None else None

    # --- both -----------------------------------------------------------------------------------------------------

    @_survives(lambda: None)
    def get_kv_connector_stats(self) -> KVConnectorStats | None:
        """As the base class."""
        side = self._scheduler or self._worker
        stats = side.take_stats() if side is not None else CascadeStats()
        return None if stats.is_empty() else stats

    @classmethod
    def build_kv_connector_stats(cls, data: dict[str, Any] | None = None) -> KVConnectorStats | None:
        """As the base class."""
        return CascadeStats(data=data or {})

    @classmethod
    def build_prom_metrics(
        cls, vllm_config: Any, metric_types: Any, labelnames: list[str], per_engine_labelvalues: Any
    ) -> KVConnectorPromMetrics:
        """As the base class."""
        return CascadeProm(vllm_config, metric_types, labelnames, per_engine_labelvalues)

    @_survives(lambda: False)
    def reset_cache(self) -> bool:
        """What was stored until now is not found by this engine any more: its weights may be others than those of the files.

        Others who share the store keep what they have; what this engine stores from now on is its own.
        """
        if self._scheduler is not None:
            self._scheduler.forget()
        return True

    @_survives(lambda: None)
    def shutdown(self) -> None:
        """As the base class."""
        for side in (self._scheduler, self._worker):
            if side is not None:
                side.close()
        self._shared.close()
