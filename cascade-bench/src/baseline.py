"""File I/O in Python on /dev/shm, as programs without a store do it: the baseline of `cascade-bench`.

Started with the folder to work in. Reads one command a line, `OPERATION BLOCK_BYTES BLOCKS`, and answers with
`SECONDS VERIFIED` (0 or 1). Operations: `write` (a new file a block), `rewrite` (over the pages of an existing file),
`read` (`file.read()`) and `readinto` (into a buffer that was used before).
"""

import os
import sys
import time

SOURCE_BYTES = 128 << 20


class Files:
    """Blocks as files `0` to `blocks - 1`, their bytes from sources that take turns."""

    def __init__(self, folder):
        self.folder = folder
        self.block = 0
        self.blocks = 0
        self.sources = []
        self.target = bytearray()

    def path(self, index):
        return os.path.join(self.folder, str(index))

    def source(self, index):
        return self.sources[index % len(self.sources)]

    def shape(self, block, blocks):
        if (block, blocks) == (self.block, self.blocks):
            return
        self.remove()
        count = min(max(SOURCE_BYTES // block, 1), blocks)
        self.block, self.blocks = block, blocks
        self.sources = [os.urandom(block) for _ in range(count)]
        # Written, so that its pages are there.
        self.target = bytearray(os.urandom(1) * block)
        self.write()

    def remove(self):
        for index in range(self.blocks):
            os.unlink(self.path(index))
        self.blocks = 0

    def write(self):
        for index in range(self.blocks):
            with open(self.path(index), "wb") as file:
                file.write(self.source(index))

    def rewrite(self):
        for index in range(self.blocks):
            with open(self.path(index), "r+b", buffering=0) as file:
                file.write(self.source(index))

    def read(self):
        for index in range(self.blocks):
            with open(self.path(index), "rb") as file:
                data = file.read()
        return data

    def readinto(self):
        for index in range(self.blocks):
            with open(self.path(index), "rb", buffering=0) as file:
                file.readinto(self.target)
        return self.target

    def run(self, operation, block, blocks):
        self.shape(block, blocks)
        if operation == "write":
            kept = self.blocks
            self.remove()
            self.blocks = kept
        work = {
            "write": self.write,
            "rewrite": self.rewrite,
            "read": self.read,
            "readinto": self.readinto,
        }
        start = time.perf_counter()
        last = work[operation]()
        seconds = time.perf_counter() - start
        if last is None:
            with open(self.path(self.blocks - 1), "rb") as file:
                last = file.read()
        return seconds, last == self.source(self.blocks - 1)


def main():
    files = Files(sys.argv[1])
    for line in sys.stdin:
        operation, block, blocks = line.split()
        seconds, verified = files.run(operation, int(block), int(blocks))
        print(f"{seconds!r} {int(verified)}", flush=True)
    files.remove()


if __name__ == "__main__":
    main()
