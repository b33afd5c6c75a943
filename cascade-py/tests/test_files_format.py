"""The files of tier 4, read with the byte tables of docs/format.md and nothing else."""

import os
import struct
from pathlib import Path

import numpy as np

import cascade_kv as ck

FORMAT = Path(__file__).parents[2] / "docs" / "format.md"
PAGE, CHUNK = 4096, 65536
LENGTHS = [1, 4096, 5000, 65536, 65537, 300_001]
KINDS = {1: "put", 2: "forget", 3: "drop", 4: "close", 5: "end"}


def tables():
    """Offset and length of each field, by table: `page`, the kinds of pages, `record`, `entry` and `event`."""
    section = FORMAT.read_text().split("## Segment files (tier 4)")[1].split("### Why the order")[0]
    names = {"field": "page", "field of the header": "record", "field of a footer entry (80 bytes)": "entry"}
    found, table = {}, None
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if "field" in line and cells[0] == "offset":
            table = "event" if "page" in found and "record" in found and cells[2] == "field" else names[cells[2]]
        elif cells[:2] == ["kind", "offset"]:
            table = None
        elif len(cells) == 4 and cells[1].isdigit() and cells[2].isdigit():
            table = cells[0] or table
            found.setdefault(table, {})[int(cells[1])] = (int(cells[2]), cells[3])
        elif len(cells) == 3 and cells[0].isdigit() and cells[1].isdigit():
            found.setdefault(table, {})[int(cells[0])] = (int(cells[1]), cells[2])
    return found


TABLES = tables()


def field(table, data, offset):
    """The field that the table has at `offset`."""
    value = data[offset : offset + TABLES[table][offset][0]]
    return int.from_bytes(value, "little") if len(value) <= 8 else value


def rest_is_zero(data, *named):
    """Whether what no field of these tables covers is zero."""
    covered = set()
    for table in named:
        for at, (length, text) in TABLES[table].items():
            covered.update(range(at, at + length) if not text.startswith(("by kind", "0")) else ())
    return not any(byte for at, byte in enumerate(data) if at not in covered)


def _entry(byte):
    for _ in range(8):
        byte = (byte >> 1) ^ (0x9A6C9329AC4BC9B5 if byte & 1 else 0)
    return byte


CRC = [_entry(byte) for byte in range(256)]


def crc(data):
    """CRC-64/NVME."""
    state = (1 << 64) - 1
    for byte in data:
        state = CRC[(state ^ byte) & 0xFF] ^ (state >> 8)
    return state ^ ((1 << 64) - 1)


def root(block_id, payload):
    """Root digest: of id, length and the digests of the chunks."""
    chunks = [crc(payload[at : at + CHUNK]) for at in range(0, len(payload), CHUNK)]
    return crc(block_id + struct.pack(f"<{1 + len(chunks)}Q", len(payload), *chunks)), chunks


def page(data, kind, magic, writer):
    """Checks a page of this kind."""
    assert (data[:8], field("page", data, 8), field("page", data, 12), field("page", data, 16)) == (magic, 1, 1, 0)
    assert field("page", data, 24).hex() == writer and field("page", data, 4088) == crc(data[:4088])
    assert rest_is_zero(data, "page", kind)
    return lambda offset: field(kind, data, offset)


def record(data, at, writer, number):
    """The block at `at` of a segment, checked; where the next one begins, and what index and log should say of it."""
    header = data[at : at + PAGE]
    assert header[:8] == b"CASCBLOK" and (field("record", header, 8), field("record", header, 12)) == (1, 1)
    assert field("record", header, 16).hex() == writer
    assert (field("record", header, 32), field("record", header, 40)) == (number, at)
    block_id, length, tenant = (field("record", header, offset) for offset in (56, 88, 104))
    payload_at = at + -(-(128 + 8 * -(-length // CHUNK)) // PAGE) * PAGE
    end = payload_at + -(-length // PAGE) * PAGE
    digest, chunks = root(block_id, data[payload_at : payload_at + length])
    assert field("record", header, 96) == digest and not any(data[payload_at + length : end]), "padding is zero"
    whole = data[at:payload_at]
    assert field("record", header, 120) == crc(whole[:120] + whole[128:])
    assert struct.unpack_from(f"<{len(chunks)}Q", header, 128) == tuple(chunks)
    assert not any(header[107:120]) and not any(whole[128 + 8 * len(chunks) :])
    said = (block_id, at, length, digest, field("record", header, 48), tenant, header[106])
    return end, said, data[payload_at : payload_at + length]


def segment(path):
    """The blocks of a closed segment, from its records; its footer says the same."""
    writer, number = path.name.split(".")[0], int(path.name.split(".")[1], 16)
    data = path.read_bytes()
    first, last = (
        page(data[:PAGE], "segment", b"CASCSEGM", writer),
        page(data[-PAGE:], "trailer", b"CASCFOOT", writer),
    )
    assert (first(40), first(64), first(72), last(40)) == (number, PAGE, CHUNK, number)
    index_at, count, at, found = last(48), last(56), PAGE, []
    assert last(64) == crc(data[index_at:-PAGE])
    while at < index_at:
        at, said, payload = record(data, at, writer, number)
        assert said[4] > first(48)
        found.append((*said, payload))
    entries = [data[index_at + 80 * nth : index_at + 80 * (nth + 1)] for nth in range(count)]
    assert [tuple(field("entry", entry, o) for o in (0, 32, 40, 48, 56, 64, 66)) for entry in entries] == [
        said[:7] for said in found
    ]
    assert not any(data[index_at + 80 * count : -PAGE]) and all(rest_is_zero(entry, "entry") for entry in entries)
    return found


def log(path):
    """The events of a log."""
    writer, data, events = path.name.split(".")[0], path.read_bytes(), []
    page(data[:PAGE], "log", b"CASCILOG", writer)
    for nth, at in enumerate(range(PAGE, len(data), 128)):
        event = data[at : at + 128]
        kind = KINDS[event[0]]
        assert (field("event", event, 8).hex(), field("event", event, 24)) == (writer, nth)
        assert field("event", event, 120) == crc(event[:120])
        named = [offset for offset, (_, text) in TABLES["event"].items() if kind in text.split(":")[0]]
        unused = set(TABLES["event"]) - {0, 8, 24, 120} - set(named) - ({32} if kind == "drop" else set())
        assert not any(event[at + i] for at in unused for i in range(TABLES["event"][at][0])) and rest_is_zero(
            event, "event"
        )
        events.append((kind, event))
    return events


def test_the_files_are_what_the_documentation_says(place, tmp_path):
    assert crc(b"123456789") == 0xAE8B14860A799888
    data = {f"block {length}": np.random.default_rng(length).integers(0, 256, length, np.uint8) for length in LENGTHS}
    settings = {"pfs_path": tmp_path / "files", "pfs_capacity": "64MiB", "shm_capacity": "64MiB"}
    with ck.Store(shm_path=place / "arena", **settings) as store:
        for nth, (name, block) in enumerate(data.items()):
            assert store.put(name, block, prefix=nth == 2, wait="durable") == "stored"
        assert store.delete("block 1")
        [identity] = (tmp_path / "files").glob("*.writer")
        said = page(identity.read_bytes(), "identity", b"CASCWRTR", identity.stem)
        assert said(40) == os.getpid() and said(88)[: said(80)].decode() == os.uname().nodename[:64]
        assert said(152) == 64 << 20
    [path] = (tmp_path / "files").glob("*.seg")
    blocks = segment(path)
    assert [block[7] for block in blocks] == [block.tobytes() for block in data.values()]
    assert [block[0] for block in blocks] == [bytes(ck.BlockId.named(name)) for name in data]
    assert [block[6] for block in blocks] == [0, 0, 1, 0, 0, 0], "classes"
    [path] = (tmp_path / "files").glob("*.log")
    events = log(path)
    assert [kind for kind, _ in events] == ["put"] * len(data) + ["forget", "close", "end"]
    for (_, event), block in zip(events, blocks, strict=False):
        said = tuple(field("event", event, offset) for offset in (32, 80, 88, 96, 64, 104, 106))
        assert said == block[:7] and field("event", event, 72) == 0
    forget = events[len(data)][1]
    assert field("event", forget, 32) == blocks[0][0] and field("event", forget, 64) > blocks[0][4]
