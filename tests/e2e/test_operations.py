"""Services that move and clusters that go and come back, while requests are sent all the time."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from chaos.etcds import Etcd
from chaos.raw import read_log
from meshd.demo.children import Children
from tests.e2e.conftest import Daemon, NewEtcd, RunDaemon
from tests.e2e.customers import PATH, Customers, Shop
from tests.e2e.test_daemon import put
from tests.e2e.test_faults_etcd import QUICK
from tests.e2e.test_ha import leads

WEB = {"ports": [{"name": "http", "port": 80}], "global": True, "affinity": "local"}
PEERS = {"east": "west", "west": "east"}
HOLD_S = 1.5
PERCENTS = (25, 50, 75, 100)
MEASURED = 300
"""Requests for each share: of even dice that comes within a point of what they are thrown for."""
POINTS_MAX = 3.0


@dataclass(slots=True)
class World:
    """Two clusters, their shops and customers; east has two meshds, of which the first leads."""

    etcds: dict[str, Etcd]
    configs: dict[str, Path]
    first: Daemon
    second: Daemon
    west: Daemon
    shops: dict[str, Shop]
    customers: Customers

    async def ask(self, method: str, path: str, body: object = None, *, status: int) -> Any:
        """Ask the meshd of east that isn't killed."""
        url = f"{self.second.url}/v1/{path}"
        async with self.second.http.request(method, url, json=body) as response:
            answer = orjson.loads(await response.read())
            assert response.status == status, answer
            return answer

    async def until(self, what: Callable[[Any], bool], name: str = "one") -> Any:
        return await self.second.until(f"/v1/operations/{name}", what)

    async def told(self) -> list[tuple[int, str]]:
        """Every `operation.set` of east's raw log: stages reached, and how it stands."""
        log = read_log(await self.etcds["east"].dump(), "/meshd/v1/local/")
        found = [event[2] for _, event in log.events if event[0] == "operation.set"]
        return [(one.get("stage", 0), one.get("progress", "running")) for one in found]


def config(folder: Path, name: str, peer: str, etcd: Etcd) -> Path:
    """Settings that let the peer announce loopback addresses, where the shops are."""
    path = folder / f"{name}.yaml"
    listed = {"name": peer, "endpoints": [etcd.endpoints], "announces": ["127.0.0.0/8"]}
    path.write_text(yaml.safe_dump({"peers": [listed]}))
    return path


@pytest.fixture
async def world(
    new_etcd: NewEtcd, run_daemon: RunDaemon, free_address: Callable[[], str], tmp_path: Path
) -> AsyncIterator[World]:
    etcds = {name: await new_etcd() for name in ("east", "west")}
    configs = {name: config(tmp_path, name, peer, etcds[peer]) for name, peer in PEERS.items()}
    async with AsyncExitStack() as stack:
        children = await stack.enter_async_context(Children(tmp_path))
        first, second, west = [
            await stack.enter_async_context(
                run_daemon(name, number, etcds[name].endpoints, None, *QUICK, config=configs[name])
            )
            for name, number in (("east", 1), ("east", 1), ("west", 2))
        ]
        shops = {}
        for name, daemon in (("east", first), ("west", west)):
            shops[name] = await Shop.open(children, name, 2, free_address)
            assert await put(daemon, PATH, WEB) in {200, 201}
            await shops[name].tell(daemon)
        customers = await stack.enter_async_context(Customers.in_town())
        for name, daemon in (("east", second), ("west", west)):
            await daemon.until(f"/v1/peers/{PEERS[name]}", lambda peer: peer["phase"] == "Ready")
            await daemon.until("/v1/tables/shop/web", lambda it: len(it["backends"]) == 4)
            await customers.follow(name, daemon)
        await customers.settle({"east": 2}, "east")
        await first.until("/v1/status", leads)
        yield World(etcds, configs, first, second, west, shops, customers)


async def migrate(world: World, **conditions: object) -> None:
    """Begin to move web from east to west."""
    plan = {
        "name": "one",
        "from": "east",
        "to": "west",
        "services": ["shop/web"],
        "steps": [{"percent": percent, "hold_s": HOLD_S} for percent in PERCENTS],
        "conditions": conditions,
    }
    await world.ask("POST", "migrations", plan, status=201)


@pytest.mark.parametrize("is_killed", [False, True], ids=["", "the leader is killed half-way"])
async def test_a_service_moves_and_no_request_fails(world: World, *, is_killed: bool) -> None:
    await migrate(world)
    await world.until(lambda one: one["stage"] == 2)
    if is_killed:
        world.first.kill()
    await world.until(lambda one: one["progress"] == "done")
    await world.customers.settle({"west": 2}, "east", "west")
    assert await world.customers.measure("east", 50) == {"west": 100}
    assert world.customers.troubles == {}
    assert world.customers.asked > 100
    assert await world.told() == [*((stage, "running") for stage in (1, 2, 3, 4)), (4, "done")]


@pytest.mark.parametrize("is_killed", [False, True], ids=["", "the leader is killed half-way"])
@pytest.mark.parametrize("trouble", ["endpoints that are not ready", "an error rate that is told"])
async def test_a_regression_half_way_rolls_it_back_and_no_request_fails(
    world: World, *, is_killed: bool, trouble: str
) -> None:
    is_told = trouble.startswith("an error")
    await migrate(world, **({"error_percent_max": 1} if is_told else {"healthy_percent_min": 75}))
    if is_told:
        await world.ask("POST", "operations/one/signal", {"error_percent": 0.1}, status=202)
    await world.until(lambda one: one["stage"] == 2)
    if is_killed:
        world.first.kill()
    if is_told:
        await world.ask("POST", "operations/one/signal", {"error_percent": 5}, status=202)
        reason = "5 % of requests fail, as was told; at most 1 % may"
    else:
        await put(world.west, f"{PATH}/endpoints/west-1", sick(world.shops["west"]))
        reason = "50 % of west's endpoints of shop/web take traffic; 75 % must"
    one = await world.until(lambda one: one["progress"] != "running")
    assert (one["progress"], one["reason"]) == ("rolled-back", reason)
    await world.customers.settle({"east": 2}, "east")
    assert await world.customers.measure("east", 50) == {"east": 100}
    assert world.customers.troubles == {}
    assert world.customers.asked > 50
    told = await world.told()
    assert len(told) == len(set(told)), "a stage was reached twice"
    assert told[-1][1] == "rolled-back"
    history = await world.second.get("/v1/history/operation/one")
    assert history["items"][0]["actor"] == "operation one of rest"


def sick(shop: Shop) -> dict[str, object]:
    server = shop.servers[0]
    return {
        "address": server.host,
        "ports": [{"name": "http", "port": server.port}],
        "ready": False,
    }


async def test_a_cluster_is_drained_dies_comes_back_and_takes_its_part_again(
    world: World, run_daemon: RunDaemon
) -> None:
    customers, east = world.customers, world.etcds["east"]
    drain = {"kind": "drain", "subjects": ["cluster"], "name": "one", "over_s": 3.0, "steps": 3}
    await world.ask("POST", "operations", drain, status=201)
    await world.until(lambda one: one["progress"] == "done")
    await customers.settle({"west": 2}, "east", "west")
    await customers.measure("east", 20)

    for daemon in (world.first, world.second):
        daemon.kill()
    await east.stop()
    world.shops["east"].child.send(signal.SIGKILL)
    await world.shops["east"].child.wait()
    await world.west.until("/v1/peers/east", lambda peer: peer["phase"] == "Stale")
    assert await customers.measure("west", 100) == {"west": 100}

    await east.start()
    await world.shops["east"].start()
    settings = world.configs["east"]
    async with run_daemon("east", 1, east.endpoints, None, *QUICK, config=settings) as again:
        world.second = again
        await again.until("/v1/peers/west", lambda peer: peer["phase"] == "Ready")
        await world.west.until("/v1/peers/east", lambda peer: peer["phase"] == "Ready")
        await customers.follow("east", again)
        await customers.read_anew("east")
        assert customers.shares("east") == {"west": 2}, "it is drained still"
        await ramp_up(world)
        assert await customers.measure("east", 50) == {"east": 100}
    assert customers.troubles == {}
    assert customers.asked > 1000


async def ramp_up(world: World) -> None:
    """Undrain east in steps, and hold each to what was foreseen of it."""
    up = {"kind": "undrain", "subjects": ["cluster"], "name": "two", "over_s": 8.0, "steps": 4}
    begun = await world.ask("POST", "operations", up, status=201)
    for number, stage in enumerate(begun["stages"], 1):
        await world.until(lambda one, n=number: one["stage"] == n, "two")  # type: ignore[misc]
        # For as long as it is measured.
        await world.ask("POST", "operations/two/pause", status=200)
        one = await world.second.get("/v1/operations/two")
        assert (one["stage"], one["progress"]) == (number, "paused")
        await world.customers.read_anew("east")
        measured = await world.customers.measure("east", MEASURED)
        foreseen = stage["shares_ppm"]["shop/web"]
        assert measured.keys() == foreseen.keys()
        for cluster, ppm in foreseen.items():
            assert abs(measured[cluster] - ppm / 10_000) < POINTS_MAX
        await world.ask("POST", "operations/two/resume", status=200)
    await world.until(lambda one: one["progress"] == "done", "two")
