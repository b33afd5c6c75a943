"""A store beside a node agent, which finds blocks on other nodes."""

from __future__ import annotations

import os

from ._native import Store


def connect(
    *,
    require: bool = True,
    config_file: str | os.PathLike[str] | None = None,
    **settings: str | int | None,
) -> Store:
    """Open this node's store with the blocks of other nodes, by way of the node's agent (``cascade serve``).

    Settings are those of :class:`Store`; `shm_path` and `node` must be the agent's. With `require` an agent has to answer
    now: ConnectionError where none does. An agent that ends later costs misses until there is one again, and no error.
    """
    store = Store(config_file=config_file, **{**settings, "remote": "agent"})
    if require and not store.agent_answers():
        path = store.path
        store.close()
        raise ConnectionError(
            f"no agent answers for {path}: start `cascade serve` with the same shm_path and node, or pass require=False"
        )
    return store
