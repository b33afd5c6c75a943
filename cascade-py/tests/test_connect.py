"""A store beside a node agent. The agents of real jobs are in the lane of MPI; here one is missing, or says rubbish."""

import socket
import threading

import pytest

import cascade_kv as ck


def connected(place, **more):
    return ck.connect(shm_path=place / "arena", shm_capacity="8MiB", **more)


def test_without_an_agent_there_is_an_error_that_names_the_cure(place):
    with pytest.raises(ConnectionError, match="start `cascade serve` with the same shm_path"):
        connected(place)


def test_a_missing_agent_costs_misses_and_no_error(place):
    with connected(place, require=False) as store:
        block, out = ck.BlockId.content(b"a"), bytearray(1)
        assert store.get(block, out) is None
        assert store.stats()["miss_reasons"]["unavailable"] == 1
        assert store.put(block, b"a") == "stored"
        assert store.get(block, out) == 1 and out == b"a"
        assert 'remote = "agent"' in store.config()


def test_an_agent_that_says_rubbish_is_no_agent(place):
    with connected(place, require=False) as store, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(store.path).replace("arena.", "agent."))
        listener.listen()

        def answer():
            for _ in range(2):
                client, _address = listener.accept()
                with client:
                    client.recv(4096)
                    client.sendall(b"\x00" * 64)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        assert not store.agent_answers()
        assert store.get(ck.BlockId.content(b"b"), bytearray(1)) is None
        thread.join(timeout=30)
        assert not thread.is_alive()
