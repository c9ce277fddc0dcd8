"""What streams of tables say, encoded once for all who follow.

For: the messages and their fields. Not for: who is told what, and when (`table_stream`).
Invariants: a message is made when somebody is to be told it, never before; what is kept of them is
bounded, and everything in it can be made again.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Final

import orjson
from aiohttp import web

from meshd.core.table_changes import ServiceStep
from meshd.core.telling import (
    Json,
    backend_fields,
    definition_fields,
    kept_json,
    table_service,
    tier_fields,
)
from meshd.edges.http.outlets import Batch, Message
from meshd.model.ids import ServiceKey, format_vector
from meshd.model.place import TablePlace
from meshd.model.table import BackendKey
from meshd.runtime.projector import Projector

VALUE: Final = "meshd.table"
DELTA: Final = "meshd.table.delta"
REMOVED: Final = "meshd.table.removed"

KEPT_BYTES_MAX: Final = 32 * 1024 * 1024
"""Messages that are kept encoded: the values of a mesh of 50,000 backends."""
SHARED_MAX: Final = 64
"""Ways in which subscribers follow at a time (what they select, from where on) that share what is
sent to them whole; the others share its messages only."""
AT_ONCE_MAX: Final = 200
"""Backends of a message that is encoded between two turns of the event loop: a millisecond's work.
Larger ones are made in a thread."""


class TableMessages:
    """The messages about one meshd's tables, and where somebody stands who was told them."""

    def __init__(self, projector: Projector, bytes_max: int = KEPT_BYTES_MAX) -> None:
        self._projector = projector
        self._bytes_max = bytes_max
        self._bytes = 0
        self._kept: OrderedDict[Hashable, Message] = OrderedDict()
        self._shared: dict[Hashable, Batch] = {}
        self._shared_at = 0
        self._place: tuple[int, TablePlace] | None = None
        # One large message at a time: who waits for the same one then finds it.
        self._turn = asyncio.Lock()

    def place(self, mark: str) -> str:
        """Where somebody stands who was told all there is at this moment."""
        projector = self._projector
        if self._place is None or self._place[0] != projector.version:
            vector = format_vector(projector.log_vector())
            place = TablePlace(vector, projector.feed.run, projector.feed.number)
            self._place = projector.version, place
        return str(replace(self._place[1], mark=mark))

    async def value(self, key: ServiceKey) -> Message | None:
        """A service as it is now; None if it isn't served."""
        feed, tables = self._projector.feed, self._projector.tables
        view = tables.view(key)
        if view is None:
            return None
        change, unfresh = feed.changes.number_of(key), feed.unfresh
        digest = tables.digest_of(key) or ""

        def make() -> bytes:
            return kept_json(table_service(view, digest, unfresh) | {"change": change})

        return await self._encoded(VALUE, (VALUE, key, change), len(view.backends), make)

    async def delta(self, step: ServiceStep) -> Message:
        """What became of a service in one change."""
        place = (DELTA, step.delta.key, step.number)
        size = len(step.delta.upserts) + len(step.delta.removals)
        return await self._encoded(DELTA, place, size, lambda: kept_json(delta_fields(step)))

    def removed(self, key: ServiceKey, change: int) -> Message:
        """A service is gone, or isn't among those that are followed any more."""
        return Message(REMOVED, kept_json(_named(key) | {"change": change}))

    def shared(self, what: Hashable) -> Batch | None:
        """What was sent already to somebody who follows like this."""
        if self._shared_at != self._projector.feed.number:
            self._shared.clear()
            self._shared_at = self._projector.feed.number
        return self._shared.get(what)

    def share(self, what: Hashable, batch: Batch) -> None:
        """Keep what was sent, until something changes."""
        if len(self._shared) < SHARED_MAX and self._shared_at == self._projector.feed.number:
            self._shared[what] = batch

    async def _encoded(
        self, event: str, place: Hashable, size: int, make: Callable[[], bytes]
    ) -> Message:
        kept = self._kept.get(place)
        if kept is not None:
            self._kept.move_to_end(place)
            return kept
        if size <= AT_ONCE_MAX:
            return self._keep(place, Message(event, make()))
        async with self._turn:
            kept = self._kept.get(place)
            return kept or self._keep(place, Message(event, await asyncio.to_thread(make)))

    def _keep(self, place: Hashable, message: Message) -> Message:
        self._kept[place] = message
        self._bytes += len(message.data)
        while self._bytes > self._bytes_max:
            _, oldest = self._kept.popitem(last=False)
            self._bytes -= len(oldest.data)
        return message


TABLE_MESSAGES: Final = web.AppKey("TABLE_MESSAGES", TableMessages)


def delta_fields(step: ServiceStep) -> Json:
    """What became of a service. definition, tiers: null if they are as they were."""
    delta, definition = step.delta, step.definition
    clusters = () if definition is None else definition.clusters
    return {
        **_named(delta.key),
        "change": step.number,
        "before": step.before,
        "stale": [cluster for cluster in clusters if cluster in step.unfresh],
        "digest": delta.digest,
        "definition": definition_fields(definition) if definition and delta.redefined else None,
        "tiers": None if delta.tiers is None else [tier_fields(tier) for tier in delta.tiers],
        "upserts": [backend_fields(backend) for backend in delta.upserts],
        "removals": [_removal(key) for key in delta.removals],
    }


def _named(key: ServiceKey) -> Json:
    return {"namespace": key.namespace, "name": key.name}


def _removal(key: BackendKey) -> Json:
    cluster, name = key
    return {"cluster": cluster, "name": name}


def snapshot_message(event: str, **fields: object) -> Message:
    """Where a snapshot begins or ends."""
    return Message(event, orjson.dumps(fields))
