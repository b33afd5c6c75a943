"""What the tests share."""

import tempfile
from pathlib import Path

import pytest

import cascade_kv as ck


@pytest.fixture
def place():
    """A directory in memory, gone after the test."""
    with tempfile.TemporaryDirectory(prefix="cascade-test-", dir="/dev/shm") as path:
        yield Path(path)


@pytest.fixture
def store(place):
    """A small store."""
    with ck.Store(shm_path=place / "arena", shm_capacity="64MiB") as opened:
        yield opened
