"""More prompts than an arena holds, with nothing in common. What is asked again comes from the tier that has it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch

import cascade_kv as ck
from cascade_kv.demo.job import DemoError, Job, step
from cascade_kv.demo.model import Runner
from cascade_kv.demo.prompts import Prompt
from cascade_kv.transformers import PrefixCache

# Fewer could not fill an arena and leave something in it.
_LEAST_PROMPTS = 4
# Tokens that follow the blocks of a prompt, so that something is left to prefill.
_REST = 8
# Regions of the arena, so that eviction can choose; each a power of two within these bounds.
_REGIONS = 4
_REGION_BYTES = (1 << 20, 64 << 20)


@dataclass(frozen=True, slots=True)
class Passage:
    """A prompt that shares no block with another.

    Attributes:
        tokens: the whole prompt.
        whole: leading tokens that are whole blocks.
    """

    tokens: list[int]
    whole: int


def measure(job: Job, runner: Runner, prompts: list[Prompt]) -> dict[str, Any]:
    """What happens when an arena takes half of what is stored; a check that failed is in it (the parent judges).

    Raises:
        DemoError: the document gives too few prompts.
    """
    passages = cut(job, prompts[0].tokens)
    store, prefixes = _open(job, runner, passages)
    with store:
        work = _Overflow(job, runner, store, prefixes)
        served = [work.serve(number, passage) for number, passage in enumerate(passages)]
        full = store.stats()
        return {
            "prompts": served,
            "arena": {key: full["tiers"]["arena"][key] for key in ("capacity_bytes", "blocks", "evictions")},
            "evicted_undemoted": full["moves"]["evicted_undemoted"],
            "loads": [load for lap in range(job.repetitions) for load in work.ask_again(passages, lap)],
            "block_bytes": prefixes.block_bytes,
            "prompt_tokens": passages[0].whole + _REST,
            "store_config": store.config(),
            "store_stats": store.stats(),
        }


def cut(job: Job, tokens: list[int]) -> list[Passage]:
    """Prompts made of the document, each beginning elsewhere in it, so that no first block is another's.

    Raises:
        DemoError: the document gives too few.
    """
    ring = tokens * 2
    whole = min(job.passage_tokens, len(tokens) - _REST) // job.block_tokens * job.block_tokens
    seen: set[tuple[int, ...]] = set()
    passages = []
    stride = max(1, len(tokens) // job.passages)
    # Every start once: those a stride apart first, then their neighbours.
    for begin in (at for first in range(stride) for at in range(first, len(tokens), stride)):
        block = tuple(ring[begin : begin + job.block_tokens])
        if len(passages) < job.passages and whole and block not in seen:
            seen.add(block)
            passages.append(Passage(ring[begin : begin + whole + _REST], whole))
    if len(passages) < _LEAST_PROMPTS:
        raise DemoError(
            f"the document gives {len(passages)} prompts without a common block, and {_LEAST_PROMPTS} are needed: "
            "give a longer document, or a smaller --block-tokens"
        )
    return passages


def _open(job: Job, runner: Runner, passages: list[Passage]) -> tuple[ck.Store, PrefixCache]:
    """A store whose arena holds about half of what these prompts make."""
    # One token's keys and values, as the model has them.
    cache = runner.empty_cache()
    runner.forward(passages[0].tokens[:1], cache)
    token_bytes = sum(side.nbytes for layer in cache.layers for side in (layer.keys, layer.values))
    capacity = sum(passage.whole for passage in passages) * token_bytes // 2
    region = 1 << (capacity // _REGIONS).bit_length() - 1
    store = ck.Store(
        shm_path=job.small_shm_path,
        shm_capacity=max(capacity, _REGION_BYTES[0]),
        shm_region=min(max(region, _REGION_BYTES[0]), _REGION_BYTES[1]),
        pfs_path=job.small_pfs_path,
        pfs_capacity=job.pfs_capacity,
    )
    store.wait_ready()
    return store, PrefixCache(store, runner.model, block_tokens=job.block_tokens)


class _Overflow:
    def __init__(self, job: Job, runner: Runner, store: ck.Store, prefixes: PrefixCache) -> None:
        self.job = job
        self.runner = runner
        self.store = store
        self.prefixes = prefixes
        self.logits: list[torch.Tensor] = []

    def serve(self, number: int, passage: Passage) -> dict[str, Any]:
        """Serve a prompt that nobody asked before, as an engine does: ask the store, prefill and answer, save."""
        runner, tokens, stats = self.runner, passage.tokens, self.prefixes.stats
        with step(f"process 3: prompt {number + 1}, never asked before"):
            asking, saving = stats.load_seconds, stats.save_seconds
            start = time.perf_counter()
            cache, count = self.prefixes.load(tokens)
            runner.answer(tokens, cache, self.job.new_tokens)
            runner.finish()
            report = self.prefixes.save(tokens, cache)
            seconds = time.perf_counter() - start
            recomputed = self._recompute(passage)
            # A model of toy size makes KV faster than a disk takes it, and what is evicted before it is in files is lost.
            start = time.perf_counter()
            self.store.flush(timeout_s=300)
            behind = time.perf_counter() - start
        return {
            "found_tokens": count,
            "seconds": seconds,
            "asking_seconds": stats.load_seconds - asking,
            "saving_seconds": stats.save_seconds - saving,
            "blocks": report.blocks,
            "stored": report.stored,
            "refused": sum(report.refused.values()),
            "ttft_recomputed_seconds": recomputed,
            "files_behind_seconds": behind,
        }

    def _recompute(self, passage: Passage) -> float:
        """Seconds to the first token without the store; leaves the logits behind the blocks, to compare with."""
        runner = self.runner
        cache = runner.empty_cache()
        start = time.perf_counter()
        runner.forward(passage.tokens, cache, last_only=True)
        runner.finish()
        seconds = time.perf_counter() - start
        for layer in cache.layers:
            # As they are loaded: kernels may choose another path, with other last bits, for other strides.
            layer.keys, layer.values = (side[:, :, : passage.whole].contiguous() for side in (layer.keys, layer.values))
        self.logits.append(runner.forward(passage.tokens[passage.whole :], cache))
        return seconds

    def ask_again(self, passages: list[Passage], lap: int) -> list[dict[str, Any]]:
        """Every prompt once more; those that the arena has whole come first, before others push them out."""
        places = [self.store.locate(self.prefixes.block_ids(passage.tokens)) for passage in passages]
        below = [sum(place is None or place[0] != "arena" for place in found) for found in places]
        with step(f"process 3: all prompts again, lap {lap + 1}"):
            order = sorted(range(len(passages)), key=lambda number: below[number])
            return [self._again(number, passages[number]) for number in order]

    def _again(self, number: int, passage: Passage) -> dict[str, Any]:
        runner, tokens = self.runner, passage.tokens
        before, loading = self._served(), self.prefixes.stats.load_seconds
        start = time.perf_counter()
        cache, count = self.prefixes.load(tokens)
        logits = runner.forward(tokens[count:], cache)
        runner.finish()
        seconds = time.perf_counter() - start
        arena, files = (after - was for after, was in zip(self._served(), before, strict=True))
        return {
            "prompt": number,
            "expected_tokens": passage.whole,
            "restored_tokens": count,
            "ttft_seconds": seconds,
            "load_seconds": self.prefixes.stats.load_seconds - loading,
            "blocks_from_arena": arena,
            "blocks_from_files": files,
            "logits_equal": torch.equal(logits, self.logits[number]),
        }

    def _served(self) -> tuple[int, int]:
        tiers = self.store.stats()["tiers"]
        return tiers["arena"]["served"], tiers["files"]["served"]
