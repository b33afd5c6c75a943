"""Both sides of the connector and the tier, over parts of vLLM: what is forgotten, what is told apart, what goes wrong."""

import json
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from parts import engine, request
from vllm.lora.request import LoRARequest
from vllm.v1.kv_offload.base import LookupResult
from vllm.v1.kv_offload.tiering.base import TransferJob

from cascade_kv.vllm import tier as tiers
from cascade_kv.vllm.adapters import Adapters
from cascade_kv.vllm.identity import Scope, UnsupportedModelError, adapter_files, files_fingerprint
from cascade_kv.vllm.metrics import CascadeStats
from cascade_kv.vllm.offloading import ENGINE, CascadeOffloadingConnector, tell
from cascade_kv.vllm.scheduler import _PATIENCE
from cascade_kv.vllm.settings import Settings
from cascade_kv.vllm.transfer import Done, Plan, Transfer
from cascade_kv.vllm.worker import WorkerSide

HASHES = [bytes([at]) * 32 for at in range(2)]


def fill(scheduler, store, scope):
    """Store the blocks of `HASHES` for both ranks."""
    for shard in range(2):
        for one in scheduler._identity.ids(HASHES, shard, scope):
            store.put(one, b"x" * 4096)


def step(computed, scheduled):
    """What vLLM's scheduler says of a step with the one request in it."""
    return SimpleNamespace(
        kv_connector_block_state=SimpleNamespace(resolve_block_ids=lambda _: [[7, 8, 9]]),
        scheduled_new_reqs=[SimpleNamespace(req_id="r", num_computed_tokens=computed)],
        scheduled_cached_reqs=SimpleNamespace(req_ids=[], num_computed_tokens=[]),
        scheduled_spec_decode_tokens={},
        num_scheduled_tokens={"r": scheduled},
    )


def test_what_was_stored_before_the_weights_changed_is_not_found(side):
    scheduler, store = side
    fill(scheduler, store, Scope())
    asked = request(HASHES, 2 * 128 + 1)
    asked.all_token_ids = list(range(2 * 128 + 1))
    assert scheduler.match(asked, 0) == (2 * 128, False)
    scheduler.forget()
    # It ran on, and what it computes is of both.
    plan = Plan(1, 0)
    scheduler.add_saves(plan, step(0, 257))
    assert plan.saves == []
    # Preempted, it begins again.
    assert scheduler.match(asked, 0) == (0, False)
    scheduler.add_saves(plan, step(0, 257))
    (save,) = plan.saves
    old, new = (scheduler._identity.ids(HASHES, 0, scope) for scope in (Scope(), save.scope))
    assert set(map(str, old)).isdisjoint(map(str, new))
    fill(scheduler, store, save.scope)
    assert scheduler.match(request(HASHES, 2 * 128 + 1), 0) == (2 * 128, False)
    # And again: nobody comes back to blocks of an earlier time.
    scheduler.forget()
    assert scheduler.match(request(HASHES, 2 * 128 + 1), 0) == (0, False)


def test_the_workers_errors_end_it_too(side):
    scheduler, _ = side
    for _ in range(_PATIENCE - 1):
        scheduler.reported(SimpleNamespace(invalid_block_ids=set(), kv_connector_worker_meta=Done(errors=1)))
    assert not scheduler.gave_up
    done = Done(errors=1).aggregate(Done())
    scheduler.reported(SimpleNamespace(invalid_block_ids=set(), kv_connector_worker_meta=done))
    assert scheduler.gave_up
    # Each side counts its own.
    assert scheduler.take_stats().is_empty()


@pytest.mark.parametrize("ended", [True, False])
def test_a_request_waits_while_blocks_come_up_and_no_longer(side, ended):
    scheduler, _ = side
    ticket = SimpleNamespace(poll=lambda: ended)
    scheduler._store = SimpleNamespace(
        locate=lambda ids: [("files", 4096)] * len(ids), submit_prefetch=lambda ids: ticket
    )
    # What could not come up is read from the files by the load.
    assert scheduler.match(request(HASHES, 257), 0) == ((256, False) if ended else (None, False))


def adapter(folder, weights=b"weights", alpha=16):
    """A LoRA adapter as a request names it."""
    folder.mkdir(exist_ok=True)
    (folder / "adapter_model.safetensors").write_bytes(weights)
    (folder / "adapter_config.json").write_text(json.dumps({"lora_alpha": alpha}))
    return LoRARequest("a", 1, str(folder))


@pytest.fixture
def adapters():
    """Those of one engine."""
    found = Adapters()
    yield found
    found.close()


def named(adapters, lora):
    """The adapter's name, once it is read."""
    until = time.monotonic() + 30
    while (name := adapters.find(lora)) is None:
        assert time.monotonic() < until
        time.sleep(0.01)
    return name


def test_an_adapter_is_known_by_its_weights_and_their_scale(tmp_path):
    names = [
        files_fingerprint(adapter_files(adapter(tmp_path / str(at), **given).lora_path))
        for at, given in enumerate(({}, {}, {"weights": b"other"}, {"alpha": 32}))
    ]
    assert names[0] == names[1]
    assert len(set(names)) == 3


def test_requests_wait_while_an_adapter_is_read(side, tmp_path, monkeypatch):
    scheduler, _ = side
    go = threading.Event()

    def slow(files):
        go.wait(30)
        return files_fingerprint(files)

    monkeypatch.setattr("cascade_kv.vllm.adapters.files_fingerprint", slow)
    asked = request(HASHES, 257, adapter(tmp_path / "one"))
    assert scheduler.match(asked, 0) == (None, False)
    go.set()
    named(scheduler._adapters, asked.lora_request)
    assert scheduler.match(asked, 0) == (0, False)
    assert scheduler._tracks["r"].scope.adapter is not None


def test_an_adapter_whose_files_have_changed_is_not_cached(side, tmp_path):
    scheduler, _ = side
    lora = adapter(tmp_path / "one")
    first = named(scheduler._adapters, lora)
    adapter(tmp_path / "one", weights=b"other weights")
    # vLLM may still compute with those that it has read.
    assert scheduler.match(request(HASHES, 257, lora), 0) == (0, False)
    assert scheduler._tracks["r"].ignored
    again = LoRARequest("a", 1, lora.lora_path, load_inplace=True)
    assert named(scheduler._adapters, again) != first


def test_an_adapter_that_is_not_there_is_not_cached(side, tmp_path):
    scheduler, _ = side
    assert scheduler.match(request(HASHES, 257, LoRARequest("a", 1, str(tmp_path))), 0) == (0, False)
    assert scheduler._tracks["r"].ignored


def ended_pool():
    """A pool that takes nothing, as when no thread can be started."""
    pool = ThreadPoolExecutor(1)
    pool.shutdown()
    return pool


def test_saves_that_cannot_begin_are_over():
    worker = object.__new__(WorkerSide)
    worker._stats, worker._lock, worker._errors, worker._stored = CascadeStats(), threading.Lock(), 0, None
    worker._leases, worker._failed_step, worker._fill = [], 0, None
    worker._saver, worker._saving, worker._finishing, worker._loading = ended_pool(), {}, set(), {}
    worker.finish_step(Plan(1, 0, saves=[Transfer("r", [1], HASHES[:1])]))
    # vLLM gives its pages back when it hears of it.
    assert worker.transfers_done({"r"}) == ({"r"}, set())
    assert worker.report().errors == 1


def offloading(config, **of_tier):
    """vLLM's specification of a tier, as `CascadeOffloadingConnector` makes it for an engine."""
    extra = {"secondary_tiers": [{"type": "cascade", **of_tier}]}
    if config is not None:
        tell(config, extra)
    parallel = SimpleNamespace(tp_size=1, pp_size=1, pcp_size=1, dcp_size=1, is_parallelism_agnostic=False)
    return SimpleNamespace(
        groups=[SimpleNamespace(tokens_per_block=128, layer_names=["a"])],
        cache=SimpleNamespace(tokens_per_hash=128, blocks_per_chunk=1),
        model=SimpleNamespace(name="m", dtype="float32"),
        parallel=parallel,
        extra_config=extra,
        canonical_layout=False,
        replicated_layout=False,
        kv_cache_layout="LBHNC",
        enable_kv_cache_events=False,
    )


def test_the_tier_tells_engines_apart(monkeypatch):
    monkeypatch.setattr(tiers, "checkpoint_fingerprint", lambda *_: "weights")

    def of(change):
        config = engine()
        change(config)
        space = tiers._key_space(offloading(config), 4096, Settings())
        return str(space.foreign(b"h" * 32))

    def overridden(config):
        config.model_config.hf_config.to_dict = lambda: {"model_type": "llama", "rope_theta": 1e6}

    def quantised(config):
        config.model_config.quantization = "fp8"

    def narrow(config):
        config.cache_config.cache_dtype = "fp8"

    changes = (lambda _: None, overridden, quantised, narrow)
    assert len({of(change) for change in changes}) == len(changes)
    assert of(lambda _: None) == of(lambda _: None)


def test_the_tier_refuses_what_it_could_not_tell_apart():
    with pytest.raises(UnsupportedModelError, match="CascadeOffloadingConnector"):
        tiers._key_space(offloading(None), 4096, Settings())
    tiers._key_space(offloading(None), 4096, Settings(weights_fingerprint="mine"))
    config = engine()
    config.lora_config = object()
    with pytest.raises(UnsupportedModelError, match="LoRA"):
        offloading(config)
    assert ENGINE in offloading(config, weights_fingerprint="mine").extra_config


def test_the_tier_forgets_with_vllms_cache(place, monkeypatch):
    monkeypatch.setattr(tiers, "checkpoint_fingerprint", lambda *_: "weights")
    config = offloading(engine())
    rows = memoryview(bytearray(4096)).cast("B", (1, 4096))
    tier = tiers.CascadeTier(
        SimpleNamespace(config=config), rows, "cascade", shm_path=str(place / "epochs"), shm_capacity=64 << 20
    )
    try:
        tier.submit_store(_job(1, is_promotion=False))
        tier.drain_jobs()
        assert tier.lookup(b"k" * 36, None) is LookupResult.HIT
        connector = object.__new__(CascadeOffloadingConnector)
        connector._extra = config.extra_config
        monkeypatch.setattr(CascadeOffloadingConnector.__base__, "reset_cache", lambda _: True)
        assert connector.reset_cache()
        assert tier.lookup(b"k" * 36, None) is LookupResult.MISS
        tier.submit_store(_job(2, is_promotion=False))
        tier.drain_jobs()
        assert tier.lookup(b"k" * 36, None) is LookupResult.HIT
    finally:
        tier.shutdown()


def test_the_tiers_jobs_end_that_cannot_begin(place):
    spec = SimpleNamespace(config=offloading(None, weights_fingerprint="w"))
    rows = memoryview(bytearray(2 * 4096)).cast("B", (2, 4096))
    settings = {"shm_path": str(place / "jobs"), "shm_capacity": 64 << 20, "weights_fingerprint": "w"}
    tier = tiers.CascadeTier(spec, rows, "cascade", **settings)
    try:
        tier._threads.shutdown()
        tier.submit_store(_job(1, is_promotion=False))
        tier.submit_load(_job(2, is_promotion=True))
        done = list(tier.get_finished_jobs())
        assert [(one.job_id, one.success) for one in done] == [(1, False), (2, False)]
        tier.drain_jobs()
        assert not tier.has_pending_work()
    finally:
        tier.shutdown()


def _job(number, *, is_promotion):
    import numpy as np

    return TransferJob(
        job_id=number, keys=[b"k" * 36], chunk_ids=np.array([0]), is_promotion=is_promotion, req_context=None
    )


def test_a_secret_of_digits_is_a_secret():
    words = [
        sys.executable,
        "-m",
        "cascade_kv.vllm",
        "--shm-path",
        "/dev/shm/kv",
        "--tenant-secret",
        "1234567890123456",
    ]
    printed = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    assert json.loads(printed)["kv_connector_extra_config"]["tenant_secret"] == "1234567890123456"
