"""Names for LoRA weights, which vLLM's hash of a block knows by name and path only."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from cascade_kv.vllm.identity import adapter_files, files_fingerprint, stamp

_Stamps = list[list[Any]]


@dataclass
class _Known:
    stamps: _Stamps
    name: Future[str]


class Adapters:
    """Fingerprints of the adapters that requests name, taken on a thread when the first request does.

    vLLM reads an adapter's files once, and again when it had no room for it meanwhile. So while an engine runs its files must stay
    as they are: with others in their place nobody can say which of them a request is computed with.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "cascade-adapters")
        self._known: dict[tuple[int, str], _Known] = {}

    def find(self, lora: Any) -> str | None:
        """The name for the weights of vLLM's `LoRARequest`; None while they are read.

        Raises:
            OSError, ValueError: there are no weights, or they have changed since the first request.
            RuntimeError: no thread can be started.
        """
        key = (lora.lora_int_id, lora.lora_path)
        now = [stamp(path) for path in adapter_files(lora.lora_path)]
        known = self._known.get(key)
        if known is None or (lora.load_inplace and known.stamps != now):
            known = self._known[key] = _Known(
                now, self._thread.submit(files_fingerprint, adapter_files(lora.lora_path))
            )
        if known.stamps != now:
            raise ValueError(f"the files of {lora.lora_path} have changed since this engine first used them")
        return known.name.result() if known.name.done() else None

    def close(self) -> None:
        """End the thread; what waits to be read is not."""
        self._thread.shutdown(wait=True, cancel_futures=True)
