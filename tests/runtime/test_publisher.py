"""Publishing, from the own log of a meshd on an in-memory etcd to a real mosquitto."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import orjson
import pytest

from chaos.brokers import Broker, Heard, Subscriber
from meshd.core.table_changes import TableChanges
from meshd.model.command import RemoveService
from meshd.model.ids import LogId, Position, Seq, ServiceKey
from meshd.model.keyspace import Keyspace
from meshd.model.publishing import PublishCondition, PublishCursor, PublishPhase
from meshd.runtime import publisher as publishing
from meshd.runtime import publishing_events, publishing_tables, refusals
from meshd.runtime.ports import CreateRevisionIs, Delete, Put, Txn
from meshd.runtime.publish_cursor import CursorKey, DeposedError
from tests.conftest import NewBroker, Subscribe
from tests.mesh import Mesh, Running, endpoint, service

CURSOR = Keyspace().publish_cursor("mesh")
UNTIL_S = 15.0
"""The test's own timeout may hit a callback of the loop, which swallows it."""
EVENTS = "meshd/mesh/east/events/#"
TABLES = "meshd/mesh/east/tables/#"
STATUS = "meshd/mesh/east/status"


def mesh_to(broker: Broker | str, *overrides: str) -> Mesh:
    address = broker if isinstance(broker, str) else broker.address
    return Mesh(("east",), overrides=(f"mqtt.broker={address}", *overrides))


def condition(east: Running) -> PublishCondition:
    publisher = east.parts.node.publisher
    assert publisher is not None
    return publisher.condition


async def until(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(UNTIL_S):
        while not what():  # noqa: ASYNC110 of another process
            await asyncio.sleep(0.02)


def seqs(heard: Sequence[Heard]) -> list[int]:
    return [int(one.user["meshdseq"]) for one in heard if "meshdseq" in one.user]


def firsts(heard: Sequence[Heard]) -> list[int]:
    """The events' seqs without repetitions, in the order in which they came first."""
    return list(dict.fromkeys(seqs(heard)))


async def hears_all(subscriber: Subscriber, head: int) -> list[int]:
    await until(lambda: head in seqs(subscriber.heard()))
    return firsts(subscriber.heard())


def head_of(east: Running) -> int:
    local = east.parts.node.projector.local_head
    assert local is not None
    return local.local.seq


async def published(east: Running) -> None:
    """Until all events are acknowledged and the cursor says so."""

    async def is_saved() -> bool:
        found = await east.kv.range(CURSOR)
        return bool(found.kvs) and orjson.loads(found.kvs[0].value).get("seq") == head_of(east)

    async with asyncio.timeout(UNTIL_S):
        while not await is_saved():  # noqa: ASYNC110 nobody tells us
            await asyncio.sleep(0.02)
    assert condition(east).behind == 0


async def write_endpoints(east: Running, first: int, count: int) -> None:
    for number in range(first, first + count):
        await east.submit(endpoint(f"shop/web/e{number}", f"10.0.{number >> 8}.{number & 255}"))


async def test_events_tables_and_status_are_published_and_the_cursor_follows(
    new_broker: NewBroker, subscribe: Subscribe
) -> None:
    broker = await new_broker()
    subscriber = await subscribe(broker)
    async with mesh_to(broker).running("east") as east:
        await east.submit(service(), endpoint("shop/web/a"))
        await published(east)
        assert condition(east).phase is PublishPhase.PUBLISHING
        assert await hears_all(subscriber, 3) == [1, 2, 3]
        await until(lambda: any('"a"' in one.payload for one in _at(subscriber, TABLES)))
        await until(lambda: any("east:" in one.payload for one in _at(subscriber, STATUS)))
        status = _at(subscriber, STATUS)[-1].data
        assert (status["state"], status["cluster"], status["peers"]) == ("live", "east", {})
        await east.submit(RemoveService(ServiceKey("shop", "web")))
        await until(lambda: not _at(subscriber, TABLES)[-1].payload)
    await until(lambda: _at(subscriber, STATUS)[-1].data["state"] == "gone")


def _at(subscriber: Subscriber, topic: str) -> list[Heard]:
    beginning = topic.removesuffix("#")
    return [heard for heard in subscriber.heard() if heard.topic.startswith(beginning)]


async def test_a_restart_goes_on_from_the_cursor(
    new_broker: NewBroker, subscribe: Subscribe
) -> None:
    broker = await new_broker()
    subscriber = await subscribe(broker, EVENTS)
    mesh = mesh_to(broker)
    async with mesh.running("east") as east:
        await write_endpoints(east, 0, 5)
        await published(east)
    async with mesh.running("east") as east:
        await write_endpoints(east, 5, 5)
        await published(east)
        head = head_of(east)
    heard = seqs(subscriber.heard())
    # The cursor was written before, so nothing is told twice.
    assert heard == list(range(1, head + 1))


async def test_a_broker_that_is_away_for_a_while_misses_nothing(
    new_broker: NewBroker, subscribe: Subscribe
) -> None:
    broker = await new_broker()
    subscriber = await subscribe(broker, EVENTS, session="reader")
    async with mesh_to(broker).running("east") as east:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(write_endpoints(east, 0, 300))
            await hears_all(subscriber, 50)
            await broker.stop()
            await until(lambda: condition(east).phase is PublishPhase.WAITING)
            assert "e" in condition(east).reason
            await broker.start()
        head = head_of(east)
        assert await hears_all(subscriber, head) == list(range(1, head + 1))
        await published(east)


async def test_a_broker_that_is_never_there_changes_nothing_else(
    free_address: Callable[[], str],
) -> None:
    async with mesh_to(free_address()).running("east") as east:
        await until(lambda: condition(east).phase is PublishPhase.WAITING)
        await write_endpoints(east, 0, 20)
        assert head_of(east) == 21
        assert "refused" in condition(east).reason
        assert condition(east).published is None


async def test_who_does_not_lead_publishes_nothing(
    new_broker: NewBroker, subscribe: Subscribe
) -> None:
    broker = await new_broker()
    subscriber = await subscribe(broker, EVENTS)
    mesh = mesh_to(broker)
    async with mesh.running("east") as first:
        await published(first)
        async with mesh.running("east", is_alone=False) as second:
            await second.submit(endpoint("shop/web/a"))
            await published(first)
            assert condition(second).phase is PublishPhase.STANDBY
            assert condition(second).published is None
            # The first one is deposed, and the second comes to lead.
            await first.parts.presence.leadership.resign()
            await first.parts.node.kv.commit(Txn(success=(Delete(Keyspace().leader),)))
            while not await second.parts.node.leadership.campaign():  # noqa: ASYNC110 etcd's word
                await asyncio.sleep(0.01)
            await until(lambda: condition(second).phase is PublishPhase.PUBLISHING)
            await first.submit(endpoint("shop/web/b"))
            head = head_of(first)
            assert await hears_all(subscriber, head) == list(range(1, head + 1))
            await until(lambda: condition(first).phase is PublishPhase.STANDBY)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (PublishCursor(LogId("f" * 32), Seq(9)).encode(), "was replaced by log"),
        (b'{"version":7}', "can't be read"),
    ],
)
async def test_where_events_do_not_follow_those_before_a_reset_says_so(
    new_broker: NewBroker, subscribe: Subscribe, value: bytes, reason: str
) -> None:
    broker = await new_broker()
    mesh = mesh_to(broker)
    async with mesh.running("east") as east:
        await published(east)
    subscriber = await subscribe(broker, EVENTS)
    async with mesh.running("east") as east:
        await east.kv.commit(Txn(success=(Put(CURSOR, value),)))
    async with mesh.running("east") as east:
        await published(east)
        await write_endpoints(east, 0, 1)
        head = head_of(east)
        await hears_all(subscriber, head)
    reset, *after = subscriber.heard()
    assert reset.user["type"] == "io.meshd.meshd.reset"
    assert reason in reset.data["data"]["reason"]
    assert reset.data["data"]["next"] == after[0].user["id"]
    assert (reset.data["data"]["before"] or "").endswith(":9" if "replaced" in reason else "")
    assert seqs(after) == list(range(1, head + 1))


async def test_events_that_were_cut_off_before_they_were_published_are_named(
    new_broker: NewBroker, subscribe: Subscribe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "BACKOFF_MAX_S", 0.3)
    broker = await new_broker()
    subscriber = await subscribe(broker, EVENTS, session="reader")
    mesh = mesh_to(
        broker,
        *("retention.check_every_s=0.1", "retention.snapshot_every_events=10"),
        *("retention.keep_events=20", "retention.cap_events=100", "streams.ring_bytes=1048576"),
    )
    async with mesh.running("east") as east:
        await write_endpoints(east, 0, 3)
        await published(east)
        await broker.stop()
        unpublished, number = Keyspace().local.record(head_of(east) + 2), 3
        while number < 50 or (await east.kv.range(unpublished)).kvs:
            await write_endpoints(east, number, 10)
            number += 10
            # Until the log was looked at: at an interval of 0.1 s.
            await asyncio.sleep(0.15)
            assert number < 3000
    # What was kept in memory went with the meshd.
    await broker.start()
    async with mesh.running("east") as east:
        await write_endpoints(east, 9000, 1)
        head = head_of(east)
        heard = await hears_all(subscriber, head)
        await published(east)
    (reset,) = (one for one in subscriber.heard() if "meshdseq" not in one.user)
    before, after = (
        int(reset.data["data"][name].rpartition(":")[2]) for name in ("before", "next")
    )
    assert "were cut off" in reset.data["data"]["reason"]
    assert before + 1 < after
    assert heard == [*range(1, before + 1), *range(after, head + 1)]


def allow(broker: Broker, rules: Path, *lines: str) -> None:
    rules.write_text("\n".join((f"topic read {'#'}", *lines, "")))
    broker.send(signal.SIGHUP)


async def test_an_event_that_the_broker_refuses_holds_those_behind_it_until_somebody_acts(
    new_broker: NewBroker,
    subscribe: Subscribe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(publishing, "SLOW_RETRY_S", 0.3)
    rules = tmp_path / "acl"
    rules.touch()
    broker = await new_broker("allow_anonymous true", f"acl_file {rules}")
    root = "topic write meshd/mesh/east"
    allow(broker, rules, f"{root}/tables/#", f"{root}/status", f"{root}/events/cluster.set/#")
    subscriber = await subscribe(broker, EVENTS)
    async with mesh_to(broker).running("east") as east:
        await east.submit(service(), endpoint("shop/web/a"))
        await until(lambda: condition(east).phase is PublishPhase.REFUSED)
        assert "events/service.set/shop/web: Not authorized" in condition(east).reason
        assert condition(east).behind == 2
        # A mosquitto 2.0 closes the connection behind a refusal: the first may be said again.
        assert firsts(subscriber.heard()) == [1]
        allow(broker, rules, "topic write meshd/mesh/east/#")
        assert await hears_all(subscriber, 3) == [1, 2, 3]
        await published(east)


async def test_tables_that_the_broker_refuses_hold_no_event_and_are_tried_again(
    new_broker: NewBroker,
    subscribe: Subscribe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(publishing, "BACKOFF_MAX_S", 0.2)
    monkeypatch.setattr(refusals, "HOLD_S", 5.0)
    monkeypatch.setattr(refusals, "HELD_MAX", 3)
    rules = tmp_path / "acl"
    rules.touch()
    broker = await new_broker("allow_anonymous true", f"acl_file {rules}")
    allow(broker, rules, "topic write meshd/mesh/east/events/#")
    subscriber = await subscribe(broker)
    async with mesh_to(broker).running("east") as east:
        await east.submit(*(service(f"shop/s{number}") for number in range(9)))
        await until(lambda: "Not authorized" in condition(east).reason)
        head = head_of(east)
        assert await hears_all(subscriber, head) == list(range(1, head + 1))
        await published(east)
        assert _at(subscriber, TABLES) == []
        allow(broker, rules, "topic write meshd/mesh/east/#")
        await until(lambda: len({one.topic for one in _at(subscriber, TABLES)}) == 9)
        await until(lambda: bool(_at(subscriber, STATUS)))


async def test_tables_of_services_that_went_while_nobody_published_are_cleared(
    new_broker: NewBroker, subscribe: Subscribe, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = await new_broker()
    mesh = mesh_to(broker)
    async with mesh.running("east") as east:
        await east.submit(service("shop/web"), service("shop/cart"), service("shop/old"))
        before = await subscribe(broker, TABLES)
        await until(lambda: len({one.topic for one in before.heard()}) == 3)
    publishing_to, mesh.overrides = mesh.overrides, ()
    async with mesh.running("east") as east:
        await east.submit(RemoveService(ServiceKey("shop", "old")))
    mesh.overrides = publishing_to
    async with mesh.running("east") as east:
        await until(lambda: before.heard()[-1].topic.endswith("/shop/old"))
        assert before.heard()[-1].payload == ""
        # Only what is other than what the broker keeps is told.
        await east.submit(service("shop/cart", labels={"a": "b"}))
        await until(lambda: before.heard()[-1].topic.endswith("/shop/cart"))
        assert [one.topic.rpartition("/")[2] for one in before.heard()].count("web") == 1
    after = await subscribe(broker, TABLES)
    await until(lambda: len(after.heard()) == 2)
    assert {one.topic.rpartition("/")[2] for one in after.heard()} == {"web", "cart"}


async def test_a_table_that_somebody_else_put_there_later_is_cleared_too(
    new_broker: NewBroker, subscribe: Subscribe
) -> None:
    broker = await new_broker()
    async with mesh_to(broker).running("east") as east:
        await east.submit(service())
        subscriber = await subscribe(broker, TABLES)
        await until(lambda: len(subscriber.heard()) > 0)
        topic = "meshd/mesh/east/tables/shop/stray"
        command = ("mosquitto_pub", "-h", broker.host, "-p", str(broker.port), "-r", "-t", topic)
        process = await asyncio.create_subprocess_exec(*command, "-m", "x")
        assert await process.wait() == 0
        await until(lambda: [one.payload for one in subscriber.heard()][-2:] == ["x", ""])


async def test_what_a_library_does_wrong_ends_nothing(
    new_broker: NewBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = await new_broker()
    mesh = mesh_to(broker, "mqtt.publish_tables=false", "mqtt.publish_status=false")
    real, failures = publishing_events.EventPublishing.run, iter([True])

    async def run(self: publishing_events.EventPublishing, *args: object, **more: object) -> None:
        if next(failures, False):
            raise RuntimeError("never seen before")
        await real(self, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(publishing_events.EventPublishing, "run", run)
    async with mesh.running("east") as east:
        await until(lambda: "never seen before" in condition(east).reason)
        await published(east)


async def test_who_does_not_lead_any_more_neither_learns_nor_moves_the_cursor() -> None:
    """A former leader that is slow must not publish, so it must not learn from where on (I9)."""
    async with Mesh(("east",)).running("east") as east:
        kv, leader = east.parts.node.kv, Keyspace().leader
        (held,) = (await kv.range(leader)).kvs
        now = (CreateRevisionIs(leader, held.create_revision),)
        former = (CreateRevisionIs(leader, held.create_revision - 1),)
        cursor = CursorKey(kv, CURSOR)
        place = Position(east.name, LogId("a" * 32), Seq(7))
        with pytest.raises(DeposedError):
            await cursor.write(place, former)
        assert (await cursor.read(now)).cursor is None
        await cursor.write(place, now)
        with pytest.raises(DeposedError):
            await cursor.read(former)
        assert (await cursor.read(now)).cursor == PublishCursor(place.log_id, place.seq)


async def _until_none(
    changes: AsyncIterator[tuple[ServiceKey, bytes] | None],
) -> AsyncIterator[tuple[ServiceKey, bytes]]:
    async for change in changes:
        if change is None:
            return
        yield change


async def test_what_changed_is_given_out_and_nothing_else() -> None:
    async with Mesh(("east",)).running("east") as east:
        await east.submit(*(service(f"shop/s{number}") for number in range(450)))
        node = east.parts.node
        source = publishing_tables.Changes(node.projector, node.clock)
        changes = source.follow()
        given = [change async for change in _until_none(changes)]
        assert len(given) == 450
        await east.submit(service("shop/s7", labels={"a": "b"}))
        assert [change[0].name async for change in _until_none(changes)] == ["s7"]
        await east.submit(RemoveService(ServiceKey("shop", "s8")))
        assert [change async for change in _until_none(changes)] == [
            (ServiceKey("shop", "s8"), b"")
        ]
        source.give_again()
        assert len([change async for change in _until_none(changes)]) == 449


async def test_services_that_went_are_given_out_though_their_removals_are_forgotten() -> None:
    async with Mesh(("east",)).running("east") as east:
        node = east.parts.node
        node.projector.feed.changes = TableChanges(gone_max=1)
        await east.submit(*(service(f"shop/s{number}") for number in range(5)))
        changes = publishing_tables.Changes(node.projector, node.clock).follow()
        assert len([change async for change in _until_none(changes)]) == 5
        went = [ServiceKey("shop", f"s{number}") for number in range(3)]
        await east.submit(*map(RemoveService, went))
        given = dict([change async for change in _until_none(changes)])
        assert [given[key] for key in went] == [b"", b"", b""]
        assert len(given) == 5
