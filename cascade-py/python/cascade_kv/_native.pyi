"""The native part of Cascade: store, ids and leases."""

import os
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Literal, Self, final

import numpy as np
from numpy.typing import DTypeLike
from typing_extensions import Buffer

__all__ = ["__version__", "BlockId", "KeySpace", "Lease", "Store", "parse_size", "run_command"]

__version__: str

_PutResult = Literal[
    "stored", "exists", "full", "too_large", "pending", "throttled", "deadline", "memory", "unavailable", "empty"
]

def parse_size(text: str) -> int:
    """Bytes of a size such as ``512MiB``; ValueError when it is none."""

def run_command(arguments: Sequence[str | os.PathLike[str]]) -> int:
    """Runs the program ``cascade``; the first argument is its name. Gives the exit status: 0, 1 something was found, 2 it failed."""

@final
class BlockId:
    """Id of a block: 32 bytes, hashable, ordered."""

    @staticmethod
    def named(name: str) -> BlockId:
        """The id of a name. Putting other bytes under it replaces the block."""
    @staticmethod
    def content(data: Buffer) -> BlockId:
        """The id of some bytes, by BLAKE3. ValueError when `data` is not C-contiguous."""
    @staticmethod
    def from_bytes(data: bytes) -> BlockId:
        """An id from its 32 bytes; ValueError for another length."""
    @staticmethod
    def from_hex(text: str) -> BlockId:
        """An id from 64 hexadecimal digits."""
    def hex(self) -> str:
        """64 hexadecimal digits."""
    def __bytes__(self) -> bytes: ...
    def __hash__(self) -> int: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    def __lt__(self, other: BlockId, /) -> bool: ...
    def __le__(self, other: BlockId, /) -> bool: ...
    def __gt__(self, other: BlockId, /) -> bool: ...
    def __ge__(self, other: BlockId, /) -> bool: ...

@final
class KeySpace:
    """Everything that decides whether blocks of two runs are the same: see docs/identity.md."""

    def __new__(
        cls,
        *,
        model: str,
        dtype: str,
        layout: str,
        block_tokens: int,
        layers: int,
        kv_heads: int,
        weights: str | None = None,
        revision: str | None = None,
        quantisation: str | None = None,
        kv_group: int | None = None,
        head_range: tuple[int, int] | None = None,
        layer_range: tuple[int, int] | None = None,
        adapter: str | None = None,
        tenant_secret: bytes | None = None,
    ) -> Self:
        """Give exactly one of `weights` (a fingerprint of the parameters) and `revision`. Ranges are (first, end).

        ValueError names the field that is wrong."""
    @property
    def block_tokens(self) -> int:
        """Tokens of a block."""
    @property
    def model(self) -> str:
        """Name of the model."""
    def chain(self, tokens: Sequence[int], extra: Sequence[bytes | None] | None = None) -> list[BlockId]:
        """The ids of every whole block of `tokens`; each covers all tokens before it.

        `extra` holds one value for each whole block (hashes of images, cache salts). ValueError when it does not."""
    def foreign(self, hash: bytes) -> BlockId:
        """An engine's own block hash as an id of this key space."""

@final
class Lease:
    """A pinned block: a read-only buffer over the arena, not copied. Arrays made from it keep it pinned."""

    def __len__(self) -> int: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...
    def __release_buffer__(self, buffer: memoryview, /) -> None: ...
    @property
    def valid(self) -> bool:
        """Whether the block is still pinned: false after release, and in a forked child."""
    def numpy(self, dtype: DTypeLike | None = None, shape: Sequence[int] | None = None) -> np.ndarray:
        """The block as a read-only array (uint8 unless `dtype`, flat unless `shape`), without a copy. Needs NumPy.

        ValueError when the block's length does not fit `dtype` and `shape`."""
    def release(self) -> None:
        """Gives the pin back; BufferError while arrays made from the lease exist."""
    def __enter__(self) -> Self: ...
    def __exit__(self, *_exception: type[BaseException] | BaseException | TracebackType | None) -> None: ...

@final
class Store:
    """A store embedded in this process, over the node's arena. Ids are :class:`BlockId`, or strings that name one.

    Settings are keyword arguments: `shm_path`, `shm_capacity` (such as ``"10GiB"``), `shm_slots`, `shm_region`,
    `shm_owners`, `shm_leases`, `node`, `janitor`. Each has an environment variable (``CASCADE_SHM_PATH``, ...) and a key
    in the file named by `config_file` or ``CASCADE_CONFIG``. ValueError for a wrong one, or when the arena is there with
    another; MemoryError when there is no room; FileNotFoundError, PermissionError as they say."""

    def __new__(cls, *, config_file: str | os.PathLike[str] | None = None, **settings: str | int | None) -> Self: ...
    def config(self) -> str:
        """Every setting in force and where it came from, as TOML."""
    @property
    def path(self) -> os.PathLike[str]:
        """The arena's file."""
    def put(self, id: BlockId | str, data: Buffer, prefix: bool = False) -> _PutResult:
        """Stores bytes. `prefix`: outlives ordinary blocks. ValueError when empty or not C-contiguous."""
    def get(self, id: BlockId | str, out: Buffer) -> int | None:
        """Copies a block into the front of `out`: its length, or None on a miss.

        ValueError, and nothing written, when `out` is too short, read-only or not C-contiguous."""
    def lease(self, id: BlockId | str) -> Lease | None:
        """Pins a block, or None on a miss."""
    def put_batch(self, ids: Iterable[BlockId | str], data: Iterable[Buffer], prefix: bool = False) -> list[_PutResult]:
        """Stores many blocks; a result for each."""
    def get_batch(self, ids: Iterable[BlockId | str], outs: Iterable[Buffer]) -> list[int | None]:
        """Copies many blocks; a length, or None (also for an array that is too short), for each."""
    def lease_batch(self, ids: Iterable[BlockId | str]) -> list[Lease | None]:
        """Pins many blocks."""
    def longest_prefix(self, ids: Iterable[BlockId | str]) -> int:
        """How many leading ids are stored."""
    def lookup(self, ids: Iterable[BlockId | str]) -> list[int | None]:
        """The length in bytes of each block that is stored, else None."""
    def contains(self, id: BlockId | str) -> bool:
        """Whether a block is stored."""
    def __contains__(self, id: BlockId | str, /) -> bool: ...
    def delete(self, id: BlockId | str) -> bool:
        """Forgets a block; whether it was there."""
    def clear(self) -> None:
        """Forgets every block, for all processes that share the arena."""
    def flush(self, timeout_s: float = 60.0) -> None:
        """Returns when what was put is as durable as the store makes it; TimeoutError when the time passed."""
    def stats(self) -> dict[str, int]:
        """Counters of this handle and gauges of the arena; byte figures count bytes."""
    def wait_ready(self, timeout_s: float = 60.0) -> bool:
        """Waits until every page of the arena exists; False when the time passed first."""
    def close(self) -> None:
        """Closes the store; leases stay good. Using it after that raises ValueError."""
    def __enter__(self) -> Self: ...
    def __exit__(self, *_exception: type[BaseException] | BaseException | TracebackType | None) -> None: ...
