"""From what the processes measured to a verdict, result.json and a table for people."""

from __future__ import annotations

import statistics
from dataclasses import asdict
from typing import Any

from cascade_kv.demo import beyond
from cascade_kv.demo.beyond import ms, spread
from cascade_kv.demo.job import Job

_SIGKILLED = -9


def assemble(job: Job, wrote: dict[str, Any], read: dict[str, Any], later: dict[str, Any]) -> dict[str, Any]:
    """One JSON document of the whole run; times in seconds, GB = 1e9 bytes, `failures` empty if every check held."""
    token_bytes = read["token_bytes"]
    questions = [
        {**_question(entry, token_bytes), "files": _from_files(below, entry, token_bytes)}
        for entry, below in zip(read["questions"], later["questions"], strict=True)
    ]
    files = _files(wrote, read, later)
    over = later["overflow"]
    overflow, alone = beyond.overflow(over), beyond.nothing_shared(over)
    failures = _failures(wrote, questions, read["control"]) + _file_failures(files, questions, job.block_tokens)
    failures += beyond.failures(over, overflow, job.block_tokens)
    return {
        "schema": 1,
        "ok": not failures,
        "failures": failures,
        "job": asdict(job),
        "host": read["host"],
        "killed": {
            "pid": wrote["pid"],
            "returncode": wrote["returncode"],
            "lease_held": wrote["lease_held_when_killed"],
        },
        "store": _store(wrote, read, questions),
        "files": files,
        "questions": questions,
        "control": read["control"],
        "overflow": overflow,
        "nothing_shared": alone,
    }


def _question(entry: dict[str, Any], token_bytes: int) -> dict[str, Any]:
    restored = spread(entry["ttft_restored_seconds"])
    recomputed = spread(entry["ttft_recomputed_seconds"])
    load = spread(entry["load_seconds"])
    loaded_bytes = entry["restored_tokens"] * token_bytes
    return {
        **entry,
        "ttft_restored_seconds": restored,
        "ttft_recomputed_seconds": recomputed,
        "load_seconds": load,
        "loaded_bytes": loaded_bytes,
        "load_gbps": loaded_bytes / load["median"] / 1e9,
        "speedup": recomputed["median"] / restored["median"],
    }


def _from_files(below: dict[str, Any], above: dict[str, Any], token_bytes: int) -> dict[str, Any]:
    """What process 3 measured of a question, against process 2's time to recompute it."""
    load, ttft = spread(below["load_seconds"]), spread(below["ttft_seconds"])
    loaded_bytes = below["restored_tokens"] * token_bytes
    return {
        **below,
        "ttft_seconds": ttft,
        "load_seconds": load,
        "load_gbps": loaded_bytes / load["median"] / 1e9,
        "speedup": statistics.median(above["ttft_recomputed_seconds"]) / ttft["median"],
    }


def _files(wrote: dict[str, Any], read: dict[str, Any], later: dict[str, Any]) -> dict[str, Any]:
    """What went between arena and files, in all three processes."""
    moves = later["store_stats"]["moves"]
    return {
        "demoted": wrote["moves"]["demoted"],
        "demoted_bytes": wrote["moves"]["demoted_bytes"],
        "flush_seconds": wrote["flush_seconds"],
        "segments": wrote["files"]["segments"],
        "direct": bool(wrote["files"]["direct"]),
        "served_to_process_2": read["store_stats"]["tiers"]["files"]["served"],
        "arena_blocks_of_process_3": later["arena_blocks_at_start"],
        "promoted": moves["promoted"],
        "promoted_bytes": moves["promoted_bytes"],
        "open_seconds": later["open_seconds"],
        "config": later["store_config"],
    }


def _file_failures(files: dict[str, Any], questions: list[dict[str, Any]], block_tokens: int) -> list[str]:
    failures = []
    if files["served_to_process_2"]:
        failures.append(
            f"process 2 was to restore from the arena, and {files['served_to_process_2']} blocks came from files"
        )
    if files["arena_blocks_of_process_3"]:
        failures.append(f"the arena of process 3 had {files['arena_blocks_of_process_3']} blocks when it started")
    for question in questions:
        below = question["files"]
        wanted = {
            f"restored {below['restored_tokens']} tokens from files where {question['expected_tokens']} were stored": (
                below["restored_tokens"] == question["expected_tokens"]
            ),
            f"only {below['blocks_from_files']} blocks were really read from files": (
                below["blocks_from_files"] * block_tokens == question["expected_tokens"]
            ),
            "logits from files differ from process 2's": below["logits_equal"],
            "text from files differs from process 2's": below["text_equal"],
        }
        failures += [f"{question['question']} {what}" for what, held in wanted.items() if not held]
    return failures


def _store(wrote: dict[str, Any], read: dict[str, Any], questions: list[dict[str, Any]]) -> dict[str, Any]:
    saves = wrote["saves"]
    stored_bytes = sum(save["bytes_stored"] for save in saves)
    busy = sum(save["seconds"] for save in saves if save["bytes_stored"])
    return {
        "block_bytes": wrote["block_bytes"],
        "blocks_stored": sum(save["stored"] for save in saves),
        "blocks_refused": sum(sum(save["refused"].values()) for save in saves),
        "bytes_stored": stored_bytes,
        "save_gbps": stored_bytes / busy / 1e9 if busy else None,
        "load_gbps": statistics.median(question["load_gbps"] for question in questions),
        "tokens_saved": sum(question["restored_tokens"] for question in questions),
        "tokens_asked": sum(question["prompt_tokens"] for question in questions),
        "attach_seconds": read["attach_seconds"],
        "config": wrote["store_config"],
        "stats": read["store_stats"],
    }


def _failures(wrote: dict[str, Any], questions: list[dict[str, Any]], control: dict[str, Any]) -> list[str]:
    failures = []
    if wrote["returncode"] != _SIGKILLED:
        failures.append(f"process 1 ended with status {wrote['returncode']}, not by SIGKILL ({_SIGKILLED})")
    if not wrote["lease_held_when_killed"]:
        failures.append("process 1 could not lease the block that it had just stored")
    for question in questions:
        failures += [f"{question['question']} {what}" for what in _question_failures(question)]
    if control["logits_differ"] is not True:
        failures.append("control: one damaged KV element did not change the logits, so the comparisons prove nothing")
    return failures


def _question_failures(question: dict[str, Any]) -> list[str]:
    failures = []
    if question["restored_tokens"] != question["expected_tokens"]:
        failures.append(
            f"restored {question['restored_tokens']} tokens where {question['expected_tokens']} were stored"
        )
    if not question["logits_equal_same_split"]:
        failures.append("logits differ from those of the same split recomputed without the store")
    if question["logits_equal_first_process"] is False:
        failures.append("logits differ from the first process's")
    if not question["text_equal_plain_run"]:
        failures.append(f"text {question['answer']!r} differs from a plain run's {question['plain_answer']!r}")
    if question["text_equal_first_process"] is False:
        failures.append("text differs from the first process's")
    return failures


def table(result: dict[str, Any]) -> str:
    """The run for people, at most 120 columns wide."""
    host, store = result["host"], result["store"]
    lines = [
        f"{host['model']} on {host['device']}, {host['threads']} threads, torch {host['torch']}, "
        f"transformers {host['transformers']}; process 1 killed (status {result['killed']['returncode']}), process 2 restored,",
        "process 3 restored from files after the arena was lost, and filled another arena beyond its size",
        "",
        f"{'question':<40} {'prompt':>6} {'restored':>8}  {'time to first token, ms: median [min..max]':<45} {'':>7}  same   same",
        f"{'':<40} {'tokens':>6} {'tokens':>8}  {'recomputed':<24}{'restored':<21} {'speedup':>7}  logits text",
    ]
    for question in result["questions"]:
        lines += [_row(question), _file_row(question)]
    lines += ["", *_totals(store, result["questions"]), _files_line(result), _control_line(result["control"]), ""]
    lines += [*beyond.lines(result), ""]
    for question in result["questions"]:
        asked = "both processes" if question["stored"] else "process 2 only"
        lines += [f"Q ({asked}): {question['question']}", f"A: {question['answer']}"]
    lines += ["", "every check held" if result["ok"] else f"{len(result['failures'])} CHECKS FAILED"]
    return "\n".join(lines)


def _row(question: dict[str, Any]) -> str:
    logits = question["logits_equal_same_split"] and question["logits_equal_first_process"] is not False
    text = question["text_equal_plain_run"] and question["text_equal_first_process"] is not False
    return (
        f"{_shorten(question['question'], 40):<40} {question['prompt_tokens']:>6} {question['restored_tokens']:>8}  "
        f"{ms(question['ttft_recomputed_seconds']):<24}{ms(question['ttft_restored_seconds']):<21} "
        f"{question['speedup']:>6.1f}x  {'yes' if logits else 'NO':<6} {'yes' if text else 'NO'}"
    )


def _file_row(question: dict[str, Any]) -> str:
    below = question["files"]
    return (
        f"{'  from files, the arena lost':<40} {'':>6} {below['restored_tokens']:>8}  "
        f"{'':<24}{ms(below['ttft_seconds']):<21} {below['speedup']:>6.1f}x  "
        f"{'yes' if below['logits_equal'] else 'NO':<6} {'yes' if below['text_equal'] else 'NO'}"
    )


def _files_line(result: dict[str, Any]) -> str:
    files, questions = result["files"], result["questions"]
    gbps = statistics.median(question["files"]["load_gbps"] for question in questions)
    how = "direct I/O" if files["direct"] else "buffered: direct I/O is refused there"
    return (
        f"files    {files['demoted']} blocks, {files['demoted_bytes'] / 1e6:.1f} MB written in {files['segments']} files ({how}); "
        f"{files['promoted_bytes'] / 1e6:.1f} MB read back,\n"
        f"         median {gbps:.2f} GB/s of loading; opened in {files['open_seconds'] * 1e3:.1f} ms"
    )


def _totals(store: dict[str, Any], questions: list[dict[str, Any]]) -> list[str]:
    save = f"{store['save_gbps']:.2f} GB/s with gathering" if store["save_gbps"] else "nothing new to store"
    loads = [question["load_seconds"]["median"] for question in questions]
    refused = f", {store['blocks_refused']} REFUSED" if store["blocks_refused"] else ""
    return [
        f"stored   {store['blocks_stored']} blocks of {store['block_bytes'] / 1e6:.2f} MB, "
        f"{store['bytes_stored'] / 1e6:.1f} MB; {save}{refused}",
        f"loaded   {questions[0]['loaded_bytes'] / 1e6:.1f} MB for the first question in {loads[0] * 1e3:.1f} ms; "
        f"median {store['load_gbps']:.2f} GB/s, keys and lookup included; store attached in {store['attach_seconds'] * 1e3:.1f} ms",
        f"saved    prefill of {store['tokens_saved']:,} of {store['tokens_asked']:,} prompt tokens",
    ]


def _control_line(control: dict[str, Any]) -> str:
    if control["logits_differ"]:
        return f"control  one damaged KV element changes the logits by up to {control['largest_difference']:.1e}: the check can fail"
    return "control  FAILED: one damaged KV element did not change the logits"


def _shorten(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."
