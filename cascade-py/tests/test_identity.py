"""The binding makes the ids of the golden vectors, which an independent implementation computed."""

import json
from pathlib import Path

import pytest

import cascade_kv as ck

VECTORS = json.loads(
    (Path(__file__).resolve().parents[2] / "cascade-core" / "testdata" / "identity.json").read_text(encoding="utf-8")
)


def key_space(space):
    fields = dict(space)
    ((kind, weights),) = fields.pop("weights").items()
    fields["weights" if kind == "fingerprint" else "revision"] = weights
    if "tenant_secret_hex" in fields:
        fields["tenant_secret"] = bytes.fromhex(fields.pop("tenant_secret_hex"))
    for name in ("head_range", "layer_range"):
        if name in fields:
            fields[name] = tuple(fields[name])
    return ck.KeySpace(**fields)


def test_names_and_contents():
    for each in VECTORS["names"]:
        assert ck.BlockId.named(each["name"]).hex() == each["id"]
    for each in VECTORS["contents"]:
        data = bytes.fromhex(each["unit_hex"]) * each["times"]
        assert bytes(ck.BlockId.content(data)).hex() == each["id"]


@pytest.mark.parametrize("case", VECTORS["key_spaces"], ids=lambda case: case["title"])
def test_chains_and_foreign_hashes(case):
    space = key_space(case["space"])
    for each in case["foreign"]:
        assert space.foreign(bytes.fromhex(each["hash_hex"])).hex() == each["id"]
    for each in case["chains"]:
        extra = [bytes.fromhex(one) for one in each["extras_hex"]] or None
        assert [one.hex() for one in space.chain(each["tokens"], extra=extra)] == each["ids"]
