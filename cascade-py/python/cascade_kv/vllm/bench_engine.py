"""An engine of `cascade_kv.vllm.bench` in a process of its own: reads a command a line from standard input, and answers in JSON.

`["store"]`: ask every prompt, so that it is kept. `["turn", SEED]`: before each of them one that nobody has asked, which takes all of vLLM's
own caches, then it again. Each prompt's answer is its seconds, first token, and tokens that were not computed.

Nothing is ever reset: vLLM's KV cache and, of its offloading, its host memory are as large as that other prompt. So it is the same for every
system, and what LMCache's connector cannot reset is no matter.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

_BLOCK = 128


class Engine:
    """vLLM in this process."""

    def __init__(self, options: dict[str, Any]) -> None:
        """Start it.

        Args:
            options: `system`, `model` (a folder), `work`, `tokens` (of a prompt), `prompts`.
        """
        os.environ.update(VLLM_ENABLE_V1_MULTIPROCESSING="0", HF_HUB_OFFLINE="1", VLLM_NO_USAGE_STATS="1")
        os.environ.update(VLLM_CPU_OMP_THREADS_BIND="nobind")
        for name, value in (("OMP_NUM_THREADS", "1"), ("VLLM_CPU_KVCACHE_SPACE", "1"), ("VLLM_LOGGING_LEVEL", "ERROR")):
            os.environ.setdefault(name, value)
        from vllm import LLM, SamplingParams
        from vllm.config import KVTransferConfig

        from cascade_kv.vllm.bench_systems import transfer

        self._options = options
        # Blocks of vLLM's own cache.
        blocks = options["tokens"] // _BLOCK + 2
        length = blocks * _BLOCK
        # It takes every block; the last of them is not whole, and is not kept.
        self._flood = length - 8
        host_bytes = (blocks - 1) * _block_bytes(Path(options["model"]))
        wanted = transfer(options["system"], Path(options["work"]), host_bytes)
        more = {"kv_transfer_config": KVTransferConfig(**wanted)} if wanted else {}
        self._params = SamplingParams(temperature=0.0, max_tokens=1, ignore_eos=True, detokenize=False, logprobs=1)
        self._llm = LLM(
            model=options["model"],
            skip_tokenizer_init=True,
            enforce_eager=True,
            dtype="float32",
            max_model_len=length,
            max_num_batched_tokens=length,
            max_num_seqs=2,
            # One more, which vLLM keeps for itself.
            num_gpu_blocks_override=blocks + 1,
            seed=0,
            disable_log_stats=False,
            disable_hybrid_kv_cache_manager=True,
            distributed_executor_backend="uni",
            **more,
        )
        # A first request of another kind: what is set up once is not measured.
        self._ask(_made(-1, 1, options["tokens"])[0])
        self._settle()

    def _prompts(self) -> list[list[int]]:
        return _made(1, self._options["prompts"], self._options["tokens"])

    def _ask(self, prompt: list[int]) -> tuple[float, int, int]:
        start = time.perf_counter()
        (out,) = self._llm.generate([{"prompt_token_ids": prompt}], self._params, use_tqdm=False)
        return time.perf_counter() - start, out.outputs[0].token_ids[0], out.num_cached_tokens or 0

    def _settle(self) -> None:
        """What is saved aside is saved: some need steps of the engine for it, all need time."""
        for _ in range(6):
            time.sleep(0.15)
            self._ask([5, 6, 7])

    def _counts(self) -> dict[str, float]:
        """Tokens that were not computed until now, by where vLLM says they came from; `own`: its own KV cache."""
        found = {"own": 0.0}
        for metric in self._llm.get_metrics():
            if metric.name == "vllm:prefix_cache_hits":
                found["own"] += metric.value
            elif metric.name == "vllm:prompt_tokens_cached_by_source":
                source = metric.labels["source"]
                found[source] = found.get(source, 0.0) + metric.value
        return found

    def store(self) -> list[tuple[float, int, int]]:
        """Ask every prompt for the first time."""
        found = []
        for prompt in self._prompts():
            found.append(self._ask(prompt))
            self._settle()
        return found

    def turn(self, seed: int) -> dict[str, Any]:
        """Ask each of them again, after one that is new."""
        again, new, inside, before = [], [], 0.0, self._counts()
        for prompt, other in zip(self._prompts(), _made(seed, self._options["prompts"], self._flood), strict=True):
            start = _inside()
            new.append(self._ask(other))
            self._settle()
            inside += _inside() - start
            again.append(self._ask(prompt))
            self._settle()
        sources = {name: count - before.get(name, 0.0) for name, count in self._counts().items()}
        return {"again": again, "new": new, "inside": inside, "sources": sources}

    def end(self) -> None:
        """Give back what it has outside of this process."""
        self._llm.llm_engine.engine_core.shutdown()


def _made(seed: int, count: int, tokens: int) -> list[list[int]]:
    numbers = random.Random(seed)
    return [[numbers.randrange(3, 250) for _ in range(tokens)] for _ in range(count)]


def _block_bytes(model: Path) -> int:
    """Bytes of a block in vLLM's host memory, float32."""
    config = json.loads((model / "config.json").read_text())
    heads = config["num_attention_heads"]
    head = config.get("head_dim") or config["hidden_size"] // heads
    exact = 2 * 4 * _BLOCK * config["num_hidden_layers"] * config.get("num_key_value_heads", heads) * head
    return -(-exact // 4096) * 4096


def _inside() -> float:
    """Seconds of the engine's own threads inside Cascade's connector until now."""
    from prometheus_client import REGISTRY

    names = [f"vllm:cascade_{name}_seconds_total" for name in ("lookup", "load", "save")]
    return float(sum(one.value for metric in REGISTRY.collect() for one in metric.samples if one.name in names))


def main() -> None:
    """Serve until standard input ends."""
    # Whatever a library prints goes where errors go.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    engine = Engine(json.loads(sys.stdin.readline()))
    print(json.dumps("ready"), file=answers, flush=True)
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        found = engine.turn(*arguments) if name == "turn" else engine.store()
        print(json.dumps(found), file=answers, flush=True)
    engine.end()
    # Some of the engine's threads do not end by themselves.
    os._exit(0)


if __name__ == "__main__":
    main()
