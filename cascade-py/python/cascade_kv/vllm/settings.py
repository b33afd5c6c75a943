"""Settings of the adapter, from `kv_connector_extra_config`, and the stores that they open."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from cascade_kv import Store

# Settings of the store by other names.
_OTHER_NAMES = {"shm_capacity_bytes": "shm_capacity", "pfs_capacity_bytes": "pfs_capacity"}
# What vLLM puts into the extra configuration of every connector.
_OF_VLLM = frozenset({"spec_name", "spec_module_path"})


_LEAST_SECRET = 16


@dataclass(frozen=True)
class Settings:
    """Settings of the connector; what is none of these is a setting of the store, which refuses what it does not know.

    Attributes:
        load_async: load between scheduler steps, on a thread; the request waits, other requests do not.
        save_async: save on a thread; a request's blocks stay allocated until they are saved.
        by_layer: load each layer when attention reaches it, and save each when it is computed (then neither is async).
        pending_ms: how long a request waits for blocks that only files have to come up into the arena; 0: they are read when
            the request is scheduled. With `load_async` nothing waits: the thread reads them.
        save_decode: also keep blocks of generated tokens (the next turn of a conversation finds them).
        prefix: class the blocks as shared prefixes, which outlive others under eviction.
        weights_fingerprint: names the weights; without it their files are hashed, once.
        tenant_secret: only engines with the same secret find these blocks; 16 characters or more.
        store: settings of the store.
    """

    load_async: bool = False
    save_async: bool = True
    by_layer: bool = False
    pending_ms: float = 2000.0
    save_decode: bool = True
    prefix: bool = False
    weights_fingerprint: str | None = None
    tenant_secret: str | None = None
    store: dict[str, str | int] = field(default_factory=dict)

    @classmethod
    def from_extra(cls, extra: Mapping[str, Any]) -> Settings:
        """Read `kv_connector_extra_config`.

        Raises:
            ValueError: a value of the wrong kind, or settings that exclude each other.
        """
        own: dict[str, Any] = {}
        store: dict[str, str | int] = {}
        known = {one.name: one for one in fields(cls) if one.name != "store"}
        for name, value in extra.items():
            if name in known:
                own[name] = _checked(name, value, str(known[name].type))
            elif name not in _OF_VLLM:
                if not isinstance(value, (str, int)) or isinstance(value, bool):
                    raise ValueError(f"{name} = {value!r}: a string or a number is needed")
                store[_OTHER_NAMES.get(name, name)] = value
        settings = cls(**own, store=store)
        if settings.by_layer and (settings.load_async or own.get("save_async")):
            raise ValueError("by_layer loads and saves within the forward pass: it excludes load_async and save_async")
        return settings

    def for_shards(self, shards: int) -> Settings:
        """The settings for so many tensor-parallel ranks.

        A load may fail in one rank alone. What the others compute in that step is wrong too, and they cannot know it before they have
        saved it; so with several ranks nothing is computed of a load before the scheduler has heard from all of them.

        Raises:
            ValueError: `by_layer` with more than one rank, which computes while it loads.
        """
        if shards > 1 and self.by_layer:
            raise ValueError(
                "by_layer with tensor parallelism: a load that fails in one rank would spoil what others save"
            )
        return replace(self, load_async=True) if shards > 1 else self


def _checked(name: str, value: Any, kind: str) -> Any:
    if kind == "bool" and not isinstance(value, bool):
        raise ValueError(f"{name} = {value!r}: true or false is needed")
    if kind == "float" and (isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e9):
        raise ValueError(f"{name} = {value!r}: a number of milliseconds is needed")
    if kind.startswith("str") and not isinstance(value, str):
        raise ValueError(f"{name} = {value!r}: a string is needed")
    if name == "tenant_secret" and len(value) < _LEAST_SECRET:
        # An empty one, of a variable that is not set, would share with everybody.
        raise ValueError(f"tenant_secret has {len(value)} characters: {_LEAST_SECRET} or more are needed")
    return value


_stores: dict[str, tuple[Store, int]] = {}
_lock = threading.Lock()


class SharedStore:
    """A store that scheduler and worker of one process share; closed with the last of them."""

    def __init__(self, settings: Mapping[str, str | int]) -> None:
        """Open it, or take the one that is open.

        Raises:
            ValueError, OSError, MemoryError: as `cascade_kv.Store`.
        """
        self._key = json.dumps(dict(settings), sort_keys=True)
        with _lock:
            store, users = _stores.get(self._key) or (Store(**settings), 0)
            _stores[self._key] = (store, users + 1)
        self.store: Store = store
        self._open = True

    def close(self) -> None:
        """Give it back; twice is once."""
        with _lock:
            if not self._open:
                return
            self._open = False
            store, users = _stores.pop(self._key)
            if users > 1:
                _stores[self._key] = (store, users - 1)
                return
        store.close()
