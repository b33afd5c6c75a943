"""The prototype's store of a job, in the wheel without MPI; with MPI it is tested by real ranks, in tests_mpi."""

import os
import subprocess
import sys

import pytest

import cascade_kv as ck


@pytest.fixture
def alone(place, monkeypatch):
    monkeypatch.setenv("CASCADE_SHM_PATH", str(place / "arena"))
    with ck.DistributedStore(ck.DistributedConfig(dram_capacity=32 * 1024**2)) as store:
        yield store


def test_a_world_of_one(alone):
    assert (alone.rank, alone.world_size) == (0, 1)
    assert alone.put("a", b"aaa", True) and alone.put_batch(["b", "c"], [b"bb", b"c"]) == 2
    out = bytearray(3)
    assert alone.get("a", out) == (True, 3) and out == b"aaa"
    outs = [bytearray(2), bytearray(1), bytearray(1)]
    assert alone.get_batch(["b", "c", "d"], outs) == (2, [2, 1, 0])
    place = alone.locate("a")
    assert (place.node_id, place.gpu_id, place.size, place.is_gpu, place.is_prefix) == (0, -1, 3, False, True)
    assert place.offset > 0 and place.offset % 4096 == 0
    assert alone.locate("d") is None and alone.contains("b") and not alone.contains("d")
    alone.barrier()
    alone.sync_metadata()
    alone.flush()
    stats = alone.get_stats()
    assert (stats["puts"], stats["local_dram_hits"], stats["remote_dram_hits"]) == (3, 3, 0)
    alone.clear()
    assert not alone.contains("a")


def test_a_short_array_is_an_error_that_leaves_it_alone(alone):
    alone.put("a", b"aaa")
    out = bytearray(2)
    with pytest.raises(ValueError, match="only 2"):
        alone.get("a", out)
    assert out == bytes(2)


def test_every_field_of_the_prototype_is_there_and_says_what_replaces_it():
    for name, value, words in [
        ("staging_buffer_size", 1, "no staging buffers"),
        ("num_gpus_per_node", 4, "gpu_devices"),
        ("prefix_replication", False, "keeps a copy"),
        ("promotion_threshold", 2, "first got"),
        ("kv_compression", True, "not offered"),
        ("sync_metadata", False, "keeps its entry"),
        ("aggregated_lustre", False, "few large files"),
    ]:
        with pytest.warns(UserWarning, match=words):
            ck.DistributedConfig(**{name: value})
    config = ck.DistributedConfig()
    assert (config.dram_capacity, config.num_staging_buffers, config.promotion_threshold) == (64 * 1024**3, 32, 3)
    with pytest.raises(AttributeError, match="no setting 'dram'"):
        config.dram = 1
    with pytest.raises(ValueError, match="without lustre_path"):
        ck.DistributedStore(ck.DistributedConfig(agg_file_size=1024**2))


@pytest.mark.skipif(ck.Rank.IS_BUILT, reason="this build has MPI: tests_mpi has real ranks")
def test_many_ranks_without_mpi_or_agent_name_both_cures(place):
    environment = os.environ | {
        "PMI_RANK": "1",
        "PMI_SIZE": "2",
        "PMI_FD": "5",
        "CASCADE_SHM_PATH": str(place / "arena"),
    }
    program = "import cascade_kv as ck; ck.DistributedStore(ck.DistributedConfig(dram_capacity=1 << 24))"
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "ConnectionError" in done.stderr, done.stderr
    assert "rank 1 of 2" in done.stderr and "start `cascade serve`" in done.stderr
    assert "cargo xtask wheel --mpi" in done.stderr


@pytest.mark.skipif(ck.Rank.IS_BUILT, reason="this build has MPI: tests_mpi has real ranks")
def test_the_plain_wheel_says_what_a_rank_needs():
    with pytest.raises(OSError, match="cargo xtask wheel --mpi"):
        ck.Rank()
