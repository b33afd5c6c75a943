"""Time to the first token under vLLM: computed, from vLLM's own tier of files, and from Cascade.

    python -m cascade_kv.vllm.bench --model FOLDER --work FOLDER [--prompt-tokens 2000] [--prompts 3] [--reps 5] [--json FILE]

Each system is an engine in a process of its own, with the same prompts. It computes and saves them; then, `reps` times over, vLLM's
caches are forgotten and each prompt is asked for one token. What comes of it is checked against the engine without a cache. Last,
prompts that nobody shares: the share of the engine's time that it spends inside Cascade.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SYSTEMS = ("recompute", "vllm-fs", "cascade-tier", "cascade", "cascade-async")
# Peers that need servers and packages of their own; they are named, so that nobody takes them for measured.
NOT_RUN = {"lmcache": "not run: needs its own environment and server", "mooncake": "not run: needs its own server"}


def _offloading(tier: dict[str, Any]) -> dict[str, Any]:
    extra = {"spec_name": "CascadeCpuTieringSpec", "cpu_bytes_to_use": 1 << 30, "secondary_tiers": [tier]}
    return {"kv_connector": "OffloadingConnector", "kv_role": "kv_both", "kv_connector_extra_config": extra}


def _transfer(system: str, work: Path) -> dict[str, Any] | None:
    from cascade_kv.vllm import kv_transfer_settings

    arena = {"shm_path": str(work / "arena"), "shm_capacity_bytes": 2 << 30}
    if system == "vllm-fs":
        return _offloading({"type": "fs", "root_dir": str(work / "fs"), "n_read_threads": 2, "n_write_threads": 2})
    if system == "cascade-tier":
        return _offloading({"type": "cascade", **arena})
    if system == "cascade":
        return kv_transfer_settings(**arena)
    if system == "cascade-async":
        return kv_transfer_settings(**arena, load_async=True)
    return None


def _prompts(options: argparse.Namespace, seed: int) -> list[list[int]]:
    numbers = random.Random(seed)
    return [[numbers.randrange(3, 250) for _ in range(options.prompt_tokens)] for _ in range(options.prompts)]


class Engine:
    """vLLM in this process."""

    def __init__(self, options: argparse.Namespace) -> None:
        os.environ.update(VLLM_ENABLE_V1_MULTIPROCESSING="0", HF_HUB_OFFLINE="1", VLLM_NO_USAGE_STATS="1")
        os.environ.update(VLLM_CPU_OMP_THREADS_BIND="nobind")
        for name, value in (("OMP_NUM_THREADS", "1"), ("VLLM_CPU_KVCACHE_SPACE", "1"), ("VLLM_LOGGING_LEVEL", "ERROR")):
            os.environ.setdefault(name, value)
        from vllm import LLM, SamplingParams
        from vllm.config import KVTransferConfig

        transfer = _transfer(options.one, Path(options.work))
        more = {"kv_transfer_config": KVTransferConfig(**transfer)} if transfer else {}
        self._params = SamplingParams(temperature=0.0, max_tokens=1, ignore_eos=True, detokenize=False, logprobs=1)
        length = options.prompt_tokens + 64
        self.llm = LLM(
            model=options.model,
            skip_tokenizer_init=True,
            enforce_eager=True,
            dtype="float32",
            max_model_len=length,
            max_num_batched_tokens=length,
            max_num_seqs=2,
            seed=0,
            disable_log_stats=False,
            distributed_executor_backend="uni",
            **more,
        )

    def ask(self, prompt: list[int]) -> tuple[float, int, int]:
        """Seconds to the first token, the token, and the prompt's tokens that were not computed."""
        start = time.perf_counter()
        (out,) = self.llm.generate([{"prompt_token_ids": prompt}], self._params, use_tqdm=False)
        return time.perf_counter() - start, out.outputs[0].token_ids[0], out.num_cached_tokens or 0

    def forget(self) -> None:
        """vLLM's own caches, in its KV memory and in the host memory of its offloading."""
        time.sleep(0.3)
        self.llm.reset_prefix_cache(reset_connector=True)


def _inside() -> float:
    """Seconds of the engine's own threads inside Cascade until now."""
    from prometheus_client import REGISTRY

    names = [f"vllm:cascade_{name}_seconds_total" for name in ("lookup", "load", "save")]
    return sum(one.value for metric in REGISTRY.collect() for one in metric.samples if one.name in names)


def _one(options: argparse.Namespace) -> dict[str, Any]:
    """Measure one system; what it found."""
    engine = Engine(options)
    prompts = _prompts(options, seed=1)
    # A first request of another kind: what is set up once is not measured.
    engine.ask(_prompts(options, seed=99)[0])
    tokens = [engine.ask(prompt)[1] for prompt in prompts]
    seconds, cached, right = [], [], True
    for _ in range(options.reps):
        engine.forget()
        found = [engine.ask(prompt) for prompt in prompts]
        seconds.append(statistics.median(one[0] for one in found))
        cached.append(sum(one[2] for one in found))
        right = right and [one[1] for one in found] == tokens
    result = {"tokens": tokens, "same_when_loaded": right, "seconds": seconds, "cached_tokens": cached}
    if options.one.startswith("cascade") and options.one != "cascade-tier":
        fresh = [prompt for seed in range(10, 10 + options.reps) for prompt in _prompts(options, seed)]
        # Counters come out with a later step, so that one request is asked before each reading.
        engine.ask(prompts[0][:50])
        before, start = _inside(), time.perf_counter()
        for prompt in fresh:
            engine.ask(prompt)
        engine.ask(prompts[0][:50])
        took = time.perf_counter() - start
        result["nothing_shared"] = {"seconds": took, "inside": _inside() - before, "n": len(fresh)}
    return result


def _row(system: str, found: dict[str, Any], reference: list[int]) -> dict[str, Any]:
    seconds = found["seconds"]
    return {
        "system": system,
        "op": "ttft",
        "n": len(seconds),
        "seconds": {"min": min(seconds), "median": statistics.median(seconds), "max": max(seconds)},
        "cached_tokens": statistics.median(found["cached_tokens"]),
        "verified": found["same_when_loaded"] and found["tokens"] == reference,
        **({"nothing_shared": found["nothing_shared"]} if "nothing_shared" in found else {}),
    }


def _measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for system in options.systems:
        with tempfile.TemporaryDirectory(prefix="cascade-bench-", dir="/dev/shm") as memory:
            work = options.work if system == "vllm-fs" and options.work else memory
            words = [sys.executable, "-m", "cascade_kv.vllm.bench", "--one", system, "--model", options.model]
            words += ["--work", work, "--prompts", str(options.prompts), "--reps", str(options.reps)]
            words += ["--prompt-tokens", str(options.prompt_tokens), "--json", f"{memory}/result.json"]
            print(f"{system} ...", file=sys.stderr, flush=True)
            done = subprocess.run(words, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(f"{system} failed:\n{done.stderr[-3000:]}")
            found[system] = json.loads(Path(memory, "result.json").read_text())
    reference = found[options.systems[0]]["tokens"]
    return [_row(system, one, reference) for system, one in found.items()]


def _table(rows: list[dict[str, Any]]) -> str:
    base = rows[0]["seconds"]["median"]
    lines = [
        f"{'system':14} {'TTFT ms (min, median, max)':>30} {'against ' + rows[0]['system']:>18} {'cached':>7}  verified"
    ]
    for row in rows:
        low, middle, high = (row["seconds"][name] * 1e3 for name in ("min", "median", "max"))
        lines.append(
            f"{row['system']:14} {low:10.1f} {middle:9.1f} {high:9.1f} {base / row['seconds']['median']:17.2f}x"
            f" {row['cached_tokens']:7.0f}  {row['verified']}"
        )
        if "nothing_shared" in row:
            apart = row["nothing_shared"]
            share = apart["inside"] / apart["seconds"]
            lines.append(f"{'':14} nothing shared: {share:.2%} of the time inside Cascade, {apart['n']} prompts")
    return "\n".join([*lines, *(f"{system:14} {why}" for system, why in NOT_RUN.items())])


def _options(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m cascade_kv.vllm.bench", description=__doc__)
    parser.add_argument("--model", required=True, help="folder of a model")
    parser.add_argument("--work", help="folder for the files of vLLM's own tier; in memory without it")
    parser.add_argument("--prompt-tokens", type=int, default=2000)
    parser.add_argument("--prompts", type=int, default=3)
    parser.add_argument("--reps", type=int, default=5)
    parser.add_argument("--systems", type=lambda text: text.split(","), default=list(SYSTEMS))
    parser.add_argument("--json", help="where to write the results")
    parser.add_argument("--one", choices=SYSTEMS, help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    if wrong := set(options.systems) - set(SYSTEMS):
        parser.error(f"no such system: {', '.join(sorted(wrong))}; there are {', '.join(SYSTEMS)}")
    return options


def main(words: list[str]) -> int:
    """Exit status 0 when every system gave the tokens of the first."""
    options = _options(words)
    if options.one:
        Path(options.json).write_text(json.dumps(_one(options)))
        # Some of the engine's threads do not end by themselves.
        os._exit(0)
    rows = _measure(options)
    print(_table(rows))
    if options.json:
        shape = {"prompt_tokens": options.prompt_tokens, "prompts": options.prompts, "model": options.model}
        document = {"schema": 1, "suite": "vllm-ttft", **shape, "results": rows, "not_run": NOT_RUN}
        Path(options.json).write_text(json.dumps(document, indent=1) + "\n")
    return 0 if all(row["verified"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
