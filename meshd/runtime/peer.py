"""One peer that is followed: its parts, how they are made, and how they end.

For: what `peers` holds of each of them. Not for: which there are. Invariant: a follower ends
between two turns, so that another one can go on from its state.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field

import structlog

from meshd.core.liveness import StalenessRules
from meshd.model.errors import MeshdError
from meshd.model.ids import ClusterName
from meshd.model.listed import Skip
from meshd.model.peer import Phase
from meshd.runtime.distance import RoundTrips
from meshd.runtime.follower import Follower
from meshd.runtime.listing import Wish
from meshd.runtime.ports import Kv
from meshd.runtime.reading import LogReader
from meshd.runtime.replica_copy import Loaded
from meshd.runtime.replica_store import ReplicaStore
from meshd.runtime.sinks import Guard, PeerSink

log = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False)
class Peer:
    """One peer and what follows it. link: what it was dialled by. source: its log, for the store to
    read again.
    """

    wish: Wish
    link: object
    kv: Kv
    source: LogReader
    follower: Follower
    sink: PeerSink
    store: ReplicaStore
    staleness: StalenessRules
    guard: Guard
    round_trips: RoundTrips
    phase: Phase = Phase.CONNECTING
    reason: str = ""
    since_s: float = 0.0
    silence_s: float = 0.0
    skipped: int = 0
    skip: Skip | None = None
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    @property
    def name(self) -> ClusterName:
        """Which peer."""
        return self.wish.name


@dataclass(frozen=True, slots=True)
class Maker:
    """How a peer is made. link_of: what it would be dialled by now. make: the parts that follow it,
    those of a former one used on. Both raise FatalError or RejectedError. load: its replica, if
    there is one. write: commits what the peers' copies hand in, for ever. staleness: of a peer that
    is served and can't be followed.
    """

    link_of: Callable[[Wish], object]
    make: Callable[[Wish, Peer | None], Peer]
    load: Callable[[ClusterName], Awaitable[Loaded | None]]
    write: Callable[[], Coroutine[None, None, None]]
    staleness: StalenessRules


async def end(peer: Peer) -> None:
    """End a peer's tasks: its follower where its state says what was done, the others anywhere,
    since the store finds out what it did.
    """
    if not peer.tasks:
        return
    follow, *others = peer.tasks
    peer.follower.end()
    await asyncio.wait({follow})
    for task in others:
        task.cancel()
    await asyncio.wait(others)


async def close(peer: Peer) -> None:
    """Close a peer's link."""
    try:
        await peer.kv.close()
    except MeshdError as error:
        log.debug("closing a link failed", peer=peer.name, reason=str(error))
