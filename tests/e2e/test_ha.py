"""Two meshds of one cluster on one real etcd: any takes writes, one leads, and either may die."""

from __future__ import annotations

import asyncio
import itertools
import signal
from collections.abc import Callable

from meshd.edges.embedded import EmbeddedEtcd
from tests.conftest import StartEtcd
from tests.e2e.conftest import Daemon, RunDaemon
from tests.e2e.test_daemon import SERVICE, dump, put
from tests.independent_reader import read_log

WRITES = 60


def leads(status: dict[str, object]) -> bool:
    leader = status["leader"]
    return isinstance(leader, dict) and leader["self"] is True


def follows(status: dict[str, object]) -> bool:
    leader = status["leader"]
    return isinstance(leader, dict) and leader["self"] is False


async def write_on(daemons: list[Daemon], done: Callable[[int], None]) -> None:
    """Write as a client of two addresses does: one after the other, again where there is doubt."""
    for number in range(WRITES):
        path = f"/v1/services/shop/web/endpoints/e{number}"
        body = {"address": f"10.0.{number // 200}.{number % 200 + 1}"}
        for attempt in itertools.count():
            daemon = daemons[(number + attempt) % len(daemons)]
            if await put(daemon, path, body, key=f"key-{number}") in {200, 201}:
                break
            assert attempt < 200
            await asyncio.sleep(0.05)
        done(number)


def check_log(etcd: EmbeddedEtcd) -> None:
    """Every write is in the log once, and the log is dense and chained."""
    state, events = read_log(dump(etcd), "/meshd/v1/local/")
    assert len(state["endpoint"]) == WRITES
    assert len([event for event in events if event[0] == "endpoint.set"]) == WRITES


async def test_the_leader_dies_under_load_and_nothing_is_lost_or_done_twice(
    start_etcd: StartEtcd, run_daemon: RunDaemon
) -> None:
    own, theirs = await start_etcd(), await start_etcd()
    address, west_etcd = own.config.client_address, theirs.config.client_address
    async with (
        run_daemon("west", 2, west_etcd, {"east": address}) as west,
        run_daemon("east", 1, address, {"west": west_etcd}) as first,
        run_daemon("east", 1, address, {"west": west_etcd}) as second,
    ):
        await put(west, "/v1/services/shop/web", SERVICE)
        assert await put(first, "/v1/services/shop/web", SERVICE) in {200, 201}
        await first.until("/v1/status", leads)
        await second.until("/v1/status", follows)

        def kill_half_way(number: int) -> None:
            if number == WRITES // 2:
                first.kill()

        await write_on([first, second], kill_half_way)
        await second.until("/v1/status", leads)
        await west.until("/v1/tables/shop/web", lambda table: len(table["backends"]) == WRITES)
        # West hears the new leader's heart.
        await west.until("/v1/peers/east", lambda peer: peer["phase"] == "Ready")
        async with run_daemon("east", 1, address, {"west": west_etcd}) as third:
            await third.until("/v1/status", follows)
            assert await third.get("/v1/tables/shop/web") == await second.get("/v1/tables/shop/web")
            status, other = await third.get("/v1/status"), await second.get("/v1/status")
            assert status["digest"] == other["digest"]
    check_log(own)


async def test_a_leader_that_slept_beyond_its_lease_harms_nothing(
    etcd: EmbeddedEtcd, run_daemon: RunDaemon
) -> None:
    address = etcd.config.client_address
    async with run_daemon("east", 1, address) as first, run_daemon("east", 1, address) as second:
        assert await put(first, "/v1/services/shop/web", SERVICE) in {200, 201}
        await first.until("/v1/status", leads)
        first.kill(signal.SIGSTOP)
        try:
            await second.until("/v1/status", leads)
            await write_on([second], lambda _: None)
        finally:
            first.kill(signal.SIGCONT)
        await first.until("/v1/status", follows)
        await first.until("/v1/tables/shop/web", lambda table: len(table["backends"]) == WRITES)
        # It takes writes again, on top of what it missed.
        assert await put(first, "/v1/services/shop/cart", SERVICE) in {200, 201}
        assert await put(second, "/v1/services/shop/cart", SERVICE, key="again") in {200, 201}
        assert leads(await second.get("/v1/status"))
    check_log(etcd)
