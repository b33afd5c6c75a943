"""Golden vectors of block ids, made by an implementation that shares no code with the crates.

It follows docs/identity.md alone: the hash comes from PyPI's `blake3`, everything else is plain Python.

    python cascade-py/tests/golden_identity.py            # compares with the file, exit status 1 on a difference
    python cascade-py/tests/golden_identity.py --write    # rewrites it, for a new version of the encoding

The same file is read by cascade-core's tests and by the tests of the Python binding.
"""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path
from typing import Any

from blake3 import blake3

GOLDEN = Path(__file__).resolve().parents[2] / "cascade-core" / "testdata" / "identity.json"

NAME, CONTENT, CHAIN, FOREIGN = 0xE1, 0xE2, 0xE3, 0xE4
ROOT_CONTEXT = "cascade-kv 2026 key space root"


def tagged(domain: int, digest: bytes) -> bytes:
    return digest[:31] + bytes([domain])


def named(name: str) -> bytes:
    return tagged(NAME, blake3(bytes([NAME]) + name.encode()).digest())


def content(data: bytes) -> bytes:
    return tagged(CONTENT, blake3(bytes([CONTENT]) + data).digest())


def foreign(root: bytes, engine_hash: bytes) -> bytes:
    return tagged(FOREIGN, blake3(bytes([FOREIGN]) + engine_hash, key=root).digest())


def prefixed(data: bytes) -> bytes:
    return struct.pack("<Q", len(data)) + data


def optional(data: bytes | None) -> bytes:
    return b"\0" if data is None else b"\1" + prefixed(data)


def encode(space: dict[str, Any]) -> bytes:
    """The canonical bytes of a key space in the form that the JSON file has."""
    layers, kv_heads = space["layers"], space["kv_heads"]
    layer_range = space.get("layer_range", [0, layers])
    head_range = space.get("head_range", [0, kv_heads])
    ((kind, weights),) = space["weights"].items()
    adapter, secret = space.get("adapter"), space.get("tenant_secret_hex")
    return b"".join(
        [
            b"\1",
            prefixed(space["model"].encode()),
            bytes([{"revision": 0, "fingerprint": 1}[kind]]),
            prefixed(weights.encode()),
            prefixed(space.get("quantisation", "").encode()),
            prefixed(space["dtype"].encode()),
            prefixed(space["layout"].encode()),
            struct.pack("<IIII", space["block_tokens"], layers, *layer_range),
            struct.pack("<IIII", space.get("kv_group", 0), kv_heads, *head_range),
            optional(None if adapter is None else adapter.encode()),
            optional(None if secret is None else bytes.fromhex(secret)),
        ]
    )


def root_of(space: dict[str, Any]) -> bytes:
    return blake3(encode(space), derive_key_context=ROOT_CONTEXT).digest()


def chain(root: bytes, block_tokens: int, tokens: list[int], extras: list[bytes]) -> list[bytes]:
    ids: list[bytes] = []
    parent = bytes(32)
    for block in range(len(tokens) // block_tokens):
        own = tokens[block * block_tokens : (block + 1) * block_tokens]
        message = bytes([CHAIN]) + parent + struct.pack("<I", block_tokens)
        message += b"".join(struct.pack("<I", token) for token in own)
        message += prefixed(extras[block] if extras else b"")
        parent = tagged(CHAIN, blake3(message, key=root).digest())
        ids.append(parent)
    return ids


SMOLLM2 = {
    "model": "SmolLM2-135M-Instruct",
    "weights": {"fingerprint": "9f86d081884c7d659a2feaa0c55ad015"},
    "quantisation": "Q4_1",
    "dtype": "float32",
    "layout": "hf:L2HTD",
    "block_tokens": 4,
    "layers": 30,
    "kv_heads": 3,
}

SPACES: dict[str, dict[str, Any]] = {
    "plain": SMOLLM2,
    "by revision": {**SMOLLM2, "weights": {"revision": "7e27bd9f95328f0f3b08261d1252705110c806f8"}},
    "not quantised": {**SMOLLM2, "quantisation": ""},
    "tenant": {**SMOLLM2, "tenant_secret_hex": "000102030405060708090a0b0c0d0e0f"},
    "another tenant": {**SMOLLM2, "tenant_secret_hex": "00" * 33},
    "adapter": {**SMOLLM2, "adapter": "sql-lora@3"},
    "adapter of a tenant": {**SMOLLM2, "adapter": "sql-lora@3", "tenant_secret_hex": "ff" * 16},
    "tensor parallel, second of three": {**SMOLLM2, "head_range": [1, 2]},
    "pipeline parallel, second half": {**SMOLLM2, "layer_range": [15, 30]},
    "second group": {**SMOLLM2, "kv_group": 1},
    "unicode": {**SMOLLM2, "model": "模型/Modèle-Größe 🦀", "adapter": "e\u0301 is not \u00e9"},
    "one token": {**SMOLLM2, "block_tokens": 1},
    "sixteen tokens, one latent head": {**SMOLLM2, "block_tokens": 16, "kv_heads": 1, "layers": 61},
}

NAMES = ["", "block_id", "a" * 1000, "Größe 🦀", "\0", "e\u0301", "\u00e9"]
CONTENTS = [("", 0), ("00", 1), ("00010203", 1), ("ff", 1023), ("0102030405", 3000), ("5a", 65536)]
HASHES = ["", "00", "5a" * 32, "ff" * 64]


def case(tokens: list[int], extras: list[bytes]) -> dict[str, Any]:
    return {"tokens": tokens, "extras_hex": [extra.hex() for extra in extras]}


CHAINS = [
    case([], []),
    case([1, 2, 3], []),
    case([1, 2, 3, 4], []),
    case([0, 0, 0, 0, 0, 0, 0, 0], []),
    case([0, 1, 255, 256, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 7], []),
    case(list(range(100, 135)), []),
]
EXTRAS = [
    case([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], [b"", b"", b""]),
    case([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], [b"salt", b"", "Bild 🖼".encode()]),
    case([1, 2, 3, 4, 5, 6, 7, 8, 9], [b"", bytes(range(256))]),
]


def vectors() -> dict[str, Any]:
    spaces = []
    for title, space in SPACES.items():
        root, size = root_of(space), space["block_tokens"]
        chains = []
        for one in CHAINS + (EXTRAS if size == 4 else []):
            extras = [bytes.fromhex(extra) for extra in one["extras_hex"]]
            ids = chain(root, size, one["tokens"], extras)
            chains.append({**one, "ids": [each.hex() for each in ids]})
        hashes = [{"hash_hex": each, "id": foreign(root, bytes.fromhex(each)).hex()} for each in HASHES]
        spaces.append({"title": title, "space": space, "root": root.hex(), "foreign": hashes, "chains": chains})
    contents = [
        {"unit_hex": unit, "times": times, "id": content(bytes.fromhex(unit) * times).hex()} for unit, times in CONTENTS
    ]
    names = [{"name": name, "id": named(name).hex()} for name in NAMES]
    return {"version": 1, "names": names, "contents": contents, "key_spaces": spaces}


def as_text(document: dict[str, Any]) -> str:
    """JSON with one line for each vector, so that a change shows as a small difference."""
    compact = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
    lines = ["{", f'"version":{document["version"]},']
    for section in ("names", "contents"):
        lines += [f'"{section}":[', ",\n".join(map(compact, document[section])), "],"]
    lines.append('"key_spaces":[')
    spaces = []
    for space in document["key_spaces"]:
        head = ",".join(f'"{field}":{compact(space[field])}' for field in ("title", "space", "root"))
        foreign_ids = ",\n".join(map(compact, space["foreign"]))
        chains = ",\n".join(map(compact, space["chains"]))
        spaces.append(f'{{{head},\n"foreign":[\n{foreign_ids}],\n"chains":[\n{chains}]}}')
    lines += [",\n".join(spaces), "]", "}"]
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> int:
    text = as_text(vectors())
    if json.loads(text) != vectors():
        raise AssertionError("the JSON text does not read back as the vectors")
    if arguments == ["--write"]:
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(text, encoding="utf-8")
        print(f"wrote {GOLDEN} ({len(text.encode())} bytes)")
        return 0
    if arguments:
        print(__doc__, file=sys.stderr)
        return 2
    if GOLDEN.read_text(encoding="utf-8") != text:
        print(f"{GOLDEN} differs from what {Path(__file__).name} computes.", file=sys.stderr)
        print("If the encoding was meant to change, raise its version and run this with --write.", file=sys.stderr)
        return 1
    print(f"{GOLDEN.name} agrees with {Path(__file__).name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
