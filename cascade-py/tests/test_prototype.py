"""The prototype's scripts, with only the import line changed."""

import shutil
import subprocess
import sys
import warnings

import numpy as np
import pytest

import cascade_kv as cascade_cpp

WRITER = """
import sys, os, signal
import numpy as np
import cascade_kv as cascade_cpp
from cascade_kv import CascadeConfig, CascadeStore
cfg = CascadeConfig(); cfg.shm_path = sys.argv[1]; cfg.shm_capacity_bytes = 10 * 1024**2 * int(sys.argv[2])
store = CascadeStore(cfg)
data = np.arange(1024**2 * int(sys.argv[2]), dtype=np.uint32).view(np.uint8)
assert store.put("block_id", data, False) is True
found, size = store.get("block_id", np.empty_like(data))
assert (found, size) == (True, data.nbytes)
print("stored", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("mib", [8, 128])
def test_a_second_process_finds_the_block_after_sigkill(place, mib):
    """A quarter of `mib` MiB of uint32, so blocks of 32 MiB and of 512 MiB."""
    done = subprocess.run(
        [sys.executable, "-c", WRITER, place / "arena", str(mib)], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout) == (-9, "stored\n"), done.stderr
    config = cascade_cpp.CascadeConfig(shm_path=place / "arena", shm_capacity_bytes=10 * 1024**2 * mib)
    store = cascade_cpp.CascadeStore(config)
    short = np.full(mib * 1024**2 * 4 - 1, 7, np.uint8)
    with pytest.raises(ValueError, match="only"):
        store.get("block_id", short)
    assert (short == 7).all()
    out = np.empty(mib * 1024**2 * 4, np.uint8)
    assert store.get("block_id", out) == (True, out.nbytes)
    assert (out.view(np.uint32) == np.arange(1024**2 * mib, dtype=np.uint32)).all()


@pytest.fixture
def store(place):
    config = cascade_cpp.CascadeConfig()
    config.shm_path = str(place / "arena")
    config.shm_capacity_bytes = 32 * 1024**2
    return cascade_cpp.CascadeStore(config)


def test_batches_count_and_short_arrays_are_a_status(store):
    blocks = [np.full(1000, number, np.uint8) for number in range(3)]
    assert store.put_batch(["a", "b", "c"], blocks) == 3
    outs = [np.zeros(1000, np.uint8), np.zeros(10, np.uint8), np.zeros(2000, np.uint8), np.zeros(5, np.uint8)]
    assert store.get_batch(["a", "b", "c", "d"], outs) == (2, [1000, 0, 1000, 0])
    assert not outs[1].any() and (outs[2][:1000] == 2).all()


def test_other_bytes_under_a_name_replace(store):
    assert store.put("n", np.zeros(100, np.uint8), True) and store.put("n", np.ones(50, np.uint8))
    out = np.zeros(100, np.uint8)
    assert store.get("n", out) == (True, 50) and out[:50].all() and not out[50:].any()
    assert store.put("n", np.ones(50, np.uint8))
    stats = store.get_stats()
    assert stats["shm_puts"] == 2 and stats["dedup_hits"] == 1 and stats["shm_hits"] == 1
    store.flush()
    store.clear()
    assert store.get_stats()["shm_used"] == 0 and not store.contains("n")


def test_a_block_larger_than_the_store_is_refused(store):
    assert store.put("huge", np.zeros(33 * 1024**2, np.uint8)) is False
    assert store.put("fits", np.zeros(32 * 1024**2, np.uint8)) is True


def test_settings_without_a_meaning_warn():
    config = cascade_cpp.CascadeConfig()
    assert (
        config.gpu_capacity_bytes == 32 * 1024**3
        and config.lustre_stripe_count == 16
        and config.kv_compression is False
    )
    with pytest.warns(UserWarning, match="use_gpu = True has no effect"):
        config.use_gpu = True
    with pytest.warns(UserWarning, match="aggregated_lustre = False"):
        config.aggregated_lustre = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        config.use_gpu = False
        config.dedup_enabled = True
    with pytest.raises(AttributeError, match="no setting 'shm_size'"):
        config.shm_size = 1


def test_lustre_path_keeps_blocks_when_the_arena_is_gone(place, tmp_path):
    config = cascade_cpp.CascadeConfig(shm_path=place / "arena", shm_capacity_bytes=32 * 1024**2)
    config.lustre_path = str(tmp_path / "files")
    config.lustre_stripe_count = 4
    config.agg_file_size = 8 * 1024**2
    store = cascade_cpp.CascadeStore(config)
    data = np.arange(1024**2, dtype=np.uint32).view(np.uint8)
    assert store.put("block_id", data) is True
    store.flush()
    assert store.get_stats()["lustre_puts"] == 1
    store.native.close()
    shutil.rmtree(place / "arena")
    store = cascade_cpp.CascadeStore(config)
    out = np.empty_like(data)
    assert store.get("block_id", out) == (True, data.nbytes) and (out == data).all()
    stats = store.get_stats()
    assert (stats["lustre_hits"], stats["shm_hits"], stats["promotions_to_shm"]) == (1, 0, 1)
    shown = store.native.config()
    assert "pfs_stripe_count = 4" in shown and 'pfs_segment = "8MiB"' in shown
    with pytest.warns(UserWarning, match="without lustre_path"):
        cascade_cpp.CascadeStore(
            cascade_cpp.CascadeConfig(shm_path=place / "other", shm_capacity_bytes=2**24, lustre_stripe_count=2)
        )


def test_compute_block_id_is_a_hash_of_the_bytes():
    one = cascade_cpp.compute_block_id(np.arange(1000))
    assert len(one) == 64 and int(one, 16) >= 0
    assert (
        one == cascade_cpp.compute_block_id(np.arange(1000).tobytes()) != cascade_cpp.compute_block_id(np.arange(1001))
    )
