"""Reads of one service's table over REST, against aiohttp answering a constant of the same bytes.

For: one meshd as a process, one constant server and one load, each a process of its own; every
figure has both servers' in the same round, by turns first. Not for: judging. On a machine with two
cores the load has one of them, so what it takes is measured as well.

Each service is asked for once more with the tag that the answer had, as a cache does. A server that
gives no tags has nothing to compare and answers all of it: the row says what it answered.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson
from rich.console import Console

from meshd.edges.embedded import EmbeddedConfig, EmbeddedEtcd
from tests.bench.children import Child, child
from tests.bench.constant_server import tag_of
from tests.bench.daemons import ETCD, NAMESPACE, Meshd, meshd
from tests.bench.places import api_at, peers_of
from tests.bench.streams import Figures
from tests.bench.tables import Row

CONSTANT: Final = api_at(5)
CONSTANT_NAME: Final = "aiohttp, a constant"
BACKENDS: Final = (1, 1_000)
CONNECTIONS: Final = 16
"""More than both cores can serve at once, few enough that none waits long."""


@dataclass(frozen=True, slots=True)
class Server:
    """One of the two. tag: what an answer's entity tag was, '' if it had none."""

    address: str
    process: Meshd | Child
    tag: str


async def measure_rest(
    rounds: int, seconds: float, backends: tuple[int, ...] = BACKENDS
) -> list[Row]:
    """All of it, `rounds` times. seconds: of each load. backends: of each service."""
    figures = Figures()
    with tempfile.TemporaryDirectory(prefix="meshd-bench-") as name:
        config = EmbeddedConfig(Path(name) / "etcd", ETCD, peers_of(ETCD), history_kept="")
        async with (
            EmbeddedEtcd(config),
            meshd(Path(name)) as one,
            child("tests.bench.constant_server", CONSTANT) as constant,
            child("tests.bench.http_load") as load,
        ):
            for many in backends:
                await _define(one, many)
            bodies = {path: await one.get(path) for path in map(_path, backends)}
            await constant.ask({path: body.decode() for path, body in bodies.items()})
            for number in range(rounds):
                Console(stderr=True).print(f"rest, round {number + 1} of {rounds}")
                for many in backends:
                    servers = await _servers(one, constant, many)
                    for is_cached in (False, True):
                        await _round(figures, load, servers, number, many, seconds, is_cached)
    return list(figures.rows.values())


def _path(backends: int) -> str:
    return f"/v1/tables/{NAMESPACE}/of-{backends}"


async def _define(one: Meshd, backends: int) -> None:
    """A service with so many backends."""
    name = f"of-{backends}"
    await one.put(f"/v1/services/{NAMESPACE}/{name}", {"ports": [{"port": 80}], "global": True})
    await one.touch_many(backends, service=name)
    table = orjson.loads(await one.get(_path(backends)))
    assert len(table["backends"]) == backends


async def _servers(one: Meshd, constant: Child, backends: int) -> dict[str, Server]:
    """Both, with the tags that they give this table."""
    async with one.http.get(f"http://{one.address}{_path(backends)}") as answer:
        body, tag = await answer.read(), answer.headers.get("ETag", "")
    return {
        "meshd": Server(one.address, one, tag),
        CONSTANT_NAME: Server(CONSTANT, constant, tag_of(body)),
    }


async def _round(
    figures: Figures,
    load: Child,
    servers: Mapping[str, Server],
    number: int,
    backends: int,
    seconds: float,
    is_cached: bool,
) -> None:
    """One load of each."""
    found: dict[str, dict[str, Any]] = {}
    for name in servers if number % 2 == 0 else reversed(list(servers)):
        server = servers[name]
        # Whoever has no tag names one that fits nothing, so that it reads the same header.
        headers = {"If-None-Match": server.tag or '"none"'} if is_cached else {}
        cpu_s = server.process.cpu_s()
        found[name] = await load.ask(
            {
                "address": server.address,
                "path": _path(backends),
                "connections": CONNECTIONS,
                "seconds": seconds,
                "headers": headers,
            }
        )
        found[name]["server_cpu_s"] = server.process.cpu_s() - cpu_s
    _add(figures, found, backends, is_cached)


def _add(
    figures: Figures, found: Mapping[str, dict[str, Any]], backends: int, is_cached: bool
) -> None:
    """Make rows of what both loads came to."""
    ours, other = found["meshd"], found[CONSTANT_NAME]
    wanted = {"304"} if is_cached else {"200"}
    assert other["statuses"].keys() == wanted, other["statuses"]
    answered = ", ".join(ours["statuses"])
    assert ours["statuses"].keys() <= {"200", "304"}, ours["statuses"]
    reference = CONSTANT_NAME
    if is_cached:
        reference += f", 304; meshd answered {answered}"
    of = f"a table of {backends:,} backend{'s' if backends > 1 else ''}" + (
        ", If-None-Match" if is_cached else ""
    )
    for what, unit, key in (("p50", "µs", "p50_us"), ("p99", "µs", "p99_us")):
        figures.add(f"{of}: {what}", unit, ours[key], other[key], reference)
    mine, theirs = (one["requests"] / one["took_s"] for one in (ours, other))
    figures.add(of, "requests/s", mine, theirs, reference)
    for what, key in (("processor", "server_cpu_s"), ("processor of the load", "cpu_s")):
        mine, theirs = (one[key] / one["requests"] * 1e6 for one in (ours, other))
        figures.add(f"{of}: {what}, each request", "µs", mine, theirs, reference)
