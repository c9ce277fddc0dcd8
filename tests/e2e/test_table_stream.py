"""A mirror of the tables in a client of real meshds: through changes, a peer's death and a restart
of the meshd that it follows.
"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from meshd.client import (
    Client,
    FollowedTables,
    SnapshotBegun,
    TableMessage,
    TableMirror,
    TablesReset,
    Target,
)
from tests.e2e.conftest import Daemon, NewEtcd, RunDaemon
from tests.e2e.test_daemon import SERVICE, put

QUICK = (
    "replication.heartbeat_every_s=0.2",
    "replication.silent_after_s=2",
    "replication.lost_after_s=4",
    "staleness.stale_after_s=2",
)
WEB = "/v1/services/shop/web"
DEMOTED = 1000
"""Priorities from here on are of clusters that are out of sight."""


async def follow_until_equal(
    messages: AsyncIterator[TableMessage], mirror: TableMirror, client: Client
) -> list[Any]:
    """Follow until the mirror is what is served; gives that."""
    while True:
        services = (await client.tables())["services"]
        if mirror.is_whole and mirror.services() == services:
            return list(services)
        mirror.take(await anext(messages))


async def change(east: Daemon, west: Daemon, turn: int) -> None:
    """Make every kind of change."""
    assert await put(east, f"/v1/services/shop/s{turn}", SERVICE) == 200
    for number in range(3):
        body = {"address": f"10.0.{turn}.{number + 1}", "ready": (turn + number) % 3 > 0}
        assert await put(east, f"{WEB}/endpoints/e{number}", body) == 200
        assert await put(west, f"{WEB}/endpoints/w{number}", body | {"weight": turn + 1}) == 200
    labels = {"labels": {"turn": str(turn)}, "affinity": ("local", "none")[turn % 2]}
    assert await put(east, WEB, SERVICE | labels) == 200
    if turn > 1:
        async with east.http.delete(f"{east.url}/v1/services/shop/s{turn - 1}") as answer:
            assert answer.status == 200


def priority_of(cluster: str, service: Any) -> int:
    found = (one["priority"] for one in service["backends"] if one["cluster"] == cluster)
    return int(min(found))


async def test_a_mirror_equals_what_is_served_through_changes_a_peers_death_and_a_restart(
    new_etcd: NewEtcd, run_daemon: RunDaemon
) -> None:
    etcd_e, etcd_w = await new_etcd(), await new_etcd()
    peers_e, peers_w = {"west": etcd_w.endpoints}, {"east": etcd_e.endpoints}
    mirror = TableMirror()
    async with run_daemon("east", 1, etcd_e.endpoints, peers_e, *QUICK) as east:
        async with (
            Client(Target(url=east.url)) as client,
            aclosing(client.follow_tables(FollowedTables(deltas=True))) as messages,
        ):
            async with run_daemon("west", 2, etcd_w.endpoints, peers_w, *QUICK) as west:
                assert await put(east, WEB, SERVICE) == await put(west, WEB, SERVICE) == 200
                for turn in range(6):
                    await change(east, west, turn)
                    await follow_until_equal(messages, mirror, client)
                await east.until(
                    "/v1/tables/shop/web",
                    lambda it: len(it["backends"]) == 6 and not it["stale"],
                )
                *_, web = await follow_until_equal(messages, mirror, client)
                assert {one["cluster"] for one in web["backends"]} == {"east", "west"}
                assert web["stale"] == []
                west.kill()
            # Nobody hears of it: its backends come behind all that is fresh.
            await east.until(
                "/v1/tables/shop/web",
                lambda it: it["stale"] == ["west"] and priority_of("west", it) >= DEMOTED,
            )
            *_, web = await follow_until_equal(messages, mirror, client)
            assert (web["stale"], priority_of("west", web) >= DEMOTED) == (["west"], True)
        east.kill(signal.SIGKILL)
    await _restarted(mirror, run_daemon("east", 1, etcd_e.endpoints, peers_e, *QUICK))


async def _restarted(mirror: TableMirror, running: Any) -> None:
    """The meshd begins anew, and so does the numbering of its changes."""
    before, place = mirror.services(), mirror.place
    async with running as east, Client(Target(url=east.url)) as client:
        path = f"{east.url}/v1/tables/stream"
        async with east.http.get(path, headers={"Last-Event-ID": place}) as answer:
            assert answer.status == 410
            assert "before this one was started" in (await answer.json())["detail"]
        followed = FollowedTables(deltas=True, after=place)
        async with aclosing(client.follow_tables(followed)) as messages:
            for kind in (TablesReset, SnapshotBegun):
                message = await anext(messages)
                assert isinstance(message, kind)
                mirror.take(message)
                assert mirror.services() == before
            await follow_until_equal(messages, mirror, client)
            assert await put(east, f"{WEB}/endpoints/late", {"address": "10.0.9.9"}) == 200
            *_, web = await follow_until_equal(messages, mirror, client)
            assert "late" in {one["name"] for one in web["backends"]}
            assert mirror.place != place
