"""The systems that `cascade_kv.vllm.bench` compares: how vLLM is told to use each, and the servers that some of them need."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

SYSTEMS = ("recompute", "vllm-fs", "lmcache", "mooncake", "cascade-tier", "cascade", "cascade-async")
_PACKAGES = {"lmcache": ("lmcache", "lmcache"), "mooncake": ("mooncake", "mooncake-transfer-engine-non-cuda")}
_CAPACITY = 2 << 30


def absent(system: str) -> str | None:
    """Why a system cannot run in this Python, or None."""
    module, package = _PACKAGES.get(system, ("", ""))
    if module and importlib.util.find_spec(module) is None:
        return f"not run: {package} is not installed in {sys.prefix}"
    return None


def transfer(system: str, work: Path, host_bytes: int) -> dict[str, Any] | None:
    """The dict of `--kv-transfer-config`, None for vLLM alone.

    Args:
        work: a folder in memory, where stores lie.
        host_bytes: of vLLM's own offloading, its host memory.
    """
    from cascade_kv.vllm import kv_transfer_settings

    arena = {"shm_path": str(work / system), "shm_capacity_bytes": _CAPACITY}
    if system == "vllm-fs":
        files = {"type": "fs", "root_dir": str(work / "fs"), "n_read_threads": 2, "n_write_threads": 2}
        return _offloading(files, host_bytes)
    if system == "lmcache":
        port = int((work / "lmcache.port").read_text())
        extra = {"lmcache.mp.host": "tcp://127.0.0.1", "lmcache.mp.port": port}
        return {"kv_connector": "LMCacheMPConnector", "kv_role": "kv_both", "kv_connector_extra_config": extra}
    if system == "mooncake":
        return {"kv_connector": "MooncakeStoreConnector", "kv_role": "kv_both"}
    if system == "cascade-tier":
        return _offloading({"type": "cascade", "weights_fingerprint": "of this run", **arena}, host_bytes)
    if system.startswith("cascade"):
        return kv_transfer_settings(**arena, load_async=system == "cascade-async")
    return None


def _offloading(tier: dict[str, Any], host_bytes: int) -> dict[str, Any]:
    extra = {"spec_name": "CascadeCpuTieringSpec", "cpu_bytes_to_use": host_bytes, "secondary_tiers": [tier]}
    # vLLM's own connector for both.
    return {"kv_connector": "OffloadingConnector", "kv_role": "kv_both", "kv_connector_extra_config": extra}


class Server:
    """The server of a system, or nothing where it has none; a context manager."""

    def __init__(self, system: str, work: Path) -> None:
        self._system, self._work = system, work
        self._process: subprocess.Popen[bytes] | None = None
        self.environment: dict[str, str] = {}

    def __enter__(self) -> Server:
        words = {"lmcache": self._lmcache, "mooncake": self._mooncake}.get(self._system, list)()
        if words:
            with (self._work / f"{self._system}.log").open("w") as log:
                path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"
                environment = os.environ | self.environment | {"PATH": path, "LMCACHE_TRACK_USAGE": "false"}
                self._process = subprocess.Popen(words, stdout=log, stderr=log, env=environment, start_new_session=True)
            self._wait()
        return self

    def __exit__(self, *_of_error: object) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def _lmcache(self) -> list[str]:
        self.port = _free_port()
        (self._work / "lmcache.port").write_text(str(self.port))
        self.environment = {"LMCACHE_TRACK_USAGE": "false", "PYTHONHASHSEED": "0"}
        words = [
            str(Path(sys.executable).parent / "lmcache"),
            "server",
            "--host",
            "127.0.0.1",
            "--port",
            str(self.port),
        ]
        words += [
            "--l1-size-gb",
            str(_CAPACITY >> 30),
            "--eviction-policy",
            "LRU",
            "--chunk-size",
            "256",
            "--max-workers",
            "2",
        ]
        # What it does for CUDA by default has no way for host memory.
        return [
            *words,
            "--http-host",
            "127.0.0.1",
            "--http-port",
            str(_free_port()),
            "--supported-transfer-mode",
            "engine_driven",
        ]

    def _mooncake(self) -> list[str]:
        self.port = _free_port()
        settings = {
            "metadata_server": "P2PHANDSHAKE",
            "master_server_address": f"127.0.0.1:{self.port}",
            "protocol": "tcp",
            "device_name": "",
            "global_segment_size": f"{_CAPACITY >> 30}GB",
            "local_buffer_size": "256MB",
        }
        (self._work / "mooncake.json").write_text(json.dumps(settings))
        self.environment = {
            "MOONCAKE_CONFIG_PATH": str(self._work / "mooncake.json"),
            "MC_TCP_BIND_ADDRESS": "127.0.0.1",
        }
        words = [
            str(Path(sys.executable).parent / "mooncake_master"),
            f"--rpc_port={self.port}",
            "--rpc_address=127.0.0.1",
        ]
        return [*words, f"--metrics_port={_free_port()}", "--metrics_host=127.0.0.1"]

    def _wait(self) -> None:
        until = time.monotonic() + 120
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError as error:
                if time.monotonic() > until or (self._process is not None and self._process.poll() is not None):
                    log = (self._work / f"{self._system}.log").read_text()
                    raise RuntimeError(f"the server of {self._system} does not answer: {log[-2000:]}") from error
            time.sleep(0.2)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
