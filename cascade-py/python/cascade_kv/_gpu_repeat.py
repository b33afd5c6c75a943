"""Loads of one prompt again and again from every tier: the bytes of the cache against those that were computed, and the logits.

Bytes and logits are told apart: wrong bytes are the store's fault, other logits from right bytes are a kernel's. What a model that has
nothing to do with the store does with the same tensors is counted beside them (`control`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from transformers import DynamicCache

if TYPE_CHECKING:
    import cascade_kv as ck
    from cascade_kv.transformers import PrefixCache

# Wrong places that are described, at most.
_DESCRIBED = 20


def place(store: ck.Store, tier: str, ids: list[ck.BlockId]) -> str:
    """Puts blocks where a load is to find them; the tiers that have them then."""
    if tier == "hbm":
        # Pinned and given back: they are on the device then, as far as it has room.
        for id_ in ids:
            store.get_gpu_ptr(id_)
    else:
        store.demote(ids)
    if tier == "arena":
        for lease in store.lease_batch(ids):
            if lease is not None:
                lease.release()
    return "+".join(sorted({found[0] if found else "none" for found in store.locate(ids)}))


class Repeated:
    """One prompt and what it gives without a store."""

    def __init__(self, store: ck.Store, prefixes: PrefixCache, model: Any, tokens: int) -> None:
        self._store, self._prefixes, self._model = store, prefixes, model
        self._prompt = torch.randint(0, 128_000, (1, tokens + 1), device="cuda")
        self._split = tokens // prefixes.block_tokens * prefixes.block_tokens
        past = model(input_ids=self._prompt[:, : self._split], use_cache=True, logits_to_keep=1).past_key_values
        # Shape [layers, 2, kv_heads, tokens, head_dim], of its own memory: the forward pass below extends the cache.
        self._right = torch.stack([torch.stack((layer.keys[0], layer.values[0])) for layer in past.layers])
        self._logits = self._forward(past)
        prefixes.save(self._prompt[0, : self._split], past)
        store.flush(600)
        self._ids = prefixes.block_ids(self._prompt[0])
        self.count: Counter[str] = Counter()
        self.wrong: list[dict[str, Any]] = []

    def _forward(self, cache: Any) -> torch.Tensor:
        rest = self._prompt[:, self._split :]
        return self._model(input_ids=rest, past_key_values=cache, logits_to_keep=1).logits

    def control(self) -> None:
        """The same forward pass over a cache that no store had."""
        same = torch.equal(self._forward(self._cache_of(self._right.clone())), self._logits)
        self.count["control"] += 1
        self.count["control: other logits"] += not same

    def _cache_of(self, data: torch.Tensor) -> DynamicCache:
        cache = DynamicCache(config=self._model.config)
        for layer, (keys, values) in zip(cache.layers, data.unsqueeze(2), strict=True):
            layer.lazy_initialization(keys, values)
            layer.keys, layer.values = keys, values
        return cache

    def from_tier(self, tier: str, repetition: int) -> None:
        """Loads from a tier, computes, and only then compares, so that nothing waits that would not wait otherwise."""
        found = place(self._store, tier, self._ids)
        torch.cuda.synchronize()
        cache, count = self._prefixes.load(self._prompt[0])
        loaded = [(layer.keys, layer.values) for layer in cache.layers]
        logits = self._forward(cache)
        torch.cuda.synchronize()
        data = torch.stack([torch.stack((keys[0], values[0])) for keys, values in loaded])
        is_whole = count == self._split and found == tier
        bytes_right = is_whole and torch.equal(data, self._right)
        same = torch.equal(logits, self._logits)
        self.count[tier] += 1
        self.count[f"{tier}: short"] += not is_whole
        self.count[f"{tier}: wrong bytes"] += not bytes_right
        self.count[f"{tier}: other logits"] += not same
        self.count[f"{tier}: other logits from right bytes"] += bytes_right and not same
        if not bytes_right and is_whole:
            self.wrong.extend(self._describe(tier, repetition, data))
        if bytes_right and not same:
            again = torch.equal(self._forward(self._cache_of(data)), self._logits)
            self.count[f"{tier}: right when computed again"] += again

    def _describe(self, tier: str, repetition: int, data: torch.Tensor) -> Iterator[dict[str, Any]]:
        """Where bytes are wrong, and whether the block on the device is, or only what was copied from it."""
        size = self._prefixes.block_tokens
        for index, id_ in enumerate(self._ids):
            part = (..., slice(index * size, (index + 1) * size), slice(None))
            got, right = data[part], self._right[part]
            if torch.equal(got, right) or len(self.wrong) >= _DESCRIBED:
                continue
            differ = (got != right).flatten(2)
            lease = self._store.get_gpu_ptr(id_)
            there = None if lease is None else lease.torch(got.dtype, got.shape)
            same_as = [
                other
                for other in range(len(self._ids))
                if torch.equal(got, self._right[..., other * size : (other + 1) * size, :])
            ]
            yield {
                "tier": tier,
                "repetition": repetition,
                "block": index,
                "elements": int(differ.sum()),
                "of": got.numel(),
                "layers": sorted({int(layer) for layer in differ.flatten(1).any(1).nonzero()}),
                "zeros": int((got == 0).sum()),
                "is_block": same_as,
                "device_right": there is not None and torch.equal(there, right),
            }

    def forget(self) -> None:
        """Leaves nothing in the store."""
        for id_ in self._ids:
            self._store.delete(id_)


def repeated(
    store: ck.Store, prefixes: PrefixCache, model: Any, lengths: list[int], repetitions: int
) -> dict[str, Any]:
    """Counts over so many repetitions of each length and tier."""
    rows = []
    for length in lengths:
        with torch.inference_mode():
            one = Repeated(store, prefixes, model, length)
            for repetition in range(repetitions):
                for tier in ("hbm", "arena", "files"):
                    # Files take longest.
                    if tier != "files" or repetition % 5 == 0:
                        one.from_tier(tier, repetition)
                one.control()
            one.forget()
        rows.append({"tokens": length, "counts": dict(one.count), "wrong": one.wrong})
    return {"repetitions": repetitions, "rows": rows}
