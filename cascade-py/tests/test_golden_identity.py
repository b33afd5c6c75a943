"""The golden vectors are what the independent implementation computes, and that computes what docs/identity.md says."""

import importlib.util
import json
from pathlib import Path

HERE = Path(__file__).resolve().parent
_SPEC = importlib.util.spec_from_file_location("golden_identity", HERE / "golden_identity.py")
golden = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(golden)


def test_the_file_is_what_is_computed():
    assert golden.GOLDEN.read_text(encoding="utf-8") == golden.as_text(golden.vectors())


def test_no_two_vectors_share_an_id():
    """Vectors that agreed by mistake would prove nothing. Only equal chains in one key space may share a prefix."""
    document = json.loads(golden.GOLDEN.read_text(encoding="utf-8"))
    ids = [each["id"] for section in ("names", "contents") for each in document[section]]
    for space in document["key_spaces"]:
        ids += [each["id"] for each in space["foreign"]]
        ids += sorted({each for chain in space["chains"] for each in chain["ids"]})
    assert len(ids) == len(set(ids))
    roots = [space["root"] for space in document["key_spaces"]]
    assert len(roots) == len(set(roots)) == len(golden.SPACES)


def test_a_hand_written_encoding():
    """The bytes of one key space, written out from the table by hand."""
    by_hand = (
        b"\x01"
        b"\x01\0\0\0\0\0\0\0m"
        b"\x01\x02\0\0\0\0\0\0\0fp"
        b"\0\0\0\0\0\0\0\0"
        b"\x03\0\0\0\0\0\0\0f32"
        b"\x01\0\0\0\0\0\0\0L"
        b"\x10\0\0\0\x02\0\0\0\x01\0\0\0\x02\0\0\0"
        b"\x05\0\0\0\x04\0\0\0\0\0\0\0\x04\0\0\0"
        b"\x01\x04\0\0\0\0\0\0\0lora"
        b"\0"
    )
    space = {
        "model": "m",
        "weights": {"fingerprint": "fp"},
        "dtype": "f32",
        "layout": "L",
        "block_tokens": 16,
        "layers": 2,
        "layer_range": [1, 2],
        "kv_group": 5,
        "kv_heads": 4,
        "adapter": "lora",
    }
    assert golden.encode(space) == by_hand
