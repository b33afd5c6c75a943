"""Checks and measures the tier of GPUs from Python, on a machine with a GPU and torch: ``python -m cascade_kv.gpu_check``.

Round trips of tensors, leases as tensors (attention on one beside a torch tensor), and with Transformers the time to first token
of a Llama-3.1-8B-shaped model with random weights: recomputed, and with its KV from device memory, from the arena and from
files. The loaded bytes must be those that were computed, and the logits equal wherever recomputing gives equal ones. One JSON document on standard output; the exit status is 1 when something was wrong.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import cascade_kv as ck


def _timed(work: Callable[[], Any], repetitions: int = 5) -> float:
    """Median seconds of `work`, the device awaited, after one run that warms up."""
    times = []
    for _ in range(repetitions + 1):
        torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def round_trips(store: ck.Store) -> dict[str, Any]:
    """Tensors of several types in and out, through every way, compared byte by byte."""
    checks: dict[str, bool] = {}
    for dtype in (torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.int64):
        for count in (1, 1000, 1 << 20):
            tensor = torch.randint(0, 100, (count,), device="cuda").to(dtype)
            name = f"{str(dtype).removeprefix('torch.')}x{count}"
            id_ = ck.BlockId.content(name.encode())
            right = store.put(id_, tensor) == "stored" and store.put(id_, tensor) == "exists"
            out = torch.empty_like(tensor)
            right &= store.get(id_, out) == tensor.nbytes and torch.equal(out, tensor)
            store.flush()
            host = np.zeros(tensor.nbytes, np.uint8)
            right &= store.get(id_, host) == tensor.nbytes
            right &= bool((host == tensor.view(torch.uint8).cpu().numpy()).all())
            with store.get_gpu_ptr(id_) as lease:
                right &= torch.equal(lease.torch(dtype), tensor)
                shared = torch.as_tensor(lease, device="cuda")
                right &= shared.data_ptr() == lease.ptr and torch.equal(shared, tensor.view(torch.uint8))
                del shared
            checks[name] = bool(right)
    # Work that is only queued: the put comes after it, on the current stream, whichever that is.
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        slow = torch.randn(4096, 4096, device="cuda")
        for _ in range(20):
            slow = torch.nn.functional.normalize(slow @ slow)
        store.put("queued", slow)
    out = torch.empty_like(slow)
    store.get("queued", out)
    torch.cuda.synchronize()
    checks["put follows the current stream"] = torch.equal(out, slow)
    replaced = torch.ones(1000, device="cuda")
    store.put("queued", replaced)
    out = torch.empty_like(replaced)
    checks["names replace"] = store.get("queued", out) == 4000 and torch.equal(out, replaced)
    lease = store.get_gpu_ptr("queued")
    view = lease.torch(torch.float32)
    del lease
    checks["a tensor keeps its lease"] = torch.equal(view, replaced)
    return {"checks": checks, "right": all(checks.values())}


def rates(store: ck.Store) -> dict[str, Any]:
    """GB/s of puts and gets of tensors, and microseconds of a lease by pointer."""
    found: dict[str, Any] = {}
    for size in (8 << 20, 64 << 20, 256 << 20):
        tensor = torch.randint(0, 255, (size,), dtype=torch.uint8, device="cuda")
        ids = [ck.BlockId.content(f"{size} {index}".encode()) for index in range(6)]
        source = iter(ids)
        put = _timed(lambda: store.put(next(source), tensor), 5)  # noqa: B023
        store.flush()
        out = torch.empty_like(tensor)
        get = _timed(lambda: store.get(ids[-1], out), 5)  # noqa: B023
        found[str(size)] = {"put_gbps": size / put / 1e9, "get_hbm_gbps": size / get / 1e9}
        for id_ in ids:
            store.delete(id_)
    store.put("one", torch.ones(1 << 16, device="cuda"))
    one = ck.BlockId.content(b"one block")
    store.put(one, torch.ones(1 << 16, device="cuda"))
    for name, id_ in (("content", one), ("name", "one")):
        start = time.perf_counter()
        for _ in range(20_000):
            store.get_gpu_ptr(id_)
        found[f"lease_us_{name}"] = (time.perf_counter() - start) / 20_000 * 1e6
    return found


def attention(store: ck.Store) -> dict[str, Any]:
    """Scaled dot product attention whose keys and values are a leased block, beside ones in torch tensors."""
    heads, tokens, dim = 8, 32_768, 128
    keys_values = torch.randn(2, 1, heads, tokens, dim, device="cuda", dtype=torch.bfloat16)
    query = torch.randn(1, heads, 64, dim, device="cuda", dtype=torch.bfloat16)
    id_ = ck.BlockId.content(b"keys and values")
    store.put(id_, keys_values)
    lease = store.get_gpu_ptr(id_)
    return _beside(query, keys_values, lease.torch(torch.bfloat16, keys_values.shape))


def _beside(query: torch.Tensor, own: torch.Tensor, leased: torch.Tensor) -> dict[str, Any]:
    def attend(memory: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.scaled_dot_product_attention(query, memory[0], memory[1])

    def twenty(memory: torch.Tensor) -> float:
        return _timed(lambda: [attend(memory) for _ in range(20)], 3)

    ratios = [twenty(own) / twenty(leased) for _ in range(9)]
    equal = torch.equal(attend(own), attend(leased))
    return {"speed_against_torch": statistics.median(ratios), "least": min(ratios), "equal": equal}


def _model(layers: int) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=128_256,
        hidden_size=4096,
        intermediate_size=14_336,
        num_hidden_layers=layers,
        num_attention_heads=32,
        num_key_value_heads=8,
        max_position_embeddings=131_072,
        rope_theta=500_000.0,
    )
    torch.manual_seed(1)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        model = LlamaForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    return model.eval()


def repeat(store: ck.Store, lengths: list[int], model: Any, block_tokens: int, repetitions: int) -> dict[str, Any]:
    """The same load again and again: bytes and logits, told apart."""
    from cascade_kv._gpu_repeat import repeated
    from cascade_kv.transformers import PrefixCache

    prefixes = PrefixCache(store, model, block_tokens=block_tokens)
    return repeated(store, prefixes, model, lengths, repetitions)


def first_token(store: ck.Store, lengths: list[int], model: Any, block_tokens: int) -> dict[str, Any]:
    """Seconds to the first token of prompts of so many tokens, by where their KV is; logits are compared."""
    from cascade_kv.transformers import PrefixCache

    prefixes = PrefixCache(store, model, block_tokens=block_tokens)
    rows = []
    for length in lengths:
        prompt = torch.randint(0, 128_000, (1, length + 1), device="cuda")
        split = length // block_tokens * block_tokens

        def plain(prompt: torch.Tensor = prompt, split: int = split) -> torch.Tensor:
            """Recomputed, in the same split into passes as with a loaded prefix, which alone gives the same bits."""
            past = model(input_ids=prompt[:, :split], use_cache=True, logits_to_keep=1).past_key_values
            plain.cache = past  # type: ignore[attr-defined]
            return model(input_ids=prompt[:, split:], past_key_values=past, logits_to_keep=1).logits

        def loaded(prompt: torch.Tensor = prompt, split: int = split) -> torch.Tensor:
            cache, count = prefixes.load(prompt[0])
            loaded.count = count  # type: ignore[attr-defined]
            return model(input_ids=prompt[:, count:], past_key_values=cache, logits_to_keep=1).logits

        with torch.inference_mode():
            expected = plain()
            prefixes.save(prompt[0, :split], plain.cache)  # type: ignore[attr-defined]
            plain.cache = None  # type: ignore[attr-defined]
            row: dict[str, Any] = {"tokens": length, "recomputed_s": _timed(plain, 3)}
            # Long prompts may give other last bits each time, without any store.
            row["recomputed_equal_logits"] = all(torch.equal(plain(), expected) for _ in range(4))
            plain.cache = None  # type: ignore[attr-defined]
            store.flush(600)
            ids = prefixes.block_ids(prompt[0])
            row["kv_bytes"] = len(ids) * prefixes.block_bytes
            for tier in ("hbm", "arena", "files"):
                row[tier] = _from_tier(store, tier, ids, loaded, expected)
        rows.append(row)
        for id_ in ids:
            store.delete(id_)
    return {"layers": len(model.model.layers), "block_tokens": block_tokens, "rows": rows}


def _from_tier(
    store: ck.Store, tier: str, ids: list[ck.BlockId], loaded: Callable[[], torch.Tensor], expected: torch.Tensor
) -> dict[str, Any]:
    from cascade_kv._gpu_repeat import place

    times, equal, found = [], True, ""
    for repetition in range(4):
        found = place(store, tier, ids)
        torch.cuda.synchronize()
        start = time.perf_counter()
        logits = loaded()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
        equal &= torch.equal(logits, expected)
        if repetition == 0:
            times.clear()
    return {
        "seconds": statistics.median(times),
        "from": found,
        "tokens": loaded.count,  # type: ignore[attr-defined]
        "equal_logits": equal,
    }


def main() -> int:
    """Runs everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shm-path", default="/dev/shm/cascade-gpu-check")
    parser.add_argument("--shm-capacity", default="12GiB")
    parser.add_argument("--gpu-capacity", default="8GiB")
    parser.add_argument("--tokens", default="8192,16384,32768")
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--block-tokens", type=int, default=256)
    parser.add_argument("--repeat", type=int, default=3, help="loads from each tier whose bytes are compared")
    parser.add_argument("--only", default="round_trips,rates,attention,first_token,repeat")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result: dict[str, Any] = {"device": torch.cuda.get_device_name(), "torch": torch.__version__}
    with (
        tempfile.TemporaryDirectory() as files,
        ck.Store(
            shm_path=options.shm_path,
            shm_capacity=options.shm_capacity,
            gpu_capacity=options.gpu_capacity,
            pfs_path=f"{files}/segments",
            pfs_capacity="24GiB",
        ) as store,
    ):
        store.wait_ready(120)
        lengths = [int(length) for length in options.tokens.split(",")]
        wanted = options.only.split(",")
        model = _model(options.layers) if {"first_token", "repeat"} & set(wanted) else None
        size = options.block_tokens
        steps: dict[str, Callable[[], dict[str, Any]]] = {
            "round_trips": lambda: round_trips(store),
            "rates": lambda: rates(store),
            "attention": lambda: attention(store),
            "first_token": lambda: first_token(store, lengths, model, size),
            "repeat": lambda: repeat(store, lengths, model, size, options.repeat),
        }
        for name, step in ((name, steps[name]) for name in wanted):
            print(f"{name} ..", file=sys.stderr, flush=True)
            try:
                result[name] = step()
            except Exception as error:  # one part that fails must not hide what the others found
                result[name] = {"error": f"{type(error).__name__}: {error}"}
        result["stats"] = store.stats()
        store.clear()
    result["right"] = _is_right(result)
    text = json.dumps(result, indent=1, default=str)
    if options.json:
        options.json.write_text(text)
    print(text)
    return 0 if result["right"] else 1


def _is_right(result: dict[str, Any]) -> bool:
    """Whether no part that ran found anything wrong."""
    rows = result.get("first_token", {"rows": []}).get("rows")
    repeats = result.get("repeat", {"rows": []}).get("rows")
    if rows is None or repeats is None:
        return False
    # Where a recomputation does not give the same logits either, a load cannot: its bytes are compared by `repeat`.
    steady = [row for row in rows if row["recomputed_equal_logits"]]
    tiers = [row[tier] for row in steady for tier in ("hbm", "arena", "files")]
    wrong = [count for row in repeats for name, count in row["counts"].items() if name.endswith(("bytes", "short"))]
    return (
        result.get("round_trips", {"right": True}).get("right", False)
        and result.get("attention", {"equal": True}).get("equal", False)
        and all(tier["equal_logits"] and tier["tokens"] > 0 for tier in tiers)
        and not any(wrong)
    )


if __name__ == "__main__":
    sys.exit(main())
