"""Several export logs in one mesh: who is told what, in which transaction, and what shows of it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace

import pytest
from structlog.testing import capture_logs

from meshd.daemon.starting import introduce
from meshd.edges.memory import MemoryEtcd, MemoryKv
from meshd.edges.memory.limits import TXN_OPERATIONS_MAX
from meshd.model.cluster import ClusterInfo
from meshd.model.codec import (
    Heartbeat,
    LocalHead,
    decode_heartbeat,
    decode_local_head,
    decode_record,
)
from meshd.model.command import Command, Outcome, SetCluster, SetService
from meshd.model.errors import RejectedError
from meshd.model.ids import ClusterName, EndpointKey, ServiceKey, parse_vector
from meshd.model.service import Export
from meshd.runtime.ports import Txn, TxnResult
from meshd.settings import Settings, load
from tests.mesh import LoopClock, Mesh, Running, endpoint, service
from tests.runtime.appending import EAST, SPACE, appending, events_in, prepare, records_in

pytestmark = pytest.mark.looptime

INFO = ClusterInfo(name="east", id=1)
WEST, SOUTH = ClusterName("west"), ClusterName("south")
SAID = ("cluster.set", "east")
WEB = [("service.set", "shop/web"), ("endpoint.set", "shop/web/a")]
GONE = ("service.removed", "shop/web")


@pytest.fixture
def etcd() -> MemoryEtcd:
    return MemoryEtcd(LoopClock())


def written(*audiences: str) -> SetCluster:
    return SetCluster(replace(INFO, audiences=audiences))


def offered_to(*audiences: str, key: str = "shop/web") -> SetService:
    return service(key, export=Export(audiences=audiences))


async def local_head(etcd: MemoryEtcd) -> LocalHead:
    found = await MemoryKv(etcd).range(SPACE.local.head)
    return decode_local_head(found.kvs[0].value, "head")


async def told(etcd: MemoryEtcd, audience: str) -> list[tuple[str, str]]:
    """What an export log says; it must be dense, chained and end where both heads say."""
    records = await records_in(etcd, SPACE.export(audience))
    head = (await local_head(etcd)).exports[audience]
    assert not records or records[-1].head == head
    return [(event.type, event.key) for record in records for event in record.events]


async def heartbeats(etcd: MemoryEtcd) -> dict[str, Heartbeat]:
    beats = {}
    for audience in (await local_head(etcd)).exports:
        found = await MemoryKv(etcd).range(SPACE.export(audience).heartbeat)
        beats[audience] = decode_heartbeat(found.kvs[0].value, "heartbeat")
    return beats


async def revisions(etcd: MemoryEtcd) -> dict[str, list[int]]:
    """At which revisions each log got its records."""
    logs = {"local": SPACE.local}
    logs |= {audience: SPACE.export(audience) for audience in (await local_head(etcd)).exports}
    found = {}
    for name, keys in logs.items():
        answer = await MemoryKv(etcd).range(keys.log, keys.log_end)
        found[name] = [kv.mod_revision for kv in answer.kvs]
    return found


# --- the writer -----------------------------------------------------------------------------------


async def test_every_audience_is_told_in_the_transaction_of_the_local_record(
    etcd: MemoryEtcd,
) -> None:
    async with appending(etcd) as it:
        await it.submit(written("eu", "us"))
        assert await it.submit(offered_to("eu"), endpoint("shop/web/a")) == Outcome(2, 3, 2)  # type: ignore[arg-type]
        await it.submit(offered_to("eu", "us"))
        await it.submit(offered_to("us"))
        await it.submit(written("eu"))
        await it.submit(endpoint("shop/web/a", ready=False))
    assert await told(etcd, "mesh") == [SAID]
    assert await told(etcd, "eu") == [SAID, *WEB, GONE]
    assert await told(etcd, "us") == [SAID, *WEB, GONE]
    at = await revisions(etcd)
    first, offered, widened, narrowed, unwritten, _ = at.pop("local")
    assert at == {
        "mesh": [first],
        "eu": [first, offered, narrowed],
        "us": [first, widened, unwritten],
    }


async def test_a_log_of_its_own_begins_with_its_audience_and_goes_on_when_that_comes_back(
    etcd: MemoryEtcd,
) -> None:
    async with appending(etcd) as it:
        await it.submit(written("eu"))
        began = await local_head(etcd)
        await it.submit(written())
        await it.submit(written("eu"))
    head = await local_head(etcd)
    ids = {began.local.log_id, *(export.log_id for export in began.exports.values())}
    assert len(ids) == 3
    assert head.exports["eu"].log_id == began.exports["eu"].log_id
    assert await told(etcd, "eu") == [SAID, SAID]


async def test_nothing_that_an_audience_is_not_offered_is_in_its_bytes(etcd: MemoryEtcd) -> None:
    async with appending(etcd) as it:
        await it.submit(written("the-eu", "the-us"))
        await it.submit(offered_to("mesh", "the-us"), endpoint("shop/web/a"))
        await it.submit(offered_to("the-eu", key="shop/cart"), endpoint("shop/cart/b", "10.9.9.9"))
    for audience, secrets in {
        "mesh": (b"cart", b"10.9.9.9", b"the-eu", b"the-us", b"audiences"),
        "the-eu": (b"web", b"10.0.0.1", b"the-us", b"audiences"),
    }.items():
        records = await records_in(etcd, SPACE.export(audience))
        for secret in secrets:
            assert not [record for record in records if secret in record.raw], (audience, secret)


async def test_as_many_audiences_as_there_may_be_fit_in_one_transaction(etcd: MemoryEtcd) -> None:
    """Also when each is told more than one record holds."""
    largest = 0

    class Counting(MemoryKv):
        async def commit(self, txn: Txn) -> TxnResult:
            nonlocal largest
            largest = max(largest, len(txn.success))
            return await super().commit(txn)

    names = tuple(f"a{number:02}" for number in range(15))
    async with appending(etcd, kv=Counting(etcd)) as it:
        await it.submit(written(*names))
        for number in range(300):
            await it.submit(endpoint(f"shop/web/e{number}"))
        await it.submit(offered_to("mesh", *names))
        for audience in ("mesh", *names):
            assert len(await told(etcd, audience)) == 302
        largest_beside_portions = largest
        # All at once taken from them, among much else that one of them is told.
        await it.submit(written())
    assert largest_beside_portions >= 2 + 2 * 16
    assert largest < TXN_OPERATIONS_MAX / 2


async def test_an_audience_too_many_is_refused_and_changes_nothing(
    etcd: MemoryEtcd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log stays where its audience is written no more, so names must not come and go for ever."""
    monkeypatch.setattr("meshd.core.standpoint.EXPORT_LOGS_MAX", 3)
    async with appending(etcd) as it:
        await it.submit(written("eu", "us"))
        with pytest.raises(RejectedError, match="4 export logs; at most 3"):
            await it.submit(written("asia"))
        await it.submit(written("us"))
    assert (await local_head(etcd)).exports.keys() == {"eu", "mesh", "us"}


async def test_two_that_say_otherwise_which_audiences_there_are_take_turns(
    etcd: MemoryEtcd,
) -> None:
    """The log decides; what the last one said holds, and each keeps what it began."""
    await prepare(MemoryKv(etcd))
    async with appending(etcd) as one, appending(etcd) as other:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(one.submit(written("eu")))
            tasks.create_task(other.submit(written("us")))
        await one.submit(offered_to("mesh"))
        state = one.projector.state(EAST)
        assert state is not None
        assert state.info is not None
        (last,) = state.info.value.audiences
        (first,) = {"eu", "us"} - {last}
        await other.submit(offered_to(last))
        with pytest.raises(RejectedError, match=f"no audience '{first}'"):
            await other.submit(offered_to(first))
    assert await told(etcd, last) == [SAID, ("service.set", "shop/web")]
    assert await told(etcd, first) == [SAID]


async def test_a_race_for_a_new_audience_makes_one_log(etcd: MemoryEtcd) -> None:
    await prepare(MemoryKv(etcd))
    async with appending(etcd) as one, appending(etcd) as other, asyncio.TaskGroup() as tasks:
        for it in (one, other):
            tasks.create_task(it.submit(written("eu")))
    assert await told(etcd, "eu") == [SAID]
    assert len(await events_in(etcd)) == 1


# --- a meshd --------------------------------------------------------------------------------------


@dataclass(slots=True)
class Sites(Mesh):
    """A mesh in which each reads another audience of each. reads: reader, read, audience."""

    reads: tuple[tuple[str, str, str], ...] = ()
    audiences: dict[str, str] = field(default_factory=dict)

    def settings(self, name: str) -> Settings:
        peers = ",".join(
            f"{{name: {peer}, endpoints: ['{peer}:2379'], audience: {audience}}}"
            for reader, peer, audience in self.reads
            if reader == name
        )
        return load(
            None,
            {},
            (
                f"cluster.name={name}",
                f"cluster.id={self.names.index(name) + 1}",
                f"cluster.audiences={self.audiences.get(name, '')}",
                f"peers=[{peers}]",
                *self.overrides,
            ),
        )


async def say(running: Running, *audiences: str) -> list[str]:
    """Start as with these audiences in the settings; returns what was warned of."""
    settings = running.settings
    settings = replace(settings, cluster=replace(settings.cluster, audiences=audiences))
    async with asyncio.TaskGroup() as tasks:
        with capture_logs() as logs:
            await introduce(settings, running.parts.node, tasks)
    return [str(entry) for entry in logs if entry["log_level"] in {"warning", "error"}]


async def test_an_audience_that_is_taken_from_the_settings_while_services_name_it() -> None:
    mesh = Sites(names=("east",), audiences={"east": "eu,us"})
    etcd = mesh.etcds["east"]
    async with mesh.running("east") as east:
        await east.submit(offered_to("eu", "us"), endpoint("shop/web/a"))
        (warned,) = await say(east, "us")
        assert "name an audience that this cluster doesn't write" in warned
        assert "'audience': 'eu', 'services': 1, 'first': 'shop/web'" in warned
        # It stays as it is, and is offered to fewer; put back, to all again.
        assert await told(etcd, "eu") == [SAID, *WEB, GONE]
        assert await told(etcd, "us") == [SAID, *WEB]
        assert await say(east, "eu", "us") == []
        assert await told(etcd, "eu") == [SAID, *WEB, GONE, SAID, *WEB]


async def test_audiences_that_the_log_refuses_keep_nobody_from_being_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mesh = Sites(names=("east",), audiences={"east": "eu"})
    async with mesh.running("east") as east:
        await east.submit(offered_to("eu"), offered_to("eu", key="shop/cart"))
        monkeypatch.setattr("meshd.core.admission.SUBMISSION_EXPORTS_MAX", 1)
        (said,) = await say(east)
        assert "cluster.audiences is not taken" in said
        assert "it would tell peers 2 changes" in said
        assert len(await told(mesh.etcds["east"], "eu")) == 3
        # What is wrong with anything else is still the end.
        settings = replace(east.settings, cluster=replace(east.settings.cluster, name="other"))
        async with asyncio.TaskGroup() as tasks:
            with pytest.raises(RejectedError, match="this is cluster east"):
                await introduce(settings, east.parts.node, tasks)


async def test_a_heartbeat_tells_each_audience_of_its_own_log_only() -> None:
    names = ("east", "west")
    mesh = Sites(names=names, reads=(("east", "west", "mesh"),), audiences={"east": "eu,us"})
    etcd = mesh.etcds["east"]
    async with mesh.running("east") as east, mesh.running("west"):
        await east.until_ready("west")
        await east.submit(offered_to("eu"), offered_to("mesh", "us", key="shop/cart"))
        await east.submit(endpoint("shop/cart/a"))
        await asyncio.sleep(3)
        projector, beats = east.parts.node.projector, await heartbeats(etcd)
        heads = (await local_head(etcd)).exports
        digests = {beat.digest for beat in beats.values()}
        for audience, beat in beats.items():
            vector = parse_vector(beat.vector)
            assert beat.head == heads[audience]
            assert (vector[EAST].log_id, vector[EAST].seq) == (
                heads[audience].log_id,
                heads[audience].seq,
            )
            assert vector[WEST] == projector.vector()[WEST]
        assert {beat.beat for beat in beats.values()} == {beats["mesh"].beat}
        assert beats["mesh"].digest == beats["us"].digest == projector.tables.digest
        assert len(digests) == 2
        # Who is offered nothing any more sees that we live, and nothing else.
        await east.submit(written("us"))
        await asyncio.sleep(3)
        beat = (await heartbeats(etcd))["eu"]
        assert beat.digest == "0" * 32
        assert parse_vector(beat.vector).keys() == {EAST}
        assert beat.head == (await local_head(etcd)).exports["eu"]


async def test_the_digest_that_an_audience_is_told_is_the_one_it_comes_to() -> None:
    """Of what it reads and what it doesn't it needn't know."""
    mesh = Sites(
        names=("east", "west"),
        reads=(("west", "east", "eu"), ("east", "west", "mesh")),
        audiences={"east": "eu"},
    )
    async with mesh.running("east") as east, mesh.running("west") as west:
        await west.submit(service(), endpoint("shop/web/w", "10.0.0.2"))
        await east.submit(offered_to("eu"), offered_to("mesh", key="shop/cart"))
        await east.submit(endpoint("shop/web/e"), endpoint("shop/cart/c"))
        await west.until_eligible("shop/web", [("west", "w", 0), ("east", "e", 16)])
        await east.until_count("shop/web", 2)
        await asyncio.sleep(3)
        beat = (await heartbeats(mesh.etcds["east"]))["eu"]
        assert west.parts.node.projector.digest_as(EAST) == beat.digest
        assert beat.digest != east.parts.node.projector.tables.digest


async def test_every_export_log_is_summed_up_and_cut() -> None:
    short = (
        "retention.check_every_s=1",
        "retention.snapshot_every_events=10",
        "retention.keep_events=20",
        "retention.cap_events=40",
    )
    mesh = Sites(names=("east",), audiences={"east": "eu"}, overrides=short)
    etcd = mesh.etcds["east"]
    async with mesh.running("east") as east:
        await east.submit(offered_to("eu"))
        for number in range(100):
            await east.submit(endpoint("shop/web/a", weight=1 + number))
            if number % 10 == 0:
                await asyncio.sleep(2)
        keys = SPACE.export("eu")
        found = await MemoryKv(etcd).range(keys.log, keys.log_end)
        assert decode_record(found.kvs[0].value, "log").first_seq > 20
        assert (await MemoryKv(etcd).range(keys.manifest)).kvs
        assert [name for name in await told(etcd, "mesh") if name != SAID] == []


async def test_a_reader_of_one_log_does_not_hold_up_the_cut_of_another() -> None:
    mesh = Sites(
        names=("east", "west"),
        reads=(("west", "east", "eu"), ("east", "west", "mesh")),
        audiences={"east": "eu"},
    )
    async with mesh.running("east") as east, mesh.running("west") as west:
        await west.until_ready("east")
        await east.until_ready("west")
        await asyncio.sleep(3)
        peers, exports = east.parts.node.peers, east.parts.node.projector.exports
        assert peers.needed_seq(exports["eu"].log_id) == exports["eu"].seq
        assert peers.needed_seq(exports["mesh"].log_id) is None


# --- hub and spoke --------------------------------------------------------------------------------


def hub_and_spokes() -> Sites:
    """East is the hub; it reads `hub` of the spokes, and they read `spokes` of it alone."""
    reads = [("east", spoke, "hub") for spoke in ("west", "south")]
    reads += [(spoke, "east", "spokes") for spoke in ("west", "south")]
    audiences = {"east": "spokes", "west": "hub", "south": "hub"}
    return Sites(reads=tuple(reads), audiences=audiences)


async def offer(running: Running, audience: str, *more: Command) -> None:
    name = str(running.name)
    await running.submit(
        offered_to(audience), endpoint(f"shop/web/{name}"), offered_to("mesh", key=f"own/{name}")
    )
    await running.submit(*more or (endpoint(f"own/{name}/x"),))


async def test_a_spoke_sees_the_hub_and_no_other_spoke() -> None:
    mesh = hub_and_spokes()
    async with (
        mesh.running("east") as hub,
        mesh.running("west") as west,
        mesh.running("south") as south,
    ):
        await offer(hub, "spokes")
        for spoke in (west, south):
            await offer(spoke, "hub")
        await hub.until_count("shop/web", 3)
        for spoke in (west, south):
            own = (str(spoke.name), str(spoke.name), 0)
            await spoke.until_eligible("shop/web", [own, ("east", "east", 16)])
            projector = spoke.parts.node.projector
            assert projector.states.keys() == {spoke.name, EAST}
            # What is offered to `mesh` alone is offered to neither of them.
            assert projector.state(EAST).services.keys() == {ServiceKey("shop", "web")}  # type: ignore[union-attr]
        await asyncio.sleep(3)
        await check_each_perspective(hub, west, south)


async def check_each_perspective(hub: Running, west: Running, south: Running) -> None:
    """Each comes to the tables of the others, or says of whom it can't know."""
    for viewer, seen, unsure in (
        (hub, west, ()),
        (hub, south, ()),
        (west, hub, (SOUTH,)),
        (south, hub, (WEST,)),
    ):
        projector, theirs = viewer.parts.node.projector, seen.parts.node.projector
        vector = viewer.parts.node.peers.vector_of(seen.name)
        sight = projector.outlook_of(seen.name, vector)
        assert sight.unsure == unsure
        if not unsure:
            table = projector.tables_as(seen.name, vector)
            key = ServiceKey("shop", "web")
            view = theirs.tables.view(key)
            assert view is not None
            assert [(one.cluster, one.name, one.priority) for one in table[key].backends] == [
                (one.cluster, one.name, one.priority) for one in view.backends
            ]


async def test_narrowing_withdraws_there_and_widening_brings_all_endpoints() -> None:
    """Data residency: `eu` sees it, `us` doesn't, until somebody says otherwise."""
    mesh = Sites(
        names=("east", "west", "south"),
        reads=(("west", "east", "eu"), ("south", "east", "us")),
        audiences={"east": "eu,us"},
    )
    async with (
        mesh.running("east") as east,
        mesh.running("west") as in_eu,
        mesh.running("south") as in_us,
    ):
        for running in (in_eu, in_us):
            await running.submit(service())
        await east.submit(offered_to("eu"), *(endpoint(f"shop/web/{name}") for name in "abc"))
        await in_eu.until_count("shop/web", 3)
        await in_us.until_ready("east")
        assert in_us.eligible("shop/web") == []
        await east.submit(offered_to("eu", "us"))
        await in_us.until_count("shop/web", 3)
        await east.submit(offered_to("us"))
        await in_eu.until_count("shop/web", 0)
        assert in_us.parts.node.projector.state(EAST).endpoint(  # type: ignore[union-attr]
            EndpointKey(ServiceKey("shop", "web"), "a")
        )
        state = in_eu.parts.node.projector.state(EAST)
        assert state is not None
        assert (state.services, state.endpoints) == ({}, {})
