"""Cascade: a store for the KV cache of large language models, in the node's shared memory and in files below it.

The native API is :class:`Store`, :class:`BlockId`, :class:`KeySpace`, :class:`Lease`, :class:`Ticket` and
:class:`CompletionQueue`. The API of the C++ prototype
is here by its own names too (:class:`CascadeConfig`, :class:`CascadeStore`, :func:`compute_block_id`): its scripts run
after ``import cascade_kv as cascade_cpp``.
"""

from ._connect import connect
from ._distributed import BlockLocation, DistributedConfig, DistributedStore
from ._native import BlockId, CompletionQueue, KeySpace, Store, __version__, parse_size
from ._native import DeviceLease as DeviceLease
from ._native import Fill as Fill
from ._native import Lease as Lease
from ._native import Pages as Pages
from ._native import Rank as Rank
from ._native import Ticket as Ticket
from ._prototype import CascadeConfig, CascadeStore, compute_block_id

__all__ = [
    "BlockId",
    "BlockLocation",
    "CascadeConfig",
    "CascadeStore",
    "DeviceLease",
    "DistributedConfig",
    "DistributedStore",
    "CompletionQueue",
    "Fill",
    "KeySpace",
    "Lease",
    "Pages",
    "Rank",
    "Store",
    "Ticket",
    "__version__",
    "compute_block_id",
    "connect",
    "parse_size",
]
