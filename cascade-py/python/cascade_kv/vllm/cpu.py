"""vLLM's tiered offloading on CPUs, where vLLM itself has it for accelerators only: pages are copied by the CPU.

Spec `CascadeCpuTieringSpec`. Everything but the copies between vLLM's KV cache and its host rows is vLLM's own code.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from vllm.v1.kv_offload.base import OffloadingWorker, TransferResult
from vllm.v1.kv_offload.cpu.shared_offload_region import SharedOffloadRegion
from vllm.v1.kv_offload.tiering.spec import TieringOffloadingSpec


class CpuCopyWorker(OffloadingWorker):
    """Copies pages to and from the host rows when it is asked to; done on return."""

    def __init__(self, caches: Any, blocks_per_chunk: int, region: SharedOffloadRegion) -> None:
        self._per_chunk = blocks_per_chunk
        self._region = region
        self._pages = [one.tensor.view(torch.int8).view(-1, one.page_size_bytes) for one in caches.tensors]
        self._rows = [region.create_next_worker_view(one.page_size_bytes * blocks_per_chunk) for one in caches.tensors]
        self._refs = caches.group_data_refs
        self._done: list[TransferResult] = []

    def submit_store(self, job_id: int, src_spec: Any, dst_spec: Any) -> bool:
        """Pages to rows."""
        return self._run(job_id, src_spec, dst_spec, to_rows=True)

    def submit_load(self, job_id: int, src_spec: Any, dst_spec: Any, **_later: Any) -> bool:
        """Rows to pages."""
        return self._run(job_id, dst_spec, src_spec, to_rows=False)

    def _run(self, job_id: int, pages: Any, chunks: Any, *, to_rows: bool) -> bool:
        start = time.perf_counter()
        copied = self._copy(pages, chunks, to_rows=to_rows)
        self._done.append(TransferResult(job_id, True, copied, time.perf_counter() - start))
        return True

    def _copy(self, pages: Any, chunks: Any, *, to_rows: bool) -> int:
        copied = block = chunk = 0
        for group, (count, index) in enumerate(zip(pages.group_sizes, pages.block_indices, strict=True)):
            if count == 0:
                continue
            skip = index % self._per_chunk
            for at in range(count):
                step, place = divmod(at + skip, self._per_chunk)
                row = int(chunks.block_ids[chunk + step])
                for ref in self._refs[group]:
                    page = self._pages[ref.tensor_idx][int(pages.block_ids[block + at])]
                    host = self._rows[ref.tensor_idx][row, place * len(page) : (place + 1) * len(page)]
                    if to_rows:
                        host.copy_(page)
                    else:
                        page.copy_(host)
                    copied += len(page)
            block += count
            chunk += -(-(count + skip) // self._per_chunk)
        return copied

    def get_finished(self) -> list[TransferResult]:
        """What was done since the last call."""
        done, self._done = self._done, []
        return done

    def wait(self, job_ids: set[int]) -> None:
        """Everything is done on return."""

    def shutdown(self) -> None:
        """Let go of the host rows."""
        self._pages, self._rows = [], []
        self._region.cleanup()


class CascadeCpuTieringSpec(TieringOffloadingSpec):
    """`TieringOffloadingSpec` with :class:`CpuCopyWorker`."""

    def get_worker(self, kv_caches: Any) -> OffloadingWorker:
        """The worker's side."""
        if not self._worker:
            region = SharedOffloadRegion(
                engine_id=self._engine_id,
                num_chunks=self.num_chunks,
                rank=self.config.parallel.rank,
                kv_bytes_per_chunk=self.kv_bytes_per_chunk,
                cpu_page_size=self.cpu_page_size_per_worker,
            )
            self._worker = CpuCopyWorker(kv_caches, self.blocks_per_chunk, region)
        return self._worker
