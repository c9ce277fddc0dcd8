"""What an etcd may do to its own meshd, and to those who read it, by the raw logs."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import Any

import pytest

from chaos.etcds import Etcd
from chaos.raw import Log, backends, check_acknowledged, check_replica, read_log
from chaos.wire import Mode
from tests.e2e.conftest import Daemon, NewEtcd, NewWire, RunDaemon
from tests.e2e.test_daemon import SERVICE, put

QUICK = (
    "replication.backoff_max_s=0.5",
    "replication.silent_after_s=2",
    "replication.slow_retry_s=1",
    "replication.recycle_after_s=5",
    "etcd.call_timeout_s=1",
)
WEB = "/v1/services/shop/web"


async def define(*daemons: Daemon) -> None:
    for daemon in daemons:
        assert await put(daemon, WEB, SERVICE) in {200, 201}


class Client:
    """Writes endpoints with idempotency keys, again and again until each was acknowledged."""

    def __init__(self, *daemons: Daemon) -> None:
        self.daemons = list(daemons)
        self.asked: list[str] = []
        self.acknowledged: list[str] = []

    async def write(self, count: int) -> None:
        for _ in range(count):
            number = len(self.asked)
            self.asked.append(f"key-{number}")
            await self._until_done(number)
            self.acknowledged.append(f"key-{number}")

    async def _until_done(self, number: int) -> None:
        body = {"address": f"10.0.{number // 200}.{number % 200 + 1}"}
        path = f"{WEB}/endpoints/e{number}"
        async with asyncio.timeout(60):
            while True:
                for daemon in self.daemons:
                    if await put(daemon, path, body, key=f"key-{number}") in {200, 201}:
                        return
                await asyncio.sleep(0.1)

    def check(self, log: Log) -> None:
        check_acknowledged(log, self.acknowledged, self.asked)


async def settled(reader: Daemon, peer: str, theirs: Etcd) -> None:
    """Wait until a reader has all that the peer's raw log has, and has kept it."""
    export = read_log(await theirs.dump(), "/meshd/v1/export/mesh/")
    head = export.head

    def is_there(item: dict[str, Any]) -> bool:
        place = (item["log_id"], item["seq"], item["replica_seq"], item["phase"])
        return place == (head["log_id"], head["seq"], head["seq"], "Ready")

    await reader.until(f"/v1/peers/{peer}", is_there)


async def check_tables(own: Etcd, daemon: Daemon, name: str, peers: dict[str, Etcd]) -> None:
    """I6, I11: replicas are the peers' logs, and the table is what the raw logs come to."""
    keys = await own.dump()
    exports = {peer: await etcd.dump() for peer, etcd in peers.items()}
    for peer, theirs in exports.items():
        check_replica(keys, theirs, peer)
    expected = backends(
        name,
        {peer: read_log(theirs, "/meshd/v1/export/mesh/") for peer, theirs in exports.items()},
        read_log(keys, "/meshd/v1/local/"),
    )
    table = await daemon.get("/v1/tables")
    found = {
        (f"{service['namespace']}/{service['name']}", backend["cluster"], backend["name"])
        for service in table["services"]
        for backend in service["backends"]
        if backend["eligible"]
    }
    assert found == expected


def reached(seq: int) -> Callable[[Any], bool]:
    """Whether a status says that the local log has come so far."""
    return lambda status: bool(status["local"] and status["local"]["seq"] >= seq)


@pytest.mark.timeout(600)  # for --kills 50
async def test_fault_1_kills_at_any_moment_lose_and_double_nothing(
    new_etcd: NewEtcd, run_daemon: RunDaemon, request: pytest.FixtureRequest
) -> None:
    etcd = await new_etcd()
    kills = int(request.config.getoption("--kills"))
    client = Client()
    async with asyncio.TaskGroup() as tasks:
        writing: asyncio.Task[None] | None = None
        for life in range(kills):
            async with run_daemon("east", 1, etcd.endpoints, {}, *QUICK) as east:
                client.daemons = [east]
                await define(east)
                if writing is None:
                    writing = tasks.create_task(client.write(30 * kills))
                wanted = 25 * (life + 1)
                await east.until("/v1/status", reached(wanted))
                east.kill()
                await east.process.wait()
        async with run_daemon("east", 1, etcd.endpoints, {}, *QUICK) as east:
            client.daemons = [east]
            assert writing is not None
            await writing
    client.check(read_log(await etcd.dump(), "/meshd/v1/local/"))


@pytest.mark.kills_etcd
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
async def test_fault_3_one_member_of_three_is_not_missed(
    new_etcd: NewEtcd, run_daemon: RunDaemon, how: int
) -> None:
    etcd = await new_etcd(3)
    async with run_daemon("east", 1, etcd.endpoints, {}, *QUICK) as east:
        await define(east)
        client = Client(east)
        await client.write(10)
        etcd.members[0].send(how)
        await client.write(20)
        if how == signal.SIGSTOP:
            etcd.members[0].send(signal.SIGCONT)
        else:
            await etcd.members[0].kill()
            await etcd.start()
        await client.write(10)
    client.check(read_log(await etcd.dump(), "/meshd/v1/local/"))


@pytest.mark.kills_etcd
async def test_fault_5_without_a_quorum_writes_stop_and_readers_see_it(
    new_etcd: NewEtcd, run_daemon: RunDaemon
) -> None:
    own, theirs = await new_etcd(3), await new_etcd()
    more = (*QUICK, "writer.submit_timeout_s=1")
    async with (
        run_daemon("east", 1, own.endpoints, {}, *more) as east,
        run_daemon("west", 2, theirs.endpoints, {"east": own.endpoints}, *more) as west,
    ):
        await define(east, west)
        client = Client(east)
        await client.write(5)
        await settled(west, "east", own)
        before = (await west.get("/v1/tables/shop/web"))["backends"]
        for member in own.members[:2]:
            member.send(signal.SIGSTOP)
        assert await put(east, f"{WEB}/endpoints/x", {"address": "10.9.9.9"}) in {503, 504}
        assert len((await east.get("/v1/tables/shop/web"))["backends"]) == 5
        await west.until("/v1/peers/east", lambda it: it["phase"] == "Stale")
        assert (await west.get("/v1/tables/shop/web"))["backends"] == before
        for member in own.members[:2]:
            member.send(signal.SIGCONT)
        await client.write(5)
        await settled(west, "east", own)
        await check_tables(theirs, west, "west", {"east": own})
    client.check(read_log(await own.dump(), "/meshd/v1/local/"))


SHORT = (
    "retention.check_every_s=0.2",
    "retention.snapshot_every_events=20",
    "retention.keep_events=40",
    "retention.cap_events=60",
)


@pytest.mark.parametrize("is_cut", [False, True], ids=["compacted", "cut"])
async def test_fault_7_history_and_records_that_are_gone_are_no_loss(
    new_etcd: NewEtcd, run_daemon: RunDaemon, *, is_cut: bool
) -> None:
    own, theirs = await new_etcd(), await new_etcd()
    retention = SHORT if is_cut else ()
    async with run_daemon("east", 1, own.endpoints, {}, *QUICK, *retention) as east:
        await define(east)
        client = Client(east)
        async with run_daemon("west", 2, theirs.endpoints, {"east": own.endpoints}, *QUICK) as west:
            await define(west)
            await client.write(5)
            await put(east, "/v1/services/shop/gone", SERVICE)
            await settled(west, "east", own)
        await east.http.delete(f"{east.url}/v1/services/shop/gone")
        await client.write(120)
        while is_cut and (await east.get("/v1/logs"))["items"][1]["first_seq"] <= 10:
            # It is cut behind the snapshot before the newest; who writes fast has one of all.
            await client.write(20)
        await own.compact()
        async with run_daemon("west", 2, theirs.endpoints, {"east": own.endpoints}, *QUICK) as west:
            await settled(west, "east", own)
            peer = await west.get("/v1/peers/east")
            assert (peer["forks"], peer["records_duplicate"]) == (0, 0)
            await check_tables(theirs, west, "west", {"east": own})
    log = read_log(await own.dump(), "/meshd/v1/local/")
    if is_cut:
        assert log.first_seq > 10
    else:
        client.check(log)


@pytest.mark.kills_etcd
async def test_fault_8_an_etcd_restored_from_an_old_backup_is_another_generation(
    new_etcd: NewEtcd, run_daemon: RunDaemon
) -> None:
    own, theirs = await new_etcd(), await new_etcd()
    async with run_daemon("west", 2, theirs.endpoints, {"east": own.endpoints}, *QUICK) as west:
        await define(west)
        async with run_daemon("east", 1, own.endpoints, {}, *QUICK) as east:
            await define(east)
            await Client(east).write(3)
            backup = await own.backup()
            await put(east, f"{WEB}/endpoints/lost", {"address": "10.0.9.9"})
            await settled(west, "east", own)
        await own.restore(backup)
        await own.start()
        async with run_daemon("east", 1, own.endpoints, {}, *QUICK) as east:
            # As long as the old one was, and longer: the seqs that west had read are other events.
            for name in ("other", "more"):
                await put(east, f"{WEB}/endpoints/{name}", {"address": "10.0.8.8"})
            await settled(west, "east", own)
            assert (await west.get("/v1/peers/east"))["forks"] >= 1
            await check_tables(theirs, west, "west", {"east": own})
            names = {one["name"] for one in (await west.get("/v1/tables/shop/web"))["backends"]}
            assert names == {"e0", "e1", "e2", "other", "more"}


@pytest.mark.kills_etcd
@pytest.mark.parametrize("events", [2, 40], ids=["shorter", "longer"])
async def test_fault_9_a_wiped_etcd_is_another_generation_however_long(
    new_etcd: NewEtcd, run_daemon: RunDaemon, events: int
) -> None:
    own, theirs = await new_etcd(), await new_etcd()
    async with run_daemon("west", 2, theirs.endpoints, {"east": own.endpoints}, *QUICK) as west:
        await define(west)
        async with run_daemon("east", 1, own.endpoints, {}, *QUICK) as east:
            await define(east)
            await Client(east).write(20)
            await settled(west, "east", own)
        await own.wipe()
        await own.start()
        async with run_daemon("east", 1, own.endpoints, {}, *QUICK) as east:
            await define(east)
            for number in range(events):
                await put(east, f"{WEB}/endpoints/n{number}", {"address": f"10.1.0.{number + 1}"})
            await settled(west, "east", own)
            assert (await west.get("/v1/peers/east"))["forks"] >= 1
            await check_tables(theirs, west, "west", {"east": own})


async def test_fault_29_a_lost_answer_is_one_event(
    new_etcd: NewEtcd, new_wire: NewWire, run_daemon: RunDaemon
) -> None:
    etcd = await new_etcd()
    wire = await new_wire(etcd.endpoints)
    async with run_daemon("east", 1, wire.listen, {}, *QUICK) as east:
        await define(east)
        client = Client(east)
        for _ in range(4):
            before = await revision(etcd)
            async with asyncio.TaskGroup() as tasks:
                wire.set_mode(Mode.NO_REPLIES)
                tasks.create_task(client.write(1))
                while await revision(etcd) == before:
                    continue
                wire.set_mode(Mode.CUT)
                wire.set_mode(Mode.PASS)
    log = read_log(await etcd.dump(), "/meshd/v1/local/")
    client.check(log)
    assert len(client.acknowledged) == 4


async def revision(etcd: Etcd) -> int:
    keys = await etcd.dump("/meshd/v1/local/head")
    return next(iter(keys.values()))[1]
