"""What experiments ask of a mesh: probes of Chaos Toolkit's python provider.

For: hypotheses and methods, by each meshd's REST API alone. Not for: doing anything (`actions`).
Invariants: a meshd that can't be asked is an answer, not an error; what a probe writes it removes.

Where a cluster has two meshds, each of them is asked, and the worst answer counts. within_s: how
long to ask again until it is so; 0: once.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import TypeVar

from chaos.toolkit.whereabouts import Configuration, Whereabouts, whereabouts
from meshd.client import Client, ClientError, Status

__all__ = [
    "agree",
    "all_ready",
    "backends",
    "is_ready",
    "lag_events",
    "peer_phase",
    "peers_ready",
    "replicates",
    "writes_succeed",
]

T = TypeVar("T")

ASK_EVERY_S = 0.2
WRITES = 3
NAMESPACE = "chaos-toolkit"
"""Of services that nobody asks for."""
UNKNOWN = "unknown"
NO_LAG_KNOWN = -1


def is_ready(cluster: str, within_s: float = 0.0, configuration: Configuration = None) -> bool:
    """Whether a cluster's meshds serve tables and take writes."""
    where = whereabouts(configuration)
    return _until(lambda: _is_ready(where, cluster), within_s)


def all_ready(
    without: str = "", within_s: float = 0.0, configuration: Configuration = None
) -> bool:
    """The same of all clusters but one."""
    where = whereabouts(configuration)

    async def are() -> bool:
        return all([await _is_ready(where, name) for name in where.but(without)])

    return _until(are, within_s)


def peer_phase(cluster: str, peer: str, configuration: Configuration = None) -> str:
    """How a cluster sees a peer: `Ready`, `Stale`, `Quarantined`, …; `unknown` if it can't say."""
    phases = [phase for phase, _ in asyncio.run(_peer(whereabouts(configuration), cluster, peer))]
    return next((phase for phase in phases if phase != "Ready"), "Ready") if phases else UNKNOWN


def lag_events(cluster: str, peer: str, configuration: Configuration = None) -> int:
    """How many events of a peer a cluster knows of and doesn't have; -1 if it can't say."""
    lags = [lag for _, lag in asyncio.run(_peer(whereabouts(configuration), cluster, peer))]
    return NO_LAG_KNOWN if not lags or NO_LAG_KNOWN in lags else max(lags)


def peers_ready(
    without: str = "", within_s: float = 0.0, configuration: Configuration = None
) -> bool:
    """Whether all clusters but one see one another Ready, with nothing outstanding."""
    where = whereabouts(configuration)

    async def are() -> bool:
        names = where.but(without)
        for one in names:
            for other in names:
                seen = await _peer(where, one, other) if one != other else [("Ready", 0)]
                if not seen or set(seen) != {("Ready", 0)}:
                    return False
        return True

    return _until(are, within_s)


def backends(
    cluster: str,
    namespace: str,
    service: str,
    of: str = "",
    configuration: Configuration = None,
) -> int:
    """How many backends of a service a cluster's table would send requests to. of: those of one
    cluster only. -1: it has no such table.
    """
    where = whereabouts(configuration)

    async def count(client: Client) -> int:
        table = await client.table(namespace, service)
        return sum(one["eligible"] and of in {"", one["cluster"]} for one in table["backends"])

    counts = asyncio.run(_ask(where, cluster, count))
    return min(counts, default=-1)


def agree(without: str = "", within_s: float = 0.0, configuration: Configuration = None) -> bool:
    """Whether all clusters but one have read the same, and make the same tables of it, from every
    perspective.
    """
    where = whereabouts(configuration)
    return _until(lambda: _agree(where, where.but(without)), within_s)


def writes_succeed(
    cluster: str, within_s: float = 0.0, configuration: Configuration = None
) -> bool:
    """Whether each of a few writes to a cluster is acknowledged, by each of its meshds."""
    where = whereabouts(configuration)

    async def do() -> bool:
        for _ in range(WRITES):
            if len(await _ask(where, cluster, _write)) < len(where.of(cluster)):
                return False
        return True

    return _until(do, within_s)


def replicates(
    cluster: str, peer: str, within_s: float = 10.0, configuration: Configuration = None
) -> bool:
    """Whether a peer comes to know what is written to a cluster now."""
    where = whereabouts(configuration)
    heads = asyncio.run(_ask(where, cluster, _write_and_look))
    if not heads:
        return False
    # Which of its logs the peer reads is between those two.
    written = {log_id: seq for head in heads for log_id, seq in head.items()}

    async def has_read() -> bool:
        statuses = await _ask(where, peer, _status)
        places = [one["vector"].get(cluster) for one in statuses]
        return len(places) == len(where.of(peer)) and all(
            place is not None and place["seq"] >= written.get(place["log_id"], place["seq"] + 1)
            for place in places
        )

    return _until(has_read, within_s)


# --- asking ---------------------------------------------------------------------------------------


async def _ask(where: Whereabouts, cluster: str, what: Callable[[Client], Awaitable[T]]) -> list[T]:
    """Ask each meshd of a cluster; who doesn't answer is left out."""
    answers = []
    for target in where.of(cluster):
        async with Client(target) as client:
            try:
                answers.append(await what(client))
            except ClientError:
                continue
    return answers


async def _status(client: Client) -> Status:
    return await client.status()


async def _is_ready(where: Whereabouts, cluster: str) -> bool:
    statuses = await _ask(where, cluster, _status)
    return len(statuses) == len(where.of(cluster)) and all(one["ready"] for one in statuses)


async def _peer(where: Whereabouts, cluster: str, peer: str) -> list[tuple[str, int]]:
    """Phase and lag of a peer, as each meshd of a cluster that answers sees it."""
    found = []
    for status in await _ask(where, cluster, _status):
        for item in status["peers"]:
            if item["name"] == peer:
                lag = item["lag_events"]
                found.append((item["phase"], NO_LAG_KNOWN if lag is None else lag))
    return found


async def _write(client: Client) -> int:
    """Define a service that has no endpoints, and remove it; returns how many events that made."""
    name = f"write-{uuid.uuid4().hex[:12]}"
    # Global, or no other cluster would be told.
    written = await client.put_service(NAMESPACE, name, {"ports": [{"port": 80}], "global": True})
    return written["events"] + (await client.delete_service(NAMESPACE, name))["events"]


async def _write_and_look(client: Client) -> dict[str, int]:
    """Write; returns the ends of what is offered to other clusters then, by log id."""
    await _write(client)
    return {head["log_id"]: head["seq"] for head in (await client.status())["exports"]}


async def _agree(where: Whereabouts, names: Sequence[str]) -> bool:
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(Client(target))
            for name in names
            for target in where.of(name)
        ]
        try:
            vectors = {(await client.status())["vector_text"] for client in clients}
            if len(vectors) != 1:
                return False
            for perspective in names:
                tables = [await client.tables(perspective=perspective) for client in clients]
                if len({table["digest"] for table in tables}) != 1:
                    return False
        except ClientError:
            return False
    return True


def _until(is_so: Callable[[], Awaitable[bool]], within_s: float) -> bool:
    """Ask until it is so, at least once and no longer than that."""

    async def ask() -> bool:
        return await is_so()

    end_s = time.monotonic() + within_s
    while not (found := asyncio.run(ask())) and time.monotonic() < end_s:
        time.sleep(ASK_EVERY_S)
    return found
