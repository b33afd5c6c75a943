"""A process of the model on one node of several: stores the prefix, or answers from what another node's memory has."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from cascade_kv import Store, connect
from cascade_kv.demo.job import UNUSABLE, DemoError, Job, say, step
from cascade_kv.demo.model import Runner, extend, fork, load_runner
from cascade_kv.demo.prompts import Prompt, make_prompts
from cascade_kv.transformers import PrefixCache

# How long the word of what was stored may be on its way to the other nodes.
_SOON_S = 30.0


def main(path: str, number: int) -> int:
    """Store on node 0, answer on the others; 0 even if a check failed (the parent judges)."""
    job = Job.read(path)
    try:
        runner = load_runner(job, f"node {number}")
        prompt = make_prompts(job, runner.tokenizer, runner.context_tokens)[0]
        store = connect(shm_path=job.shm_path, node=f"node-{number}")
        # The same blocks under other secrets are others: each repetition has a remote hit of its own.
        caches = [
            PrefixCache(store, runner.model, block_tokens=job.block_tokens, tenant_secret=b"demo repetition %4d" % at)
            for at in range(job.repetitions)
        ]
    except (DemoError, OSError, ValueError, MemoryError) as error:
        say(f"node {number}: {error}")
        return UNUSABLE
    with store:
        role = _store if number == 0 else _answer
        measured = role(job, runner, prompt, caches, store)
        measured["moves"] = store.stats()["moves"]
    (Path(job.out) / f"node-{number}.json").write_text(json.dumps(measured, indent=1, default=str))
    return 0


def _prefilled(job: Job, runner: Runner, prompt: Prompt) -> Any:
    """The cache of all whole blocks, in passes that another process can repeat."""
    cache = runner.empty_cache()
    runner.forward(prompt.tokens[: prompt.shared], cache, last_only=True)
    extend(runner, prompt.tokens, cache, prompt.whole, job.block_tokens)
    return cache


def _store(job: Job, runner: Runner, prompt: Prompt, caches: list[PrefixCache], store: Store) -> dict[str, Any]:
    with step(f"node 0: prefill of {prompt.whole} tokens, stored in its memory"):
        cache = _prefilled(job, runner, prompt)
        saves = [prefixes.save(prompt.tokens[: prompt.whole], cache) for prefixes in caches]
    answer = runner.answer(prompt.tokens, fork(runner, cache), job.new_tokens)
    logits = runner.forward(prompt.tokens[prompt.whole :], cache)
    torch.save({"logits": logits.cpu(), "answer": answer}, job.reference)
    return {"blocks": sum(save.stored for save in saves), "block_bytes": caches[0].block_bytes}


def _answer(job: Job, runner: Runner, prompt: Prompt, caches: list[PrefixCache], store: Store) -> dict[str, Any]:
    tokens = prompt.tokens
    with step("the other node: recomputing, to compare with"):
        runner.forward(
            tokens, runner.empty_cache(), last_only=True
        )  # not counted: warms what a serving process has warm
        recomputed = [
            _timed(runner, lambda: runner.forward(tokens, runner.empty_cache(), last_only=True)) for _ in caches
        ]
    times: dict[str, list[float]] = {"remote": [], "local": []}
    restored = []
    for prefixes in caches:
        until = time.monotonic() + _SOON_S
        ids = prefixes.block_ids(tokens[: prompt.whole])
        while store.longest_prefix(ids) < len(ids) and time.monotonic() < until:
            time.sleep(0.01)
        for where in ("remote", "local"):

            def first_token(prefixes: PrefixCache = prefixes) -> None:
                cache, count = prefixes.load(tokens)
                restored.append(count)
                runner.forward(tokens[count:], cache, last_only=True)

            times[where].append(_timed(runner, first_token))
    reference = torch.load(job.reference)
    cache, count = caches[0].load(tokens)
    answer = runner.answer(tokens, fork(runner, cache) if count else None, job.new_tokens)
    logits = runner.forward(tokens[count:], cache)
    return {
        "question": prompt.question,
        "prompt_tokens": len(tokens),
        "expected_tokens": prompt.whole,
        "restored_tokens": restored,
        "blocks_expected": len(caches) * (prompt.whole // job.block_tokens),
        "ttft_recomputed_seconds": recomputed,
        "ttft_remote_seconds": times["remote"],
        "ttft_local_seconds": times["local"],
        "logits_equal": torch.equal(logits.cpu(), reference["logits"]),
        "text_equal": answer == reference["answer"],
        "answer": runner.text(answer),
        "threads": torch.get_num_threads(),
        "model": type(runner.model).__name__,
        "device": str(runner.device),
    }


def _timed(runner: Runner, work: Any) -> float:
    start = time.perf_counter()
    work()
    runner.finish()
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
