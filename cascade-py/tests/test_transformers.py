"""The Transformers adapter against real (tiny, random) models: what is loaded is what was saved, or it is not loaded."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
transformers = pytest.importorskip("transformers", reason="Transformers is not installed")

import cascade_kv as ck  # noqa: E402
from cascade_kv.transformers import PrefixCache, UnsupportedCacheError  # noqa: E402

BLOCK = 16
CAPACITY = "64MiB"
TOKENS = [3 + (i * 7919 + i * i * 31) % 290 for i in range(100)]  # six whole blocks and four tokens


def tiny_llama(dtype=torch.float32, seed=0, **changes):
    """A Llama of two layers and 0.3 M random parameters; the same seed gives the same weights in every process."""
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=300,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=512,
        initializer_range=0.2,
        **changes,
    )
    return transformers.LlamaForCausalLM(config).to(dtype).eval()


@torch.no_grad()
def forward(model, tokens, cache):
    return model(input_ids=torch.tensor([tokens], device=model.device), past_key_values=cache, use_cache=True).logits


def prefilled(model, tokens):
    cache = transformers.DynamicCache(config=model.config)
    forward(model, tokens, cache)
    return cache


def split_logits(model, tokens, cut):
    """Logits of the tokens after `cut`, computed without any store, in the same two passes."""
    cache = prefilled(model, tokens[:cut])
    return forward(model, tokens[cut:], cache)


@pytest.fixture
def arena(place):
    return str(place / "arena")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_round_trip_is_bit_equal(store, dtype):
    model = tiny_llama(dtype)
    prefixes = PrefixCache(store, model, block_tokens=BLOCK)
    original = prefilled(model, TOKENS[:96])
    report = prefixes.save(TOKENS[:96], original)
    assert (report.blocks, report.stored, report.present, report.tokens) == (6, 6, 0, 96)
    assert report.bytes_stored == 6 * prefixes.block_bytes == 96 * 2 * 2 * 2 * 16 * dtype.itemsize

    cache, count = prefixes.load(TOKENS)
    assert count == 96 and cache.get_seq_length() == 96
    for ours, theirs in zip(cache.layers, original.layers, strict=True):
        assert torch.equal(ours.keys, theirs.keys) and torch.equal(ours.values, theirs.values)
        assert ours.keys.dtype == dtype and ours.keys.is_contiguous()
    assert torch.equal(forward(model, TOKENS[96:], cache), split_logits(model, TOKENS, 96))


def test_a_changed_element_changes_the_logits(store):
    """The equality above would notice one wrong element."""
    model = tiny_llama()
    prefixes = PrefixCache(store, model, block_tokens=BLOCK)
    prefixes.save(TOKENS, prefilled(model, TOKENS[:96]))
    cache, _ = prefixes.load(TOKENS)
    cache.layers[0].keys[0, 0, 5, 0] += 1
    assert not torch.equal(forward(model, TOKENS[96:], cache), split_logits(model, TOKENS, 96))


def test_loaded_cache_is_private(store):
    model = tiny_llama()
    prefixes = PrefixCache(store, model, block_tokens=BLOCK)
    prefixes.save(TOKENS, prefilled(model, TOKENS[:96]))
    first, _ = prefixes.load(TOKENS)
    for layer in first.layers:
        layer.keys.fill_(7)
    second, _ = prefixes.load(TOKENS)
    assert not (second.layers[0].keys == 7).all()
    assert torch.equal(forward(model, TOKENS[96:], second), split_logits(model, TOKENS, 96))


def test_second_process_finds_what_the_first_stored(arena):
    child = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import cascade_kv as ck, test_transformers as t\n"
        "from cascade_kv.transformers import PrefixCache\n"
        f"store = ck.Store(shm_path={arena!r}, shm_capacity=t.CAPACITY)\n"
        "model = t.tiny_llama()\n"
        "r = PrefixCache(store, model, block_tokens=t.BLOCK).save(t.TOKENS, t.prefilled(model, t.TOKENS[:96]))\n"
        "assert r.stored == 6, r\n"
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True, timeout=300)
    assert done.returncode == -9, done.stderr
    with ck.Store(shm_path=arena, shm_capacity=CAPACITY) as store:
        model = tiny_llama()
        cache, count = PrefixCache(store, model, block_tokens=BLOCK).load(TOKENS)
        assert count == 96
        assert torch.equal(forward(model, TOKENS[96:], cache), split_logits(model, TOKENS, 96))


def test_longest_common_prefix_is_loaded(store):
    model = tiny_llama()
    prefixes = PrefixCache(store, model, block_tokens=BLOCK)
    prefixes.save(TOKENS, prefilled(model, TOKENS[:96]))
    other = TOKENS[:50] + [299] * 40  # differs within the fourth block
    cache, count = prefixes.load(other)
    assert count == 48
    reference = prefilled(model, TOKENS[:96])
    assert torch.equal(cache.layers[1].values, reference.layers[1].values[:, :, :48])
    assert prefixes.load([299] + TOKENS)[1] == 0


def test_one_token_is_always_left(store):
    model = tiny_llama()
    prefixes = PrefixCache(store, model, block_tokens=BLOCK)
    prefixes.save(TOKENS, prefilled(model, TOKENS[:96]))
    assert [prefixes.load(TOKENS[:n])[1] for n in (0, 1, 16, 17, 32, 96, 97)] == [0, 0, 0, 16, 16, 80, 96]


def test_missing_block_ends_the_prefix_and_is_stored_again(store):
    model = tiny_llama()
    prefixes = PrefixCache(store, model, block_tokens=BLOCK)
    full = prefilled(model, TOKENS[:96])
    prefixes.save(TOKENS, full)
    store.delete(prefixes.block_ids(TOKENS)[3])
    assert prefixes.load(TOKENS)[1] == 48
    report = prefixes.save(TOKENS, full)
    assert (report.present, report.stored, report.tokens) == (5, 1, 96)
    assert prefixes.load(TOKENS)[1] == 96


class EvictsAfterLookup:
    """A store whose block vanishes between the lookup and the lease, as under eviction by another process."""

    def __init__(self, store, position):
        self._store, self._position = store, position

    def __getattr__(self, name):
        return getattr(self._store, name)

    def longest_prefix(self, ids):
        found = self._store.longest_prefix(ids)
        self._store.delete(ids[self._position])
        return found


def test_block_evicted_after_the_lookup_shortens_the_prefix(store):
    model = tiny_llama()
    PrefixCache(store, model, block_tokens=BLOCK).save(TOKENS, prefilled(model, TOKENS[:96]))
    prefixes = PrefixCache(EvictsAfterLookup(store, 2), model, block_tokens=BLOCK)
    cache, count = prefixes.load(TOKENS)
    assert count == 32 == cache.get_seq_length() and prefixes.stats.shortened == 1
    assert torch.equal(forward(model, TOKENS[32:], cache), split_logits(model, TOKENS, 32))


def test_block_of_another_length_is_a_miss(store):
    model = tiny_llama()
    prefixes = PrefixCache(store, model, block_tokens=BLOCK)
    store.put(prefixes.block_ids(TOKENS)[0], bytes(100))
    assert prefixes.load(TOKENS)[1] == 0


def test_only_whole_fresh_blocks_are_stored(store):
    model = tiny_llama()
    prefixes = PrefixCache(store, model, block_tokens=BLOCK)
    assert prefixes.save(TOKENS, prefilled(model, TOKENS[:15])).blocks == 0
    assert prefixes.save(TOKENS, prefilled(model, TOKENS[:40])).stored == 2
    report = prefixes.save(TOKENS, prefilled(model, TOKENS))
    assert (report.present, report.stored) == (2, 4)
    assert prefixes.save(TOKENS, prefilled(model, TOKENS)).stored == 0
    assert (prefixes.stats.saves, prefixes.stats.blocks_stored) == (4, 6)


def test_after_generate(store):
    """After generate the cache lacks the last token; the whole blocks before it are stored and give the same text."""
    model = tiny_llama()
    prefixes = PrefixCache(store, model, block_tokens=BLOCK)
    options = {"max_new_tokens": 20, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    plain = model.generate(torch.tensor([TOKENS]), return_dict_in_generate=True, **options)
    report = prefixes.save(plain.sequences, plain.past_key_values)
    assert report.blocks == 7  # 119 tokens have keys and values
    cache, count = prefixes.load(torch.tensor([TOKENS]))
    assert count == 96
    restored = model.generate(torch.tensor([TOKENS]), past_key_values=cache, **options)
    assert torch.equal(restored, plain.sequences)


def test_fingerprint_separates_models(store):
    base = tiny_llama()
    prefixes = PrefixCache(store, base, block_tokens=BLOCK)
    prefixes.save(TOKENS, prefilled(base, TOKENS[:96]))

    touched = copy.deepcopy(base)
    with torch.no_grad():
        touched.model.layers[1].mlp.down_proj.weight[3, 5] += 1e-3  # one element of one matrix
    others = [
        PrefixCache(store, touched, block_tokens=BLOCK),
        PrefixCache(store, tiny_llama(seed=1), block_tokens=BLOCK),
        PrefixCache(store, tiny_llama(torch.bfloat16), block_tokens=BLOCK),
        PrefixCache(
            store, tiny_llama(rope_parameters={"rope_type": "default", "rope_theta": 77.0}), block_tokens=BLOCK
        ),
        PrefixCache(store, base, block_tokens=2 * BLOCK),
        PrefixCache(store, base, block_tokens=BLOCK, tenant_secret=b"0123456789abcdef"),
        PrefixCache(store, base, block_tokens=BLOCK, adapter="poems"),
    ]
    assert [other.load(TOKENS)[1] for other in others] == [0] * len(others)
    same = PrefixCache(store, copy.deepcopy(base), block_tokens=BLOCK)
    assert same.load(TOKENS)[1] == 96


def test_weights_changed_in_place_make_a_new_key_space(store):
    model = tiny_llama()
    prefixes = PrefixCache(store, model, block_tokens=BLOCK)
    prefixes.save(TOKENS, prefilled(model, TOKENS[:96]))
    with torch.no_grad():
        model.lm_head.weight[0, 0] += 1
    assert prefixes.load(TOKENS)[1] == 0


def test_extra_separates_equal_tokens(store):
    model = tiny_llama()
    prefixes = PrefixCache(store, model, block_tokens=BLOCK)
    salt = [b"user 1"] + [None] * 5
    prefixes.save(TOKENS, prefilled(model, TOKENS[:96]), extra=salt)
    assert prefixes.load(TOKENS)[1] == 0
    assert prefixes.load(TOKENS, extra=salt)[1] == 96


def test_sliding_window_is_refused_with_the_reason(store):
    config = transformers.MistralConfig(
        vocab_size=300,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=32,
    )
    model = transformers.MistralForCausalLM(config).eval()
    with pytest.raises(UnsupportedCacheError, match="DynamicSlidingWindowLayer.*window"):
        PrefixCache(store, model)


def test_length_dependent_rope_is_refused(store):
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    with pytest.raises(UnsupportedCacheError, match="dynamic.*length"):
        PrefixCache(store, tiny_llama(rope_parameters=rope))


def test_wrong_input_is_a_clear_error(store):
    model = tiny_llama()
    prefixes = PrefixCache(store, model, block_tokens=BLOCK)
    pair = transformers.DynamicCache(config=model.config)
    with torch.no_grad():
        model(input_ids=torch.tensor([TOKENS, TOKENS]), past_key_values=pair)
    with pytest.raises(ValueError, match="batch of 2"):
        prefixes.save(TOKENS, pair)
    with pytest.raises(ValueError, match="batch size must be 1"):
        prefixes.load(torch.tensor([TOKENS, TOKENS]))
    with pytest.raises(ValueError, match="batch size must be 1"):
        prefixes.load([TOKENS])
    with pytest.raises(UnsupportedCacheError, match="DynamicCache"):
        prefixes.save(TOKENS, tuple())
    with pytest.raises(UnsupportedCacheError, match="bfloat16"):
        prefixes.save(TOKENS, prefilled(tiny_llama(torch.bfloat16), TOKENS))
    with pytest.raises(ValueError, match="block_tokens"):
        PrefixCache(store, model, block_tokens=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: the device copies are not exercised here")
def test_round_trip_on_a_gpu(store):
    model = tiny_llama().to("cuda")
    prefixes = PrefixCache(store, model, block_tokens=BLOCK)
    original = prefilled(model, TOKENS[:96])
    assert prefixes.save(TOKENS, original).stored == 6
    cache, count = prefixes.load(TOKENS)
    assert count == 96 and cache.layers[0].keys.device.type == "cuda"
    assert torch.equal(cache.layers[1].values, original.layers[1].values)
    assert torch.equal(forward(model, TOKENS[96:], cache), split_logits(model, TOKENS, 96))
