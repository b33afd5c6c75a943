"""The connector's decisions over vLLM's own classes, without an engine: what is refused, who shares blocks, what is forwarded."""

import threading
from collections import Counter
from types import SimpleNamespace

import pytest
from parts import FULL, HEADS, MAMBA, MLA, WINDOW, caches, engine, identity, request
from vllm.v1.kv_cache_interface import FullAttentionSpec, UniformTypeKVCacheSpecs

from cascade_kv.vllm.identity import Scope, UnsupportedModelError, check_supported
from cascade_kv.vllm.metrics import CascadeStats
from cascade_kv.vllm.transfer import Done, Transfer
from cascade_kv.vllm.worker import WorkerSide


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
    names = {tuple(map(str, two.ids(hashes, shard, Scope()))) for shard in range(2)}
    names.add(tuple(map(str, identity(engine()).ids(hashes, 0, Scope()))))
    assert len(names) == 3
    # More ranks than heads: two of them hold the same head.
    four = identity(engine(tensor_parallel_size=4))
    assert list(map(str, four.ids(hashes, 0, Scope()))) == list(map(str, four.ids(hashes, 1, Scope())))
    assert list(map(str, four.ids(hashes, 1, Scope()))) != list(map(str, four.ids(hashes, 2, Scope())))


def test_other_weights_and_adapters_share_nothing():
    one = [b"h" * 32]
    found = {
        str(identity(engine(), weights).ids(one, 0, Scope(adapter))[0])
        for weights in "ab"
        for adapter in (None, "x", "y")
    }
    assert len(found) == 6


def test_a_hit_is_what_every_rank_has(side):
    scheduler, store = side
    hashes = [bytes([at]) * 32 for at in range(4)]
    ids = [scheduler._identity.ids(hashes, shard, Scope()) for shard in range(2)]
    for shard, count in ((0, 4), (1, 2)):
        for one in ids[shard][:count]:
            store.put(one, b"x" * 4096)
    assert scheduler.match(request(hashes, 4 * 128 + 1), 0) == (2 * 128, False)
    # A hole in one rank ends the prefix for all.
    store.delete(ids[0][1])
    scheduler._tracks.clear()
    assert scheduler.match(request(hashes, 4 * 128 + 1), 0) == (128, False)


def test_of_whole_blocks_all_but_the_last_token_is_offered(side):
    """vLLM computes one token at least; the block that it is in is loaded all the same."""
    scheduler, store = side
    hashes = [bytes([at]) * 32 for at in range(2)]
    for shard in range(2):
        for one in scheduler._identity.ids(hashes, shard, Scope()):
            store.put(one, b"x" * 4096)
    asked = request(hashes, 2 * 128)
    assert scheduler.match(asked, 0) == (2 * 128 - 1, False)
    scheduler.allocated(asked, SimpleNamespace(get_block_ids=lambda: ([7, 8],)), 2 * 128 - 1)
    (load,) = scheduler.plan().loads
    assert (load.rows, load.hashes, load.again) == ([7, 8], hashes, 1)
    assert sum(scheduler.sources(asked, 2 * 128 - 1).values()) == 2 * 128 - 1
    # Of what vLLM has itself it would compute the last block again.
    assert scheduler.match(asked, 128) == (127, False)
    scheduler.allocated(asked, SimpleNamespace(get_block_ids=lambda: ([7, 8],)), 127)
    (load,) = scheduler.plan().loads
    assert (load.rows, load.hashes, load.again) == ([8], hashes[1:], 1)


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
    worker._shard, worker._bad, worker._failed_step, worker._errors = 0, set(), 0, 0
    worker._stats, worker._lock = CascadeStats(), threading.Lock()
    worker._lease([Transfer("a", [3, 5], [])], step=7)
    assert worker.take_bad() == {3, 5}
    assert worker._failed_step == 7
