"""SmolLM2-135M with Cascade against itself without: a model that was trained, and its own tokenizer."""

import os

import pytest
import tokenizers
from conftest import counted, finish, note, same, start, tier
from prompts import prompts

# Prompts, unless they are counted; fewer than of the small model, whose steps take a tenth of the time.
COUNT = int(os.environ.get("CASCADE_VLLM_PROMPTS", "5"))
BLOCK = 128


@pytest.fixture(scope="session")
def asked(smollm2):
    """The prompts of every run."""
    tokenizer = tokenizers.Tokenizer.from_file(f"{smollm2}/tokenizer.json")
    return prompts(COUNT, lambda text: tokenizer.encode(text).ids)


@pytest.fixture(scope="session")
def runs(smollm2, place, disk, asked):
    """Every engine, one after the other in one process."""
    folder = place / "smollm2"
    folder.mkdir()
    settings = {"shm_path": str(folder / "arena"), "shm_capacity_bytes": (256 + 12 * COUNT) << 20}
    # A block is 6 MiB here.
    offloaded = tier(cpu_bytes=256 << 20, **settings | {"shm_path": str(folder / "tier")})
    base = {"model": smollm2, "options": {"max_model_len": 2048, "max_num_batched_tokens": 2048}, "rest": 1.0}
    few = asked[:4]
    jobs = {
        "without": base | {"passes": [asked, asked], "keep": True},
        "cold": base | {"passes": [asked], "connector": settings},
        "warm": base | {"passes": [asked], "connector": settings},
        "async": base | {"passes": [asked], "connector": settings | {"load_async": True}},
        "zeroed": base | {"passes": [few], "connector": settings, "fault": "zeroed"},
        "claimed": base | {"passes": [few], "connector": settings, "fault": "claimed"},
        "tier cold": base | {"passes": [asked], "transfer": offloaded},
        "tier warm": base | {"passes": [asked], "transfer": offloaded},
    }
    process, result = start(list(jobs.values()), disk, "smollm2", {"VLLM_CPU_KVCACHE_SPACE": "2"})
    found = dict(zip(jobs, finish(process, result, seconds=3600), strict=True))
    assert not [run["refused"] for run in found.values() if "refused" in run]
    return found


def test_answers_are_those_without_cascade(runs, asked):
    computed, cached = runs["without"]["passes"]
    figures = {"prompts": len(asked), "prompt_tokens": sum(map(len, asked))}
    for name, reference in (("cold", computed), ("warm", cached), ("async", cached)):
        run = runs[name]
        figures[name] = {
            "largest_difference_of_logprobs": same(run["passes"][0], reference),
            "blocks_stored": counted(run, "blocks_stored"),
            "blocks_loaded": counted(run, "blocks_loaded"),
            "bytes_loaded": counted(run, "bytes_loaded"),
        }
        assert counted(run, "blocks_failed") == counted(run, "errors") == 0
    note("smollm2_connector", figures)
    stored = counted(runs["cold"], "blocks_stored")
    assert stored > 0
    for name in ("warm", "async"):
        assert counted(runs[name], "blocks_loaded") + counted(runs[name], "blocks_present") == stored
        assert sum(one["cached"] for one in runs[name]["passes"][0]) == sum(
            (len(one) - 1) // BLOCK * BLOCK for one in asked
        )


def test_answers_of_the_tier(runs, asked):
    computed, cached = runs["without"]["passes"]
    worst = [same(runs[f"tier {name}"]["passes"][0], one) for name, one in (("cold", computed), ("warm", cached))]
    metrics = runs["tier warm"]["metrics"]
    hits = metrics["vllm:prompt_tokens_cached_by_source:disk"]
    note(
        "smollm2_tier",
        {"prompts": len(asked), "largest_difference_of_logprobs": max(worst), "tokens_of_the_tier": hits},
    )
    assert hits > 0


@pytest.mark.parametrize("name", ["zeroed", "claimed"])
def test_kv_that_is_not_there_is_seen(runs, name):
    """The negative control."""
    for one, other in zip(runs[name]["passes"][0], runs["without"]["passes"][1], strict=False):
        assert one["cached"] == other["cached"] > 0
        assert (one["tokens"], one["logprobs"]) != (other["tokens"], other["logprobs"])
    with pytest.raises(AssertionError):
        same(runs[name]["passes"][0], runs["without"]["passes"][1][:4])
