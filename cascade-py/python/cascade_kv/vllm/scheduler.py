"""The scheduler's side of the connector: which blocks are stored, which to load, which to save."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vllm.logger import init_logger
from vllm.v1.metrics.cache_hit_source import CacheHitSource

from cascade_kv.vllm.adapters import Adapters
from cascade_kv.vllm.events import Announcements
from cascade_kv.vllm.identity import Identity, Scope
from cascade_kv.vllm.metrics import CascadeStats
from cascade_kv.vllm.settings import Settings
from cascade_kv.vllm.transfer import Done, Plan, Transfer

if TYPE_CHECKING:
    from vllm.distributed.kv_events import BlockStored

    from cascade_kv import Store, Ticket

logger = init_logger(__name__)

# After so many unexpected errors nothing is looked up or saved any more: the engine computes, as without a connector.
_PATIENCE = 16
_SOURCES = {"arena": CacheHitSource.HOST, "files": CacheHitSource.DISK}


@dataclass
class Track:
    """What is known of one request, from its first lookup until it has finished.

    Attributes:
        scope: what its blocks are kept under.
        named: its LoRA weights, if any, are in `scope`.
        origins: for each of its blocks the tier that had it at the first lookup.
        first: block at which the load begins that was offered last.
        offered: blocks offered to be loaded from there.
        next_save: blocks before this one need no saving.
        pending_until: time until which it waits for blocks of files to come up, 0 before it waits.
        coming: those blocks, on their way.
        in_flight: rows that are being loaded.
        failed: a load of it has failed: it is computed from there, and not looked up again.
        saves: whether anything of it was handed to be saved.
        ignored: it is neither looked up nor saved, because what it was computed with cannot be named.
    """

    request: Any
    scope: Scope = Scope()
    named: bool = False
    origins: list[str | None] = field(default_factory=list)
    first: int = 0
    offered: int = 0
    next_save: int = 0
    pending_until: float = 0.0
    coming: list[Ticket] = field(default_factory=list)
    in_flight: frozenset[int] = frozenset()
    failed: bool = False
    saves: bool = False
    ignored: bool = False


class SchedulerSide:
    """State of all requests. Exceptions are the facade's to catch."""

    def __init__(self, store: Store, identity: Identity, settings: Settings, events: bool) -> None:
        self._stats = CascadeStats()
        self._store = store
        self._identity = identity
        self._settings = settings
        self._tracks: dict[str, Track] = {}
        self._loads: list[Transfer] = []
        self._step = 0
        self._settled = 0
        self._errors = 0
        self._epoch = ""
        self._adapters = Adapters()
        self._announcements = Announcements(identity.shards, identity.block_tokens) if events else None

    def count(self, name: str, amount: float = 1) -> None:
        """Add to a counter of `metrics.COUNTERS`."""
        self._stats.add(name, amount)

    def erred(self) -> None:
        """Count an unexpected error of this side."""
        self.count("errors")
        self._note_errors(1)

    def _note_errors(self, times: int) -> None:
        before, self._errors = self._errors, self._errors + times
        if before < _PATIENCE <= self._errors:
            logger.error("Cascade: %d unexpected errors: nothing is looked up or saved from now on", self._errors)

    @property
    def gave_up(self) -> bool:
        """Whether there were too many of them."""
        return self._errors >= _PATIENCE

    def forget(self) -> None:
        """Find nothing of what was stored until now. A request that runs on saves nothing: it has computed of what was before."""
        self._epoch = os.urandom(16).hex()

    def take_stats(self) -> CascadeStats:
        """The counters since the last call."""
        stats, self._stats = self._stats, CascadeStats()
        return stats

    def match(self, request: Any, computed: int) -> tuple[int | None, bool]:
        """Tokens that can be loaded beyond `computed`, or None while blocks come up; and whether they load between steps."""
        tokens = self._identity.block_tokens
        first, last = computed // tokens, request.num_tokens // tokens
        track = self._track(request)
        track.offered = 0
        if not self._names(track):
            return None, False
        if track.failed or track.ignored:
            return 0, False
        # Also what vLLM has itself: what is not stored of it is saved.
        levels = self._locate(track, list(request.block_hashes[:last]))
        self._note_origins(track, levels)
        found = 0
        while first + found < len(levels) and levels[first + found] is not None:
            found += 1
        if self._waits(track, [at for at in range(first, first + found) if levels[at] == "files"]):
            return None, False
        # One token at least is computed: the next logits come of it. Its block is loaded all the same, and it is written over.
        offer = min(found * tokens, request.num_tokens - 1 - computed)
        if offer <= 0:
            return 0, False
        track.first, track.offered = first, found
        return offer, self._settings.load_async

    def _track(self, request: Any) -> Track:
        return self._tracks.setdefault(request.request_id, Track(request, Scope(epoch=self._epoch)))

    def _names(self, track: Track) -> bool:
        """Whether it is known what the request's blocks are kept under; not while its adapter is read."""
        if track.scope.epoch != self._epoch:
            # vLLM computes it from its start again.
            track.scope, track.named, track.origins, track.next_save = Scope(epoch=self._epoch), False, [], 0
        lora = getattr(track.request, "lora_request", None)
        if lora is None or track.named or track.ignored:
            return True
        try:
            adapter = self._adapters.find(lora)
        except (OSError, ValueError, RuntimeError) as error:
            logger.warning("Cascade: request %s is not cached: %s", track.request.request_id, error)
            track.ignored = True
            return True
        track.scope, track.named = Scope(adapter, self._epoch), adapter is not None
        return track.named

    def _locate(self, track: Track, hashes: list[bytes]) -> list[str | None]:
        """For each block the lowest tier that a shard of it is in; None when a shard is nowhere. One batch for all."""
        shards = self._identity.shards
        ids = [self._identity.ids(hashes, shard, track.scope) for shard in range(shards)]
        found = self._store.locate([one for shard in ids for one in shard])
        levels: list[str | None] = []
        for at in range(len(hashes)):
            places = [found[shard * len(hashes) + at] for shard in range(shards)]
            names = {place[0] if place else None for place in places}
            levels.append(None if None in names else "files" if "files" in names else "arena")
        return levels

    def _note_origins(self, track: Track, levels: list[str | None]) -> None:
        # The first answer stands: a block that was brought up meanwhile was saved by the files.
        known = track.origins
        track.origins = [
            known[at] if at < len(known) and known[at] is not None else level for at, level in enumerate(levels)
        ]

    def _waits(self, track: Track, below: list[int]) -> bool:
        """Whether to ask again later: blocks of files come up into the arena, and there is time."""
        if not below or self._settings.load_async or self._settings.pending_ms == 0:
            return False
        now = time.monotonic()
        if track.pending_until == 0.0:
            track.pending_until = now + self._settings.pending_ms / 1e3
            hashes = [track.request.block_hashes[at] for at in below]
            for shard in range(self._identity.shards):
                track.coming.append(self._store.submit_prefetch(self._identity.ids(hashes, shard, track.scope)))
        # What does not come up (the arena is full) is read where it is, at once.
        track.coming = [one for one in track.coming if not one.poll()]
        return bool(track.coming) and now < track.pending_until

    def allocated(self, request: Any, blocks: Any, external: int) -> None:
        """vLLM has room for the request: what it takes of the offer is loaded in this step."""
        track = self._track(request)
        if external == 0:
            return
        # Where the load begins was said by `match`: vLLM has given the new blocks their hashes by now, so that they look
        # as if they were computed here.
        tokens = self._identity.block_tokens
        count = min(-(-external // tokens), track.offered)
        span = slice(track.first, track.first + count)
        rows = list(blocks.get_block_ids()[0][span])
        track.in_flight = frozenset(rows)
        origins = [origin or "arena" for origin in track.origins[span]]
        hashes = list(request.block_hashes[span])
        again = count * tokens - min(external, count * tokens)
        self._loads.append(Transfer(request.request_id, rows, hashes, track.scope, origins, again))

    def sources(self, request: Any, external: int) -> dict[CacheHitSource, int]:
        """The tokens of a load by the tier that had them."""
        track, tokens = self._track(request), self._identity.block_tokens
        count: dict[CacheHitSource, int] = {}
        for begin, origin in zip(range(0, external, tokens), track.origins[track.first :], strict=False):
            source = _SOURCES[origin or "arena"]
            count[source] = count.get(source, 0) + min(tokens, external - begin)
        return count

    def refuse(self, request: Any, blocks: Any) -> None:
        """Let the load that vLLM counts on fail, block by block, so that it is computed."""
        self._loads.append(Transfer(request.request_id, list(blocks.get_block_ids()[0]), []))

    def plan(self) -> Plan:
        """The work of this step, without saves."""
        self._step += 1
        plan = Plan(self._step, self._settled, loads=self._loads)
        self._loads = []
        return plan

    def add_saves(self, plan: Plan, output: Any) -> None:
        """Add the blocks that this step completes."""
        resolve = output.kv_connector_block_state.resolve_block_ids
        seen = [(one.req_id, one.num_computed_tokens) for one in output.scheduled_new_reqs]
        cached = output.scheduled_cached_reqs
        seen += zip(cached.req_ids, cached.num_computed_tokens, strict=True)
        for name, computed in seen:
            track = self._tracks.get(name)
            if track is not None and not track.ignored and track.scope.epoch == self._epoch:
                drafted = len(output.scheduled_spec_decode_tokens.get(name, ()))
                upto = computed + output.num_scheduled_tokens[name] - drafted
                plan.saves += self._saves(track, computed, upto, resolve)

    def _saves(self, track: Track, computed: int, upto: int, resolve: Any) -> list[Transfer]:
        tokens, request = self._identity.block_tokens, track.request
        # Fewer are computed than before after a preemption and after a load that failed: those blocks are others now.
        begin = min(track.next_save, computed // tokens)
        whole = min(upto // tokens, len(request.block_hashes))
        if not self._settings.save_decode:
            whole = min(whole, request.num_prompt_tokens // tokens)
        track.next_save = max(begin, whole)
        had = track.origins if not track.failed else []
        wanted = [at for at in range(begin, whole) if at >= len(had) or had[at] is None]
        if not wanted:
            return []
        rows = resolve(request.request_id)[0]
        wanted = [at for at in wanted if at < len(rows)]
        if not wanted:
            return []
        if self._announcements is not None:
            self._announcements.describe(request, wanted)
        hashes = [request.block_hashes[at] for at in wanted]
        found = Transfer(request.request_id, [rows[at] for at in wanted], hashes, track.scope)
        # Last: vLLM keeps its pages until the workers have said that these are saved.
        track.saves = True
        return [found]

    def reported(self, output: Any) -> None:
        """The workers' report of a step."""
        if output.invalid_block_ids:
            for track in self._tracks.values():
                # Asked again, the store might offer the same block again, and again.
                track.failed = track.failed or not track.in_flight.isdisjoint(output.invalid_block_ids)
        done = output.kv_connector_worker_meta
        if isinstance(done, Done):
            self._settled = max(self._settled, done.failed_step)
            self._note_errors(done.errors)
            if self._announcements is not None:
                self._announcements.stored(done.stored)

    def finished(self, request: Any) -> bool:
        """Whether its blocks must stay until the workers have saved them."""
        track = self._tracks.pop(request.request_id, None)
        return track is not None and track.saves and self._settings.save_async and not self._settings.by_layer

    def events(self) -> Iterable[BlockStored]:
        """Blocks that can be found from now on."""
        return self._announcements.take() if self._announcements is not None else ()

    def close(self) -> None:
        """End what runs aside."""
        self._adapters.close()
