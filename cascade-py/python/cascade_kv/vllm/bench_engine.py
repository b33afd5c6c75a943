"""An engine of `cascade_kv.vllm.bench` in a process of its own: reads a command a line from standard input, and answers in JSON.

`["store"]`: ask every prompt, so that it is kept. `["turn", SEED]`: forget vLLM's caches and ask them again; then one that nobody has
asked. Each prompt's answer is its seconds, first token, and tokens that were not computed.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

_SETTLED = ("vllm-fs", "cascade-tier")


class Engine:
    """vLLM in this process."""

    def __init__(self, options: dict[str, Any]) -> None:
        """Start it.

        Args:
            options: `system`, `model` (a folder), `work`, `tokens` (of a prompt), `prompts`, `blocks` (of vLLM's KV cache).
        """
        os.environ.update(VLLM_ENABLE_V1_MULTIPROCESSING="0", HF_HUB_OFFLINE="1", VLLM_NO_USAGE_STATS="1")
        os.environ.update(VLLM_CPU_OMP_THREADS_BIND="nobind")
        for name, value in (("OMP_NUM_THREADS", "1"), ("VLLM_CPU_KVCACHE_SPACE", "1"), ("VLLM_LOGGING_LEVEL", "ERROR")):
            os.environ.setdefault(name, value)
        from vllm import LLM, SamplingParams
        from vllm.config import KVTransferConfig

        from cascade_kv.vllm.bench_systems import transfer

        self._options = options
        wanted = transfer(options["system"], Path(options["work"]))
        more = {"kv_transfer_config": KVTransferConfig(**wanted)} if wanted else {}
        self._params = SamplingParams(temperature=0.0, max_tokens=1, ignore_eos=True, detokenize=False, logprobs=1)
        length = options["tokens"] + 64
        self._llm = LLM(
            model=options["model"],
            skip_tokenizer_init=True,
            enforce_eager=True,
            dtype="float32",
            max_model_len=length,
            max_num_batched_tokens=length,
            max_num_seqs=2,
            num_gpu_blocks_override=options["blocks"],
            seed=0,
            disable_log_stats=False,
            disable_hybrid_kv_cache_manager=True,
            distributed_executor_backend="uni",
            **more,
        )
        # A first request of another kind: what is set up once is not measured.
        self._ask(self._made(-1, 1)[0])
        self._settle()

    def _made(self, seed: int, count: int) -> list[list[int]]:
        numbers = random.Random(seed)
        return [[numbers.randrange(3, 250) for _ in range(self._options["tokens"])] for _ in range(count)]

    def _ask(self, prompt: list[int]) -> tuple[float, int, int]:
        start = time.perf_counter()
        (out,) = self._llm.generate([{"prompt_token_ids": prompt}], self._params, use_tqdm=False)
        return time.perf_counter() - start, out.outputs[0].token_ids[0], out.num_cached_tokens or 0

    def _settle(self) -> None:
        """What is saved aside is saved: some need steps of the engine for it, all need time."""
        for _ in range(6):
            time.sleep(0.15)
            self._ask([5, 6, 7])

    def _forget(self) -> None:
        # Of vLLM's own offloading the host memory too, or nothing would come of the tier below it.
        both = self._options["system"] in _SETTLED
        for _ in range(20):
            # Some connectors give up the pages of the last request in the step after it, saved or not.
            for _ in range(3):
                self._llm.llm_engine.step()
                time.sleep(0.05)
            if self._llm.reset_prefix_cache(reset_connector=both):
                return
            # Pages that are being saved are not given up yet.
            self._settle()
        raise RuntimeError("vLLM did not forget its prefix cache")

    def store(self) -> list[tuple[float, int, int]]:
        """Ask every prompt for the first time."""
        found = [self._ask(prompt) for prompt in self._made(1, self._options["prompts"])]
        self._settle()
        return found

    def turn(self, seed: int) -> dict[str, Any]:
        """Ask them again, and one that is new."""
        self._forget()
        again = [self._ask(prompt) for prompt in self._made(1, self._options["prompts"])]
        self._settle()
        before = _inside()
        new = self._ask(self._made(seed, 1)[0])
        self._settle()
        return {"again": again, "new": new, "inside": _inside() - before}

    def end(self) -> None:
        """Give back what it has outside of this process."""
        self._llm.llm_engine.engine_core.shutdown()


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
