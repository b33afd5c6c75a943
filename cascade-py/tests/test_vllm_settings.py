"""What of the vLLM adapter needs no vLLM: settings, fingerprints, the printed configuration. The engine is in tests_vllm."""

import json
import os
import subprocess
import sys

import pytest

from cascade_kv.vllm import kv_transfer_settings
from cascade_kv.vllm.identity import UnsupportedModelError, checkpoint_fingerprint
from cascade_kv.vllm.settings import Settings, SharedStore


def test_settings_are_the_connectors_or_the_stores():
    settings = Settings.from_extra(
        {"load_async": True, "shm_path": "/dev/shm/x", "shm_capacity_bytes": 5, "demote": "off"}
    )
    assert settings.load_async and settings.save_async
    assert settings.store == {"shm_path": "/dev/shm/x", "shm_capacity": 5, "demote": "off"}


@pytest.mark.parametrize(
    "extra",
    [
        {"load_async": "yes"},
        {"pending_ms": -1},
        {"pending_ms": True},
        {"tenant_secret": 5},
        {"by_layer": True, "load_async": True},
        {"by_layer": True, "save_async": True},
        {"shm_path": ["a"]},
    ],
)
def test_a_wrong_setting_is_named(extra):
    with pytest.raises(ValueError, match=next(iter(extra))):
        Settings.from_extra(extra)


def test_a_setting_that_nobody_knows_is_refused(place):
    settings = Settings.from_extra({"shm_path": str(place / "arena"), "no_such_setting": 3})
    with pytest.raises(ValueError, match="no_such_setting"):
        SharedStore(settings.store)


def test_a_store_is_shared_within_a_process_and_closed_by_the_last(place):
    settings = {"shm_path": str(place / "arena"), "shm_capacity": "64MiB"}
    one, other = SharedStore(settings), SharedStore(settings)
    assert one.store is other.store
    one.close()
    one.close()
    assert not other.store.contains("x")
    other.close()
    with pytest.raises(ValueError, match="closed"):
        other.store.contains("x")


def test_one_byte_of_the_weights_is_another_fingerprint(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    model = tmp_path / "model"
    model.mkdir()
    weights = model / "a.safetensors"
    weights.write_bytes(bytes(100_000))
    (model / "README.md").write_text("not weights")
    first = checkpoint_fingerprint(str(model), None, "auto")
    assert checkpoint_fingerprint(str(model), None, "auto") == first
    assert len(list((tmp_path / "cache/cascade/weights").iterdir())) == 1
    changed = bytearray(100_000)
    changed[77_777] = 1
    # Written in place, same size, and the time of the last change set back: the time of the inode tells.
    before = weights.stat()
    weights.write_bytes(changed)
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert checkpoint_fingerprint(str(model), None, "auto") != first


def test_no_weights_are_no_fingerprint(tmp_path):
    with pytest.raises(UnsupportedModelError, match="weights_fingerprint"):
        checkpoint_fingerprint(str(tmp_path), None, "auto")


def test_the_command_prints_what_vllm_takes():
    words = [
        sys.executable,
        "-m",
        "cascade_kv.vllm",
        "--shm-path",
        "/dev/shm/kv",
        "--shm-capacity-bytes",
        "4096",
        "--load-async",
    ]
    done = subprocess.run([*words, "true"], capture_output=True, text=True, check=True)
    expected = kv_transfer_settings(shm_path="/dev/shm/kv", shm_capacity_bytes=4096, load_async=True)
    assert json.loads(done.stdout) == expected
    assert expected["kv_load_failure_policy"] == "recompute"
    wrong = subprocess.run([*words, "perhaps"], capture_output=True, text=True)
    assert wrong.returncode == 2 and "load_async" in wrong.stderr


def test_a_secret_that_is_none_is_refused():
    for secret in ("", "123456789012345"):
        with pytest.raises(ValueError, match="16 or more"):
            Settings.from_extra({"tenant_secret": secret})


def test_with_several_ranks_nothing_is_computed_of_a_load_before_all_were_heard():
    assert not Settings.from_extra({}).for_shards(1).load_async
    assert Settings.from_extra({}).for_shards(2).load_async
    with pytest.raises(ValueError, match="tensor parallelism"):
        Settings.from_extra({"by_layer": True}).for_shards(2)
