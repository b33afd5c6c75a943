"""Time to the first token under vLLM: computed, from vLLM's own tier of files, LMCache, Mooncake, and Cascade.

    python -m cascade_kv.vllm.bench --model FOLDER [--prompt-tokens 1600] [--prompts 2] [--reps 5] [--systems A,B] [--json FILE]

Each system is an engine in a process of its own; all of them are started, and stand still but for the one whose turn it is. Each computes
and keeps the same prompts. Then, `reps` times over and one system after the other (every time another is first), each prompt is asked for
one token, before it one that nobody shares and that takes all of vLLM's own caches, so that nothing comes of them (`tokens_by_source`: `own`
counts what did). The tokens are compared with the engine's that computes. Stores lie in memory. What a system needs beside vLLM must be in this Python (LMCache, Mooncake), or it is shown as not run.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from cascade_kv.vllm.bench_systems import SYSTEMS, Server, absent


class Engine:
    """An engine in another process; a context manager."""

    def __init__(self, system: str, options: argparse.Namespace, work: Path, environment: dict[str, str]) -> None:
        self._log = work / f"{system}.engine.log"
        words = [sys.executable, "-m", "cascade_kv.vllm.bench_engine"]
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                words,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=os.environ | environment,
            )
        told = {"system": system, "model": options.model, "work": str(work), "tokens": options.prompt_tokens}
        self._tell(told | {"prompts": options.prompts})
        self._hear()

    def _tell(self, words: Any) -> None:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(words) + "\n")
        self._process.stdin.flush()

    def _hear(self) -> Any:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the engine ended: {_last(self._log.read_text())}")
        return json.loads(line)

    def ask(self, *words: Any) -> Any:
        """A command of `bench_engine`, and its answer."""
        self._tell(words)
        return self._hear()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_of_error: object) -> None:
        if self._process.stdin:
            with suppress(OSError):
                self._process.stdin.close()
        try:
            # It takes its files in memory with it.
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _is_ours(system: str) -> bool:
    return system.startswith("cascade") or system == "recompute"


def _last(log: str) -> str:
    errors = [line for line in log.split("\n") if "Error" in line]
    return (errors or [log])[-1][-400:]


def _measure(options: argparse.Namespace, work: Path) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """What each system answered, and why others did not run."""
    found: dict[str, dict[str, Any]] = {}
    not_run: dict[str, str] = {}
    with ExitStack() as stack:
        engines: dict[str, Engine] = {}
        for system in options.systems:
            if reason := absent(system):
                not_run[system] = reason
                continue
            print(f"{system}: starting", file=sys.stderr, flush=True)
            try:
                server = stack.enter_context(Server(system, work))
                engines[system] = stack.enter_context(Engine(system, options, work, server.environment))
                found[system] = {"first": engines[system].ask("store"), "turns": []}
                # One turn that does not count: what is set up once is not measured.
                warm = engines[system].ask("turn", 99)
                kept = [one[2] for one in warm["again"]]
                print(f"{system}: {kept} of {options.prompt_tokens} tokens kept", file=sys.stderr, flush=True)
            except RuntimeError as error:
                if _is_ours(system):
                    raise
                engines.pop(system, None)
                found.pop(system, None)
                not_run[system] = f"not run: {error}"
        if options.pause:
            print("everything is started: Enter begins the turns", file=sys.stderr, flush=True)
            sys.stdin.readline()
        for turn in range(options.reps):
            names = list(engines)
            for at in range(len(names)):
                system = names[(turn + at) % len(names)]
                try:
                    found[system]["turns"].append(engines[system].ask("turn", 100 + turn))
                except (RuntimeError, OSError) as error:
                    if _is_ours(system):
                        raise
                    del engines[system], found[system]
                    not_run[system] = f"ended in turn {turn + 1}: {error}"
            print(f"turn {turn + 1} of {options.reps}", file=sys.stderr, flush=True)
    return found, not_run


def _spread(values: list[float]) -> dict[str, float]:
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def _row(system: str, found: dict[str, Any], base: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """A turn's time is the median of its prompts; ratios are of the same turn."""
    seconds, bases = (
        [statistics.median(one[0] for one in turn["again"]) for turn in of["turns"]] for of in (found, base)
    )
    new, new_bases = ([sum(one[0] for one in turn["new"]) for turn in of["turns"]] for of in (found, base))
    asked = options.prompts * options.prompt_tokens
    tokens, wanted = (
        [[one[1] for one in [*turn["again"], *turn["new"]]] for turn in of["turns"]] for of in (found, base)
    )
    row: dict[str, Any] = {
        "system": system,
        "n": len(seconds),
        "ttft_seconds": _spread(seconds),
        "times_faster": _spread([b / s for s, b in zip(seconds, bases, strict=True)]),
        "tokens_asked": asked,
        "tokens_by_source": _sources(found["turns"]),
        "tokens_computed": statistics.median(asked - sum(one[2] for one in turn["again"]) for turn in found["turns"]),
        "nothing_shared_seconds": _spread(new),
        "nothing_shared_of_recompute": _spread([s / b for s, b in zip(new, new_bases, strict=True)]),
        "verified": tokens == wanted,
    }
    if system in ("cascade", "cascade-async"):
        row["inside_share"] = _spread([turn["inside"] / time for turn, time in zip(found["turns"], new, strict=True)])
    return row


def _sources(turns: list[dict[str, Any]]) -> dict[str, float]:
    """Tokens of all turns that were not computed, by where vLLM says they came from; without those that are 0, but for its own cache."""
    names = {name for turn in turns for name in turn["sources"]}
    sums = {name: sum(turn["sources"].get(name, 0.0) for turn in turns) for name in sorted(names)}
    return {name: count for name, count in sums.items() if count or name == "own"}


def _table(rows: list[dict[str, Any]], not_run: dict[str, str]) -> str:
    title = f"{'system':14} {'TTFT ms (min, median, max)':>28} {'times faster':>13} {'computed':>13}"
    lines = [f"{title} {'nothing shared':>15} {'inside':>7}  verified"]
    for row in rows:
        low, middle, high = (row["ttft_seconds"][name] * 1e3 for name in ("min", "median", "max"))
        inside = f"{row['inside_share']['median']:7.2%}" if "inside_share" in row else f"{'':7}"
        lines.append(
            f"{row['system']:14} {low:8.1f} {middle:9.1f} {high:9.1f} {row['times_faster']['median']:12.2f}x"
            f" {row['tokens_computed']:6.0f}/{row['tokens_asked']:<6} {row['nothing_shared_of_recompute']['median']:14.3f}x {inside}"
            f"  {row['verified']}"
        )
    lines.append(
        f"n = {rows[0]['n']} turns; ratios against {rows[0]['system']} in the same turn; inside: share of the engine's time"
    )
    return "\n".join([*lines, *(f"{system:14} {why}" for system, why in not_run.items())])


def _options(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m cascade_kv.vllm.bench", description=__doc__)
    parser.add_argument("--model", required=True, help="folder of a model")
    parser.add_argument("--prompt-tokens", type=int, default=1600)
    parser.add_argument("--prompts", type=int, default=2)
    parser.add_argument("--reps", type=int, default=5)
    parser.add_argument("--systems", type=lambda text: text.split(","), default=list(SYSTEMS))
    parser.add_argument(
        "--pause", action="store_true", help="wait for a line before the turns, until the machine is quiet"
    )
    parser.add_argument("--json", help="where to write the results")
    options = parser.parse_args(words)
    if wrong := set(options.systems) - set(SYSTEMS):
        parser.error(f"no such system: {', '.join(sorted(wrong))}; there are {', '.join(SYSTEMS)}")
    if options.systems[0] != "recompute":
        options.systems = ["recompute", *(one for one in options.systems if one != "recompute")]
    return options


def main(words: list[str]) -> int:
    """Exit status 0 when Cascade gave the tokens that are computed."""
    options = _options(words)
    # Engines and servers end with this process however it is asked to.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="cascade-bench-", dir="/dev/shm") as work:
        found, not_run = _measure(options, Path(work))
    rows = [_row(system, one, found["recompute"], options) for system, one in found.items()]
    print(_table(rows, not_run))
    if options.json:
        shape = {"prompt_tokens": options.prompt_tokens, "prompts": options.prompts, "model": Path(options.model).name}
        document = {"schema": 3, "suite": "vllm-ttft", **shape, "results": rows, "not_run": not_run}
        Path(options.json).write_text(json.dumps(document, indent=1) + "\n")
    return 0 if all(row["verified"] for row in rows if row["system"].startswith("cascade")) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
