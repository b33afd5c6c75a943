"""Counters of the connector, as vLLM logs and exports them."""

from __future__ import annotations

from typing import Any

from prometheus_client import Counter
from vllm.distributed.kv_transfer.kv_connector.v1.metrics import KVConnectorPromMetrics, KVConnectorStats

# Every counter and what it counts; Prometheus has them as `vllm:cascade_<name>`.
COUNTERS = {
    "tokens_saved_arena": "Prompt tokens not computed because the node's arena had their KV.",
    "tokens_saved_files": "Prompt tokens not computed because files had their KV.",
    "blocks_loaded": "Blocks copied from Cascade into vLLM's KV cache.",
    "blocks_failed": "Blocks that were found, could not be loaded and are recomputed.",
    "bytes_loaded": "Bytes copied from Cascade into vLLM's KV cache.",
    "blocks_stored": "Blocks newly stored in Cascade.",
    "blocks_present": "Blocks to be saved that Cascade had already.",
    "blocks_refused": "Blocks that Cascade did not take (full, throttled).",
    "bytes_stored": "Bytes newly stored in Cascade.",
    "saves_skipped": "Blocks not saved because they may follow from a load that failed.",
    "errors": "Unexpected errors inside the connector, each logged and survived.",
    "lookup_seconds": "Time of the scheduler inside Cascade.",
    "load_seconds": "Time of the worker's main thread loading.",
    "save_seconds": "Time of the worker's main thread saving.",
}


class CascadeStats(KVConnectorStats):
    """Counters since the last report; keys of :data:`COUNTERS`."""

    def add(self, name: str, amount: float = 1) -> None:
        """Count."""
        self.data[name] = self.data.get(name, 0) + amount

    def reset(self) -> None:
        """Forget all."""
        self.data = {}

    def aggregate(self, other: KVConnectorStats) -> KVConnectorStats:
        """Add another's counters."""
        for name, amount in other.data.items():
            self.add(name, amount)
        return self

    def reduce(self) -> dict[str, int | float]:
        """The counters for vLLM's log."""
        return {name: round(amount, 6) for name, amount in self.data.items()}

    def is_empty(self) -> bool:
        """Whether nothing was counted."""
        return not self.data


class CascadeProm(KVConnectorPromMetrics):
    """The counters as Prometheus metrics."""

    def __init__(self, vllm_config: Any, metric_types: Any, labelnames: Any, per_engine_labelvalues: Any) -> None:
        super().__init__(vllm_config, metric_types, labelnames, per_engine_labelvalues)
        counter = metric_types[Counter]
        self._counters = {
            name: counter(name=f"vllm:cascade_{name}", documentation=what, labelnames=labelnames)
            for name, what in COUNTERS.items()
        }

    def observe(self, transfer_stats_data: dict[str, Any], engine_idx: int = 0) -> None:
        """Add one report."""
        labels = self.per_engine_labelvalues[engine_idx]
        for name, amount in transfer_stats_data.items():
            if name in self._counters and amount > 0:
                self._counters[name].labels(*labels).inc(amount)
