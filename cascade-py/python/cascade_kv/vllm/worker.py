"""A worker's side of the connector: pages to blocks and blocks to pages."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from vllm.logger import init_logger

from cascade_kv import BlockId, Fill, Lease, Pages
from cascade_kv.vllm.identity import Identity
from cascade_kv.vllm.metrics import CascadeStats
from cascade_kv.vllm.pages import layer_arrays
from cascade_kv.vllm.settings import Settings
from cascade_kv.vllm.transfer import Done, Plan, Transfer

if TYPE_CHECKING:
    from cascade_kv import Store

logger = init_logger(__name__)


class WorkerSide:
    """Loads and saves of one worker. What goes wrong with blocks is reported by block, never raised."""

    def __init__(self, store: Store, identity: Identity, settings: Settings, shard: int, events: bool) -> None:
        self._stats = CascadeStats()
        # Guards the counters, which threads of loads and saves write too.
        self._lock = threading.Lock()
        self._store = store
        self._identity = identity
        self._settings = settings
        self._shard = shard
        self._pages: Pages | None = None
        self._parts: dict[str, int] = {}
        self._bad: set[int] = set()
        self._failed_step = 0
        self._errors = 0
        self._stored: Counter[bytes] | None = Counter() if events else None
        self._loader = ThreadPoolExecutor(1, "cascade-load") if settings.load_async else None
        saves_aside = settings.save_async and not settings.by_layer
        self._saver = ThreadPoolExecutor(1, "cascade-save") if saves_aside else None
        self._loading: dict[str, Future[set[int]]] = {}
        self._saving: dict[str, list[Future[None]]] = {}
        self._finishing: set[str] = set()
        self._leases: list[Lease | None] = []
        self._lease_rows: list[int] = []
        self._fill: tuple[Fill, list[bytes]] | None = None

    def register(self, caches: dict[str, Any], kv_cache_config: Any) -> None:
        """Take vLLM's paged tensors, which stay where they are."""
        names, arrays = layer_arrays(caches, kv_cache_config)
        self._pages = Pages(arrays)
        self._parts = names

    def count(self, name: str, amount: float = 1) -> None:
        """Add to a counter of `metrics.COUNTERS`."""
        with self._lock:
            self._stats.add(name, amount)

    def erred(self) -> None:
        """Count an unexpected error, and tell the scheduler's side of it."""
        with self._lock:
            self._errors += 1
            self._stats.add("errors", 1)

    def take_stats(self) -> CascadeStats:
        """The counters since the last call."""
        with self._lock:
            stats, self._stats = self._stats, CascadeStats()
        return stats

    def _ids(self, transfer: Transfer) -> list[BlockId]:
        return self._identity.ids(transfer.hashes, self._shard, transfer.scope)

    # --- loading --------------------------------------------------------------------------------------------------

    def start_loads(self, plan: Plan) -> None:
        """Begin this step's loads: done on return, or on the thread, or layer by layer."""
        start = time.perf_counter()
        if self._loader is not None:
            for transfer in plan.loads:
                self._loading[transfer.request] = self._load_aside(self._loader, transfer)
        elif plan.loads and self._settings.by_layer:
            self._lease(plan.loads, plan.step)
        elif plan.loads:
            self._note_bad(self._load(plan.loads), plan.step)
        if plan.loads:
            self.count("load_seconds", time.perf_counter() - start)

    def _load_aside(self, loader: ThreadPoolExecutor, transfer: Transfer) -> Future[set[int]]:
        try:
            return loader.submit(self._load, [transfer])
        except RuntimeError:
            # No thread can be started. The scheduler waits for an answer, and must get one.
            logger.exception("Cascade: a load could not begin; its %d blocks are recomputed", len(transfer.rows))
            self.erred()
            failed: Future[set[int]] = Future()
            failed.set_result(set(transfer.rows))
            return failed

    def _load(self, transfers: Sequence[Transfer]) -> set[int]:
        """Load into the rows; the rows that could not be loaded."""
        rows = [row for transfer in transfers for row in transfer.rows]
        try:
            ids = [one for transfer in transfers for one in self._ids(transfer)]
            loaded = self._copy_in(ids, rows)
        except Exception:
            logger.exception("Cascade: a load failed; its %d blocks are recomputed", len(rows))
            self.erred()
            loaded = [False] * len(rows)
        self._count_loaded(transfers, loaded)
        return {row for row, ok in zip(rows, loaded, strict=True) if not ok}

    def _copy_in(self, ids: list[BlockId], rows: list[int]) -> list[bool]:
        if self._pages is None:
            return [False] * len(rows)
        return self._store.get_pages(ids, self._pages, rows)

    def _count_loaded(self, transfers: Sequence[Transfer], loaded: list[bool]) -> None:
        at = 0
        for transfer in transfers:
            of = loaded[at : at + len(transfer.rows)]
            at += len(of)
            # What follows a block that failed is computed again, loaded or not.
            useful = of.index(False) if False in of else len(of)
            for place, origin in enumerate(transfer.origins[:useful], start=1):
                again = transfer.again if place == len(transfer.rows) else 0
                self.count(f"tokens_saved_{origin}", self._identity.block_tokens - again)
            self.count("blocks_loaded", sum(of))
            self.count("bytes_loaded", sum(of) * (self._pages.block_bytes if self._pages else 0))
            if False in of:
                self.count("blocks_failed", of.count(False))

    def _note_bad(self, bad: set[int], step: int) -> None:
        if bad:
            self._bad |= bad
            self._failed_step = step

    def _lease(self, transfers: list[Transfer], step: int) -> None:
        rows = [row for transfer in transfers for row in transfer.rows]
        leases: list[Lease | None]
        try:
            leases = self._store.lease_batch([one for transfer in transfers for one in self._ids(transfer)])
            if len(leases) != len(rows):
                # The scheduler could not name them all (it refused the load): none is what its row waits for.
                leases = [None] * len(rows)
        except Exception:
            logger.exception("Cascade: a load failed; its %d blocks are recomputed", len(rows))
            self.erred()
            leases = [None] * len(rows)
        size = self._pages.block_bytes if self._pages else 0
        leases = [lease if lease is not None and len(lease) == size else None for lease in leases]
        loaded = [lease is not None for lease in leases]
        self._count_loaded(transfers, loaded)
        self._note_bad({row for row, ok in zip(rows, loaded, strict=True) if not ok}, step)
        self._leases, self._lease_rows = leases, rows

    def wait_layer(self, layer: str, plan: Plan) -> None:
        """Before attention reads a layer: its part of every block is in its rows."""
        part = self._parts.get(layer)
        if not self._leases or part is None or self._pages is None:
            return
        start = time.perf_counter()
        try:
            copied = self._pages.scatter(self._leases, self._lease_rows, part)
        except Exception:
            logger.exception("Cascade: a layer was not loaded; its %d blocks are recomputed", len(self._lease_rows))
            self.erred()
            copied = [False] * len(self._lease_rows)
        self._note_bad({row for row, ok in zip(self._lease_rows, copied, strict=True) if not ok}, plan.step)
        self.count("load_seconds", time.perf_counter() - start)

    # --- saving ---------------------------------------------------------------------------------------------------

    def save_layer(self, layer: str, plan: Plan) -> None:
        """A layer of this step is computed: its part of every block to be saved."""
        part = self._parts.get(layer)
        if not self._settings.by_layer or not plan.saves or part is None or self._pages is None or self._holds(plan):
            return
        start = time.perf_counter()
        if self._fill is None:
            ids = [one for transfer in plan.saves for one in self._ids(transfer)]
            rows = [row for transfer in plan.saves for row in transfer.rows]
            hashes = [one for transfer in plan.saves for one in transfer.hashes]
            self._fill = (self._store.fill_pages(ids, self._pages, rows, prefix=self._settings.prefix), hashes)
        self._fill[0].part(part)
        self.count("save_seconds", time.perf_counter() - start)

    def _holds(self, plan: Plan) -> bool:
        """Whether pages may be wrong now: until the scheduler has dealt with a load that failed, what was computed of it
        must not be saved, or it would be found for ever."""
        return plan.settled < self._failed_step

    def finish_step(self, plan: Plan) -> None:
        """After the forward pass: this step's saves are done, or on the thread."""
        for lease in self._leases:
            if lease is not None:
                lease.release()
        self._leases, self._lease_rows = [], []
        if not plan.saves:
            return
        start = time.perf_counter()
        if self._holds(plan):
            self._fill = None
            self.count("saves_skipped", sum(len(transfer.rows) for transfer in plan.saves))
            if self._saver is not None:
                for transfer in plan.saves:
                    self._saving.setdefault(transfer.request, [])
        elif self._saver is not None:
            for transfer in plan.saves:
                self._save_aside(self._saver, transfer)
        elif self._fill is not None:
            fill, hashes = self._fill
            self._fill = None
            self._count_stored(fill.seal(), hashes)
        else:
            for transfer in plan.saves:
                self._save(transfer)
        self.count("save_seconds", time.perf_counter() - start)

    def _save_aside(self, saver: ThreadPoolExecutor, transfer: Transfer) -> None:
        # The scheduler waits for the end of this request's saves, also when there is none.
        under_way = self._saving.setdefault(transfer.request, [])
        try:
            under_way.append(saver.submit(self._save, transfer))
        except RuntimeError:
            logger.exception("Cascade: %d blocks were not saved", len(transfer.rows))
            self.erred()

    def _save(self, transfer: Transfer) -> None:
        try:
            if self._pages is not None:
                ids = self._ids(transfer)
                results = self._store.put_pages(ids, self._pages, transfer.rows, prefix=self._settings.prefix)
                self._count_stored(results, transfer.hashes)
        except Exception:
            logger.exception("Cascade: %d blocks were not saved", len(transfer.rows))
            self.erred()

    def _count_stored(self, results: Sequence[str], hashes: list[bytes]) -> None:
        stored = [one for one, result in zip(hashes, results, strict=True) if result == "stored"]
        present = sum(result == "exists" for result in results)
        refused = len(results) - len(stored) - present
        counts = {"blocks_stored": len(stored), "blocks_present": present, "blocks_refused": refused}
        for name, count in counts.items():
            if count:
                self.count(name, count)
        if stored and self._pages is not None:
            self.count("bytes_stored", len(stored) * self._pages.block_bytes)
        if self._stored is not None:
            with self._lock:
                self._stored.update(stored)

    def wait_saves(self) -> None:
        """Before pages are given to other requests: nothing reads them any more."""
        for futures in self._saving.values():
            for future in futures:
                future.result()

    # --- reports --------------------------------------------------------------------------------------------------

    def transfers_done(self, finished: set[str]) -> tuple[set[str], set[str]]:
        """Requests whose blocks are all saved, of those that have finished; and requests that are loaded."""
        self._finishing |= {name for name in finished if name in self._saving}
        saved = {name for name in self._finishing if all(future.done() for future in self._saving[name])}
        for name in saved:
            del self._saving[name]
        self._finishing -= saved
        loaded = {name for name, future in self._loading.items() if future.done()}
        for name in loaded:
            # Nothing is computed of these before the scheduler has heard of the failure: no save needs to be held.
            self._bad |= self._loading.pop(name).result()
        return saved, loaded

    def take_bad(self) -> set[int]:
        """Rows whose load has failed since the last report."""
        bad, self._bad = self._bad, set()
        return bad

    def report(self) -> Done | None:
        """For the scheduler's side; None when there is nothing to say."""
        with self._lock:
            done = Done(self._failed_step, self._stored or Counter(), self._errors)
            self._errors = 0
            if self._stored:
                self._stored = Counter()
        return done if done.failed_step or done.stored or done.errors else None

    def close(self) -> None:
        """End the threads; what was handed to them is saved."""
        for pool in (self._loader, self._saver):
            if pool is not None:
                pool.shutdown(wait=True)
        self._pages = None
