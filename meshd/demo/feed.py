"""What one cluster's meshd says, read again and again: its table for clients, its status for eyes.

For: the last good table, which outlives the meshd that gave it. Not for: sending requests
(`caller`). Invariant: `table` never gets worse because a meshd can't be reached; only a newer
answer replaces it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from meshd.client import Client, ClientError, PeerItem, Status, TableService
from meshd.demo.caller import Table, Target
from meshd.demo.catalog import NAMESPACE
from meshd.model.ids import parse_vector
from meshd.model.peer import Phase
from meshd.model.table import Standing

READ_EVERY_S = 0.2
DEMOTED_FROM = 1000
"""Priorities from here on are those of demoted backends (`core.tiers`)."""


@dataclass(frozen=True, slots=True)
class PeerLook:
    """A peer, as a meshd shows it. seq: how far its log is folded; kept_seq: how far it is kept."""

    name: str
    phase: str
    reason: str
    standing: str
    seq: int
    kept_seq: int
    records_read: int
    records_duplicate: int


@dataclass(frozen=True, slots=True)
class Look:
    """A meshd's status. digest: of its own perspective."""

    ready: bool
    vector_text: str
    digest: str
    peers: dict[str, PeerLook]

    @property
    def seqs(self) -> dict[str, int]:
        """How far each log is, by cluster."""
        return {name: at.seq for name, at in parse_vector(self.vector_text).items()}


class Feed:
    """Reads one meshd. look: its status, None while it can't be had. table: the last good one.
    reads: how often it was read.
    """

    def __init__(self, client: Client) -> None:
        self.look: Look | None = None
        self.table: Table = {}
        self.services: Sequence[TableService] = ()
        self.reads = 0
        self._client = client

    async def run(self) -> None:
        """Read for ever."""
        while True:
            await self.read()
            await asyncio.sleep(READ_EVERY_S)

    async def read(self) -> None:
        """Read once."""
        try:
            status = await self._client.status()
            services = (await self._client.tables(namespace=NAMESPACE))["services"]
        except ClientError:
            self.look = None
            return
        self.look = look_of(status)
        self.services = services
        self.table = {service["name"]: targets_of(service) for service in services}
        self.reads += 1


def look_of(status: Status) -> Look:
    """A status, as far as the demo looks at it."""
    return Look(
        ready=status["ready"],
        vector_text=status["vector_text"],
        digest=status["digest"] or "",
        peers={peer["name"]: _peer(peer) for peer in status["peers"]},
    )


def _peer(peer: PeerItem) -> PeerLook:
    return PeerLook(
        name=peer["name"],
        phase=peer["phase"],
        reason=peer["reason"],
        standing=peer["standing"],
        seq=peer["seq"] or 0,
        kept_seq=peer["replica_seq"] or 0,
        records_read=peer["records_read"],
        records_duplicate=peer["records_duplicate"],
    )


def targets_of(service: TableService) -> tuple[Target, ...]:
    """The backends of a service that may take traffic."""
    shares = {tier["priority"]: tier["share_ppm"] for tier in service["tiers"]}
    return tuple(
        Target(
            cluster=backend["cluster"],
            endpoint=backend["name"],
            address=backend["address"],
            port=backend["ports"][0]["port"],
            priority=backend["priority"],
            weight=backend["weight"],
            share=shares[backend["priority"]],
        )
        for backend in service["backends"]
        if backend["eligible"] and backend["ports"]
    )


def is_ready(peer: PeerLook) -> bool:
    """Whether a peer is followed and fresh."""
    return peer.phase == Phase.READY and peer.standing == Standing.FRESH


def is_kept(peer: PeerLook) -> bool:
    """Whether all that was read of a peer is in the own etcd."""
    return peer.seq > 0 and peer.kept_seq == peer.seq


def is_stale(peer: PeerLook) -> bool:
    """Whether a peer is known to be out of sight."""
    return peer.phase == Phase.STALE


def is_demoted(peer: PeerLook) -> bool:
    """Whether a peer's backends come behind all others."""
    return peer.standing == Standing.DEMOTED
