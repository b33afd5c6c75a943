"""Files below the arena: blocks outlive it, and Python sees where they are."""

import shutil

import numpy as np
import pytest

import cascade_kv as ck

BLOCK = 100_000


def blocks(count):
    """Ids and bytes of some blocks of a chain."""
    space = ck.KeySpace(model="m", weights="w", dtype="float16", layout="L2HTD", block_tokens=4, layers=1, kv_heads=1)
    ids = space.chain(list(range(4 * count)))
    return ids, [np.full(BLOCK, number % 251, np.uint8) for number in range(count)]


@pytest.fixture
def reopen(place, tmp_path):
    """Opens a store over files that stay; with `lost` the arena of the one before is gone."""

    def open_store(lost=False, **settings):
        if lost:
            shutil.rmtree(place / "arena")
        files = {"pfs_path": tmp_path / "files", "pfs_capacity": "256MiB"}
        return ck.Store(shm_path=place / "arena", shm_capacity="64MiB", **files, **settings)

    return open_store


@pytest.fixture
def alone(place):
    """A store without files, in an arena of its own: an arena belongs to the files that are recorded in it."""
    with ck.Store(shm_path=place / "alone", shm_capacity="64MiB") as store:
        yield store


def test_blocks_outlive_the_arena_and_say_where_they_are(reopen):
    ids, data = blocks(30)
    with reopen() as store:
        assert store.put_batch(ids, data) == ["stored"] * 30
        assert store.locate(ids[:1]) == [("arena", BLOCK)]
        store.flush()
        assert store.stats()["tiers"]["files"]["puts"] == 30
    with reopen(lost=True) as store:
        assert store.longest_prefix(ids) == 30 and store.lookup(ids) == [BLOCK] * 30
        assert store.locate([*ids, "other"]) == [("files", BLOCK)] * 30 + [None]
        outs = [np.empty(BLOCK, np.uint8) for _ in ids]
        assert store.get_batch(ids, outs) == [BLOCK] * 30
        assert all((out == block).all() for out, block in zip(outs, data, strict=True))
        stats = store.stats()
        assert (stats["hits"], stats["tiers"]["files"]["served"], stats["tiers"]["arena"]["served"]) == (30, 30, 0)
        assert stats["moves"]["promoted"] == 30 and store.locate(ids[:1]) == [("arena", BLOCK)]
        assert store.get("other", outs[0]) is None
        assert store.stats()["miss_reasons"]["absent"] == 1


def test_leases_and_prefetch_bring_blocks_up(reopen):
    ids, data = blocks(20)
    with reopen() as store:
        assert store.put_batch(ids, data, wait="files") == ["stored"] * 20
    with reopen(lost=True) as store:
        leases = store.lease_batch(ids[:5])
        assert all((lease.numpy() == block).all() for lease, block in zip(leases, data[:5], strict=True))
        assert store.prefetch(ids, timeout_s=60) == ["exists"] * 5 + ["stored"] * 15
        assert store.prefetch(ids) is None or store.prefetch(ids) == ["exists"] * 20
        assert [place[0] for place in store.locate(ids)] == ["arena"] * 20


def test_demote_leaves_blocks_to_the_files(reopen, alone):
    ids, data = blocks(5)
    with reopen(demote="off") as below:
        below.put_batch(ids, data)
        assert below.demote([*ids[:3], "other"]) == ["stored"] * 3 + ["absent"]
        assert [place[0] for place in below.locate(ids)] == ["files"] * 3 + ["arena"] * 2
        assert (below.lease(ids[0]).numpy() == data[0]).all()
    assert alone.demote(["any"]) == ["unavailable"], "there are no files"


def test_wait_says_how_far_a_put_must_come(reopen, alone):
    ids, data = blocks(3)
    with reopen(demote="off") as below:
        assert [
            below.put(id, block, wait=wait)
            for id, block, wait in zip(ids, data, ["found", "files", "durable"], strict=True)
        ] == ["stored"] * 3
        assert below.stats()["moves"]["demoted"] == 2
        with pytest.raises(ValueError, match='"found", "queued", "files" or "durable"'):
            below.put(ids[0], data[0], wait="disk")
    assert alone.put(ids[0], data[0], wait="files") == "unavailable", "there are no files"


def test_wrong_settings_of_files_are_errors(place, tmp_path):
    arena = {"shm_path": place / "arena", "shm_capacity": "16MiB"}
    with pytest.raises(FileNotFoundError, match="/proc/none"):
        ck.Store(**arena, pfs_path="/proc/none/files")
    with pytest.raises(ValueError, match="pfs_path does not say where"):
        ck.Store(**arena, pfs_capacity="1GiB")
    with pytest.raises(ValueError, match="demote"):
        ck.Store(**arena, pfs_path=tmp_path / "files", demote="never")
    assert not (place / "arena").exists()
