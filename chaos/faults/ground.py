"""What faults stand on: asking a meshd over REST, its cluster's etcd, and what they remember.

For: faults. Not for: recording (`chaos.recorder`), whose questions are judged. Invariants: nothing
here waits with an own limit except for one answer; a meshd that doesn't answer is asked again.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import aiohttp
import orjson

from chaos.etcds import Etcd
from chaos.faults.fault import Stage
from chaos.mesh.shape import Cluster, Kind, Meshd, Server

EXPORT: Final = "/meshd/v1/export/mesh/"
LOCAL: Final = "/meshd/v1/local/"
ANSWER_TIMEOUT_S: Final = 5.0
"""For one answer of a meshd on this machine: those that take longer are frozen or cut off."""
ASK_EVERY_S: Final = 0.05
SOON: Final[Mapping[str, object]] = {
    "replication.silent_after_s": 2,
    "replication.slow_retry_s": 1,
    "replication.backoff_max_s": 0.5,
}
"""With these a peer's trouble shows within seconds, and so does its end."""
UNANSWERED: Final = (aiohttp.ClientError, OSError, TimeoutError)

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a meshd answered. data: the JSON of it, or None."""

    status: int
    data: Any
    headers: Mapping[str, str] = field(default_factory=dict)


@asynccontextmanager
async def session(timeout_s: float | None = ANSWER_TIMEOUT_S) -> AsyncIterator[Asking]:
    """Ask several things over connections that are kept."""
    timeout = aiohttp.ClientTimeout(total=timeout_s)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as http:
        yield Asking(http)


@dataclass(frozen=True, slots=True)
class Asking:
    """A client of any meshd's REST API. Raises what is in UNANSWERED."""

    http: aiohttp.ClientSession

    async def ask(
        self,
        server: Server,
        path: str,
        method: str = "GET",
        body: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send a request. body: bytes as they are, anything else as JSON."""
        data = body if isinstance(body, bytes) or body is None else orjson.dumps(body)
        # What was given without a type is JSON, as nearly all that REST takes.
        named = ({"Content-Type": "application/json"} if data else {}) | dict(headers or {})
        url = f"http://{server.address}{path}"
        async with self.http.request(method, url, data=data, headers=named) as response:
            raw = await response.read()
            return Answer(response.status, _json(raw), dict(response.headers))


def _json(raw: bytes) -> Any:
    try:
        return orjson.loads(raw)
    except ValueError:
        return None


async def ask(server: Server, path: str, method: str = "GET", body: object = None) -> Answer:
    """Ask one thing over a connection of its own."""
    async with session() as asking:
        return await asking.ask(server, path, method, body)


async def until(server: Server, path: str, what: Callable[[Any], bool]) -> Any:
    """Ask until the answer is right. One that lacks what is looked at isn't right yet."""
    async with session() as asking:
        while True:
            try:
                data = (await asking.ask(server, path)).data
                if what(data):
                    return data
            except (*UNANSWERED, LookupError, TypeError):
                pass
            await asyncio.sleep(ASK_EVERY_S)


async def metric(server: Server, name: str, labels: str = "") -> float:
    """The sum of a metric's samples whose labels hold that text; 0 where there is none."""
    async with session() as asking:
        url = f"http://{server.address}/metrics"
        async with asking.http.get(url) as response:
            text = await response.text()
    line = re.compile(rf"^{re.escape(name)}(?:\{{([^}}]*)\}})? (\S+)", re.MULTILINE)
    return sum(float(value) for said, value in line.findall(text) if labels in said)


async def first_of(waits: Iterable[Awaitable[_T]]) -> _T:
    """What the first of several comes to; the others are given up."""
    found: list[_T] = []
    started: list[asyncio.Task[None]] = []

    async def wait(one: Awaitable[_T]) -> None:
        found.append(await one)
        for other in started:
            if not other.done() and other is not asyncio.current_task():
                other.cancel()

    async with asyncio.TaskGroup() as tasks:
        started += [tasks.create_task(wait(one)) for one in waits]
    if not found:
        raise RuntimeError("nobody is there who could see it: the mesh needs another cluster")
    return found[0]


def running(clusters: Iterable[Cluster], *kinds: Kind) -> Sequence[Server]:
    """The processes of these kinds that run, cluster by cluster."""
    return [
        server
        for cluster in clusters
        for server in cluster.servers
        if server.kind in kinds and server.pid is not None
    ]


def etcd_of(cluster: Cluster) -> Etcd:
    """A cluster's etcd; raises RuntimeError where it isn't ours to touch."""
    if cluster.etcd is None:
        raise RuntimeError(f"the etcd of {cluster.name} isn't ours: its driver lacks power `etcd`")
    return cluster.etcd


def kept(stage: Stage, name: str, kind: type[_T]) -> _T | None:
    """What a fault keeps under a name; None before it was kept, and after it was taken."""
    found = stage.memory.get(name)
    return found if isinstance(found, kind) else None


async def freeze(stage: Stage, cluster: Cluster) -> None:
    """Let a cluster's meshds stand still, until `thaw`."""
    frozen: list[Meshd] = stage.memory.setdefault(f"frozen {cluster.name}", [])  # type: ignore[assignment]
    for meshd in cluster.meshds:
        if meshd.pid is not None:
            frozen.append(meshd)
            await meshd.freeze()


async def thaw(stage: Stage, cluster: Cluster) -> None:
    """Let those go on that `freeze` stopped."""
    for meshd in kept(stage, f"frozen {cluster.name}", list) or ():
        if meshd.pid is not None:
            await meshd.thaw()
    stage.memory.pop(f"frozen {cluster.name}", None)
