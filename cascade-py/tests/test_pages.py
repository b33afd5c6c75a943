"""Blocks gathered from and scattered to an engine's pages."""

import numpy as np
import pytest

import cascade_kv as ck


def tensors(seed: int, rows: int = 6) -> list[np.ndarray]:
    """Three layers as an engine has them: of two shapes, one with a gap between its rows."""
    rng = np.random.default_rng(seed)
    wide = rng.integers(0, 255, (rows, 2, 40_000), np.uint8)
    apart = rng.integers(0, 255, (rows, 90_000), np.uint8)[:, :70_000]
    return [wide, apart, rng.random((rows, 8, 16), np.float32)]


def block(layers: list[np.ndarray], row: int) -> bytes:
    return b"".join(layer[row].tobytes() for layer in layers)


IDS = [ck.BlockId.content(bytes([i])) for i in range(3)]


def test_rows_become_blocks_and_come_back_to_other_rows(store):
    source, target = tensors(1), tensors(2)
    before = [layer.copy() for layer in target]
    pages = ck.Pages(source)
    assert (pages.rows, len(pages)) == (6, 3)
    assert pages.block_bytes == len(block(source, 0))
    assert store.put_pages(IDS, pages, [4, 0, 2]) == ["stored"] * 3
    out = bytearray(pages.block_bytes)
    assert store.get(IDS[0], out) == len(out) and bytes(out) == block(source, 4)
    assert store.get_pages(IDS, ck.Pages(target), [1, 3, 5]) == [True] * 3
    for row, origin in ((1, 4), (3, 0), (5, 2)):
        assert block(target, row) == block(source, origin)
    for row in (0, 2, 4):
        assert all((layer[row] == was[row]).all() for layer, was in zip(target, before, strict=True))


def test_what_is_missing_or_of_another_length_is_said_for_each(store):
    pages = ck.Pages(tensors(1))
    store.put_pages(IDS[:1], pages, [0])
    store.put(IDS[1], b"short")
    store.put(IDS[2], bytes(pages.block_bytes + 1))
    assert store.get_pages([*IDS, ck.BlockId.content(b"none")], pages, [0, 1, 2, 3]) == [True, False, False, False]


def test_part_by_part_it_is_the_same_block(store):
    source, target = tensors(1), tensors(2)
    fill = store.fill_pages(IDS, ck.Pages(source), [4, 0, 2])
    for part in range(3):
        assert not any(identifier in store for identifier in IDS)
        fill.part(part)
    assert fill.seal() == ["stored"] * 3
    with pytest.raises(ValueError, match="before"):
        fill.seal()
    assert store.fill_pages(IDS[:1], ck.Pages(source), [4]).seal() == ["exists"]
    pages = ck.Pages(target)
    leases = [*store.lease_batch(IDS), None]
    for part in range(3):
        assert pages.scatter(leases, [1, 3, 5, 0], part) == [True, True, True, False]
    assert [block(target, row) for row in (1, 3, 5)] == [block(source, row) for row in (4, 0, 2)]


def test_blocks_that_were_not_sealed_were_never_there(store):
    fill = store.fill_pages(IDS, ck.Pages(tensors(1)), [0, 1, 2])
    fill.part(0)
    del fill
    assert store.lookup(IDS) == [None] * 3
    assert store.put_pages(IDS, ck.Pages(tensors(1)), [0, 1, 2]) == ["stored"] * 3


@pytest.mark.parametrize(
    ("rows", "what"), [([0, 6], "beyond"), ([1, 1], "twice"), ([1], "as many")], ids=["beyond", "twice", "fewer"]
)
def test_wrong_rows_are_refused_before_anything_is_copied(store, rows, what):
    pages = ck.Pages(tensors(1))
    for call in (store.put_pages, store.get_pages, store.fill_pages):
        with pytest.raises(ValueError, match=what):
            call(IDS[:2], pages, rows)
    assert store.lookup(IDS) == [None] * 3


def test_arrays_that_cannot_be_pages_are_refused():
    good = np.zeros((4, 8), np.uint8)
    fixed = np.zeros((4, 8), np.uint8)
    fixed.flags.writeable = False
    wrong = [[], [good, good[:3]], [fixed], [np.zeros(8, np.uint8)], [np.zeros((4, 0), np.uint8)], [good.T[:, :2]]]
    wrong += [[np.zeros((4, 8, 8), np.uint8)[:, :, ::2]], [np.broadcast_to(good[:1], (4, 8))], [good[::-1]]]
    for arrays in wrong:
        with pytest.raises(ValueError, match=r"array|rows"):
            ck.Pages(arrays)
    with pytest.raises((TypeError, BufferError)):
        ck.Pages([3])


def test_the_arrays_stay_exported():
    owner = bytearray(64)
    pages = ck.Pages([memoryview(owner).cast("B", (4, 16))])
    with pytest.raises(BufferError):
        owner.extend(b"more")
    del pages
    owner.extend(b"more")


def test_a_block_that_lacks_a_part_is_never_seen(store):
    fill = store.fill_pages(IDS, ck.Pages(tensors(1)), [0, 1, 2])
    fill.part(0)
    assert fill.seal() == ["incomplete"] * len(IDS)
    assert not any(store.contains(one) for one in IDS)


def test_who_waits_is_not_bounded_by_what_may_be_under_way(place):
    with ck.Store(shm_path=place / "arena", shm_capacity="64MiB", in_flight="1MiB") as store:
        pages = np.random.default_rng(1).integers(0, 256, (8, 1 << 19), dtype=np.uint8)
        ids = [ck.BlockId.content(f"{at}".encode()) for at in range(8)]
        assert store.put_pages(ids, ck.Pages([pages]), list(range(8))) == ["stored"] * 8
        back = np.zeros_like(pages)
        assert store.get_pages(ids, ck.Pages([back]), list(range(8))) == [True] * 8
        assert (back == pages).all()
