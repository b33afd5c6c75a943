"""Device memory from Python, on a simulated device: its addresses cannot be read by NumPy, so blocks come and go as leases.

What torch and CuPy make of a lease is checked on a GPU: ``python -m cascade_kv.gpu_check``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import cascade_kv as ck


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ck.Store]:
    where = Path("/dev/shm") / f"cascade-test-{os.getpid()}-device"
    with ck.Store(shm_path=str(where), shm_capacity="64MiB", gpu_capacity="8MiB", gpu_devices="simulated") as opened:
        yield opened
        opened.clear()
    for file in where.iterdir():
        file.unlink()
    where.rmdir()


def test_a_block_goes_up_and_comes_back(store: ck.Store) -> None:
    data = np.random.default_rng(1).integers(0, 256, 300_001, np.uint8)
    source, copied = ck.BlockId.content(data), ck.BlockId.content(b"another id")
    assert store.put(source, data) == "stored"
    assert store.locate([source]) == [("arena", 300_001)]
    with store.get_gpu_ptr(source) as lease:
        assert (len(lease), lease.device, lease.ptr % 512, lease.valid) == (300_001, 0, 0, True)
        assert lease.generation > 0
        assert store.locate([source]) == [("hbm", 300_001)]
        # The lease is an array in device memory like any other: what is put from it is read on the device.
        assert store.put(copied, lease) == "stored"
    assert not lease.valid
    store.flush()
    out = np.zeros(300_001, np.uint8)
    assert store.get(copied, out) == 300_001
    assert (out == data).all()
    moves = store.stats()["moves"]
    assert (moves["hbm_promoted"], moves["hbm_demoted"]) == (1, 1)
    assert store.stats()["tiers"]["hbm"]["blocks"] == 2


def test_device_memory_is_filled(store: ck.Store) -> None:
    a, b = (np.full(4096, value, np.uint8) for value in (1, 2))
    store.put("a", a)
    store.put("b", b)
    # A test may write to a block that it leased; nobody else does.
    with store.get_gpu_ptr("a") as target:
        assert store.get("b", target) == 4096
        assert store.put("c", target) == "stored"
        store.put("long", np.zeros(5000, np.uint8))
        with pytest.raises(ValueError, match="5000 bytes"):
            store.get("long", target)
        assert store.get("nothing", target) is None
    out = np.zeros(4096, np.uint8)
    assert store.get("c", out) == 4096
    assert (out == b).all()


def test_capsules_hold_the_lease(store: ck.Store) -> None:
    store.put("a", np.arange(100, dtype=np.uint8))
    lease = store.get_gpu_ptr("a")
    assert lease.__dlpack_device__() == (2, 0)
    capsule = lease.__dlpack__(stream=1)
    with pytest.raises(BufferError, match="still exist"):
        lease.release()
    del capsule
    lease.release()
    assert not lease.valid
    with pytest.raises(BufferError, match="released"):
        lease.__dlpack__()
    with pytest.raises(BufferError, match="released"):
        _ = lease.__cuda_array_interface__


def test_the_array_interface(store: ck.Store) -> None:
    store.put("a", np.arange(100, dtype=np.uint8))
    lease = store.get_gpu_ptr("a")
    found = lease.__cuda_array_interface__
    assert found["data"] == (lease.ptr, False)
    assert (found["shape"], found["typestr"], found["version"]) == ((100,), "|u1", 3)

    class Array:
        """An array of 16-bit numbers in the same place, every second one if `step` is 2."""

        def __init__(self, step: int) -> None:
            self.__cuda_array_interface__ = {**found, "shape": (50 // step,), "typestr": "<f2", "strides": (2 * step,)}

    assert store.put("b", Array(1)) == "stored"
    with pytest.raises(ValueError, match="contiguous"):
        store.put("b", Array(2))
    out = np.zeros(100, np.uint8)
    assert store.get("b", out) == 100
    assert (out == np.arange(100)).all()


def test_what_is_no_array_is_refused(store: ck.Store) -> None:
    with pytest.raises(TypeError, match="bytes-like"):
        store.put("a", 7)  # type: ignore[arg-type]
    assert store.get_gpu_ptr("nothing") is None


def test_without_a_tier_of_devices_there_is_no_pointer(tmp_path: Path) -> None:
    where = Path("/dev/shm") / f"cascade-test-{os.getpid()}-nodevice"
    with ck.Store(shm_path=str(where), shm_capacity="16MiB") as plain:
        plain.put("a", b"bytes")
        assert plain.get_gpu_ptr("a") is None
        assert 'gpu_capacity = "off"' in plain.config()
    for file in where.iterdir():
        file.unlink()
    where.rmdir()
