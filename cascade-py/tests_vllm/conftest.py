"""Engines of these tests: the real vLLM, on the CPU, with small models."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

HERE = Path(__file__).parent


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
    kinds = ("plain", "other", "window")
    subprocess.run([sys.executable, HERE / "make_model.py", disk, *kinds], check=True, capture_output=True)
    return {kind: str(disk / kind) for kind in kinds}


def environment() -> dict[str, str]:
    """Caches in the environment of these tests: nothing of this machine is found, and what vLLM notes of models is kept."""
    return os.environ | {"XDG_CACHE_HOME": str(Path(sys.prefix) / "cache")}


def start(jobs: list[dict], disk: Path, name: str) -> tuple[subprocess.Popen, Path]:
    """Engines in a process of their own."""
    source, result = disk / f"{name}.json", disk / f"{name}.result.json"
    source.write_text(json.dumps(jobs))
    with (disk / f"{name}.log").open("w") as log:
        words = [sys.executable, HERE / "engine.py", source, result]
        return subprocess.Popen(words, env=environment(), stdout=log, stderr=log), result


def finish(process: subprocess.Popen, result: Path, expected: int = 0) -> list[dict]:
    """Its results, when it has ended as expected."""
    try:
        status = process.wait(timeout=900)
    finally:
        process.kill()
    if status != expected:
        log = result.with_name(result.name.replace(".result.json", ".log")).read_text()
        raise AssertionError(f"the engine's process ended with {status}, not {expected}:\n{log[-5000:]}")
    return json.loads(result.read_text())
