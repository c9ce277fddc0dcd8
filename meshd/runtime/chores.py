"""What one meshd of a cluster does for all: keeping the logs in its etcd short.

For: looking now and then whether a log is to be summed up or cut, and doing it while this meshd
leads. Not for: how (`shortening`) nor when it is due (`core.retention`). Invariants: nothing here
holds up an append, a follower or a reader; what fails is said once, and tried at the next look.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, aclosing
from dataclasses import dataclass, replace
from typing import IO

import structlog

from meshd.core.retention import (
    SNAPSHOTS_READ,
    RetentionRules,
    is_snapshot_due,
    trim_point,
)
from meshd.model.archive import ArchiveWriter, LogName
from meshd.model.errors import MeshdError, NotFoundError
from meshd.model.ids import ClusterName, Seq
from meshd.model.keyspace import Keyspace
from meshd.model.snapshot import Manifest, Mark
from meshd.runtime.leadership import Leadership
from meshd.runtime.peers import Peers
from meshd.runtime.ports import Clock, Kv
from meshd.runtime.shortening import cut, sum_up
from meshd.runtime.stored_log import LOCAL, StoredLog, open_log, own_logs
from meshd.telemetry import metrics

log = structlog.get_logger(__name__)

Shelf = Callable[[str], AbstractContextManager[IO[bytes]]]
"""Opens a file of a name in the archive; it is there once the context is left without an error."""


@dataclass(frozen=True, slots=True)
class ChoreRules:
    """check_every_s: how often every log is looked at. shelf: where records go before they are cut
    off; None for nowhere.
    """

    check_every_s: float
    retention: RetentionRules
    shelf: Shelf | None = None


class Chores:
    """The leader's work."""

    def __init__(
        self,
        kv: Kv,
        keyspace: Keyspace,
        peers: Peers,
        leadership: Leadership,
        rules: ChoreRules,
        clock: Clock,
    ) -> None:
        self._kv = kv
        self._keyspace = keyspace
        self._peers = peers
        self._leadership = leadership
        self._rules = rules
        self._clock = clock
        self._said: dict[LogName, str] = {}

    async def run(self) -> None:
        """Look after all logs, for ever."""
        while True:
            await self._clock.sleep(self._rules.check_every_s)
            for name in own_logs(self._peers.exports):
                if self._leadership.is_leader:
                    await self._look_after(name)
            for peer in list(self._peers):
                if self._leadership.is_leader:
                    await self._look_after(LogName("replica", peer.name))

    async def _look_after(self, name: LogName) -> None:
        try:
            await self._shorten(name)
        except NotFoundError:
            # A peer that was never read has no replica yet.
            return
        except (MeshdError, OSError) as error:
            if self._said.get(name) != str(error):
                log.warning("a log can't be shortened", log=str(name), reason=str(error))
            self._said[name] = str(error)
            return
        self._said.pop(name, None)

    async def _shorten(self, name: LogName) -> None:
        retention, fence = self._retention(name), self._leadership.fence
        stored = await self._open(name)
        if is_snapshot_due(stored.snapshot, stored.head.seq, retention):
            manifest = await sum_up(self._kv, stored, fence, retention.snapshots_kept)
            metrics.SNAPSHOTS.labels(str(name)).inc()
            log.info("snapshot written", log=str(name), **_shown(manifest))
            stored = await self._open(name)
        if stored.snapshot is None:
            return
        mark = trim_point(
            stored.snapshot,
            Mark(stored.head.seq, stored.head.hash, 0, stored.snapshot.log_bytes),
            retention,
            self._clock.wall_ms(),
            self._needed_seq(stored),
        )
        if mark is not None:
            await self._archive(stored, mark)
            await cut(self._kv, stored, mark, fence)
            log.info("log cut", log=str(name), through_seq=mark.seq, head_seq=stored.head.seq)

    def _retention(self, name: LogName) -> RetentionRules:
        """Nobody reads the past of an export log, which the local log tells better."""
        rules = self._rules.retention
        is_read = name.kind != "export"
        return rules if is_read else replace(rules, snapshots_kept=SNAPSHOTS_READ)

    async def _open(self, name: LogName) -> StoredLog:
        skip = self._peers.skip_of(ClusterName(name.owner))
        return await open_log(self._kv, self._keyspace, name, skip)

    def _needed_seq(self, stored: StoredLog) -> Seq | None:
        """What the slowest peer has read of an export log; nobody else depends on a log's past."""
        if stored.origin.log.kind != "export":
            return None
        return self._peers.needed_seq(stored.head.log_id)

    async def _archive(self, stored: StoredLog, mark: Mark) -> None:
        """Keep what is cut off the local log, which says everything that the others say."""
        if self._rules.shelf is None or stored.origin.log != LOCAL:
            return
        first_seq = stored.first_seq
        name = f"{stored.origin.cluster}-{stored.origin.log_id[:8]}-{first_seq:020}-{mark.seq:020}"
        writer = ArchiveWriter(stored.origin)
        with self._rules.shelf(f"{name}.meshd-log") as file:
            file.write(writer.begin())
            records = stored.reader.records(first_seq - 1, mark.seq)
            async with aclosing(records):
                async for record, revision in records:
                    file.write(writer.add(record, revision))
            file.write(writer.end())
        log.info("records archived", file=name, through_seq=mark.seq)


def _shown(manifest: Manifest) -> dict[str, int]:
    return {"seq": manifest.head.seq, "items": manifest.items, "parts": len(manifest.parts)}
