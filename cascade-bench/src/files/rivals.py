"""Systems in Python that keep blocks in files: rivals of the tier of files in `cascade-bench`.

Started with the name of one: `python` (one file a block), `hdf5` (one dataset a block in one file) or `vllm` (the tier `fs` of
vLLM). Says `{"ready": description}` or `{"missing": reason}`. Then each line is a command, and each answer a line:

    {"op": "write" | "read", "folder": .., "block": bytes, "blocks": n, "durability": "none" | "end" | "block", "depth": n}
    {"seconds": .., "right": true}     or     {"error": ".."}

What is not part of storing is not timed: making the data, opening, and comparing what was read.
"""

import json
import os
import sys
import time


def timed(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def sync(path):
    """Makes a file or a folder durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Rival:
    """The data: random bytes, the same for every repetition of one shape, and memory that was touched to read them to."""

    def __init__(self):
        self.shape = None
        self.data, self.room = b"", bytearray()
        self.source = self.target = memoryview(self.data)

    def begin(self, order):
        self.folder, self.durability = order["folder"], order["durability"]
        shape = (order["block"], order["blocks"])
        if shape != self.shape:
            self.block, self.blocks = self.shape = shape
            self.data = os.urandom(self.block * self.blocks)
            self.room = bytearray(b"\x01") * (self.block * self.blocks)
            self.source, self.target = memoryview(self.data), memoryview(self.room)

    def part(self, memory, index):
        return memory[index * self.block : (index + 1) * self.block]

    def write(self, order):
        self.begin(order)
        return timed(self.store)

    def read(self, order):
        self.begin(order)
        # Wiped, so that what an earlier repetition read cannot pass.
        self.target[:] = bytes(len(self.target))
        return timed(self.load), self.room == self.data


class Files(Rival):
    """One file a block, as programs without a store do it."""

    def __init__(self):
        super().__init__()
        major, minor = sys.version_info[:2]
        self.about = f"python {major}.{minor}, open and write, open and readinto"

    def path(self, index):
        return os.path.join(self.folder, f"{index}.block")

    def store(self):
        for index in range(self.blocks):
            with open(self.path(index), "wb", buffering=0) as file:
                file.write(self.part(self.source, index))
                if self.durability == "block":
                    os.fsync(file.fileno())
            if self.durability == "block":
                sync(self.folder)
        if self.durability == "end":
            for index in range(self.blocks):
                sync(self.path(index))
            sync(self.folder)

    def load(self):
        for index in range(self.blocks):
            with open(self.path(index), "rb", buffering=0) as file:
                file.readinto(self.part(self.target, index))


class Hdf5(Rival):
    """One dataset a block in one file."""

    def __init__(self):
        super().__init__()
        import h5py
        import numpy

        self.h5py, self.numpy = h5py, numpy
        self.about = f"h5py {h5py.__version__}, HDF5 {h5py.version.hdf5_version}"

    def path(self):
        return os.path.join(self.folder, "blocks.h5")

    def array(self, memory, index):
        return self.numpy.frombuffer(self.part(memory, index), dtype="uint8")

    def store(self):
        with self.h5py.File(self.path(), "w", libver="latest") as file:
            for index in range(self.blocks):
                file.create_dataset(str(index), data=self.array(self.source, index))
                if self.durability == "block":
                    file.flush()
                    sync(self.path())
        if self.durability == "end":
            sync(self.path())
            sync(self.folder)

    def load(self):
        with self.h5py.File(self.path(), "r") as file:
            for index in range(self.blocks):
                file[str(index)].read_direct(self.array(self.target, index))


class Vllm(Rival):
    """The secondary tier `fs` of vLLM's KV offloading, with its own classes, threads and direct I/O, between memory of its primary tier
    and a folder. It writes each block by one call, past the page cache where it can, to a file of its own under another name, and renames
    that: when it answers, the bytes are on the device, and neither names nor sizes nor the device's own cache are durable. It has no
    setting for that; where everything is to be durable at the end, each file and folder is synced here, once all jobs have ended."""

    JOB_BYTES = 32 << 20

    def __init__(self):
        super().__init__()
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        import numpy
        import vllm
        from vllm.v1.kv_offload import base, config
        from vllm.v1.kv_offload.tiering.base import TransferJob
        from vllm.v1.kv_offload.tiering.fs.manager import FileSystemTierManager

        self.numpy, self.base, self.config = numpy, base, config
        self.job, self.manager = TransferJob, FileSystemTierManager
        self.about = f"vLLM {vllm.__version__}, FileSystemTierManager"
        self.tier = None

    def settings(self):
        from types import SimpleNamespace

        c = self.config
        whole = c.OffloadingConfig(
            groups=(c.OffloadingGroupConfig(16, ("layer",), 0),),
            worker_kv_bytes_per_block=self.block,
            enable_kv_cache_events=False,
            extra_config={},
            engine_id="bench",
            model=c.OffloadingModelConfig("model", "bfloat16"),
            cache=c.OffloadingCacheConfig(16, 1),
            parallel=c.OffloadingParallelConfig(0, 1, 1, 1, 1, 1, 0, 1, None, True),
        )
        events = SimpleNamespace(enable_kv_cache_events=False)
        return SimpleNamespace(
            config=whole, blocks_per_chunk=1, kv_events_config=events
        )

    def open(self, order, keys):
        """A tier over new memory for a new folder, or over the same for the folder that was just written."""
        import mmap

        self.begin(order)
        if self.tier is not None and keys is None:
            return
        self.close()
        memory = mmap.mmap(-1, self.block * self.blocks)
        self.rows = self.numpy.frombuffer(memory, dtype="int8").reshape(
            self.blocks, self.block
        )
        self.rows[:] = self.numpy.frombuffer(self.source, dtype="int8").reshape(
            self.rows.shape
        )
        threads = {"n_read_threads": order["depth"], "n_write_threads": order["depth"]}
        rows = memoryview(self.rows)
        self.tier = self.manager(
            self.settings(), rows, "fs", root_dir=self.folder, **threads
        )
        self.keys = keys
        self.request = self.base.ReqContext("request")

    def close(self):
        if self.tier is not None:
            self.tier.shutdown()
            self.tier = None

    def jobs(self, submit, is_load):
        each = max(self.JOB_BYTES // self.block, 1)
        firsts = range(0, self.blocks, each)
        for number, first in enumerate(firsts):
            last = min(first + each, self.blocks)
            indices = self.numpy.arange(first, last, dtype="int32")
            submit(
                self.job(
                    number + 1000 * is_load,
                    self.keys[first:last],
                    indices,
                    is_load,
                    self.request,
                )
            )
        ended = 0
        while ended < len(firsts):
            done = list(self.tier.get_finished_jobs())
            if any(getattr(job, "success", True) is False for job in done):
                raise RuntimeError("a job of vLLM's tier failed")
            ended += len(done)
            if not done:
                time.sleep(0.0001)

    def write(self, order):
        if order["durability"] == "block":
            raise ValueError("vLLM's tier makes no block durable")
        count = order["blocks"]
        self.open(
            order, [self.base.make_offload_key(os.urandom(32), 0) for _ in range(count)]
        )
        return timed(self.store)

    def store(self):
        self.jobs(self.tier.submit_store, False)
        if self.durability == "end":
            for folder, _, files in os.walk(self.folder):
                for name in files:
                    sync(os.path.join(folder, name))
                sync(folder)

    def read(self, order):
        self.open(order, None)
        self.rows[:] = 0
        seconds = timed(lambda: self.jobs(self.tier.submit_load, True))
        right = self.numpy.array_equal(
            self.rows.reshape(-1), self.numpy.frombuffer(self.data, dtype="int8")
        )
        self.close()
        return seconds, right


def answer(rival, order):
    try:
        if order["op"] == "write":
            return {"seconds": rival.write(order), "right": True}
        seconds, right = rival.read(order)
        return {"seconds": seconds, "right": bool(right)}
    except Exception as error:  # noqa: BLE001 - whatever a library raises is an answer
        return {"error": f"{type(error).__name__}: {error}"}


def main():
    # Libraries print to the standard output too: answers get a descriptor of their own.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(what):
        answers.write(json.dumps(what) + "\n")
        answers.flush()

    try:
        rival = {"python": Files, "hdf5": Hdf5, "vllm": Vllm}[sys.argv[1]]()
    except Exception as error:  # noqa: BLE001 - as above
        say(
            {
                "missing": "{}: {}".format(
                    type(error).__name__,
                    str(error).splitlines()[0] if str(error) else "",
                )
            }
        )
        return
    say({"ready": rival.about})
    for line in sys.stdin:
        say(answer(rival, json.loads(line)))
    # Threads of a library must not keep the process.
    answers.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
