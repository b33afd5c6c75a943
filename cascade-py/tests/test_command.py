"""The program ``cascade`` that comes with the package."""

import importlib.metadata
import json
import os
import signal
import subprocess
import sys

import pytest


@pytest.fixture
def cascade(place):
    """Runs the program on the arenas below ``place``."""

    def run(*arguments, **options):
        command = [sys.executable, "-m", "cascade_kv", *arguments]
        environment = os.environ | {"CASCADE_SHM_PATH": str(place / "arena")}
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, **options)

    return run


def test_the_console_script_is_the_same_program():
    scripts = importlib.metadata.entry_points(group="console_scripts", name="cascade")
    assert [script.value for script in scripts] == ["cascade_kv._command:main"]


def test_stat_shows_what_a_store_of_python_holds(cascade, store):
    store.put("x", b"a block")
    done = cascade("stat", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    (arena,) = json.loads(done.stdout)["arenas"]
    assert arena["blocks"]["total"] == 1 and arena["capacity_bytes"] == 64 << 20
    assert [owner["pid"] for owner in arena["owners"]] == [os.getpid()]


def test_verify_and_gc_and_their_statuses(cascade, store):
    store.put("x", b"a block")
    assert cascade("verify").returncode == 0
    assert json.loads(cascade("gc", "--older-than", "0s", "--yes", "--json").stdout)["removed"] == 0
    store.close()
    assert json.loads(cascade("gc", "--older-than", "0s", "--yes", "--json").stdout)["removed"] == 1
    missing = cascade("verify")
    assert missing.returncode == 2 and "error: there is no arena" in missing.stderr


def test_help_and_a_wrong_command(cascade):
    done = cascade("--help")
    assert done.returncode == 0 and "cascade stat" in done.stdout
    assert cascade("no-such-command").returncode == 2


def test_a_watch_ends_at_ctrl_c(place, store):
    command = [sys.executable, "-m", "cascade_kv", "stat", "--watch", "0.1", "--json", "--dir", str(place / "arena")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watch:
        assert json.loads(watch.stdout.readline())["schema"] == "cascade.stat/1"
        watch.send_signal(signal.SIGINT)
        assert watch.wait(timeout=30) == 0
        assert watch.stderr.read() == ""
