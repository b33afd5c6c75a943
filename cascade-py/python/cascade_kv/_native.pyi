"""The native part of Cascade: store, ids and leases."""

import os
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, ClassVar, Literal, Protocol, Self, final

import numpy as np
from numpy.typing import DTypeLike
from typing_extensions import Buffer

__all__ = [
    "__version__",
    "BlockId",
    "DeviceLease",
    "CompletionQueue",
    "DeviceLease",
    "Fill",
    "KeySpace",
    "Lease",
    "Pages",
    "Rank",
    "Store",
    "Ticket",
    "launched",
    "parse_size",
    "run_command",
]

__version__: str

_PutResult = Literal[
    "stored",
    "exists",
    "full",
    "too_large",
    "pending",
    "throttled",
    "deadline",
    "memory",
    "unavailable",
    "read_only",
    "empty",
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
    def foreign_batch(self, hashes: Sequence[bytes]) -> list[BlockId]:
        """:meth:`foreign` for many."""

class _OnDevice(Protocol):
    """An array in the memory of a CUDA device: a torch, CuPy or JAX array. One with ``__cuda_array_interface__`` alone will do too."""

    def __dlpack_device__(self) -> tuple[int, int]: ...
    def __dlpack__(self, *, stream: int | None = None) -> Any: ...

@final
class DeviceLease:
    """A pinned block in device memory, not copied. It must not be written. Tensors made from it keep it pinned.

    Its place is used again when the work is over that its stream had queued when the last of them ended: the stream that DLPack
    named, or that :meth:`release` names, else the default stream."""

    @property
    def ptr(self) -> int:
        """Device address of the first byte, a multiple of 512."""
    def __len__(self) -> int: ...
    @property
    def device(self) -> int:
        """Number of the CUDA device."""
    @property
    def generation(self) -> int:
        """Changes when the place is used for another block."""
    @property
    def valid(self) -> bool:
        """Whether the block is still pinned: false after release, and when the device failed."""
    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """The bytes for CuPy, Numba and others, whose arrays must end before :meth:`release`."""
    def __dlpack_device__(self) -> tuple[int, int]: ...
    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any: ...
    def torch(self, dtype: Any = None, shape: Sequence[int] | None = None) -> Any:
        """The block as a tensor (uint8 unless `dtype`, flat unless `shape`), without a copy. Needs torch."""
    def release(self, stream: int | None = None) -> None:
        """Gives the pin back when what `stream` has queued is over; returns at once. BufferError while tensors made from it exist."""
    def __enter__(self) -> Self: ...
    def __exit__(self, *_exception: type[BaseException] | BaseException | TracebackType | None) -> None: ...

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
class Pages:
    """Memory of an engine's pages: writable arrays of as many rows each. Row r of all of them, in order, is one block.

    The arrays stay exported as long as this lives. Each has two dimensions or more, and rows that are contiguous; the rows
    may lie apart. ValueError says what is wrong with one."""

    def __new__(cls, arrays: Iterable[Buffer]) -> Self: ...
    @property
    def rows(self) -> int:
        """Rows of each array."""
    @property
    def block_bytes(self) -> int:
        """Bytes of a block: a row of every array."""
    def __len__(self) -> int:
        """Number of arrays: parts of a block."""
    def scatter(self, leases: Sequence[Lease | None], rows: Sequence[int], part: int) -> list[bool]:
        """Copies one part of leased blocks to its rows; for each whether it was copied. ValueError for a wrong row or part."""

@final
class Fill:
    """Blocks that are filled part by part, from :meth:`Store.fill_pages`. Without :meth:`seal` they were never there."""

    def part(self, part: int) -> None:
        """Copies one part of every row into its block."""
    def seal(self) -> list[_PutResult]:
        """Makes the blocks visible, once: a result for each."""

@final
class Ticket:
    """A batch under way. One that is dropped changes nothing for its blocks."""

    def poll(self) -> bool:
        """Whether every block has its outcome."""
    def result(self) -> list[str] | None:
        """For each block what became of it, or None while some are under way; never waits.

        ``"fetched"``, ``"stored"``, ``"exists"``, ``"cancelled"``, or the reason for a miss or refusal, such as ``"absent"``."""
    def wait(self, timeout_s: float = 60.0) -> list[str] | None:
        """The same, as soon as it is there; None when the time passed first (the work goes on, the ticket stays good)."""
    def lengths(self) -> list[int | None] | None:
        """For each block the length that was fetched, or None; None in all while some are under way."""
    def cancel(self) -> None:
        """Asks that blocks which have not begun are given up; those under way complete."""

@final
class CompletionQueue:
    """Many tickets behind one descriptor: `loop.add_reader(queue.fileno(), ...)` hears of their ends, and drains them.

    After a fork the child's copy raises OSError: it makes one of its own."""

    def __new__(cls, capacity: int = 1024) -> Self:
        """`capacity`: tickets that were added and are not drained, at most. ValueError for 0."""
    def add(self, ticket: Ticket) -> bool:
        """Has the end of a ticket told here; False when the queue is full or closed. The queue keeps the ticket until then."""
    def fileno(self) -> int:
        """The descriptor: readable while a ticket has ended and is not drained, and for ever once the queue is closed."""
    def drain(self, most: int | None = None) -> list[Ticket]:
        """The tickets that have ended, in that order; never waits."""
    def wait(self, timeout_s: float = 60.0) -> list[Ticket]:
        """The same, as soon as there is one; none when the time passed, or the queue was closed, first."""
    def close(self) -> None:
        """Takes no more tickets and wakes who waits. What is under way goes on, and can still be drained."""
    @property
    def closed(self) -> bool:
        """Whether the queue is closed."""
    def __len__(self) -> int: ...
    def __bool__(self) -> bool: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *_exception: type[BaseException] | BaseException | TracebackType | None) -> None: ...

def launched() -> tuple[int, int, str]:
    """Number of this process, processes in all, and who started it, as the environment says. ValueError where it
    contradicts itself."""

@final
class Rank:
    """This process as a rank of an MPI job (`srun`, `mpirun`), with a store that asks the other ranks for what it lacks.

    Every rank makes one, once, with an arena of its own node; settings are those of :class:`Store`. OSError in a build
    without MPI, with what to do."""

    IS_BUILT: ClassVar[bool]

    def __new__(cls, *, config_file: str | os.PathLike[str] | None = None, **settings: str | int | None) -> Self: ...
    @property
    def rank(self) -> int:
        """Number of this rank."""
    @property
    def world_size(self) -> int:
        """Ranks of the job."""
    @property
    def path(self) -> str:
        """How bytes come from other ranks, really: ``"rma"``, ``"message"``, or ``"alone"``."""
    def store(self) -> Store:
        """The store of this rank."""
    def owner(self, id: BlockId | str, timeout_s: float) -> tuple[int, int] | None:
        """The rank that the directory names first for a block, and where in its arena, in bytes."""
    def barrier(self, timeout_s: float) -> None:
        """Returns once every rank has called it as often. TimeoutError, with a rank that was not heard of."""
    def publish(self, timeout_s: float) -> None:
        """Returns when what was put is told to the ranks that keep its entries. TimeoutError if that takes longer."""
    def leave(self, timeout_s: float) -> bool:
        """Leaves the job, once every rank does or the time is over: whether MPI was ended in good order."""

@final
class Store:
    """A store embedded in this process, over the node's arena, and files below it. Ids are :class:`BlockId`, or names.

    Settings are keyword arguments. The arena: `shm_path`, `shm_capacity` (such as ``"10GiB"``), `shm_slots`,
    `shm_region`, `shm_owners`, `shm_leases`, `node`, `janitor`, `eviction` (``"learned"``, ``"lru"``).
    Files, which are there with `pfs_path`: `pfs_capacity`,
    `pfs_durability` (``"none"``, ``"segment"``, ``"block"``), `pfs_segment`, `pfs_direct`, `pfs_io_engine`,
    `pfs_stripe_count`, `pfs_stripe_size`. GPUs: `gpu_capacity` (bytes of each, ``"auto"``: half of what is free, ``"off"``: the default),
    `gpu_devices` (``"0"``, ``"0,1"``, ``"all"``), `gpu_share` (``"on"``: processes of the node read blocks from each other's device
    memory). `remote` (``"agent"``: blocks of other nodes are asked for, of this node's ``cascade serve``; ``"off"``: the default; see
    :func:`connect`). And `demote` (``"through"``: every block that is put is copied to files in the
    background; ``"selective"``: only shared prefixes, and what is put or used twice; ``"back"``: the coldest, when the
    arena fills; ``"off"``). `acknowledge` is the least `wait` of every put. `in_flight` (``"1GiB"``) bounds the bytes of
    `submit_get` and `submit_put` under way. Each has an environment variable
    (``CASCADE_SHM_PATH``, ...) and a key in the file named by `config_file` or ``CASCADE_CONFIG``. ValueError for a wrong
    one, or when the arena is there with another; MemoryError when there is no room; FileNotFoundError, PermissionError
    as they say."""

    def __new__(cls, *, config_file: str | os.PathLike[str] | None = None, **settings: str | int | None) -> Self: ...
    def config(self) -> str:
        """Every setting in force and where it came from, as TOML."""
    @property
    def path(self) -> os.PathLike[str]:
        """The arena's file."""
    def put(
        self,
        id: BlockId | str,
        data: Buffer | _OnDevice,
        prefix: bool = False,
        wait: Literal["found", "queued", "files", "durable"] = "found",
        stream: int | None = None,
    ) -> _PutResult:
        """Stores bytes. `prefix`: outlives ordinary blocks. ValueError when empty or not C-contiguous.

        `wait`: returns when the block can be found; when it is queued on its way to files; when it is in files; when it is
        there and survives a loss of power.
        What could not come so far has another result than ``"stored"`` and ``"exists"``, although it may be in the arena.

        A contiguous array on a CUDA device goes to the tier of GPUs (`gpu_capacity`), and from there to the arena; it is read after
        what its library's current stream, or `stream`, had queued, and has been read when this returns."""
    def get(self, id: BlockId | str, out: Buffer | _OnDevice, stream: int | None = None) -> int | None:
        """Copies a block into the front of `out`: its length, or None on a miss.

        ValueError, and nothing written, when `out` is too short, read-only or not C-contiguous."""
    def get_gpu_ptr(self, id: BlockId | str) -> DeviceLease | None:
        """Pins a block on its GPU, brought up from the arena or files where it is not there, or None: a miss, or no GPU tier."""
    def lease(self, id: BlockId | str) -> Lease | None:
        """Pins a block in the arena, brought up from files where it is not there, or None on a miss."""
    def put_batch(
        self,
        ids: Iterable[BlockId | str],
        data: Iterable[Buffer],
        prefix: bool = False,
        wait: Literal["found", "queued", "files", "durable"] = "found",
    ) -> list[_PutResult]:
        """Stores many blocks; a result for each."""
    def get_batch(self, ids: Iterable[BlockId | str], outs: Iterable[Buffer]) -> list[int | None]:
        """Copies many blocks; a length, or None (also for an array that is too short), for each."""
    def submit_get(
        self, ids: Iterable[BlockId | str], outs: Iterable[Buffer], *, timeout_s: float | None = None
    ) -> Ticket:
        """Begins to copy blocks into the fronts of arrays, and returns at once.

        The arrays are kept in place, and are not to be read or written, until the ticket has ended. What has not begun after
        `timeout_s` is given up as ``"deadline"``. Beyond the bytes of the setting `in_flight`: ``"throttled"``, at once."""
    def submit_put(
        self,
        ids: Iterable[BlockId | str],
        data: Iterable[Buffer],
        prefix: bool = False,
        wait: Literal["found", "queued", "files", "durable"] = "found",
        *,
        timeout_s: float | None = None,
    ) -> Ticket:
        """Begins to store blocks, and returns at once; the arrays are not to be written until the ticket has ended."""
    def submit_prefetch(self, ids: Iterable[BlockId | str]) -> Ticket:
        """Begins to bring blocks that only the files have up into the arena, and returns at once."""
    def lease_batch(self, ids: Iterable[BlockId | str]) -> list[Lease | None]:
        """Pins many blocks; what only the files have is read several at once."""
    def put_pages(
        self, ids: Iterable[BlockId | str], pages: Pages, rows: Sequence[int], prefix: bool = False
    ) -> list[_PutResult]:
        """Stores a block from each row of `pages`; a result for each. ValueError for a wrong row, or one named twice."""
    def get_pages(self, ids: Iterable[BlockId | str], pages: Pages, rows: Sequence[int]) -> list[bool]:
        """Loads a block into each row of `pages`; for each whether it was loaded. What a row holds after a failure is unknown.

        A block of another length than a row is a failure. ValueError for a wrong row, or one named twice."""
    def fill_pages(self, ids: Iterable[BlockId | str], pages: Pages, rows: Sequence[int], prefix: bool = False) -> Fill:
        """Room for blocks that are filled from the rows part by part, as layers are computed."""
    def longest_prefix(self, ids: Iterable[BlockId | str]) -> int:
        """How many leading ids are stored, in any tier."""
    def prefix(self, shards: Iterable[Iterable[BlockId | str]]) -> tuple[list[str], str | None]:
        """The longest prefix of a chain of which every shard (a tensor parallel rank's ids, in order) is there: the slowest tier
        of each block, and why it ends: ``"pending"`` (being written: ask again), the reason for a miss, or None for all of it."""
    def lookup(self, ids: Iterable[BlockId | str]) -> list[int | None]:
        """The length in bytes of each block that is stored, else None."""
    def locate(self, ids: Iterable[BlockId | str]) -> list[tuple[str, int] | None]:
        """The highest tier (``"hbm"``, ``"arena"``, ``"files"``) that has each block, and its length in bytes, else None."""
    def place(self, id: BlockId | str) -> tuple[str, int, bool, int | None] | None:
        """Of a block: the highest tier that has it, its bytes, whether it is of a prefix, and where it is in this arena."""
    def prefetch(self, ids: Iterable[BlockId | str], timeout_s: float = 0.0) -> list[str] | None:
        """Brings blocks that only the files have up into the arena, in the background.

        With a timeout it waits: then it gives for each ``"stored"`` (brought up), ``"exists"`` (it was up) or the reason
        for a miss. None when the time passed first; the work goes on."""
    def pin(self, ids: Iterable[BlockId | str], soft: bool = False, seconds: float | None = None) -> list[str]:
        """Keeps blocks in the arena, brought up where they are not there, for so long, or until `unpin`, `delete` or `close`.

        For each ``"pinned"``, ``"renewed"`` (this store had pinned it: the pin is now as asked for), ``"full"`` or the reason
        for a miss. Soft pins give way before this store refuses a block for want of room. All pins and leases of all processes
        stay within half of the arena: beyond that the answer is ``"full"``. They end with the process."""
    def unpin(self, ids: Iterable[BlockId | str]) -> list[bool]:
        """Lets go of pins of this store; whether there was one, for each."""
    def demote(self, ids: Iterable[BlockId | str]) -> list[str]:
        """Copies blocks to files and takes them out of the arena, now: ``"stored"`` where only the files have it then."""
    def contains(self, id: BlockId | str) -> bool:
        """Whether a block is stored, in any tier."""
    def __contains__(self, id: BlockId | str, /) -> bool: ...
    def delete(self, id: BlockId | str) -> bool:
        """Forgets a block in every tier; whether it was there and is gone: False too while files cannot record it, which is tried again."""
    def clear(self) -> None:
        """Forgets every block in every tier, for all who share them."""
    def flush(self, timeout_s: float = 60.0) -> None:
        """Returns when what was put is in files, as durable as `pfs_durability` says; at once where there are none.

        TimeoutError when the time passed; MemoryError or OSError when the files did not take everything."""
    def stats(self) -> dict[str, Any]:
        """Counters of this handle and gauges of all that use the tiers; byte figures count bytes.

        The whole store's at the top. Under ``"tiers"`` those of each (``"served"``, ``"served_bytes"``: fetches and leases that
        it served; ``"saved_tokens"``: see `set_block_tokens`; ``"latency_us"``: calls, p50 and p99, at the lowest tier needed),
        under ``"moves"`` what went between them, under ``"miss_reasons"`` why nobody had a block,
        under ``"pins"`` what this store pins."""
    def set_block_tokens(self, tokens: int) -> None:
        """Says how many tokens a block holds: each block served from here on counts as so many saved."""
    def plan(
        self, ids: Iterable[BlockId | str], block_tokens: int, tokens_per_s: float | None = None
    ) -> dict[str, Any]:
        """How many of the first `ids` to load rather than recompute, by what was measured of the tiers.

        ``"load"`` blocks, of ``"found"`` that are there without a gap; ``"from"`` names the tiers; ``"load_s"`` and
        ``"recompute_s"`` are the estimates for them. Recomputing costs what `tokens_per_s` says, else what
        `observe_prefill` was told; if neither is known all that was found is to be loaded and ``"recompute_s"`` is None.
        ValueError for `block_tokens` of 0, or a rate that is no positive number."""
    def observe_prefill(self, tokens: int, seconds: float) -> None:
        """Notes that a prefill of so many tokens took so long; the last fifty or so make the estimate."""
    def wait_ready(self, timeout_s: float = 60.0) -> bool:
        """Waits until every page of the arena exists; False when the time passed first."""
    def agent_answers(self) -> bool:
        """Whether a ``cascade serve`` answers for this arena now, whatever `remote` says."""
    def close(self) -> None:
        """Closes the store, when what was put is in files; leases stay good. Using it after that raises ValueError."""
    def __enter__(self) -> Self: ...
    def __exit__(self, *_exception: type[BaseException] | BaseException | TracebackType | None) -> None: ...
