"""Faults that are put into the connector on purpose: what must change the output, and what must not."""

from __future__ import annotations

import mmap
import os
import shutil
from typing import Any


class Fault:
    """One fault in place, by its name; it works while `active`."""

    def __init__(self, name: str | None) -> None:
        self.active = False
        self._undo: list[tuple[Any, str, Any]] = []
        if name:
            globals()[name](self)

    def patch(self, owner: Any, name: str, value: Any) -> None:
        """Replace an attribute until :meth:`undo`."""
        self._undo.append((owner, name, getattr(owner, name)))
        setattr(owner, name, value)

    def undo(self) -> None:
        """Take the fault out."""
        for owner, name, value in reversed(self._undo):
            setattr(owner, name, value)


def zeroed(fault: Fault) -> None:
    """Negative control: what was loaded is overwritten with zeros."""
    from cascade_kv.vllm import pages, worker

    arrays: list = []
    real_arrays, real_copy = pages.layer_arrays, worker.WorkerSide._copy_in

    def layer_arrays(caches, config):
        names, found = real_arrays(caches, config)
        arrays.extend(found)
        return names, found

    def copy_in(self, ids, rows):
        loaded = real_copy(self, ids, rows)
        if fault.active:
            for array in arrays:
                array[rows] = 0
        return loaded

    fault.patch(worker, "layer_arrays", layer_arrays)
    fault.patch(worker.WorkerSide, "_copy_in", copy_in)


def claimed(fault: Fault) -> None:
    """Negative control: hits are claimed, and nothing is loaded."""
    from cascade_kv.vllm import worker

    real = worker.WorkerSide._copy_in

    def copy_in(self, ids, rows):
        return [True] * len(rows) if fault.active else real(self, ids, rows)

    fault.patch(worker.WorkerSide, "_copy_in", copy_in)


def evicted(fault: Fault) -> None:
    """Every third block is gone between lookup and load."""
    from cascade_kv.vllm import worker

    real = worker.WorkerSide._copy_in

    def copy_in(self, ids, rows):
        if fault.active:
            for one in ids[2::3]:
                self._store.delete(one)
        return real(self, ids, rows)

    fault.patch(worker.WorkerSide, "_copy_in", copy_in)


def first_evicted(fault: Fault) -> None:
    """The first block of every load is gone between lookup and load."""
    from cascade_kv.vllm import worker

    real = worker.WorkerSide._copy_in

    def copy_in(self, ids, rows):
        if fault.active and ids:
            self._store.delete(ids[0])
        return real(self, ids, rows)

    fault.patch(worker.WorkerSide, "_copy_in", copy_in)


def damaged(fault: Fault) -> None:
    """A byte of the second block of every load is flipped in the arena's memory."""
    from cascade_kv.vllm import worker

    real = worker.WorkerSide._copy_in

    def copy_in(self, ids, rows):
        if fault.active and len(ids) > 1:
            block = bytearray(self._pages.block_bytes)
            self._store.get(ids[1], block)
            with open(self._store.path, "r+b") as file, mmap.mmap(file.fileno(), 0) as arena:
                arena[arena.find(block[:512]) + 100] ^= 1
        return real(self, ids, rows)

    fault.patch(worker.WorkerSide, "_copy_in", copy_in)


def removed(fault: Fault) -> None:
    """The arena's folder is removed under the engine, as a load begins."""
    from cascade_kv.vllm import worker

    real = worker.WorkerSide._copy_in

    def copy_in(self, ids, rows):
        if fault.active:
            shutil.rmtree(os.path.dirname(self._store.path), ignore_errors=True)
        return real(self, ids, rows)

    fault.patch(worker.WorkerSide, "_copy_in", copy_in)


def raising(fault: Fault) -> None:
    """Whatever the connector asks the store raises, now and then."""
    from cascade_kv.vllm import settings

    calls = {"count": 0}
    real = settings.Store

    class Raising:
        def __init__(self, **options):
            self._inner = real(**options)

        def __getattr__(self, name):
            method = getattr(self._inner, name)

            def call(*args, **kwargs):
                calls["count"] += 1
                if fault.active and calls["count"] % 3 == 0:
                    raise OSError(f"injected into {name}")
                return method(*args, **kwargs)

            return call if name != "close" else method

    fault.patch(settings, "Store", Raising)
