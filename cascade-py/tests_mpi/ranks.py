"""One rank of a real MPI job: `cargo xtask test --lane mpi` starts it by mpiexec, with the folder of the arenas."""

import os
import sys
import time
import warnings

folder = sys.argv[1]
number = int(os.environ.get("PMI_RANK", os.environ.get("OMPI_COMM_WORLD_RANK", "0")))
# Each rank is a node of its own.
os.environ |= {"CASCADE_NODE": f"node-{number}", "CASCADE_SHM_PATH": os.path.join(folder, "arenas")}

import cascade_kv as ck  # noqa: E402


def block(rank: int, number: int) -> bytes:
    return bytes((at * 7 + rank * 13 + number) & 0xFF for at in range(70_000 + 1000 * number))


def soon(what, seconds: float = 30.0):
    """What the directory hears of may be on its way."""
    until = time.monotonic() + seconds
    while not (answer := what()):
        assert time.monotonic() < until, "not in time"
        time.sleep(0.005)
    return answer


def everybody_finds_what_the_others_put(store: ck.DistributedStore) -> None:
    names = [f"block-{number}" for number in range(6)]
    mine = [f"{store.rank}/{name}" for name in names]
    assert store.put(mine[0], block(store.rank, 0), True)
    assert store.put_batch(mine[1:], [block(store.rank, number) for number in range(1, 6)]) == 5
    store.sync_metadata()
    store.barrier()
    for rank in (rank for rank in range(store.world_size) if rank != store.rank):
        theirs = [f"{rank}/{name}" for name in names]
        place = soon(lambda name=theirs[0]: store.locate(name))
        assert (place.node_id, place.size, place.is_gpu) == (rank, 70_000, False) and place.offset >= 0, place
        assert store.contains(theirs[1]) or soon(lambda name=theirs[1]: store.contains(name))
        out = bytearray(70_000)
        assert soon(lambda out=out, name=theirs[0]: store.get(name, out)[0]) and out == block(rank, 0)
        outs = [bytearray(70_000 + 1000 * number) for number in range(1, 6)]
        soon(lambda theirs=theirs, outs=outs: store.get_batch(theirs[1:], outs)[0] == 5)
        assert outs == [block(rank, number) for number in range(1, 6)]
        here = store.locate(theirs[0])
        assert here is not None and here.node_id == store.rank, "what was got is here"
    assert store.get_stats()["remote_dram_hits"] == 6 * (store.world_size - 1), store.get_stats()
    assert not store.contains("nobody's") and store.get("nobody's", bytearray(1)) == (False, 0)
    store.barrier()


def a_barrier_waits_for_the_last(store: ck.DistributedStore) -> None:
    mark = os.path.join(folder, "late")
    if store.rank == store.world_size - 1:
        time.sleep(0.5)
        with open(mark, "w"):
            pass
    store.barrier()
    assert os.path.exists(mark), "the barrier let someone through before the last had come"
    store.barrier()


def a_barrier_has_a_deadline(store: ck.DistributedStore) -> None:
    if store.rank == 0:
        began = time.monotonic()
        try:
            store.barrier(timeout_s=0.3)
        except TimeoutError as error:
            assert "every rank of the job must call it" in str(error)
        else:
            raise AssertionError("nobody else came")
        assert time.monotonic() - began < 10
        with open(os.path.join(folder, "given-up"), "w"):
            pass
    else:
        soon(lambda: os.path.exists(os.path.join(folder, "given-up")))
        # As often as the others: this one comes too late for rank 0, and may do for others too.
        try:
            store.barrier(timeout_s=0.3)
        except TimeoutError:
            pass
    store.barrier()


config = ck.DistributedConfig(dram_capacity=64 * 1024**2)
with warnings.catch_warnings(record=True) as warned:
    warnings.simplefilter("always")
    config.num_staging_buffers = 8
assert "no staging buffers" in str(warned[0].message)
store = ck.DistributedStore(config)
assert store.rank == number and store.world_size == int(sys.argv[2])
everybody_finds_what_the_others_put(store)
if store.world_size > 1:
    a_barrier_waits_for_the_last(store)
    a_barrier_has_a_deadline(store)
store.flush()
if store.rank == 0:
    print(
        f"DistributedStore: {store.world_size} ranks found, fetched, met; {store.get_stats()['remote_dram_hits']} blocks came to rank 0"
    )
# Without `close`: the end of the program leaves the job in good order, which mpiexec tells by its status.
