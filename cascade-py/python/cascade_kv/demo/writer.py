"""Process 1: prefills the document and the questions, stores the KV, leaves its results, and waits to be killed."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict
from typing import Any

import torch

from cascade_kv.demo.job import UNUSABLE, DemoError, Job, say, step
from cascade_kv.demo.model import Runner, extend, fork, load_runner
from cascade_kv.demo.prompts import Prompt, make_prompts
from cascade_kv.transformers import PrefixCache, SaveReport

# The parent looks for this word; a JSON document follows on the same line.
READY = "READY"


def main(path: str) -> int:
    """Do the job of process 1; returns only if it cannot be done, or if the parent is gone."""
    job = Job.read(path)
    try:
        runner = load_runner(job, "process 1")
        prompts = make_prompts(job, runner.tokenizer, runner.context_tokens)
        store = job.open_store(job.shm_path)
        with step("process 1: waiting for the arena's memory"):
            store.wait_ready()
        prefixes = PrefixCache(store, runner.model, block_tokens=job.block_tokens)
    except (DemoError, OSError, ValueError, MemoryError) as error:
        say(f"process 1: {error}")
        return UNUSABLE
    saves, reference = _prefill_and_store(job, runner, prefixes, prompts)
    _write_reference(job, reference)
    start = time.perf_counter()
    try:
        with step("process 1: until everything is in files"):
            store.flush(timeout_s=300)
    except (OSError, MemoryError) as error:
        say(f"process 1: {error}")
        return UNUSABLE
    flush_seconds = time.perf_counter() - start
    # A pin of a process that dies must not keep anybody from anything, so it dies holding one.
    lease = store.lease(prefixes.block_ids(prompts[0].tokens)[0])
    summary = {
        "lease_held_when_killed": lease is not None,
        "saves": [asdict(save) for save in saves],
        "block_bytes": prefixes.block_bytes,
        "store_config": store.config(),
        "flush_seconds": flush_seconds,
        "moves": store.stats()["moves"],
        "files": store.stats()["tiers"]["files"],
    }
    print(READY, json.dumps(summary), flush=True)
    sys.stdin.read()  # never ends while the parent lives, and the parent sends SIGKILL
    return UNUSABLE


def _prefill_and_store(
    job: Job, runner: Runner, prefixes: PrefixCache, prompts: list[Prompt]
) -> tuple[list[SaveReport], list[dict[str, Any]]]:
    shared = prompts[0].shared
    document = runner.empty_cache()
    with step(f"process 1: prefill of {shared} tokens of the document"):
        runner.forward(prompts[0].tokens[:shared], document, last_only=True)
    saves = [prefixes.save(prompts[0].tokens[:shared], document)]
    reference = []
    for prompt in (p for p in prompts if p.stored):
        with step(f"process 1: {prompt.question}"):
            cache = fork(runner, document)
            extend(runner, prompt.tokens, cache, prompt.whole, job.block_tokens)
            saves.append(prefixes.save(prompt.tokens[: prompt.whole], cache))
            answer = runner.answer(prompt.tokens, fork(runner, cache), job.new_tokens)
            logits = runner.forward(prompt.tokens[prompt.whole :], cache)
        reference.append({"question": prompt.question, "logits": logits.cpu(), "answer": answer})
    return saves, reference


def _write_reference(job: Job, reference: list[dict[str, Any]]) -> None:
    unfinished = job.reference.with_suffix(".tmp")
    torch.save(reference, unfinished)
    os.replace(unfinished, job.reference)
    texts = [{"question": entry["question"], "tokens": entry["answer"]} for entry in reference]
    job.reference.with_suffix(".json").write_text(json.dumps(texts, indent=1))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
