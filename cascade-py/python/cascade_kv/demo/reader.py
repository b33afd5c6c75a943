"""Process 2: answers from what the killed process left in the store, and checks every answer against recomputing."""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
import transformers

from cascade_kv.demo.job import UNUSABLE, DemoError, Job, say, step
from cascade_kv.demo.model import Runner, extend, fork, load_runner
from cascade_kv.demo.prompts import Prompt, common_prefix, make_prompts
from cascade_kv.transformers import PrefixCache


def main(path: str) -> int:
    """Do the job of process 2 and leave what it measured in a JSON file; 0 even if a check failed (the parent judges)."""
    job = Job.read(path)
    try:
        runner = load_runner(job, "process 2")
        prompts = make_prompts(job, runner.tokenizer, runner.context_tokens)
        start = time.perf_counter()
        store = job.open_store(job.shm_path)
        attach_seconds = time.perf_counter() - start
        prefixes = PrefixCache(store, runner.model, block_tokens=job.block_tokens)
    except (DemoError, OSError, ValueError, MemoryError) as error:
        say(f"process 2: {error}")
        return UNUSABLE
    with store:
        results = _Reader(job, runner, prefixes).run(prompts)
        results["store_stats"] = store.stats()
    results["attach_seconds"] = attach_seconds
    job.measured.write_text(json.dumps(results, indent=1, default=str))
    return 0


class _Reader:
    def __init__(self, job: Job, runner: Runner, prefixes: PrefixCache) -> None:
        self.job = job
        self.runner = runner
        self.prefixes = prefixes
        self.reference = {entry["question"]: entry for entry in torch.load(job.reference)}
        self.document = runner.empty_cache()
        self.prompts: list[Prompt] = []
        self.answers: list[dict[str, Any]] = []

    def run(self, prompts: list[Prompt]) -> dict[str, Any]:
        self.prompts = prompts
        shared = prompts[0].shared
        with step(f"process 2: recomputing {shared} tokens of the document, to compare with"):
            self.runner.forward(prompts[0].tokens[:shared], self.document, last_only=True)
        questions = [self._question(prompt) for prompt in prompts]
        torch.save(self.answers, self.job.answers)
        return {
            "questions": questions,
            "control": self._control(prompts[0]),
            "prefix_stats": asdict(self.prefixes.stats),
            "token_bytes": self.prefixes.geometry.token_bytes,
            "host": _host(self.runner),
        }

    def _question(self, prompt: Prompt) -> dict[str, Any]:
        runner, tokens = self.runner, prompt.tokens
        with step(f"process 2: {prompt.question}"):
            loads: list[float] = []
            self._restored_first_token(tokens)  # not counted: it warms what a serving process has warm
            restored = self._timed(lambda: self._restored_first_token(tokens, loads))
            recomputed = self._timed(lambda: runner.forward(tokens, runner.empty_cache(), last_only=True))
            cache, count = self.prefixes.load(tokens)
            answer = runner.answer(tokens, fork(runner, cache) if count else None, self.job.new_tokens)
            logits = runner.forward(tokens[count:], cache)
            plain = runner.answer(tokens, None, self.job.new_tokens)
            same_split = torch.equal(logits, self._same_split(prompt, count))
        self.answers.append({"question": prompt.question, "logits": logits.cpu(), "answer": answer})
        wrote = self.reference.get(prompt.question)
        return {
            "question": prompt.question,
            "stored": prompt.stored,
            "prompt_tokens": len(tokens),
            "expected_tokens": self._stored_tokens(prompt),
            "restored_tokens": count,
            "ttft_restored_seconds": restored,
            "ttft_recomputed_seconds": recomputed,
            "load_seconds": loads,
            "logits_equal_same_split": same_split,
            "logits_equal_first_process": torch.equal(logits.cpu(), wrote["logits"]) if wrote else None,
            "text_equal_plain_run": answer == plain,
            "text_equal_first_process": answer == wrote["answer"] if wrote else None,
            "answer": runner.text(answer),
            "plain_answer": runner.text(plain),
        }

    def _stored_tokens(self, prompt: Prompt) -> int:
        """Leading tokens, whole blocks, that the first process stored and this prompt can use."""
        block = self.job.block_tokens
        common = (common_prefix(prompt.tokens, other.tokens[: other.whole]) for other in self.prompts if other.stored)
        return min(max(common) // block * block, prompt.whole)

    def _timed(self, first_token: Callable[[], torch.Tensor]) -> list[float]:
        """Seconds from request to the first token's logits, each repetition."""
        seconds = []
        for _ in range(self.job.repetitions):
            start = time.perf_counter()
            first_token()
            self.runner.finish()
            seconds.append(time.perf_counter() - start)
        return seconds

    def _restored_first_token(self, tokens: list[int], loads: list[float] | None = None) -> torch.Tensor:
        before = self.prefixes.stats.load_seconds
        cache, count = self.prefixes.load(tokens)
        if loads is not None:
            loads.append(self.prefixes.stats.load_seconds - before)
        return self.runner.forward(tokens[count:], cache, last_only=True)

    def _same_split(self, prompt: Prompt, count: int) -> torch.Tensor:
        """Logits after `count` tokens, recomputed without the store in the passes that made the stored KV."""
        runner = self.runner
        if count < prompt.shared:
            cache = runner.empty_cache()
            if count:
                runner.forward(prompt.tokens[:count], cache, last_only=True)
        else:
            cache = fork(runner, self.document)
            extend(runner, prompt.tokens, cache, count, self.job.block_tokens)
        return runner.forward(prompt.tokens[count:], cache)

    def _control(self, prompt: Prompt) -> dict[str, Any]:
        """One wrong element among millions must show, or the equalities above prove nothing."""
        cache, count = self.prefixes.load(prompt.tokens)
        if count == 0:
            return {"damaged_elements": 0, "logits_differ": None, "largest_difference": None}
        cache.layers[0].keys[0, 0, min(5, count - 1), 0] += 1.0
        damaged = self.runner.forward(prompt.tokens[count:], cache)
        sound = self._same_split(prompt, count)
        return {
            "damaged_elements": 1,
            "logits_differ": not torch.equal(damaged, sound),
            "largest_difference": (damaged - sound).abs().max().item(),
        }


def _host(runner: Runner) -> dict[str, Any]:
    device = runner.device
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "model": type(runner.model).__name__,
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
