"""The prototype's store over many nodes, by its own names.

Where the package is built with MPI and the program was started by `srun` or `mpirun`, each process is a rank itself. Where it
is not, the node's agent asks the other nodes; a program that nobody started so is a world of one.
"""

from __future__ import annotations

import os
import sys
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ._connect import connect
from ._native import BlockId, Rank, Store, launched
from ._prototype import Settings

if TYPE_CHECKING:
    from typing_extensions import Buffer

_GIB = 1024**3
_MIB = 1024**2
_ALWAYS = "it cannot be switched off"
_NO_STAGING = "blocks go straight from arena to arena: there are no staging buffers"

# Seconds that an ending rank serves the others.
_PATIENCE_S = 10.0
_POLL_S = 0.005


class DistributedConfig(Settings):
    """The prototype's settings of a job, with its defaults.

    Used where they are set: `dram_capacity`, the arena of the node; `gpu_capacity_per_device`; `lustre_path`, files below, and
    `agg_file_size`, the size of one. Others come from the environment, as those of :class:`Store` do (``CASCADE_SHM_PATH``, ...).
    The rest warns when it is set to what does not hold here.
    """

    _defaults = {
        "gpu_capacity_per_device": 32 * _GIB,
        "dram_capacity": 64 * _GIB,
        "num_gpus_per_node": 4,
        "staging_buffer_size": 16 * _MIB,
        "num_staging_buffers": 32,
        "sync_metadata": True,
        "semantic_eviction": True,
        "prefix_replication": True,
        "dedup_enabled": True,
        "locality_aware": True,
        "promotion_threshold": 3,
        "kv_compression": False,
        "lustre_path": "",
        "aggregated_lustre": True,
        "agg_file_size": 256 * _MIB,
    }
    _replaced = {
        "num_gpus_per_node": (None, "gpu_devices of Store, or CASCADE_GPU_DEVICES, says which are used"),
        "staging_buffer_size": (None, _NO_STAGING),
        "num_staging_buffers": (None, _NO_STAGING),
        "sync_metadata": (True, f"what is put is told to the rank that keeps its entry: {_ALWAYS}"),
        "semantic_eviction": (True, f"prefix blocks outlive others: {_ALWAYS}"),
        "prefix_replication": (True, f"whoever gets a block of another node keeps a copy: {_ALWAYS}"),
        "dedup_enabled": (True, f"equal ids are stored once: {_ALWAYS}"),
        "locality_aware": (True, f"whoever gets a block of another node keeps a copy: {_ALWAYS}"),
        "promotion_threshold": (None, "a block of another node is copied to this one when it is first got"),
        "kv_compression": (False, "blocks are stored as they are: lossy compression is not offered"),
        "aggregated_lustre": (True, f"blocks are always kept in few large files: {_ALWAYS}"),
    }
    _native = {
        "gpu_capacity_per_device": "gpu_capacity",
        "dram_capacity": "shm_capacity",
        "lustre_path": "pfs_path",
        "agg_file_size": "pfs_segment",
    }

    def native(self) -> dict[str, str | int]:
        """The settings of :class:`Store` that were set here."""
        chosen = {self._native[name]: value for name, value in self._set.items() if name in self._native and value}
        if "pfs_path" in chosen:
            chosen["pfs_path"] = os.fspath(chosen["pfs_path"])
        elif "pfs_segment" in chosen:
            raise ValueError("agg_file_size without lustre_path: there are no files to apply it to")
        return chosen


@dataclass(frozen=True)
class BlockLocation:
    """Where a block is. `node_id` is a rank; -1 where it is not known (the agent does not say which), or in files."""

    node_id: int
    gpu_id: int
    offset: int
    size: int
    is_gpu: bool
    is_prefix: bool


class DistributedStore:
    """The prototype's store of a job. All ranks make one.

    An id stands for one content, as it does where it is a hash of the bytes: whoever stores it first has stored it for all.
    """

    def __init__(self, config: DistributedConfig | None = None) -> None:
        settings = config.native() if config is not None else {}
        self._rank, self._world_size, launcher = launched()
        self._member: Rank | None = None
        self._met = 0
        if Rank.IS_BUILT and self._world_size > 1:
            self._member = Rank(**settings)
            self._rank, self._world_size = self._member.rank, self._member.world_size
            self._store = self._member.store()
            # MPI is ended in good order by scripts that say nothing of it, too.
            self._leave = weakref.finalize(self, _leave, self._store, self._member)
            return
        if self._world_size == 1:
            self._store = Store(**settings)
        else:
            try:
                self._store = connect(**settings)
            except ConnectionError as error:
                raise ConnectionError(
                    f"{launcher} started this as rank {self._rank} of {self._world_size}, and this cascade_kv was built without "
                    f"MPI: {error}; or install a wheel with MPI (`cargo xtask wheel --mpi`)"
                ) from error
        self._leave = weakref.finalize(self, _leave, self._store, None)

    @property
    def rank(self) -> int:
        """Number of this process."""
        return self._rank

    @property
    def world_size(self) -> int:
        """Processes of the job."""
        return self._world_size

    @property
    def native(self) -> Store:
        """The native store underneath."""
        return self._store

    def put(self, block_id: str, data: Buffer, is_prefix: bool = False) -> bool:
        """Stores `data` on this node, for all: True when it is stored, or was. Nothing is sent but the word of it."""
        return self._store.put(_id(block_id), data, bool(is_prefix)) in ("stored", "exists")

    def get(self, block_id: str, out: Buffer) -> tuple[bool, int]:
        """Copies a block of any node into the front of `out`: (found, bytes). ValueError when it is too short."""
        size = self._store.get(_id(block_id), out)
        return (size is not None, size or 0)

    def contains(self, block_id: str) -> bool:
        """Whether some node has a block."""
        return self._store.place(_id(block_id)) is not None

    def locate(self, block_id: str) -> BlockLocation | None:
        """Where a block is: a hint, for it may leave at any moment."""
        block = _id(block_id)
        place = self._store.place(block)
        if place is None:
            return None
        tier, size, is_prefix, offset = place
        node = self._rank if tier in ("arena", "gpu") else -1
        if tier == "remote" and self._member is not None:
            owner = self._member.owner(block, 1.0)
            node, offset = owner if owner is not None else (-1, None)
        return BlockLocation(node, -1, -1 if offset is None else offset, size, tier == "gpu", is_prefix)

    def put_batch(self, block_ids: Sequence[str], arrays: Sequence[Buffer], is_prefix: bool = False) -> int:
        """Stores many blocks; how many are stored."""
        outcomes = self._store.put_batch([_id(name) for name in block_ids], arrays, bool(is_prefix))
        return sum(outcome in ("stored", "exists") for outcome in outcomes)

    def get_batch(self, block_ids: Sequence[str], outs: Sequence[Buffer]) -> tuple[int, list[int]]:
        """Copies many blocks: (how many were found, the bytes of each, 0 where it was not or its array is too short)."""
        sizes = self._store.get_batch([_id(name) for name in block_ids], outs)
        return (sum(size is not None for size in sizes), [size or 0 for size in sizes])

    def barrier(self, timeout_s: float = 60.0) -> None:
        """Returns once every rank has called it as often. TimeoutError when one does not come in time."""
        if self._member is not None:
            self._member.barrier(timeout_s)
        elif self._world_size > 1:
            self._meet(timeout_s)

    def sync_metadata(self, timeout_s: float = 60.0) -> None:
        """Returns when what was put here is told to the ranks that keep its entries.

        With an agent, which looks for what was put by itself and often, there is nothing to wait for."""
        if self._member is not None:
            self._member.publish(timeout_s)

    def get_stats(self) -> dict[str, int]:
        """Statistics of this rank; what is not there counts 0."""
        stats = self._store.stats()
        tiers, moves = stats["tiers"], stats["moves"]
        arena, files, gpu = tiers["arena"], tiers.get("files", {}), tiers.get("gpu", {})
        return {
            "gpu_used": gpu.get("used_bytes", 0),
            "dram_used": arena["used_bytes"],
            "local_gpu_hits": gpu.get("served", 0),
            "local_dram_hits": arena["served"],
            "remote_dram_hits": moves["remote_brought"],
            "lustre_hits": files.get("served", 0),
            "misses": stats["misses"],
            "dedup_hits": stats["exists"],
            "dram_evictions": arena["evictions"],
            "puts": arena["puts"],
        }

    def clear(self) -> None:
        """Forgets every block of this node. Each node's is cleared by a rank of it; what others hold can be got again."""
        self._store.clear()

    def flush(self) -> None:
        """Returns when what was put is as durable as the store makes it: in files, where there are any."""
        self._store.flush()

    def close(self) -> None:
        """Leaves the job. Every rank does, or the others wait for it some seconds; done at the end of the program otherwise."""
        self._leave()

    def __enter__(self) -> DistributedStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _meet(self, timeout_s: float) -> None:
        """A barrier by blocks that the agents bring: for each rank and meeting one of its own."""
        job = [os.environ.get(name) for name in ("SLURM_JOB_ID", "SLURM_STEP_ID")]
        if None in job:
            raise OSError(
                "barrier needs a wheel with MPI (`cargo xtask wheel --mpi`), or SLURM: with agents alone nothing else tells "
                "this job from an earlier one"
            )
        self._met += 1
        until = time.monotonic() + timeout_s

        def word(rank: int) -> BlockId:
            return _id(f"\0barrier {' '.join(map(str, job))} {self._met} {rank}")

        self._store.put(word(self._rank), b"here")
        for rank in range(self._world_size):
            while self._store.get(word(rank), bytearray(4)) is None:
                if time.monotonic() > until:
                    raise TimeoutError(
                        f"barrier: rank {rank} did not come in {timeout_s} s; every rank of the job must call it"
                    )
                time.sleep(_POLL_S)


def _id(name: str) -> BlockId:
    """What is the same on every node, and stands for one content; a name would be each node's own."""
    return BlockId.content(b"cascade distributed\0" + name.encode())


def _leave(store: Any, member: Rank | None) -> None:
    store.close()
    if member is not None and not member.leave(_PATIENCE_S):
        print("cascade: not every rank left the job, so MPI was not ended in good order", file=sys.stderr, flush=True)
