"""What vLLM's KV events say of Cascade: blocks that can be found from now on, with their tokens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from vllm.distributed.kv_events import BlockStored
from vllm.v1.core.kv_cache_utils import maybe_convert_block_hash

# Blocks that are remembered while they are saved. Those that some shard had already are never told of by all, and are forgotten
# with the oldest.
_REMEMBERED = 1 << 16


class Announcements:
    """Blocks on their way to the store, told of when every shard has stored its part."""

    def __init__(self, shards: int, block_tokens: int) -> None:
        self._shards, self._block_tokens = shards, block_tokens
        self._described: dict[bytes, tuple[bytes | None, list[int], str | None]] = {}
        self._parts: Counter[bytes] = Counter()
        self._ready: list[bytes] = []

    def describe(self, request: Any, places: Iterable[int]) -> None:
        """Blocks of a request, by their number, that are handed to be saved."""
        lora = getattr(request, "lora_request", None)
        for at in places:
            tokens = request.all_token_ids[at * self._block_tokens : (at + 1) * self._block_tokens]
            parent = request.block_hashes[at - 1] if at else None
            self._described[request.block_hashes[at]] = (parent, list(tokens), lora.lora_name if lora else None)
        _forget(self._described)

    def stored(self, parts: Mapping[bytes, int]) -> None:
        """How many shards have newly stored each: of one block in one step, or in several."""
        for one, count in parts.items():
            self._parts[one] += count
            # Found is what every shard has.
            if self._parts[one] >= self._shards:
                del self._parts[one]
                self._ready.append(one)
        _forget(self._parts)

    def take(self) -> list[BlockStored]:
        """The events since the last call."""
        ready, self._ready = self._ready, []
        return [self._event(one) for one in ready]

    def _event(self, one: bytes) -> BlockStored:
        parent, tokens, lora = self._described.pop(one, (None, [], None))
        return BlockStored(
            block_hashes=[maybe_convert_block_hash(one)],
            parent_block_hash=maybe_convert_block_hash(parent) if parent is not None else None,
            token_ids=tokens,
            lora_id=None,
            block_size=self._block_tokens,
            medium="CPU",
            lora_name=lora,
        )


def _forget(kept: dict[bytes, Any]) -> None:
    while len(kept) > _REMEMBERED:
        del kept[next(iter(kept))]
