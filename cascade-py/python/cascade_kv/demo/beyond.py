"""What process 3 measured beyond an arena's size: answers from arena and files when both are needed, and the cost where nothing is shared."""

from __future__ import annotations

import statistics
from typing import Any

# Of the engine's time, where no block is ever found.
_GOAL = 0.01

_TIERS = {
    "arena": "from the arena",
    "both": "from arena and files",
    "files": "from files",
}


def spread(values: list[float]) -> dict[str, Any]:
    """Minimum, median, maximum and count of measured values."""
    return {"min": min(values), "median": statistics.median(values), "max": max(values), "n": len(values)}


def ms(times: dict[str, Any]) -> str:
    """Seconds of a :func:`spread` for people, in milliseconds: median [min..max]."""
    low, middle, high = (times[key] * 1e3 for key in ("min", "median", "max"))
    return f"{middle:.0f} [{low:.0f}..{high:.0f}]" if low >= 100 else f"{middle:.1f} [{low:.1f}..{high:.1f}]"


def overflow(over: dict[str, Any]) -> dict[str, Any]:
    """Loads by the tier that really served them, against recomputing; times in seconds."""
    recomputed = spread([prompt["ttft_recomputed_seconds"] for prompt in over["prompts"]])
    tiers = {}
    for tier in _TIERS:
        loads = [load for load in over["loads"] if _tier(load) == tier]
        if loads:
            ttft = spread([load["ttft_seconds"] for load in loads])
            tiers[tier] = {
                "ttft_seconds": ttft,
                "load_seconds": spread([load["load_seconds"] for load in loads]),
                "blocks_from_arena": sum(load["blocks_from_arena"] for load in loads),
                "blocks_from_files": sum(load["blocks_from_files"] for load in loads),
                "speedup": recomputed["median"] / ttft["median"],
            }
    stored = sum(prompt["stored"] for prompt in over["prompts"])
    return {
        "prompts": len(over["prompts"]),
        "prompt_tokens": over["prompt_tokens"],
        "stored_bytes": stored * over["block_bytes"],
        "stored_blocks": stored,
        "arena_bytes": over["arena"]["capacity_bytes"],
        "arena_blocks": over["arena"]["blocks"],
        "evictions": over["arena"]["evictions"],
        "evicted_undemoted": over["evicted_undemoted"],
        "files_behind_seconds": spread([prompt["files_behind_seconds"] for prompt in over["prompts"]]),
        "ttft_recomputed_seconds": recomputed,
        "by_tier": tiers,
        "loads": over["loads"],
        "config": over["store_config"],
        "stats": over["store_stats"],
    }


def _tier(load: dict[str, Any]) -> str:
    if load["blocks_from_arena"] and load["blocks_from_files"]:
        return "both"
    return "files" if load["blocks_from_files"] else "arena"


def nothing_shared(over: dict[str, Any]) -> dict[str, Any]:
    """Time in calls of Cascade on the engine's thread while it served prompts that nobody had asked before."""
    prompts = over["prompts"]
    asking, saving = (sum(prompt[key] for prompt in prompts) for key in ("asking_seconds", "saving_seconds"))
    whole = sum(prompt["seconds"] for prompt in prompts)
    prefill = sum(prompt["ttft_recomputed_seconds"] for prompt in prompts)
    return {
        "prompts": len(prompts),
        "asking_seconds": asking,
        "saving_seconds": saving,
        "engine_seconds": whole - asking - saving,
        "share": (asking + saving) / (whole - asking - saving),
        "share_of_prefill": (asking + saving) / prefill,
        "share_of_each": spread([_share(prompt) for prompt in prompts]),
        "goal": _GOAL,
    }


def _share(prompt: dict[str, Any]) -> float:
    inside = prompt["asking_seconds"] + prompt["saving_seconds"]
    return inside / (prompt["seconds"] - inside)


def failures(over: dict[str, Any], result: dict[str, Any], block_tokens: int) -> list[str]:
    """What did not hold, by name; no time is judged."""
    prompts, loads = over["prompts"], over["loads"]
    wanted = {
        "a prompt that nobody had asked found blocks": all(prompt["found_tokens"] == 0 for prompt in prompts),
        "a block was refused": all(prompt["refused"] == 0 for prompt in prompts),
        f"nothing had left the arena with {result['stored_blocks']} blocks stored": (
            result["arena_blocks"] < result["stored_blocks"]
        ),
        "no block came from the arena": any(load["blocks_from_arena"] for load in loads),
        "no block came from files": any(load["blocks_from_files"] for load in loads),
    }
    found = [f"beyond the arena: {what}" for what, held in wanted.items() if not held]
    for load in loads:
        whole = {
            f"restored {load['restored_tokens']} of {load['expected_tokens']} tokens": (
                load["restored_tokens"] == load["expected_tokens"]
            ),
            "the tiers did not serve each block once": (
                (load["blocks_from_arena"] + load["blocks_from_files"]) * block_tokens == load["expected_tokens"]
            ),
            "logits differ from recomputed ones": load["logits_equal"],
        }
        found += [f"beyond the arena: prompt {load['prompt'] + 1}: {what}" for what, held in whole.items() if not held]
    return found


def lines(result: dict[str, Any]) -> list[str]:
    """Both parts for people, at most 120 columns wide."""
    over, alone = result["overflow"], result["nothing_shared"]
    rows = [
        f"beyond the arena: {over['prompts']} prompts of {over['prompt_tokens']} tokens, {over['stored_bytes'] / 1e6:.1f} MB, "
        f"in an arena of {over['arena_bytes'] / 1e6:.1f} MB with files below it",
        f"  {'served':<22} {'loads':>5} {'blocks: arena':>14} {'files':>6}   {'time to first token, ms: median [min..max]':<44} speedup",
        f"  {'recomputed':<22} {over['ttft_recomputed_seconds']['n']:>5} {'':>14} {'':>6}   {ms(over['ttft_recomputed_seconds'])}",
    ]
    for tier, row in over["by_tier"].items():
        rows.append(
            f"  {_TIERS[tier]:<22} {row['ttft_seconds']['n']:>5} {row['blocks_from_arena']:>14} {row['blocks_from_files']:>6}   "
            f"{ms(row['ttft_seconds']):<44} {row['speedup']:>6.1f}x"
        )
    inside = alone["asking_seconds"] + alone["saving_seconds"]
    verdict = "within" if alone["share"] <= alone["goal"] else "OVER"
    rows += [
        f"nothing shared    {inside * 1e3:.1f} ms in Cascade on the engine's thread (asking {alone['asking_seconds'] * 1e3:.1f}, "
        f"saving {alone['saving_seconds'] * 1e3:.1f}), {alone['engine_seconds']:.1f} s in the engine:",
        f"                  {alone['share'] * 100:.2f} %, {verdict} the goal of {alone['goal'] * 100:.0f} %; "
        f"{alone['share_of_prefill'] * 100:.2f} % of the prefill alone",
    ]
    return rows
