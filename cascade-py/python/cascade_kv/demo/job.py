"""What the parent tells the processes, and what all share: the store, errors and progress messages."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from cascade_kv import Store

# Exit statuses: a check failed; the job could not be run as asked.
FAILED = 1
UNUSABLE = 2

_HEARTBEAT_SECONDS = 10.0


class DemoError(Exception):
    """The demo cannot run as asked; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Job:
    """Everything that decides what the processes compute.

    Attributes:
        model_dir: folder of the model and its tokenizer.
        gguf: file name of a GGUF model within `model_dir`, or None for safetensors.
        document, questions: text files.
        out: folder for results.
        shm_path, shm_capacity: where the arena of the first two processes lives and how large it may grow.
        later_shm_path: where that of the third lives; empty when it starts.
        pfs_path, pfs_capacity: where the files of all three live, and how large those of each may grow.
        block_tokens: tokens of one block.
        new_tokens: length of an answer.
        repetitions: how often each time is measured.
        passages, passage_tokens: how many prompts the third process makes of the document, and how long, at most.
        small_shm_path, small_pfs_path: where the arena that it overflows, and files below it, live.
    """

    model_dir: str
    gguf: str | None
    document: str
    questions: str
    out: str
    shm_path: str
    shm_capacity: str
    later_shm_path: str
    pfs_path: str
    pfs_capacity: str
    block_tokens: int
    new_tokens: int
    repetitions: int
    passages: int
    passage_tokens: int
    small_shm_path: str
    small_pfs_path: str

    def write(self) -> Path:
        """Write the job to `out`, for the processes to read; the path of the file."""
        path = Path(self.out) / "job.json"
        path.write_text(json.dumps(asdict(self), indent=1))
        return path

    @classmethod
    def read(cls, path: str) -> Job:
        """Read what :meth:`write` wrote."""
        return cls(**json.loads(Path(path).read_text()))

    def open_store(self, shm_path: str) -> Store:
        """The store, over the arena at `shm_path` and the files of all."""
        return Store(
            shm_path=shm_path, shm_capacity=self.shm_capacity, pfs_path=self.pfs_path, pfs_capacity=self.pfs_capacity
        )

    @property
    def reference(self) -> Path:
        """The first process's logits and answers, to compare with."""
        return Path(self.out) / "reference.pt"

    @property
    def measured(self) -> Path:
        """What the second process measured and checked."""
        return Path(self.out) / "reader.json"

    @property
    def answers(self) -> Path:
        """The second process's logits and answers, to compare with."""
        return Path(self.out) / "reader.pt"

    @property
    def measured_later(self) -> Path:
        """What the third process measured and checked."""
        return Path(self.out) / "later.json"


def say(message: str) -> None:
    """One line of progress on stderr."""
    print(message, file=sys.stderr, flush=True)


@contextlib.contextmanager
def step(name: str) -> Iterator[None]:
    """Announce a step, show every ten seconds that it still goes on, and say how long it took."""
    say(f"{name} ...")
    start = time.perf_counter()
    done = threading.Event()

    def beat() -> None:
        while not done.wait(_HEARTBEAT_SECONDS):
            say(f"{name} ... {time.perf_counter() - start:.0f} s so far")

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
    say(f"{name}: {time.perf_counter() - start:.1f} s")
