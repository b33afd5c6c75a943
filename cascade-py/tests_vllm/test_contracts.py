"""The connector's decisions over vLLM's own classes, without an engine: what is refused, who shares blocks, what is forwarded."""

import threading
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from vllm.lora.request import LoRARequest
from vllm.v1.kv_cache_interface import (
    FullAttentionSpec,
    KVCacheConfig,
    KVCacheGroupSpec,
    MambaSpec,
    MLAAttentionSpec,
    SlidingWindowSpec,
    UniformTypeKVCacheSpecs,
)

from cascade_kv import Store
from cascade_kv.vllm.identity import Identity, UnsupportedModelError, adapter_fingerprint, check_supported
from cascade_kv.vllm.metrics import CascadeStats
from cascade_kv.vllm.scheduler import SchedulerSide
from cascade_kv.vllm.settings import Settings
from cascade_kv.vllm.transfer import Done, Transfer
from cascade_kv.vllm.worker import WorkerSide

HEADS = {"block_size": 128, "num_kv_heads": 2, "head_size": 64, "dtype": torch.float32}
FULL = FullAttentionSpec(**HEADS)
WINDOW = SlidingWindowSpec(**HEADS, sliding_window=256)
MLA = MLAAttentionSpec(block_size=128, num_kv_heads=1, head_size=576, dtype=torch.bfloat16)
MAMBA = MambaSpec(block_size=128, shapes=((4, 16),), dtypes=(torch.float32,))


def engine(**parallel):
    """The parts of vLLM's configuration that are looked at."""
    sizes = {"tensor_parallel_size": 1, "pipeline_parallel_size": 1} | parallel
    text = SimpleNamespace(rope_parameters=None)
    return SimpleNamespace(
        parallel_config=SimpleNamespace(**sizes),
        speculative_config=None,
        device_config=SimpleNamespace(device_type="cpu"),
        load_config=SimpleNamespace(load_format="auto"),
        cache_config=SimpleNamespace(prefix_caching_hash_algo="sha256", cache_dtype="auto", kv_cache_layout="LBHNC"),
        model_config=SimpleNamespace(
            model="m",
            revision=None,
            max_model_len=4096,
            quantization=None,
            dtype=torch.float32,
            hf_text_config=text,
            hf_config=SimpleNamespace(model_type="llama", to_dict=lambda: {"model_type": "llama"}),
            get_total_num_kv_heads=lambda: 2,
        ),
    )


def caches(*specs):
    """vLLM's description of the KV cache: a group of one layer for each."""
    groups = [KVCacheGroupSpec([f"layer.{at}"], spec) for at, spec in enumerate(specs)]
    return KVCacheConfig(num_blocks=8, kv_cache_tensors=[], kv_cache_groups=groups)


def identity(config, weights="w"):
    return Identity(config, caches(FULL), weights, None)


@pytest.mark.parametrize(
    ("specs", "reason"),
    [
        ((FULL, WINDOW), "--disable-hybrid-kv-cache-manager"),
        ((WINDOW,), "SlidingWindowSpec"),
        ((MLA,), "MLA"),
        ((MAMBA,), "MambaSpec"),
        ((UniformTypeKVCacheSpecs(block_size=128, kv_cache_specs={"a": FULL, "b": MLA}),), "MLA"),
    ],
)
def test_caches_that_could_not_be_right_are_refused(specs, reason):
    with pytest.raises(UnsupportedModelError, match=reason):
        check_supported(engine(), caches(*specs))


@pytest.mark.parametrize(
    "name", ["pipeline_parallel_size", "decode_context_parallel_size", "prefill_context_parallel_size"]
)
def test_ways_of_sharding_that_no_key_knows_are_refused(name):
    with pytest.raises(UnsupportedModelError, match=name):
        check_supported(engine(**{name: 2}), caches(FULL))


def test_what_is_supported_is_not_refused():
    check_supported(engine(tensor_parallel_size=2), caches(FULL))
    kept = FullAttentionSpec(**HEADS, sliding_window=256)
    check_supported(engine(), caches(UniformTypeKVCacheSpecs(block_size=128, kv_cache_specs={"a": FULL, "b": kept})))


def test_a_draft_model_and_a_device_are_refused():
    config = engine()
    config.speculative_config = SimpleNamespace(method="eagle")
    with pytest.raises(UnsupportedModelError, match="draft"):
        check_supported(config, caches(FULL))
    config.speculative_config.method = "ngram"
    check_supported(config, caches(FULL))
    config.device_config.device_type = "cuda"
    with pytest.raises(UnsupportedModelError, match="tier 'cascade'"):
        check_supported(config, caches(FULL))


def test_each_rank_has_blocks_of_its_own():
    hashes = [bytes([at]) * 32 for at in range(3)]
    two = identity(engine(tensor_parallel_size=2))
    names = {tuple(map(str, two.ids(hashes, shard, None))) for shard in range(2)}
    names.add(tuple(map(str, identity(engine()).ids(hashes, 0, None))))
    assert len(names) == 3
    # More ranks than heads: two of them hold the same head.
    four = identity(engine(tensor_parallel_size=4))
    assert list(map(str, four.ids(hashes, 0, None))) == list(map(str, four.ids(hashes, 1, None)))
    assert list(map(str, four.ids(hashes, 1, None))) != list(map(str, four.ids(hashes, 2, None)))


def test_other_weights_and_adapters_share_nothing():
    one = [b"h" * 32]
    found = {
        str(identity(engine(), weights).ids(one, 0, adapter)[0]) for weights in "ab" for adapter in (None, "x", "y")
    }
    assert len(found) == 6


def test_an_adapter_is_known_by_its_weights(tmp_path):
    def at(name, content):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "adapter_model.safetensors").write_bytes(content)
        return SimpleNamespace(lora_request=LoRARequest("a", 1, str(tmp_path / name)))

    first = adapter_fingerprint(at("one", b"weights"))
    assert first == adapter_fingerprint(at("two", b"weights"))
    assert first != adapter_fingerprint(at("one", b"other weights"))
    assert adapter_fingerprint(SimpleNamespace(lora_request=None)) is None


@pytest.fixture
def side(place):
    """The scheduler's side of an engine of two ranks, and its store."""
    with Store(shm_path=str(place / "contracts"), shm_capacity=64 << 20) as store:
        yield SchedulerSide(store, identity(engine(tensor_parallel_size=2)), Settings(), events=True), store


def request(hashes, tokens):
    return SimpleNamespace(
        request_id="r", num_tokens=tokens, block_hashes=hashes, lora_request=None, num_prompt_tokens=tokens
    )


def test_a_hit_is_what_every_rank_has(side):
    scheduler, store = side
    hashes = [bytes([at]) * 32 for at in range(4)]
    ids = [scheduler._identity.ids(hashes, shard, None) for shard in range(2)]
    for shard, count in ((0, 4), (1, 2)):
        for one in ids[shard][:count]:
            store.put(one, b"x" * 4096)
    assert scheduler.match(request(hashes, 4 * 128 + 1), 0) == (2 * 128, False)
    # A hole in one rank ends the prefix for all.
    store.delete(ids[0][1])
    scheduler._tracks.clear()
    assert scheduler.match(request(hashes, 4 * 128 + 1), 0) == (128, False)


def test_the_last_token_is_always_computed(side):
    scheduler, store = side
    hashes = [bytes([at]) * 32 for at in range(2)]
    for shard in range(2):
        for one in scheduler._identity.ids(hashes, shard, None):
            store.put(one, b"x" * 4096)
    assert scheduler.match(request(hashes, 2 * 128), 0) == (128, False)


def test_a_block_is_told_of_when_every_rank_has_stored_it(side):
    scheduler, _ = side
    one, other = b"a" * 32, b"b" * 32
    asked = request([other, one], 256)
    asked.all_token_ids = list(range(256))
    scheduler._announcements.describe(asked, [0, 1])

    def report(*ranks):
        first, *more = (Done(stored=Counter(have)) for have in ranks)
        for done in more:
            first = first.aggregate(done)
        scheduler.reported(SimpleNamespace(invalid_block_ids=set(), kv_connector_worker_meta=first))
        return list(scheduler.events())

    (event,) = report([one, other], [one])
    assert (len(event.block_hashes), event.block_size, event.medium) == (1, 128, "CPU")
    assert event.token_ids == list(range(128, 256))
    parent = event.parent_block_hash
    assert report([]) == []
    # The other rank's save ended in a later step.
    (event,) = report([other])
    assert event.block_hashes == [parent]
    assert event.parent_block_hash is None
    assert event.token_ids == list(range(128))


def test_a_load_that_the_scheduler_refused_is_reported_row_by_row() -> None:
    worker = object.__new__(WorkerSide)
    worker._store, worker._pages = SimpleNamespace(lease_batch=lambda ids: []), None
    worker._identity = SimpleNamespace(ids=lambda hashes, shard, adapter: list(hashes), block_tokens=16)
    worker._shard, worker._bad, worker._failed_step = 0, set(), 0
    worker._stats, worker._lock = CascadeStats(), threading.Lock()
    worker._lease([Transfer("a", [3, 5], [])], step=7)
    assert worker.take_bad() == {3, 5}
    assert worker._failed_step == 7
