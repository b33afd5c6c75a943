"""The API of the C++ prototype, by its own names, over the native store.

A setting without a meaning here is accepted, and a warning says what takes its place. Nothing is ignored in silence.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ._native import BlockId, Store

if TYPE_CHECKING:
    from typing_extensions import Buffer

_GIB = 1024**3
_MIB = 1024**2

_DEFAULTS: dict[str, Any] = {
    "gpu_capacity_bytes": 32 * _GIB,
    "gpu_device_id": 0,
    "use_gpu": True,
    "shm_capacity_bytes": 64 * _GIB,
    "shm_path": "/dev/shm/cascade",
    "lustre_path": "",
    "lustre_stripe_size": _MIB,
    "lustre_stripe_count": 16,
    "dedup_enabled": True,
    "compression_enabled": True,
    "num_io_threads": 8,
    "semantic_eviction": True,
    "promotion_enabled": True,
    "prefetch_enabled": True,
    "prefetch_threads": 2,
    "prefetch_queue_size": 64,
    "kv_compression": False,
    "aggregated_lustre": False,
    "agg_file_size": 256 * _MIB,
}

_NO_GPU = "this version has no GPU tier: blocks live in shared memory"
_ALWAYS = "it cannot be switched off"
_PREFETCH = "one thread brings up what Store.prefetch asks for, and nothing is prefetched unasked"

# Settings of the native store that those of the files are; they need `lustre_path`.
_FILES = {
    "lustre_path": "pfs_path",
    "lustre_stripe_size": "pfs_stripe_size",
    "lustre_stripe_count": "pfs_stripe_count",
    "agg_file_size": "pfs_segment",
}

# What takes the place of a setting that a program changed, unless the value is one that holds anyway.
_REPLACED: dict[str, tuple[Any, str]] = {
    "gpu_capacity_bytes": (None, _NO_GPU),
    "gpu_device_id": (None, _NO_GPU),
    "use_gpu": (False, _NO_GPU),
    "aggregated_lustre": (True, f"blocks are always kept in few large files: {_ALWAYS}"),
    "dedup_enabled": (True, f"equal ids are stored once: {_ALWAYS}"),
    "semantic_eviction": (True, f"prefix blocks outlive others: {_ALWAYS}"),
    "compression_enabled": (False, "blocks are stored as they are"),
    "kv_compression": (False, "blocks are stored as they are: lossy compression is not offered"),
    "num_io_threads": (None, "the copy engine chooses its threads; CASCADE_COPY_THREADS sets them"),
    "promotion_enabled": (True, f"a hit in files that is worth it goes up to shared memory: {_ALWAYS}"),
    "prefetch_enabled": (None, _PREFETCH),
    "prefetch_threads": (None, _PREFETCH),
    "prefetch_queue_size": (None, _PREFETCH),
}


class Settings:
    """Settings of the prototype by their names, with its defaults; which were set is remembered."""

    _defaults: dict[str, Any] = {}
    _replaced: dict[str, tuple[Any, str]] = {}

    def __init__(self, **settings: Any) -> None:
        object.__setattr__(self, "_set", {})
        for name, value in settings.items():
            setattr(self, name, value)

    def __setattr__(self, name: str, value: Any) -> None:
        kind = type(self).__name__
        if name not in self._defaults:
            raise AttributeError(f"{kind} has no setting {name!r}; it has {', '.join(self._defaults)}")
        if name in self._replaced:
            holds, instead = self._replaced[name]
            if value != holds:
                warnings.warn(f"{kind}.{name} = {value!r} has no effect: {instead}", UserWarning, stacklevel=2)
        self._set[name] = value

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self._defaults:
            raise AttributeError(name)
        return self._set.get(name, self._defaults[name])

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self._set.items())})"


class CascadeConfig(Settings):
    """The prototype's settings, with its defaults.

    `shm_path` and `shm_capacity_bytes` are used as they are set; a capacity that is not set is min(64 GiB, half of what
    is free), or that of the arena that is there. With `lustre_path` there are files below it, on any file system:
    `lustre_stripe_size` and `lustre_stripe_count` are used where they are set and it is on Lustre, and `agg_file_size`
    where it is set is the size of a file. The others warn when they are set to what does not hold here.
    """

    _defaults = _DEFAULTS
    _replaced = _REPLACED


class CascadeStore:
    """The prototype's store. Block ids are strings of any length."""

    def __init__(self, config: CascadeConfig | None = None) -> None:
        chosen = config._set if config is not None else {}
        settings: dict[str, str | int] = {"shm_path": os.fspath(chosen.get("shm_path", _DEFAULTS["shm_path"]))}
        if "shm_capacity_bytes" in chosen:
            settings["shm_capacity"] = int(chosen["shm_capacity_bytes"])
        files = {name: chosen[name] for name in _FILES if chosen.get(name)}
        if "lustre_path" in files:
            settings |= {
                _FILES[name]: os.fspath(value) if name == "lustre_path" else int(value) for name, value in files.items()
            }
        elif files:
            warnings.warn(
                f"{', '.join(files)} without lustre_path: there are no files to apply to", UserWarning, stacklevel=2
            )
        self._store = Store(**settings)

    @property
    def native(self) -> Store:
        """The native store underneath."""
        return self._store

    def put(self, block_id: str, data: Buffer, is_prefix: bool = False) -> bool:
        """Stores `data`, a C-contiguous array: True when it is stored (or was, with equal bytes)."""
        return self._store.put(block_id, data, bool(is_prefix)) in ("stored", "exists")

    def get(self, block_id: str, out: Buffer) -> tuple[bool, int]:
        """Copies a block into the front of `out`: (found, bytes). ValueError, and `out` untouched, when it is too short."""
        size = self._store.get(block_id, out)
        return (size is not None, size or 0)

    def put_batch(self, block_ids: Sequence[str], arrays: Sequence[Buffer], is_prefix: bool = False) -> int:
        """Stores many blocks; how many are stored."""
        return sum(
            result in ("stored", "exists") for result in self._store.put_batch(block_ids, arrays, bool(is_prefix))
        )

    def get_batch(self, block_ids: Sequence[str], outs: Sequence[Buffer]) -> tuple[int, list[int]]:
        """Copies many blocks: (how many were found, the bytes of each, 0 where it was not or its array is too short)."""
        sizes = self._store.get_batch(block_ids, outs)
        return (sum(size is not None for size in sizes), [size or 0 for size in sizes])

    def contains(self, block_id: str) -> bool:
        """Whether a block is stored."""
        return self._store.contains(block_id)

    def get_stats(self) -> dict[str, int]:
        """The prototype's statistics; what this version does not have counts 0."""
        stats = self._store.stats()
        arena, files, moves = stats["tiers"]["arena"], stats["tiers"].get("files", {}), stats["moves"]
        return {
            "gpu_used": 0,
            "shm_used": arena["used_bytes"],
            "gpu_hits": 0,
            "shm_hits": arena["served"],
            "lustre_hits": files.get("served", 0),
            "misses": stats["misses"],
            "dedup_hits": stats["exists"],
            "gpu_evictions": 0,
            "shm_evictions": arena["evictions"],
            "promotions_to_gpu": 0,
            "promotions_to_shm": moves["promoted"],
            "prefetch_completed": moves["prefetched"],
            "compression_savings_bytes": 0,
            "shm_puts": arena["puts"],
            "lustre_puts": files.get("puts", 0),
        }

    def clear(self) -> None:
        """Forgets every block in every tier, for all who share them."""
        self._store.clear()

    def flush(self) -> None:
        """Returns when what was put is as durable as the store makes it: in files, where there are any."""
        self._store.flush()


def compute_block_id(data: Buffer) -> str:
    """The id of some bytes: 64 hexadecimal digits of a BLAKE3 hash."""
    return BlockId.content(data).hex()
