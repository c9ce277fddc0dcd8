"""Two meshds of one cluster on one real etcd: any takes writes, one leads, and either may die."""

from __future__ import annotations

import asyncio
import itertools
import signal
from collections.abc import Callable

from chaos.etcds import Etcd
from chaos.raw import check_acknowledged, read_log
from tests.e2e.conftest import Daemon, NewEtcd, RunDaemon
from tests.e2e.test_daemon import SERVICE, put
from tests.e2e.test_faults_etcd import check_tables

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


async def check_log(etcd: Etcd) -> None:
    """Every write is in the log once, and the log is dense and chained."""
    log = read_log(await etcd.dump(), "/meshd/v1/local/")
    keys = [f"key-{number}" for number in range(WRITES)]
    check_acknowledged(log, keys, keys)
    assert len(log.state["endpoint"]) == WRITES


async def test_fault_28_the_leader_dies_under_load_and_nothing_is_lost_or_done_twice(
    new_etcd: NewEtcd, run_daemon: RunDaemon
) -> None:
    own, theirs = await new_etcd(), await new_etcd()
    address, west_etcd = own.endpoints, theirs.endpoints
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
            await third.until("/v1/peers/west", lambda peer: peer["phase"] == "Ready")
            assert await third.get("/v1/tables/shop/web") == await second.get("/v1/tables/shop/web")
            status, other = await third.get("/v1/status"), await second.get("/v1/status")
            assert status["digest"] == other["digest"]
            await check_tables(theirs, west, "west", {"east": own})
            await check_tables(own, third, "east", {"west": theirs})
    await check_log(own)


async def test_faults_2_and_28_a_leader_that_slept_beyond_its_lease_harms_nothing(
    new_etcd: NewEtcd, run_daemon: RunDaemon
) -> None:
    etcd = await new_etcd()
    address = etcd.endpoints
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
    await check_log(etcd)
