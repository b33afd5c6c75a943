"""Parts of vLLM's configuration and requests, for tests without an engine."""

from types import SimpleNamespace

import torch
from vllm.v1.kv_cache_interface import (
    FullAttentionSpec,
    KVCacheConfig,
    KVCacheGroupSpec,
    MambaSpec,
    MLAAttentionSpec,
    SlidingWindowSpec,
)

from cascade_kv.vllm.identity import Identity

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
        lora_config=None,
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


def request(hashes, tokens, lora=None):
    """A request of so many tokens."""
    return SimpleNamespace(
        request_id="r", num_tokens=tokens, block_hashes=hashes, lora_request=lora, num_prompt_tokens=tokens
    )
