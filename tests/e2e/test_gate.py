"""Two real daemons that reach each other's etcd through gates only."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from meshd.edges.embedded import EmbeddedEtcd
from tests.conftest import StartEtcd
from tests.e2e.conftest import Daemon, RunDaemon
from tests.e2e.test_secure import QUICK, SERVICE, backends, put

BOTH = {"10.1.0.1", "10.2.0.1"}


@dataclass(frozen=True, slots=True)
class Site:
    """One cluster: its etcd, and the address of its gate."""

    name: str
    number: int
    etcd: EmbeddedEtcd
    gate: str
    files: Path

    def password(self, reader: str) -> Path:
        """The file that its gate takes a reader's password from."""
        return self.files / f"{self.name}-{reader}"

    def run(
        self, run_daemon: RunDaemon, peer: Site, *more: str
    ) -> AbstractAsyncContextManager[Daemon]:
        """Run a meshd that has a gate for the peer, and follows it through the peer's."""
        for file in (self.password(peer.name), peer.password(self.name)):
            file.write_text(f"password in {file.name}\n")
        # What the gate asks for and what the peer says are in two files, as they would be.
        theirs = self.files / f"{self.name}-at-{peer.name}"
        theirs.write_text(peer.password(self.name).read_text())
        reader = f"{{name: {peer.name}, password_file: {self.password(peer.name)}}}"
        followed = (
            f"{{name: {peer.name}, endpoints: ['{peer.gate}'], username: {self.name},"
            f" password_file: {theirs}}}"
        )
        return run_daemon(
            *(self.name, self.number, self.etcd.config.client_address, {}),
            *(f"gate.listen={self.gate}", f"gate.readers=[{reader}]", f"peers=[{followed}]"),
            *(*QUICK, *more),
        )


@pytest.fixture
async def sites(
    start_etcd: StartEtcd, tmp_path: Path, free_address: Callable[[], str]
) -> tuple[Site, Site]:
    return (
        Site("east", 1, await start_etcd(), free_address(), tmp_path),
        Site("west", 2, await start_etcd(), free_address(), tmp_path),
    )


async def define(daemon: Daemon, address: str) -> None:
    await put(daemon, "/v1/services/shop/web", SERVICE)
    await put(daemon, "/v1/services/shop/web/endpoints/web-0", {"address": address})


async def both_are_served(daemon: Daemon, peer: str) -> Any:
    await daemon.until(f"/v1/peers/{peer}", lambda seen: seen["phase"] == "Ready")
    return await daemon.until("/v1/tables/shop/web", lambda table: backends(table) == BOTH)


async def count(daemon: Daemon, metric: str) -> float:
    """A counter of what was read of east."""
    async with daemon.http.get(f"{daemon.url}/metrics") as response:
        lines = (await response.text()).splitlines()
    start = f'{metric}_total{{peer="east"}} '
    return sum(float(line.removeprefix(start)) for line in lines if line.startswith(start))


async def test_two_daemons_follow_each_other_through_gates_and_resume_where_they_were(
    sites: tuple[Site, Site], run_daemon: RunDaemon
) -> None:
    east, west = sites
    async with west.run(run_daemon, east) as in_west:
        async with east.run(run_daemon, west) as in_east:
            await define(in_east, "10.1.0.1")
            await define(in_west, "10.2.0.1")
            await both_are_served(in_east, "west")
            before = await both_are_served(in_west, "east")
            in_east.kill(signal.SIGKILL)
            await in_east.process.wait()
        # Without a meshd there is no gate: the peer says so and keeps what it had.
        await in_west.until(
            "/v1/peers/east", lambda seen: seen["phase"] == "Stale" and bool(seen["reason"])
        )
        during = await in_west.get("/v1/tables/shop/web")
        assert backends(during) == backends(before)
        read = await count(in_west, "meshd_replica_records_read")
        async with east.run(run_daemon, west) as in_east:
            await both_are_served(in_west, "east")
            head = (await in_east.get("/v1/status"))["vector"]["east"]["seq"]
            await put(in_east, "/v1/services/shop/web/endpoints/web-0", {"address": "10.1.0.9"})
            moved = {"10.1.0.9", "10.2.0.1"}
            await in_west.until("/v1/tables/shop/web", lambda table: backends(table) == moved)
            # One record more than before, though all of the log was there to be read again.
            assert head > 1
            assert await count(in_west, "meshd_replica_records_read") == read + 1
            assert await count(in_west, "meshd_replica_records_duplicate") == 0


async def test_a_revoked_reader_is_cut_and_its_table_stays(
    sites: tuple[Site, Site], run_daemon: RunDaemon
) -> None:
    east, west = sites
    async with (
        east.run(run_daemon, west) as in_east,
        # Its watch is not opened anew by itself: whatever ends it is the gate.
        west.run(run_daemon, east, "replication.recycle_after_s=3600") as in_west,
    ):
        await define(in_east, "10.1.0.1")
        await define(in_west, "10.2.0.1")
        for daemon, peer in ((in_east, "west"), (in_west, "east")):
            await both_are_served(daemon, peer)
        file = east.password("west")
        was = file.read_text()
        file.write_text("another one\n")
        await in_west.until(
            "/v1/peers/east", lambda seen: seen["phase"] == "Stale" and "auth" in seen["reason"]
        )
        assert backends(await in_west.get("/v1/tables/shop/web")) == BOTH
        await in_east.until("/v1/peers/west", lambda seen: seen["phase"] == "Ready")
        # What happens meanwhile isn't heard of, and is when the password is right again.
        await put(in_east, "/v1/services/shop/web/endpoints/web-0", {"address": "10.1.0.9"})
        assert backends(await in_west.get("/v1/tables/shop/web")) == BOTH
        file.write_text(was)
        moved = {"10.1.0.9", "10.2.0.1"}
        await in_west.until("/v1/tables/shop/web", lambda table: backends(table) == moved)
