"""The native API."""

import gc
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import cascade_kv as ck


def data(seed, size):
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)


def test_put_and_get(store):
    block = data(1, 1_000_003)
    assert store.put("x", block) == "stored"
    assert store.put("x", block) == "exists"
    out = np.zeros(1_000_100, np.uint8)
    assert store.get("x", out) == 1_000_003
    assert (out[:1_000_003] == block).all() and not out[1_000_003:].any()
    assert store.get("y", out) is None
    assert "x" in store and "y" not in store
    assert store.delete("x") and not store.delete("x")


def test_a_plan_needs_a_rate_that_is_one(store):
    store.put("x", data(1, 100_000))
    assert store.plan(["x", "y"], 16, tokens_per_s=1.0)["load"] == 1
    for rate in [0, -1, float("nan"), float("inf")]:
        with pytest.raises(ValueError, match="positive number"):
            store.plan(["x"], 16, tokens_per_s=rate)
    with pytest.raises(ValueError, match="block_tokens"):
        store.plan(["x"], 0)


def test_any_buffer_is_taken(store):
    for name, block in [("bytes", b"abc"), ("float", np.ones((3, 5), np.float32)), ("view", memoryview(bytearray(9)))]:
        assert store.put(name, block) == "stored"
        out = bytearray(memoryview(block).nbytes)
        assert store.get(name, out) == len(out)
        assert bytes(out) == bytes(block)


def test_an_array_that_is_too_short_is_not_touched(store):
    store.put("x", data(1, 5000))
    out = np.full(4999, 7, np.uint8)
    with pytest.raises(ValueError, match="5000 bytes and the array only 4999"):
        store.get("x", out)
    assert (out == 7).all()
    assert store.get_batch(["x", "x"], [out, np.zeros(5000, np.uint8)]) == [None, 5000]
    assert (out == 7).all()


def test_wrong_buffers_say_what_to_do(store):
    square = np.zeros((8, 8), np.uint8)
    with pytest.raises(ValueError, match="ascontiguousarray"):
        store.put("x", square[:, ::2])
    with pytest.raises(ValueError, match="ascontiguousarray"):
        store.put("x", np.asfortranarray(np.zeros((3, 4))))
    with pytest.raises(ValueError, match="at least one byte"):
        store.put("x", b"")
    with pytest.raises(TypeError, match="bytes-like"):
        store.put("x", 5)
    store.put("x", b"abc")
    with pytest.raises(ValueError, match="read-only"):
        store.get("x", b"abc")
    with pytest.raises(ValueError, match="overlap"):
        out = np.zeros(6, np.uint8)
        store.get_batch(["x", "x"], [out[:4], out[2:]])
    with pytest.raises(ValueError, match="as many"):
        store.put_batch(["a", "b"], [b"1"])


def test_a_lease_is_an_array_without_a_copy(store):
    block = data(2, 4096 * 3).view(np.float32)
    store.put("x", block)
    with store.lease("x") as lease:
        array = lease.numpy(np.float32, (3, -1))
        assert array.shape == (3, 1024) and not array.flags.writeable and not array.flags.owndata
        assert (array.view(np.uint32).ravel() == block.view(np.uint32)).all()
        assert memoryview(lease).readonly and len(lease) == 4096 * 3
        again = store.lease("x").numpy()
        assert again.__array_interface__["data"][0] == array.__array_interface__["data"][0], "the same memory"
        with pytest.raises(BufferError):
            lease.release()
    assert store.lease("y") is None


def test_an_array_pins_its_block_until_it_is_gone(store):
    store.put("pinned", data(3, 4 << 20))
    array = store.lease("pinned").numpy()
    before = array.copy()
    for number in range(60):
        assert store.put(f"other {number}", data(number, 4 << 20)) == "stored"
    assert (array == before).all() and "pinned" in store
    store.delete("pinned")
    assert (array == before).all() and "pinned" not in store
    del array
    gc.collect()
    store.clear()
    assert store.stats()["used_bytes"] == 0


def test_names_of_any_length_and_ids(store):
    for name in ["", "a", "b" * 100_000, "π∞\U0001f600", "with\0zero"]:
        assert store.put(name, name.encode() + b"!") == "stored"
        assert store.lookup([name]) == [len(name.encode()) + 1]
    first = ck.BlockId.content(b"abc")
    assert store.put(first, b"abc") == "stored" and store.put(first, b"other") == "exists"
    assert ck.BlockId.from_hex(first.hex()) == first == ck.BlockId.from_bytes(bytes(first))
    with pytest.raises(ValueError, match="32 bytes"):
        ck.BlockId.from_bytes(b"short")


def test_batches_and_prefixes(store):
    space = ck.KeySpace(
        model="m",
        weights="w",
        dtype="float32",
        layout="l",
        block_tokens=16,
        layers=2,
        kv_heads=1,
        tenant_secret=b"s" * 16,
    )
    ids = space.chain(list(range(100)))
    assert len(ids) == 6
    assert store.put_batch(ids[:4], [data(i, 1000 + i) for i in range(4)], prefix=True) == ["stored"] * 4
    assert store.longest_prefix(ids) == 4
    leases = store.lease_batch(ids)
    assert [lease and len(lease) for lease in leases] == [1000, 1001, 1002, 1003, None, None]
    assert space.chain([*range(50), 999, *range(51, 100)])[:3] == ids[:3]
    assert space.chain([*range(50), 999, *range(51, 100)])[3] != ids[3]


def test_blocks_outlive_the_process_that_put_them(place):
    script = """
import sys, os, signal, numpy as np, cascade_kv as ck
store = ck.Store(shm_path=sys.argv[1], shm_capacity="64MiB")
store.put("x", np.arange(1_000_000, dtype=np.int32))
lease = store.lease("x")
print("ready", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", script, place / "arena"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (-9, "ready\n"), done.stderr
    with ck.Store(shm_path=place / "arena") as store:
        assert (store.lease("x").numpy(np.int32) == np.arange(1_000_000)).all()


def test_a_forked_child_uses_the_store(store):
    store.put("x", b"before")
    lease = store.lease("x")
    child = os.fork()
    if child == 0:
        out = bytearray(6)
        good = (
            store.get("x", out) == 6
            and bytes(out) == b"before"
            and not lease.valid
            and store.put("c", b"child") == "stored"
        )
        os._exit(0 if good else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert lease.valid and bytes(lease) == b"before"
    assert bytes(store.lease("c")) == b"child"


def test_the_gil_is_released_round_a_copy(store):
    block = data(1, 40 << 20)
    ticks, stop = [], threading.Event()

    def tick():
        while not stop.is_set():
            ticks.append(None)
            time.sleep(0)  # hands the GIL over, and gets it back only when the copy has let go of it

    thread = threading.Thread(target=tick)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)  # only a released GIL lets the other thread run
    try:
        thread.start()
        ticks.clear()
        for number in range(5):
            store.put(f"{number}", block)
        seen = len(ticks)
    finally:
        stop.set()
        sys.setswitchinterval(interval)
        thread.join()
    assert seen > 0


def test_settings_come_from_file_environment_and_code(place):
    file = place / "cascade.toml"
    file.write_text(f'shm_path = "{place / "arena"}"\nshm_capacity = "32MiB"\nshm_owners = 7\n')
    script = "import cascade_kv as ck; print(ck.Store(shm_leases=128).config())"
    env = {**os.environ, "CASCADE_CONFIG": str(file), "CASCADE_SHM_CAPACITY": "16MiB"}
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=env, check=True).stdout
    for line in ['shm_capacity = "16MiB"  # environment', "shm_owners = 7  # file", "shm_leases = 168  # code"]:
        assert line in shown
    with pytest.raises(ValueError, match="no setting 'shm_capacty'|no setting \"shm_capacty\""):
        ck.Store(shm_capacty="1GiB")
    with pytest.raises(FileNotFoundError):
        ck.Store(config_file=place / "missing.toml")
    with pytest.raises(FileNotFoundError, match="parent"):
        ck.Store(shm_path=place / "no" / "such")
    with pytest.raises(MemoryError, match="free"):
        ck.Store(shm_path=place / "huge", shm_capacity="100TiB")
    with ck.Store(shm_path=place / "arena"), pytest.raises(ValueError, match="16777216.*33554432"):
        ck.Store(shm_path=place / "arena", shm_capacity="32MiB")


def test_a_closed_store_says_so(place):
    store = ck.Store(shm_path=place / "arena", shm_capacity="16MiB")
    store.put("x", b"abc")
    lease = store.lease("x")
    store.close()
    with pytest.raises(ValueError, match="closed"):
        store.put("y", b"abc")
    assert bytes(lease) == b"abc", "a lease outlives the store that gave it"
