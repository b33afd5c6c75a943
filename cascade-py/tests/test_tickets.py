"""Batches that are submitted, and the queue that tells an event loop of their ends."""

import asyncio
import gc
import os
import select
import signal
import time

import numpy as np
import pytest

import cascade_kv as ck

BLOCK = 100_000


def blocks(count):
    """Ids and bytes of some blocks."""
    data = [np.full(BLOCK, number % 251, np.uint8) for number in range(count)]
    return [ck.BlockId.content(number.to_bytes(4, "little")) for number in range(count)], data


@pytest.fixture
def both(place, tmp_path):
    """A store over arena and files."""
    with ck.Store(
        shm_path=place / "arena", shm_capacity="64MiB", pfs_path=tmp_path / "files", pfs_capacity="256MiB"
    ) as s:
        yield s


def test_a_batch_over_both_tiers(both):
    ids, data = blocks(30)
    assert both.submit_put(ids, data, wait="files").wait() == ["stored"] * 30
    assert both.demote(ids[10:]) == ["stored"] * 20
    outs = [np.zeros(BLOCK + 1, np.uint8) for _ in range(31)]
    ticket = both.submit_get([*ids, "other"], outs)
    assert ticket.wait() == ["fetched"] * 30 + ["absent"] and ticket.poll()
    assert ticket.lengths() == [BLOCK] * 30 + [None]
    assert all((out[:-1] == block).all() for out, block in zip(outs, data, strict=False))
    assert both.submit_prefetch(ids[:1]).wait() == ["exists"]


def test_a_prefix_over_shards(both):
    ids, data = blocks(8)
    assert both.submit_put(ids, data, wait="files").wait() == ["stored"] * 8
    assert both.prefix([ids[:4], ids[4:]]) == (["arena"] * 4, None)
    assert both.demote([ids[5]]) == ["stored"] and both.delete(ids[3])
    assert both.prefix([ids[:4], ids[4:]]) == (["arena", "files", "arena"], "absent")


def test_an_event_loop_hears_of_many_tickets(both):
    ids, data = blocks(40)

    async def engine():
        loop, done, ended = asyncio.get_running_loop(), asyncio.Event(), []
        with ck.CompletionQueue(64) as queue:

            def ready():
                ended.extend(queue.drain())
                if len(ended) == 40:
                    done.set()

            loop.add_reader(queue.fileno(), ready)
            tickets = [both.submit_put([name], [block]) for name, block in zip(ids, data, strict=True)]
            assert all(queue.add(ticket) for ticket in tickets)
            await asyncio.wait_for(done.wait(), 60)
            loop.remove_reader(queue.fileno())
            assert len(queue) == 0 and not select.select([queue], [], [], 0)[0]
        assert {id(ticket) for ticket in ended} == {id(ticket) for ticket in tickets}
        assert all(ticket.result() == ["stored"] for ticket in ended)

    asyncio.run(engine())
    assert both.longest_prefix(ids) == 40


def test_buffers_stay_in_place_until_the_ticket_ends(store):
    ids, data = blocks(1)
    out = bytearray(BLOCK)
    assert store.submit_put(ids, data).wait() == ["stored"]
    ticket = store.submit_get(ids, [out])
    assert ticket.wait() == ["fetched"]
    out.extend(b"it can be resized again")
    assert out[:BLOCK] == data[0].tobytes()
    # The caller drops what it has: the operation goes on in memory that is kept.
    store.submit_get(ids, [bytearray(BLOCK)])
    store.submit_put(["other"], [np.full(BLOCK, 7, np.uint8)])
    gc.collect()
    while store.lookup(["other"]) == [None]:
        pass
    out = bytearray(BLOCK)
    assert store.get("other", out) == BLOCK and out == b"\7" * BLOCK


def test_wrong_calls_are_said_and_nothing_is_submitted(store):
    ids, _ = blocks(2)
    with pytest.raises(ValueError, match="2 ids and 1 arrays"):
        store.submit_get(ids, [bytearray(4)])
    with pytest.raises(ValueError, match="read-only"):
        store.submit_get(ids[:1], [b"bytes"])
    with pytest.raises(ValueError, match="seconds"):
        store.submit_get(ids[:1], [bytearray(4)], timeout_s=-1)
    with pytest.raises(ValueError, match="at least one"):
        ck.CompletionQueue(0)
    short = store.submit_put(ids[:1], [b"bytes"]).wait(), store.submit_get(ids[:1], [bytearray(4)]).wait()
    assert short == (["stored"], ["destination"])
    assert store.submit_get(ids[:1], [bytearray(5)], timeout_s=0).wait() == ["deadline"]
    assert store.submit_put(["empty"], [b""]).wait() == ["empty"]


def test_a_queue_is_bounded_and_closing_wakes(store):
    queue = ck.CompletionQueue(2)
    tickets = [store.submit_put([f"{number}"], [b"bytes"]) for number in range(3)]
    assert [queue.add(ticket) for ticket in tickets] == [True, True, False]
    ended = []
    while len(ended) < 2:
        ended += queue.wait(5)
    assert queue and len(queue) == 0 and queue.add(tickets[2])
    assert select.select([queue], [], [], 5)[0] == [queue], "the third has ended"
    queue.close()
    assert queue.closed and not queue.add(tickets[0])
    assert select.select([queue], [], [], 0)[0] == [queue] and queue.drain() == [tickets[2]] and queue.wait(5) == []


def test_a_forked_child_is_told(store):
    queue = ck.CompletionQueue()
    child = os.fork()
    if child == 0:
        try:
            queue.drain()
        except OSError as error:
            own = ck.CompletionQueue()
            ticket = store.submit_put(["child"], [b"bytes"])
            os._exit(0 if "forked child" in str(error) and own.add(ticket) and own.drain() == [ticket] else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert store.contains("child")


def test_a_budget_throttles(place):
    with ck.Store(shm_path=place / "arena", shm_capacity="64MiB", in_flight="1MiB") as store:
        results = store.submit_put([f"{number}" for number in range(4)], [bytes(600_000)] * 4).wait()
        assert results == ["stored"] + ["throttled"] * 3
        assert store.stats()["moves"]["throttled"] == 3


def test_a_signal_ends_a_wait(both):
    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with ck.CompletionQueue(4) as queue:
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            begun = time.monotonic()
            with pytest.raises(KeyboardInterrupt):
                queue.wait(timeout_s=120)
            assert time.monotonic() - begun < 60
            # As long as it takes without one, and no longer.
            assert queue.wait(timeout_s=0.2) == []
            ids, data = blocks(1)
            queue.add(both.submit_put(ids, data))
            assert [ticket.result() for ticket in queue.wait(timeout_s=60)] == [["stored"]]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    both.flush(timeout_s=60)
