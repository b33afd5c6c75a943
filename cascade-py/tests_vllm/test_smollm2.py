"""SmolLM2-135M with Cascade against itself without: a model that was trained, and its own tokenizer."""

import os

import pytest
import tokenizers
from conftest import counted, moved, note, reusable, run_chains, same, same_as_cached, tier
from prompts import prompts

# Prompts, unless they are counted; fewer than of the small model, whose steps take a tenth of the time.
COUNT = int(os.environ.get("CASCADE_VLLM_PROMPTS", "5"))


@pytest.fixture(scope="session")
def asked(smollm2):
    """The prompts of every run."""
    tokenizer = tokenizers.Tokenizer.from_file(f"{smollm2}/tokenizer.json")
    return prompts(COUNT, lambda text: tokenizer.encode(text).ids)


@pytest.fixture(scope="session")
def runs(smollm2, place, disk, asked):
    """Every engine, one after the other in two processes."""
    folder = place / "smollm2"
    folder.mkdir()
    settings = {"shm_path": str(folder / "arena"), "shm_capacity_bytes": (512 + 4 * COUNT) << 20}
    # A block is 6 MiB here.
    offloaded = tier(cpu_bytes=256 << 20, **settings | {"shm_path": str(folder / "tier")})
    # As many as fit into two gigabytes, for many prompts.
    options = {
        "max_model_len": 2048,
        "max_num_batched_tokens": 2048,
        "num_gpu_blocks_override": min(341, 40 + 5 * COUNT),
    }
    base = {"model": smollm2, "options": options, "rest": 1.0}
    alone = base | {"alone": True}
    few = asked[:4]
    # An arena of their own, so that what is loaded between steps was saved beside them too.
    aside = settings | {"shm_path": str(folder / "aside"), "load_async": True, "save_async": True}
    main = {
        "without": base | {"passes": [asked, asked], "keep": True},
        "cold": base | {"passes": [asked], "connector": settings | {"save_async": False}},
        "warm": alone | {"passes": [asked], "connector": settings | {"save_async": False}},
        "zeroed": base | {"passes": [few], "connector": settings, "fault": "zeroed"},
        "claimed": base | {"passes": [few], "connector": settings, "fault": "claimed"},
    }
    others = {
        "async cold": base | {"passes": [asked], "connector": aside},
        "async": alone | {"passes": [asked], "connector": aside},
        "tier cold": base | {"passes": [asked], "transfer": offloaded},
        "tier warm": alone | {"passes": [asked], "transfer": offloaded},
    }
    found = run_chains([main, others], disk, "smollm2", seconds=3600, VLLM_CPU_KVCACHE_SPACE="2")
    assert not [run["refused"] for run in found.values() if "refused" in run]
    return found


@pytest.mark.parametrize(("cold", "warm"), [("cold", "warm"), ("async cold", "async")])
def test_answers_are_those_without_cascade(runs, asked, cold, warm):
    computed, cached = runs["without"]["passes"]
    worst = same(runs[cold]["passes"][0], computed)
    stored = counted(runs[cold], "blocks_stored")
    assert stored > 0
    answers = runs[warm]["passes"][0]
    worst = max(worst, same_as_cached(answers, cached, asked))
    assert [one["cached"] for one in answers] == [reusable(prompt) for prompt in asked]
    counts = moved(runs[warm], asked)
    shape = {"prompts": len(asked), "prompt_tokens": sum(map(len, asked))}
    note(f"smollm2_{warm}", shape | {"largest_difference_of_logprobs": worst, "blocks_stored": stored} | counts)


def test_answers_of_the_tier(runs, asked):
    computed, cached = runs["without"]["passes"]
    worst = max(
        # As for the small model: all but the last token comes of the tiers.
        same(runs["tier cold"]["passes"][0], computed, within=1e-3),
        same(runs["tier warm"]["passes"][0], cached, within=1e-3),
    )
    hits = runs["tier warm"]["metrics"]["vllm:prompt_tokens_cached_by_source:disk"]
    note("smollm2_tier", {"prompts": len(asked), "largest_difference_of_logprobs": worst, "tokens_of_the_tier": hits})
    assert hits > 0


@pytest.mark.parametrize("name", ["zeroed", "claimed"])
def test_kv_that_is_not_there_is_seen(runs, name):
    """The negative control."""
    for one, other in zip(runs[name]["passes"][0], runs["without"]["passes"][1], strict=False):
        assert one["cached"] == other["cached"] > 0
        assert (one["tokens"], one["logprobs"]) != (other["tokens"], other["logprobs"])
    with pytest.raises(AssertionError):
        same(runs[name]["passes"][0], runs["without"]["passes"][1][:4])
