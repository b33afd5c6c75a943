"""Process 3: another job, on a node whose arena is empty. What the others stored is in files, and is found there; then it stores
more than another arena holds."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import torch

import cascade_kv as ck
from cascade_kv.demo import overflow
from cascade_kv.demo.job import UNUSABLE, DemoError, Job, say, step
from cascade_kv.demo.model import Runner, fork, load_runner
from cascade_kv.demo.prompts import Prompt, make_prompts
from cascade_kv.transformers import PrefixCache


def main(path: str) -> int:
    """Do the job of process 3 and leave what it measured in a JSON file; 0 even if a check failed (the parent judges)."""
    job = Job.read(path)
    try:
        runner = load_runner(job, "process 3")
        prompts = make_prompts(job, runner.tokenizer, runner.context_tokens)
        start = time.perf_counter()
        store = job.open_store(job.later_shm_path)
        open_seconds = time.perf_counter() - start
        store.wait_ready()
        prefixes = PrefixCache(store, runner.model, block_tokens=job.block_tokens)
    except (DemoError, OSError, ValueError, MemoryError) as error:
        say(f"process 3: {error}")
        return UNUSABLE
    with store:
        arena_blocks = store.stats()["tiers"]["arena"]["blocks"]
        later = _Later(job, runner, store, prefixes)
        results = {
            "questions": [later.question(prompt) for prompt in prompts],
            "arena_blocks_at_start": arena_blocks,
            "open_seconds": open_seconds,
            "store_config": store.config(),
            "store_stats": store.stats(),
        }
    try:
        results["overflow"] = overflow.measure(job, runner, prompts)
    except (DemoError, OSError, ValueError, MemoryError) as error:
        say(f"process 3: {error}")
        return UNUSABLE
    job.measured_later.write_text(json.dumps(results, indent=1, default=str))
    return 0


class _Later:
    def __init__(self, job: Job, runner: Runner, store: ck.Store, prefixes: PrefixCache) -> None:
        self.job = job
        self.runner = runner
        self.store = store
        self.prefixes = prefixes
        self.answers = {entry["question"]: entry for entry in torch.load(job.answers)}

    def question(self, prompt: Prompt) -> dict[str, Any]:
        runner, tokens = self.runner, prompt.tokens
        with step(f"process 3: {prompt.question}"):
            ids = self.prefixes.block_ids(tokens)
            timed = [self._restored_first_token(ids, tokens) for _ in range(self.job.repetitions)]
            cache, count = self.prefixes.load(tokens)
            answer = runner.answer(tokens, fork(runner, cache) if count else None, self.job.new_tokens)
            logits = runner.forward(tokens[count:], cache)
        before = self.answers[prompt.question]
        return {
            "question": prompt.question,
            "restored_tokens": count,
            "ttft_seconds": [seconds for seconds, _, _ in timed],
            "load_seconds": [loading for _, loading, _ in timed],
            "blocks_from_files": min(blocks for _, _, blocks in timed),
            "logits_equal": torch.equal(logits.cpu(), before["logits"]),
            "text_equal": answer == before["answer"],
        }

    def _restored_first_token(self, ids: list[ck.BlockId], tokens: list[int]) -> tuple[float, float, int]:
        """Seconds to the first token and of the load, with every block in files alone, and how many blocks those were."""
        # What an earlier repetition brought up leaves the arena again.
        self.store.demote([id for id, place in zip(ids, self.store.locate(ids), strict=True) if place is not None])
        self.runner.finish()
        served = self.store.stats()["tiers"]["files"]["served"]
        loaded = self.prefixes.stats.load_seconds
        start = time.perf_counter()
        cache, count = self.prefixes.load(tokens)
        self.runner.forward(tokens[count:], cache, last_only=True)
        self.runner.finish()
        seconds = time.perf_counter() - start
        loading = self.prefixes.stats.load_seconds - loaded
        return seconds, loading, self.store.stats()["tiers"]["files"]["served"] - served


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
