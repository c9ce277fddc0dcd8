"""What faults say so that there is something to lose, to miss, or to read for long.

For: many events of a cluster in few commands. Not for: traffic that is judged (`chaos.traffic`).
Invariants: it is all of services of the namespace `chaos`, without backends that anybody would ask;
`unsay` takes it back.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, Final

from chaos.faults.ground import ASK_EVERY_S, UNANSWERED, ask, running
from chaos.mesh.shape import Cluster, Kind, Server

REASON_CHARS_SHOWN: Final = 300
NAMESPACE: Final = "chaos"
PORTION: Final = 100
"""Endpoints in one command, and so in one record: with long texts some 30 KB, which a slow link
carries before the deadline of a call."""
DONE: Final = frozenset({200, 201})
GONE: Final = frozenset({200, 204, 404})
WRONG: Final = frozenset({400, 409, 413, 422})
"""To ask again would not help."""


async def say(
    cluster: Cluster, name: str, events: int, length: int = 0, portion: int = PORTION
) -> None:
    """Say at least so many events of services that peers are told of; until they are taken.

    length: of a text in each, for their number of bytes. portion: endpoints of one service.
    """
    for number, first in enumerate(range(0, events, portion)):
        documents = _documents(f"{name}-{number}", min(portion, events - first), length)
        await _until_taken(cluster, documents)


def _documents(name: str, count: int, length: int) -> Any:
    items = [
        {
            "name": f"e{number}",
            "address": f"10.98.{number >> 8 & 255}.{number & 255}",
            # Nobody is to be sent there.
            "weight": 0,
            "labels": {"text": "x" * length} if length else {},
        }
        for number in range(1, count + 1)
    ]
    names = {"namespace": NAMESPACE, "name": name}
    specs = {"Service": {"global": True}, "Endpoints": {"endpoints": items}}
    documents = [
        {"apiVersion": "meshd.io/v1", "kind": kind, "metadata": names, "spec": spec}
        for kind, spec in specs.items()
    ]
    return {"apiVersion": "v1", "kind": "List", "items": documents}


async def _until_taken(cluster: Cluster, documents: Any) -> None:
    while True:
        for meshd in running([cluster], Kind.MESHD):
            with suppress(*UNANSWERED):
                answer = await ask(meshd, "/v1/apply", "POST", documents)
                if answer.status in DONE:
                    return
                if answer.status in WRONG:
                    reason = str(answer.data)[:REASON_CHARS_SHOWN]
                    raise RuntimeError(f"{meshd.name} takes no apply: {reason}")
        await asyncio.sleep(ASK_EVERY_S)


async def unsay(cluster: Cluster, name: str, events: int, portion: int = PORTION) -> None:
    """Take back what `say` said, as far as it is there; until that is taken."""
    for number in range((events + portion - 1) // portion):
        path = f"/v1/services/{NAMESPACE}/{name}-{number}"
        await taken_off(cluster, path)


async def taken_off(cluster: Cluster, path: str) -> None:
    """Delete what is at a path of REST, if it is there; until that is taken."""
    while True:
        for meshd in running([cluster], Kind.MESHD):
            with suppress(*UNANSWERED):
                if (await ask(meshd, path, "DELETE")).status in GONE:
                    return
        await asyncio.sleep(ASK_EVERY_S)


async def seq_of(meshd: Server) -> int:
    """How far a meshd's log for all peers has come."""
    exports = (await ask(meshd, "/v1/status")).data["exports"]
    return int(next(one["seq"] for one in exports if one["audience"] == "mesh"))
