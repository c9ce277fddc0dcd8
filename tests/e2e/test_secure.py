"""Two real daemons whose etcds are secured by `meshd etcd secure`, each with the other's reader."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest

from meshd.edges.embedded import EmbeddedEtcd
from tests.conftest import StartEtcd
from tests.e2e.conftest import Daemon, RunDaemon

SERVICE = {"ports": [{"name": "http", "port": 80}], "global": True, "shared": True}
QUICK = (
    "replication.recycle_after_s=1",
    "replication.silent_after_s=2",
    "replication.slow_retry_s=1",
)


@dataclass(frozen=True, slots=True)
class Site:
    """One cluster: its etcd, and the files of its passwords."""

    name: str
    etcd: EmbeddedEtcd
    files: Path

    @property
    def address(self) -> str:
        return self.etcd.config.client_address

    def password(self, user: str) -> Path:
        file = self.files / f"{self.name}-{user}"
        file.write_text(f"password of {user} in {self.name}\n")
        return file

    async def secure(self, peer: str, *more: str) -> tuple[int, str, str]:
        """Run `meshd etcd secure`."""
        return await run(
            *(sys.executable, "-m", "meshd", "etcd", "secure", "--peer", peer),
            *("--set", f"cluster.name={self.name}", "--set", "cluster.id=1"),
            *("--set", f"etcd.endpoints={self.address}"),
            *("--root-password-file", str(self.password("root"))),
            *("--own-password-file", str(self.password("meshd"))),
            *("--peer-password-file", f"{peer}={self.password(peer)}"),
            *more,
        )

    def overrides(self, peer: Site) -> tuple[str, ...]:
        reader = (
            f"{{name: {peer.name}, endpoints: ['{peer.address}'], username: {self.name},"
            f" password_file: {peer.password(self.name)}}}"
        )
        own = ("etcd.username=meshd", f"etcd.password_file={self.password('meshd')}")
        return (*own, f"peers=[{reader}]", *QUICK)


async def run(*command: str) -> tuple[int, str, str]:
    """Run a program; returns its exit status and what it wrote."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    stdout, stderr = await process.communicate()
    return await process.wait(), stdout.decode(), stderr.decode()


@pytest.fixture
async def sites(start_etcd: StartEtcd, tmp_path: Path) -> tuple[Site, Site]:
    return (
        Site("east", await start_etcd(), tmp_path),
        Site("west", await start_etcd(), tmp_path),
    )


async def put(daemon: Daemon, path: str, body: object) -> None:
    async with daemon.http.put(f"{daemon.url}{path}", json=body) as response:
        assert response.status in {200, 201}, await response.text()


def backends(service: dict[str, Any]) -> set[str]:
    return {backend["address"] for backend in service.get("backends", ())}


async def test_the_command_says_what_it_does_and_shows_no_password(
    sites: tuple[Site, Site],
) -> None:
    east, _ = sites
    status, planned, _ = await east.secure("west", "--dry-run", "-o", "json")
    assert status == 0
    status, done, said = await east.secure("west", "-o", "json")
    assert status == 0
    assert orjson.loads(done)["changes"] == orjson.loads(planned)["changes"]
    assert "12 changes made" in said
    status, again, said_again = await east.secure("west", "-o", "json")
    assert (status, orjson.loads(again)["changes"]) == (0, [])
    assert "nothing to change" in said_again
    assert not [text for text in (planned, done, said, again) if "password of" in text]
    east.password("root").write_text("wrong\n")
    wrong = ("--root-password-file", str(east.password("west")))
    status, _, said = await east.secure("west", *wrong)
    assert status == 1
    assert "root can't log in" in said


async def test_two_daemons_follow_each_other_with_what_they_may_read_and_no_more(
    sites: tuple[Site, Site], run_daemon: RunDaemon
) -> None:
    east, west = sites
    # One runs before its etcd is secured: with the user in its settings it goes on.
    async with run_daemon("east", 1, east.address, {}, *east.overrides(west)) as in_east:
        await put(in_east, "/v1/services/shop/web", SERVICE)
        for site, peer in ((east, "west"), (west, "east")):
            status, _, said = await site.secure(peer)
            assert status == 0, said
        async with run_daemon("west", 2, west.address, {}, *west.overrides(east)) as in_west:
            await put(in_west, "/v1/services/shop/web", SERVICE)
            for daemon, address in ((in_east, "10.1.0.1"), (in_west, "10.2.0.1")):
                path = "/v1/services/shop/web/endpoints/web-0"
                await put(daemon, path, {"address": address})
            both = {"10.1.0.1", "10.2.0.1"}
            for daemon, peer in ((in_east, "west"), (in_west, "east")):
                await daemon.until(f"/v1/peers/{peer}", lambda seen: seen["phase"] == "Ready")
                await daemon.until("/v1/tables/shop/web", lambda table: backends(table) == both)
            await _revoke(east, "west")
            # The watch is still served by etcd; opening it anew is what ends it.
            await in_west.until(
                "/v1/peers/east",
                lambda seen: seen["phase"] == "Stale" and "permission denied" in seen["reason"],
            )
            assert backends(await in_west.get("/v1/tables/shop/web")) == both
            await in_east.until("/v1/peers/west", lambda seen: seen["phase"] == "Ready")
            # Securing it again gives the role back, and nothing else is needed.
            status, done, _ = await east.secure("west", "-o", "json")
            assert [step["action"] for step in orjson.loads(done)["changes"]] == ["grant role"]
            await in_west.until("/v1/peers/east", lambda seen: seen["phase"] == "Ready")


async def _revoke(site: Site, user: str) -> None:
    password = site.password("root").read_text().strip()
    status, _, said = await run(
        *("etcdctl", "--endpoints", site.address, "--user", f"root:{password}"),
        *("user", "revoke-role", user, "meshd-read-mesh"),
    )
    assert status == 0, said
