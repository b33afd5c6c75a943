"""What goes between the two sides of the connector: from the scheduler what to move, from the workers what was moved."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorMetadata, KVConnectorWorkerMetadata

from cascade_kv.vllm.identity import Scope


@dataclass
class Transfer:
    """Blocks of one request to load or to save.

    Attributes:
        request: vLLM's id of the request.
        rows: vLLM's block ids, which are rows of its paged tensors.
        hashes: vLLM's hashes of those blocks.
        scope: what the blocks are kept under.
        origins: to load: the tier that had each block when the request was first seen.
        again: to load: how many tokens of the last block are computed all the same.
    """

    request: str
    rows: list[int]
    hashes: list[bytes]
    scope: Scope = Scope()
    origins: list[str] = field(default_factory=list)
    again: int = 0


@dataclass
class Plan(KVConnectorMetadata):
    """One step's work.

    Attributes:
        step: number of the step.
        settled: the last step whose failed loads the scheduler has dealt with.
    """

    step: int
    settled: int
    loads: list[Transfer] = field(default_factory=list)
    saves: list[Transfer] = field(default_factory=list)


@dataclass
class Done(KVConnectorWorkerMetadata):
    """What the workers report of a step.

    Attributes:
        failed_step: the last step in which a load failed, 0 for none.
        stored: for each hash how many workers have newly stored it (kept only where KV events are on).
        errors: unexpected errors since the last report.
    """

    failed_step: int = 0
    stored: Counter[bytes] = field(default_factory=Counter)
    errors: int = 0

    def aggregate(self, other: KVConnectorWorkerMetadata) -> KVConnectorWorkerMetadata:
        """Both workers' reports in one."""
        if not isinstance(other, Done):
            return self
        failed_step = max(self.failed_step, other.failed_step)
        return Done(failed_step, self.stored + other.stored, self.errors + other.errors)
