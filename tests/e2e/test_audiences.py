"""Audiences on real daemons and secured etcds: what a reader of one can't find out (I17), by any
way that its etcd user or the gate leaves it; hub and spoke; data residency.
"""

from __future__ import annotations

import asyncio
import json
import sys
import zlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest

from chaos.raw import Keys, read_log
from meshd.edges.embedded import EmbeddedEtcd
from meshd.edges.etcd import EtcdKv, EtcdTarget
from meshd.edges.etcd.connection import Connection
from meshd.edges.etcd.pb import etcd_pb2 as pb
from meshd.edges.memory.limits import is_in_range
from meshd.model.errors import DeniedError
from tests.conftest import StartEtcd
from tests.e2e.conftest import Daemon, RunDaemon
from tests.e2e.test_recovery import meshd
from tests.e2e.test_secure import QUICK, backends, put, run
from tests.edges.gates import Raw, raw_calls
from tests.edges.test_etcd_secure import nested

ConnectTo = Callable[..., EtcdKv]
EXPORT = "/meshd/v1/export/the-eu/"
SHORT = (
    "retention.check_every_s=0.2",
    "retention.snapshot_every_events=10",
    "retention.keep_events=20",
    "retention.cap_events=30",
)
SECRETS = (b"hush", b"vault", b"10.77.", b"ledger", b"10.88.", b"the-us", b"idem-", b"audiences")
"""What is only in the mesh log, only in that of another audience, or in none."""
HOLES = {"nested transaction": "CVE-2026-33343", "watch without an end": "CVE-2026-73499"}
"""What no role closes in some etcds: `meshd etcd secure` names it there (Decision 23)."""


def to(*audiences: str) -> dict[str, Any]:
    ports = [{"name": "http", "port": 80}]
    return {"ports": ports, "global": True, "export": {"audiences": list(audiences)}}


@dataclass(slots=True)
class Site:
    """One cluster: its etcd, the users that may read there, and what it follows."""

    name: str
    number: int
    etcd: EmbeddedEtcd
    files: Path
    audiences: str = ""
    more: tuple[str, ...] = ()
    readers: dict[str, str] = field(default_factory=dict)
    follows: list[Site] = field(default_factory=list)

    @property
    def address(self) -> str:
        return self.etcd.config.client_address

    def password(self, user: str) -> Path:
        file = self.files / f"{self.name}-{user}"
        file.write_text(f"{user}-in-{self.name}\n")
        return file

    async def secure(self) -> str:
        """Run `meshd etcd secure` for all readers; returns what it says."""
        options: list[str] = []
        for user, audience in self.readers.items():
            options += ["--peer", f"{user}:{audience}"]
            options += ["--peer-password-file", f"{user}={self.password(user)}"]
        status, _, said = await run(
            *(sys.executable, "-m", "meshd", "etcd", "secure", *options),
            *("--set", f"cluster.name={self.name}", "--set", f"cluster.id={self.number}"),
            *("--set", f"etcd.endpoints={self.address}"),
            *("--root-password-file", str(self.password("root"))),
            *("--own-password-file", str(self.password("meshd"))),
        )
        assert status == 0, said
        return said

    @asynccontextmanager
    async def running(self, run_daemon: RunDaemon) -> AsyncIterator[Daemon]:
        peers = ", ".join(
            f"{{name: {peer.name}, endpoints: ['{peer.address}'], username: {self.name},"
            f" audience: {peer.readers[self.name]}, password_file: {peer.password(self.name)}}}"
            for peer in self.follows
        )
        async with run_daemon(
            *(self.name, self.number, self.address, {}, f"cluster.audiences={self.audiences}"),
            *("etcd.username=meshd", f"etcd.password_file={self.password('meshd')}"),
            *(f"peers=[{peers}]", *QUICK, *self.more),
        ) as daemon:
            yield daemon

    async def dump(self, connect_to: ConnectTo) -> dict[str, tuple[bytes, int]]:
        """All that is in its etcd, as root reads it."""
        password = self.password("root").read_text().strip()
        kv = connect_to(self.etcd, username="root", password=password)
        found = await kv.range(b"\x00", b"\x00")
        return {one.key.decode(): (one.value, one.mod_revision) for one in found.kvs}


# --- what can't be found out ----------------------------------------------------------------------


async def fill(east: Daemon) -> None:
    """Make it hold what is offered to everybody, to some and to none, and make that change."""
    for key, audiences in {
        "hush/vault": ("mesh",),
        "hush/ledger": ("the-us", "mesh"),
        "shop/web": ("the-eu", "the-us"),
    }.items():
        await put(east, f"/v1/services/{key}", to(*audiences))
    await put(east, "/v1/services/hush/own", {"export": {"audiences": ["the-eu"]}})
    for number in range(60):
        for key, address in (("hush/vault", "10.77.0"), ("hush/ledger", "10.88.0")):
            body = {"address": f"{address}.{1 + number % 9}", "weight": number}
            await put(east, f"/v1/services/{key}/endpoints/secret-{number % 3}", body)
        body = {"address": f"10.1.0.{1 + number % 9}", "weight": 1 + number}
        await put(east, f"/v1/services/shop/web/endpoints/web-{number % 3}", body)
        # What changes for others alone, and what was never there for this audience.
        others = ("the-eu",) if number % 2 else ("the-eu", "the-us")
        await put(east, "/v1/services/shop/web", to(*others))
    async with east.http.put(
        f"{east.url}/v1/services/shop/web/endpoints/web-0",
        json={"address": "10.1.0.1"},
        headers={"Idempotency-Key": "idem-1"},
    ) as response:
        assert response.status == 200


SEQS = 1 + 1 + 60 + 1
"""What the audience is told of all that: the cluster, its service, the changes of endpoints."""


async def token_of(address: str, user: str, password: str) -> str:
    connection = Connection(EtcdTarget(endpoints=(address,), username=user, password=password))
    try:
        deadline_s = asyncio.get_running_loop().time() + 5
        return await connection.token(await connection.pick(deadline_s), deadline_s) or ""
    finally:
        await connection.close()


def ranges(keys: Mapping[str, object]) -> set[tuple[bytes, bytes]]:
    """Every key, every folder of it, and from every key to the next, to its folder's end and on."""
    found = {(b"\x00", b"\x00"), (b"/", b"0"), (b"", b"\x00")}
    for key in (key.encode() for key in keys):
        found |= {(key, b""), (key, key + b"\x00"), (key, b"\x00")}
        folder = key
        while b"/" in folder:
            folder = folder.rpartition(b"/")[0]
            found |= {(folder + b"/", folder + b"0"), (folder, folder + b"0"), (key, folder + b"0")}
    return found


UNARY = (
    *("Lease/LeaseLeases", "Lease/LeaseTimeToLive", "Cluster/MemberList", "Maintenance/Alarm"),
    *("Maintenance/Status", "Maintenance/Hash", "Maintenance/HashKV", "Auth/UserList"),
    *("Auth/UserGet", "Auth/RoleList", "Auth/RoleGet", "Auth/AuthStatus", "Maintenance/Snapshot"),
)


@dataclass(slots=True)
class Spy:
    """Tries everything with one user at one door. seen: what came back, by the way it came."""

    call: Raw
    token: str
    kv: EtcdKv
    seen: dict[str, list[bytes]] = field(default_factory=dict)
    read: dict[str, tuple[bytes, int]] = field(default_factory=dict)

    def note(self, way: str, *raws: bytes) -> None:
        self.seen.setdefault(way, []).extend(raws)

    async def ask(self, way: str, method: str, raw: bytes) -> bytes | None:
        try:
            answer: bytes = await self.call(method, raw, self.token)
        except grpc.aio.AioRpcError:
            return None
        self.note(way, answer)
        return answer

    async def scan(self, keys: Mapping[str, object]) -> None:
        """Read by range, in transactions, by watches from the first revision, and ask the rest."""
        for key, end in sorted(ranges(keys)):
            request = pb.RangeRequest(key=key, range_end=end)
            answer = await self.ask("range", "KV/Range", request.SerializeToString())
            for kv in pb.RangeResponse.FromString(answer or b"").kvs:
                self.read[kv.key.decode()] = (kv.value, kv.mod_revision)
            inner = pb.TxnRequest(success=[pb.RequestOp(request_range=request)])
            await self.ask("transaction", "KV/Txn", inner.SerializeToString())
        for name in keys:
            await self._ask_of(name.encode())
        for method in UNARY:
            for raw in (b"", pb.AuthUserGetRequest(name="spy").SerializeToString()):
                await self.ask(method, method, raw)

    async def _ask_of(self, key: bytes) -> None:
        compare = pb.Compare(key=key, target=pb.Compare.MOD, mod_revision=1)
        found = await self.ask(
            "compare", "KV/Txn", pb.TxnRequest(compare=[compare]).SerializeToString()
        )
        # Already whether a key is there would be an answer; the gate takes no compares at all.
        assert found is None or is_open(key.decode()), key
        inside = nested(pb.RequestOp(request_range=pb.RangeRequest(key=key)))
        await self.ask("nested transaction", "KV/Txn", inside.SerializeToString())
        if not key.decode().endswith(tuple("123456789")):
            # Of the records every tenth will do: a watch takes milliseconds, and a range none.
            folder = key.rpartition(b"/")[0]
            await self._watch("watch", key, b"")
            await self._watch("watch", folder + b"/", folder + b"0")
            await self._watch("watch without an end", key, b"\x00")

    async def _watch(self, way: str, key: bytes, end: bytes) -> None:
        """Take what a watch from the first revision on tells, up to what was read of its range."""
        inside = [
            revision
            for name, (_, revision) in self.read.items()
            if is_in_range(name.encode(), key, end)
        ]
        try:
            async with self.kv.watch(key, end, start_revision=1) as responses, asyncio.timeout(10):
                assert (await anext(responses)).is_created
                revision = -1
                while revision < max(inside, default=0):
                    for event in (await anext(responses)).events:
                        self.note(way, event.kv.key, event.kv.value)
                        revision = event.kv.mod_revision
        except DeniedError:
            return

    def told(self, way: str) -> list[bytes]:
        """What one way told, with every part of a snapshot as it is before it is compressed."""
        raws = list(self.seen.get(way, ()))
        parts = [value for key, (value, _) in self.read.items() if _is_part(key)]
        return raws + ([zlib.decompress(part) for part in parts] if way == "range" else [])


def is_open(key: str) -> bool:
    return key == "/meshd/v1/cluster" or key.startswith(EXPORT)


def _is_part(key: str) -> bool:
    return "/snapshot/" in key and not key.endswith("manifest")


def log_ids(keys: Keys) -> set[str]:
    """Of all logs but the one that may be read."""
    head = json.loads(keys["/meshd/v1/local/head"][0])
    others = [export for name, export in head["exports"].items() if name != "the-eu"]
    assert len(others) == 2
    return {str(one["log_id"]) for one in (head, *others)}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("door", ["etcd", "gate"])
async def test_nothing_of_another_audience_can_be_read_by_any_key_nor_is_a_seq_missing(
    start_etcd: StartEtcd,
    run_daemon: RunDaemon,
    connect_to: ConnectTo,
    free_address: Callable[[], str],
    tmp_path: Path,
    door: str,
) -> None:
    gate = free_address()
    east = Site("east", 1, await start_etcd(), tmp_path, "the-eu,the-us", SHORT)
    east.readers["spy"] = "the-eu"
    reader = f"{{name: spy, audience: the-eu, password_file: {east.password('spy')}}}"
    east.more += (f"gate.listen={gate}", f"gate.readers=[{reader}]")
    async with east.running(run_daemon) as in_east:
        said = await east.secure()
        await fill(in_east)
        # What is told is in records and in snapshots.
        await in_east.until(
            "/v1/logs", lambda logs: all(one["first_seq"] > 1 for one in logs["items"])
        )
        address = east.address if door == "etcd" else gate
        user = {"username": "spy", "password": "spy-in-east"}
        async with raw_calls(address) as call:
            spy = Spy(call, await token_of(address, *user.values()), connect_to(address, **user))
            known = await east.dump(connect_to)
            await spy.scan(known)
        status = await in_east.get("/v1/status")
        assert {one["audience"] for one in status["exports"]} == {"mesh", "the-eu", "the-us"}
    # It read all that it may: its own log, dense from its snapshot on, and the descriptor.
    assert "/meshd/v1/cluster" in spy.read
    assert all(map(is_open, spy.read))
    log = read_log(spy.read, EXPORT)
    assert log.state["service"].keys() == {"shop/web"}
    assert len(log.state["endpoint"]) == 3
    assert log.first_seq + len(log.events) - 1 == log.head["seq"] == SEQS
    assert any(_is_part(key) for key in spy.read)
    assert f"{EXPORT}heartbeat" in spy.read
    # And nothing else, in none of the bytes that came back by any way.
    numbers = log_ids(known)
    secrets = (*SECRETS, *map(str.encode, numbers), *map(bytes.fromhex, numbers))
    leaks = {
        way: {secret for raw in spy.told(way) for secret in secrets if secret in raw}
        for way in spy.seen
    }
    assert {"range", "transaction", "watch"} <= leaks.keys()
    for way, leaked in leaks.items():
        is_named = door == "etcd" and way in HOLES and HOLES[way] in said
        assert not leaked or is_named, f"{way} tells {leaked}"


# --- hub and spoke, residency ---------------------------------------------------------------------


@pytest.fixture
async def sites(start_etcd: StartEtcd, tmp_path: Path) -> tuple[Site, Site, Site]:
    """A hub and two spokes, whose etcds are secured for what each may read."""
    hub = Site("hub", 1, await start_etcd(), tmp_path, "spokes,the-eu,the-us")
    west = Site("west", 2, await start_etcd(), tmp_path, "the-hub")
    south = Site("south", 3, await start_etcd(), tmp_path, "the-hub")
    for spoke in (west, south):
        spoke.readers["hub"] = "the-hub"
        spoke.follows.append(hub)
        hub.readers[spoke.name] = "spokes"
        hub.follows.append(spoke)
    return hub, west, south


async def serve(daemon: Daemon, name: str, number: int, *audiences: str) -> None:
    """Offer the shared service to some, and one of its own to `mesh`."""
    await put(daemon, "/v1/services/shop/web", to(*audiences))
    await put(daemon, f"/v1/services/own/{name}", to("mesh"))
    for host in (1, 2):
        body = {"address": f"10.{number}.0.{host}"}
        await put(daemon, f"/v1/services/shop/web/endpoints/{name}-{host}", body)
        await put(daemon, f"/v1/services/own/{name}/endpoints/{name}-{host}", body)


def hosts(*numbers: int) -> set[str]:
    return {f"10.{number}.0.{host}" for number in numbers for host in (1, 2)}


async def sees(daemon: Daemon, *numbers: int) -> None:
    table = "/v1/tables/shop/web"
    await daemon.until(table, lambda answer: backends(answer) == hosts(*numbers))


async def test_a_spoke_sees_the_hub_and_nothing_of_another_spoke(
    sites: tuple[Site, Site, Site], run_daemon: RunDaemon, connect_to: ConnectTo
) -> None:
    hub, west, south = sites
    for site in sites:
        await site.secure()
    async with (
        hub.running(run_daemon) as in_hub,
        west.running(run_daemon) as in_west,
        south.running(run_daemon) as in_south,
    ):
        await serve(in_hub, "hub", 1, "spokes")
        await serve(in_west, "west", 2, "the-hub")
        await serve(in_south, "south", 3, "the-hub")
        await sees(in_hub, 1, 2, 3)
        await sees(in_west, 1, 2)
        await sees(in_south, 1, 3)
        # As the hub says by what they read, and as it can't be known of the hub in a spoke.
        path = "/v1/tables?perspective=west"
        seen = await in_hub.until(path, lambda table: not table["unsure"])
        assert {name for one in seen["services"] for name in backends(one)} == hosts(1, 2)
        own = {one["name"]: one["digest"] for one in seen["services"]}
        table = {
            one["name"]: one["digest"] for one in (await in_west.get("/v1/tables"))["services"]
        }
        assert own.items() <= table.items()
        assert own.keys() == {"web"}
        unsure = await in_west.until(
            "/v1/tables?perspective=hub", lambda table: table["unsure"] == ["south"]
        )
        assert "10.3.0.1" not in str(unsure)
    # Nothing of the other is in a spoke's etcd, in whatever form.
    for spoke, other in ((west, b"10.3.0"), (south, b"10.2.0")):
        keys = await spoke.dump(connect_to)
        copied = [value for key, (value, _) in keys.items() if "/replica/" in key]
        assert [value for value in copied if b"10.1.0.1" in value]
        assert not [value for value in copied if other in value or b"own/" in value]


async def at_one_revision(site: Site, connect_to: ConnectTo, log: str) -> None:
    """The last record of an export log came with the last one of the local log."""
    keys = await site.dump(connect_to)
    last = [
        max((key, revision) for key, (_, revision) in keys.items() if key.startswith(root))
        for root in ("/meshd/v1/local/log/", f"/meshd/v1/export/{log}/log/")
    ]
    assert last[0][1] == last[1][1]
    read_log(keys, f"/meshd/v1/export/{log}/")
    read_log(keys, "/meshd/v1/local/")


async def test_data_stays_where_it_is_offered_until_it_is_offered_elsewhere(
    sites: tuple[Site, Site, Site], run_daemon: RunDaemon, connect_to: ConnectTo
) -> None:
    hub, in_eu, in_us = sites
    hub.readers = {"west": "the-eu", "south": "the-us"}
    await hub.secure()
    for spoke in (in_eu, in_us):
        await spoke.secure()
    async with (
        hub.running(run_daemon) as east,
        in_eu.running(run_daemon) as west,
        in_us.running(run_daemon) as south,
    ):
        for daemon in (west, south):
            await put(daemon, "/v1/services/shop/web", to("mesh"))
        await serve(east, "hub", 1, "the-eu")
        await sees(west, 1)
        await south.until("/v1/peers/hub", lambda peer: peer["phase"] == "Ready")
        await sees(south)
        # Widened: all endpoints at once, in the transaction of the change.
        await put(east, "/v1/services/shop/web", to("the-eu", "the-us"))
        await at_one_revision(hub, connect_to, "the-us")
        await sees(south, 1)
        # Narrowed: withdrawn there, and nowhere else.
        await put(east, "/v1/services/shop/web", to("the-us"))
        await at_one_revision(hub, connect_to, "the-eu")
        await sees(west)
        await sees(south, 1)
        problem = await refused(east, to("the-eu", "asia"))
        assert "this cluster has no audience 'asia' (add it to cluster.audiences" in problem
    keys = await hub.dump(connect_to)
    assert [key for _, (key, *_) in read_log(keys, "/meshd/v1/export/the-us/").events] == [
        "cluster.set",
        "service.set",
        "endpoint.set",
        "endpoint.set",
    ]
    assert read_log(keys, "/meshd/v1/export/the-eu/").state["service"] == {}


async def refused(daemon: Daemon, body: object) -> str:
    url = f"{daemon.url}/v1/services/shop/web"
    async with daemon.http.put(url, json=body) as response:
        assert response.status == 422, await response.text()
        return await response.text()


def flags(address: str, *more: str) -> tuple[str, ...]:
    names = ("cluster.name=hub", "cluster.id=1", "cluster.audiences=the-eu,the-us")
    pairs = (*names, f"etcd.endpoints={address}", *more)
    return tuple(part for pair in pairs for part in ("--set", pair))


async def export_seqs(daemon: Daemon) -> dict[str, int]:
    return {one["audience"]: one["seq"] for one in (await daemon.get("/v1/status"))["exports"]}


async def told_only_eu(again: Daemon) -> None:
    """What was offered to one audience is there again, and offered to no other."""
    logs = {one["log"]: one for one in (await again.get("/v1/logs"))["items"]}
    items = {name: logs[f"export/{name}"]["snapshot_items"] for name in ("mesh", "the-eu")}
    assert items["the-eu"] == 4
    assert items["mesh"] in {1, 4}
    before = await export_seqs(again)
    await put(again, "/v1/services/shop/web/endpoints/hub-1", {"address": "10.1.0.7"})
    after = await export_seqs(again)
    assert [name for name, seq in after.items() if seq != before[name]] == ["the-eu"]


async def test_audiences_survive_the_loss_of_an_etcd(
    sites: tuple[Site, Site, Site], run_daemon: RunDaemon, start_etcd: StartEtcd, tmp_path: Path
) -> None:
    hub, west, _ = sites
    hub.readers, hub.audiences, hub.follows = {"west": "the-eu"}, "the-eu,the-us", []
    for site in (hub, west):
        await site.secure()
    folder = tmp_path / "backup"
    own = ("etcd.username=meshd", f"etcd.password_file={hub.password('meshd')}")
    restored, recovered = [(await start_etcd()).config.client_address for _ in range(2)]
    async with hub.running(run_daemon) as east, west.running(run_daemon) as reader:
        await serve(east, "hub", 1, "the-eu")
        await put(reader, "/v1/services/shop/web", to("mesh"))
        await sees(reader, 1)
        seqs = await export_seqs(east)
        assert set(seqs) == {"mesh", "the-eu", "the-us"}
        said = await meshd("backup", "-o", str(folder), *flags(hub.address, *own))
        assert f"export/the-eu, to seq {seqs['the-eu']}" in said
        file = str(tmp_path / "eu.meshd-log")
        whole = ("--log", "export/the-eu", *flags(hub.address, *own))
        assert "seq 1 to " in await meshd("log", "export", "-o", file, *whole)
        await meshd("log", "verify", file)
        # A peer's copy doesn't name the audience; what it holds must be offered to nobody else.
        ask = ("recover", "--from", reader.url)
        assert "say --audience" in await meshd(*ask, *flags(recovered), status=2)
        said = await meshd(*ask, *flags(recovered), "--audience", "asia", status=2)
        assert "cluster.audiences doesn't name 'asia'" in said
        await meshd(*ask, *flags(recovered), "--audience", "the-eu")
    await meshd("restore", str(folder), *flags(restored))
    for address in (restored, recovered):
        async with run_daemon("hub", 1, address, {}, f"cluster.audiences={hub.audiences}") as again:
            await again.until("/v1/status", lambda status: len(status["exports"]) == len(seqs))
            now = await export_seqs(again)
            assert now["the-eu"] == seqs["the-eu"]
            assert address == recovered or now == seqs
            await told_only_eu(again)
    (folder / "export-the-us.meshd-log").unlink()
    empty = (await start_etcd()).config.client_address
    assert "export-the-us" in await meshd("restore", str(folder), *flags(empty), status=1)
