"""The demo over nodes: the model on one stores a document's prefix in its memory, and on another it answers from there.

Nodes are those of one machine: each has an arena, an agent (`cascade serve`, a rank of an MPI job) and a process of the model of its
own. What comes from another node came through the agents.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from cascade_kv.demo.beyond import ms, spread
from cascade_kv.demo.cli import _HERE, _check_model, _check_packages, _environment, _only_gguf
from cascade_kv.demo.job import FAILED, UNUSABLE, DemoError, Job, say
from cascade_kv.demo.plot import bars_svg

_START_S = 120.0
_NAMES = {"recomputed": "recomputed", "remote": "from the other node", "local": "from the own arena"}


def main(arguments: list[str] | None = None) -> int:
    """Run the demo; 0 if every check held, 1 if one failed, 2 if it could not be run."""
    parser = argparse.ArgumentParser(prog="python -m cascade_kv.demo.ranks", description=__doc__)
    parser.add_argument("--model-dir", required=True)
    parser.add_argument("--gguf", help="name of a GGUF file in it")
    parser.add_argument("--out", required=True)
    parser.add_argument("--ranks", type=int, default=2, help="nodes; all but the first answer (default: %(default)s)")
    parser.add_argument("--document", default=str(_HERE / "document.txt"))
    parser.add_argument("--questions", default=str(_HERE / "questions.txt"))
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--new-tokens", type=int, default=24)
    parser.add_argument("agents", nargs="+", help="after --: the words that start the ranks of `cascade`")
    options = parser.parse_args(arguments)
    if options.ranks < 2 or options.repetitions < 1:
        parser.error("--ranks must be at least 2, --repetitions at least 1")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    folder = tempfile.mkdtemp(prefix="cascade-demo-", dir="/dev/shm")
    try:
        return _run(options, _job(options, folder))
    except DemoError as error:
        say(f"error: {error}")
        return UNUSABLE
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _job(options: argparse.Namespace, folder: str) -> Job:
    gguf = options.gguf or _only_gguf(Path(options.model_dir))
    _check_packages(gguf)
    _check_model(Path(options.model_dir), gguf)
    Path(options.out).mkdir(parents=True, exist_ok=True)
    arenas = os.path.join(folder, "arenas")
    return Job(
        model_dir=options.model_dir,
        gguf=gguf,
        document=options.document,
        questions=options.questions,
        out=options.out,
        shm_path=arenas,
        shm_capacity="512MiB",
        later_shm_path=arenas,
        pfs_path="",
        pfs_capacity="",
        block_tokens=64,
        new_tokens=options.new_tokens,
        repetitions=options.repetitions,
        passages=1,
        passage_tokens=1,
        small_shm_path="",
        small_pfs_path="",
    )


def _run(options: argparse.Namespace, job: Job) -> int:
    path = job.write()
    out = Path(job.out)
    for stale in [job.reference, *out.glob("node-*.json")]:
        stale.unlink(missing_ok=True)
    agents = _start_agents(options, job)
    try:
        for number in range(options.ranks):
            done = subprocess.run(
                [sys.executable, "-m", "cascade_kv.demo.node", str(path), str(number)], env=_environment()
            )
            if done.returncode != 0:
                raise DemoError(
                    f"the process of node {number} ended with exit status {done.returncode}; its message is above"
                )
    finally:
        _end(agents)
    nodes = [json.loads((out / f"node-{number}.json").read_text()) for number in range(options.ranks)]
    result = _assemble(nodes)
    (out / "ranks.json").write_text(json.dumps(result, indent=1) + "\n")
    (out / "ranks.svg").write_text(
        bars_svg("Time to first token: recomputed against another node's memory", _note(result), _bars(result))
    )
    print("\n".join(_lines(result)))
    say(f"results: {out / 'ranks.json'}, plot: {out / 'ranks.svg'}")
    for failure in result["failures"]:
        say(f"FAILED: {failure}")
    return FAILED if result["failures"] else 0


def _start_agents(options: argparse.Namespace, job: Job) -> subprocess.Popen[str]:
    words = [*options.agents, "serve", "--each", "node", "--every", "0", "--json", "--dir", job.shm_path]
    say(f"{options.ranks} agents, each of a node of its own: {' '.join(words)}")
    environment = {**os.environ, "CASCADE_SHM_CAPACITY": job.shm_capacity}
    child = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True)
    serving = threading.Semaphore(0)

    def listen() -> None:
        assert child.stdout is not None
        for line in child.stdout:
            if '"event":"serving"' in line:
                serving.release()

    threading.Thread(target=listen, daemon=True).start()
    for _ in range(options.ranks):
        if not serving.acquire(timeout=_START_S):
            _end(child)
            raise DemoError("the agents do not serve; what they said is above")
    return child


def _end(agents: subprocess.Popen[str]) -> None:
    """All ranks are told to end: they have a session of their own."""
    for kind in (signal.SIGTERM, signal.SIGKILL):
        if agents.poll() is None:
            try:
                os.killpg(agents.pid, kind)
                agents.wait(timeout=30)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue


def _assemble(nodes: list[dict[str, Any]]) -> dict[str, Any]:
    answers = []
    failures = []
    for number, node in enumerate(nodes[1:], start=1):
        times = {where: spread(node[f"ttft_{where}_seconds"]) for where in _NAMES}
        answers.append({"node": number, **node, "times": times})
        wanted = {
            f"restored {node['restored_tokens']} of {node['expected_tokens']} tokens": (
                set(node["restored_tokens"]) == {node["expected_tokens"]}
            ),
            f"{node['moves']['remote_brought']} blocks came from another node, not {node['blocks_expected']}": (
                node["moves"]["remote_brought"] == node["blocks_expected"]
            ),
            "logits differ from those of node 0": node["logits_equal"],
            "the text differs from that of node 0": node["text_equal"],
        }
        failures += [f"node {number}: {what}" for what, held in wanted.items() if not held]
    return {"stored": nodes[0], "answers": answers, "failures": failures, "ok": not failures}


def _note(result: dict[str, Any]) -> str:
    node = result["answers"][0]
    return f"{node['model']} on {node['device']}, {node['threads']} threads; nodes of one machine; median, line: min to max"


def _bars(result: dict[str, Any]) -> list[tuple[str, str, dict[str, dict[str, Any]]]]:
    return [
        (
            f"node {node['node']}",
            f"{node['expected_tokens']} of {node['prompt_tokens']} tokens from node 0",
            {_NAMES[where]: times for where, times in node["times"].items()},
        )
        for node in result["answers"]
    ]


def _lines(result: dict[str, Any]) -> list[str]:
    stored = result["stored"]
    lines = [
        _note(result),
        f"node 0 stored {stored['blocks']} blocks of {stored['block_bytes'] / 1e6:.2f} MB in its memory",
        f"{'node':<6}{'served':<22}{'time to first token, ms: median [min..max]':<44} speedup  same logits, text",
    ]
    for node in result["answers"]:
        recomputed = node["times"]["recomputed"]["median"]
        same = f"{'yes' if node['logits_equal'] else 'NO'}, {'yes' if node['text_equal'] else 'NO'}"
        for where, times in node["times"].items():
            speedup = "" if where == "recomputed" else f"{recomputed / times['median']:>6.1f}x  {same}"
            lines.append(f"{node['node']:<6}{_NAMES[where]:<22}{ms(times):<44} {speedup}")
        lines += [f"Q: {node['question']}", f"A: {node['answer']}"]
    return [*lines, "every check held" if result["ok"] else f"{len(result['failures'])} CHECKS FAILED"]


if __name__ == "__main__":
    sys.exit(main())
