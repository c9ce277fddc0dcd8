"""What happened to one thing: every event of it once, newest first, with what it changed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from types import ModuleType

import pytest

from meshd.core.trail import Step, Subject
from meshd.model.codec import LocalHead, encode_local_head, encode_record
from meshd.model.command import RemoveEndpoint, RemoveService
from meshd.model.errors import NotFoundError
from meshd.model.event import Event
from meshd.model.ids import ClusterName, EndpointKey, Head, LogId, Position, Seq, ServiceKey
from meshd.model.keyspace import Keyspace
from meshd.runtime import trails
from meshd.runtime.history import GoneError
from meshd.runtime.ports import Put, Txn
from meshd.runtime.trails import Page
from tests.mesh import Mesh, Running, endpoint, service
from tests.runtime.test_past import SHORT, durable

pytestmark = pytest.mark.looptime

EAST, WEST, SOUTH = (ClusterName(name) for name in ("east", "west", "south"))
WEB = ServiceKey("shop", "web")
SPACE = Keyspace()


async def read(
    meshd: Running, kind: str, key: str, limit: int = 1000, *, endpoints: bool = False
) -> Page:
    subject = Subject.parse(kind, key, with_endpoints=endpoints)
    return await meshd.parts.node.trails.read(subject, limit)


def shown(steps: tuple[Step, ...]) -> list[tuple[str, str, dict[str, tuple[object, object]]]]:
    """The cluster, the type, and what changed, of each step."""
    return [
        (
            step.cluster,
            step.event.type,
            {change.path: (change.old, change.new) for change in step.changes or ()},
        )
        for step in steps
    ]


@asynccontextmanager
async def pair(*overrides: str) -> AsyncIterator[tuple[Mesh, Running, Running]]:
    mesh = Mesh(("east", "west"), overrides=(*SHORT, *overrides))
    async with mesh.running("east") as east, mesh.running("west") as west:
        yield mesh, east, west


async def test_a_service_is_told_out_of_all_logs_newest_first() -> None:
    async with pair() as (_, east, west):
        await east.submit(service(labels={"team": "a"}))
        await asyncio.sleep(1)
        await west.submit(service())
        await asyncio.sleep(1)
        await east.submit(service(labels={"team": "b"}), endpoint("shop/web/a"))
        await east.submit(endpoint("shop/web/a", weight=7), service("shop/other"))
        await asyncio.sleep(1)
        await east.submit(RemoveEndpoint(EndpointKey(WEB, "a")), endpoint("shop/web/b"))
        await east.submit(RemoveService(WEB))
        await east.until_ready("west")
        await east.until(lambda: durable(east, WEST))
        page = await read(east, "service", "shop/web")
        assert (page.next, page.unknown) == (None, ())
        found = shown(page.steps)
        assert [one[:2] for one in found] == [
            ("east", "service.removed"),
            ("east", "service.set"),
            ("west", "service.set"),
            ("east", "service.set"),
        ]
        assert found[0][2]["labels"] == ({"team": "b"}, None)
        assert found[1][2] == {"labels": ({"team": "a"}, {"team": "b"})}
        assert found[3][2]["labels"] == (None, {"team": "a"})
        with_endpoints = await read(east, "service", "shop/web", endpoints=True)
        assert [(step.event.type, step.event.key) for step in with_endpoints.steps][:6] == [
            ("service.removed", "shop/web"),
            ("endpoint.set", "shop/web/b"),
            ("endpoint.removed", "shop/web/a"),
            ("endpoint.set", "shop/web/a"),
            ("endpoint.set", "shop/web/a"),
            ("service.set", "shop/web"),
        ]
        assert shown(with_endpoints.steps)[3][2] == {"weight": (None, 7)}
        one = shown((await read(east, "endpoint", "shop/web/b")).steps)
        assert [kind for _, kind, _ in one] == ["service.removed", "endpoint.set"]
        assert one[0][2]["address"] == ("10.0.0.1", None)
        only = Subject.parse("service", "shop/web")
        page = await east.parts.node.trails.read(only, 10, cluster=WEST)
        assert [step.cluster for step in page.steps] == [WEST]
        with pytest.raises(NotFoundError, match="no cluster south here"):
            await east.parts.node.trails.read(only, 10, cluster=SOUTH)


async def pages(
    meshd: Running, kind: str, key: str, limit: int, *, endpoints: bool = False
) -> list[list[Step]]:
    """Page after page, to the end."""
    found: list[list[Step]] = []
    subject, before = Subject.parse(kind, key, with_endpoints=endpoints), None
    while True:
        page = await meshd.parts.node.trails.read(subject, limit, before=before)
        found.append(list(page.steps))
        if page.next is None:
            return found
        before = page.next


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
async def test_pages_hold_every_event_once(limit: int) -> None:
    async with pair() as (_, east, west):
        for number in range(6):
            await east.submit(
                service(labels={"n": str(number + 1)}), endpoint("shop/web/a", weight=number)
            )
            await asyncio.sleep(0.5)
            await west.submit(
                service(labels={"n": str(number + 11)}), endpoint(f"shop/web/e{number}")
            )
            await asyncio.sleep(0.5)
        await east.until_ready("west")
        await east.until(lambda: durable(east, WEST))
        whole = await read(east, "service", "shop/web", endpoints=True)
        found = await pages(east, "service", "shop/web", limit, endpoints=True)
        assert [step for page in found for step in page] == list(whole.steps)
        assert all(len(page) == limit for page in found[:-1])
        assert all(step.changes for step in whole.steps)


@pytest.mark.parametrize("limit", [2, 1000])
async def test_where_the_log_was_cut_its_snapshot_tells_what_was(limit: int) -> None:
    mesh = Mesh(("east",), overrides=SHORT)
    async with mesh.running("east") as east:
        await east.submit(service(), endpoint("shop/web/old", weight=3))
        await east.submit(endpoint("shop/web/a", weight=1))
        await east.submit(endpoint("shop/web/a", weight=2), endpoint("shop/web/b"))
        for number in range(100):
            await east.submit(endpoint("shop/other/x", weight=1 + number % 2))
            await asyncio.sleep(0.3)
        await east.submit(endpoint("shop/web/a", weight=9), RemoveEndpoint(EndpointKey(WEB, "b")))
        found = await pages(east, "service", "shop/web", limit, endpoints=True)
        steps = [step for page in found for step in page]
        log = await east.parts.node.past.open(EAST)
        assert log is not None
        cut_seq = log.first_seq - 1
        assert cut_seq > 50
        told = [(one.event.type, one.event.key, one.seq, one.snapshot_seq) for one in steps]
        assert told == [
            ("endpoint.removed", "shop/web/b", steps[0].seq, None),
            ("endpoint.set", "shop/web/a", steps[1].seq, None),
            ("endpoint.set", "shop/web/b", 6, cut_seq),
            ("endpoint.set", "shop/web/a", 5, cut_seq),
            ("endpoint.set", "shop/web/old", 3, cut_seq),
            ("service.set", "shop/web", 2, cut_seq),
        ]
        # What was before that isn't known; against that, what came later is.
        assert [step.changes is None for step in steps] == [False, False, True, True, True, True]
        assert shown(tuple(steps))[1][2] == {"weight": (2, 9)}
        assert {step.event.actor for step in steps} == {"test"}


@pytest.fixture
def scanned(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A scan of little, in small windows."""
    monkeypatch.setattr(trails, "WINDOW_SEQS", 5)
    monkeypatch.setattr(trails, "SCAN_SEQS_MAX", 20)
    monkeypatch.setattr(trails._Budget.__init__, "__defaults__", (20, 1 << 20))
    return trails


async def test_a_request_looks_so_far_and_says_where_to_go_on(scanned: ModuleType) -> None:
    assert scanned.SCAN_SEQS_MAX == 20
    async with pair("retention.keep_events=1000", "retention.cap_events=1000") as (_, east, west):
        await west.submit(service(labels={"n": str(3)}))
        await east.submit(service(labels={"n": str(1)}))
        for number in range(60):
            await east.submit(endpoint("shop/other/x", weight=1 + number % 2))
        await asyncio.sleep(1)
        await east.submit(service(labels={"n": str(2)}))
        await east.until_ready("west")
        await east.until(lambda: durable(east, WEST))
        found = await pages(east, "service", "shop/web", 10)
        assert len(found) > 3
        steps = [step for page in found for step in page]
        assert [step.event.data and step.event.data["labels"] for step in steps] == [
            {"n": "2"},
            *({"n": number} for number in ("1", "3")),
        ]
        # The value before is too far away to be looked for, of the first of them.
        assert [step.changes is None for step in steps] == [True, False, False]


async def test_a_place_to_go_on_is_of_a_log(scanned: ModuleType) -> None:
    assert scanned.WINDOW_SEQS == 5
    async with Mesh(("east",)).running("east") as east:
        await east.submit(service(), service(labels={"n": str(1)}), service(labels={"n": str(2)}))
        head = east.parts.node.projector.log_vector()[EAST]
        subject = Subject.parse("service", "shop/web")
        # In the middle of a record; what is behind it was told before.
        page = await east.parts.node.trails.read(subject, 10, before={EAST: head})
        assert [step.seq for step in page.steps] == [head.seq - 1, head.seq - 2][: len(page.steps)]
        far = replace(head, seq=Seq(head.seq + 1000))
        page = await east.parts.node.trails.read(subject, 10, before={EAST: far})
        assert page.steps[0].seq == head.seq
        other = Position(EAST, LogId("0" * 32), head.seq)
        with pytest.raises(GoneError, match="was replaced by log"):
            await east.parts.node.trails.read(subject, 10, before={EAST: other})
        # A log that isn't named has been told to its end.
        page = await east.parts.node.trails.read(subject, 10, before={})
        assert (page.steps, page.next) == ((), None)


async def test_types_that_this_version_does_not_know_are_told_too() -> None:
    mesh = Mesh(("east", "west"), overrides=SHORT)
    async with mesh.running("east") as east:
        await east.submit(service())
        page = await read(east, "policy", "moon")
        assert (page.steps, page.unknown) == ((), (WEST,))
    async with mesh.running("east") as east:
        head = east.parts.node.projector.head(EAST)
        assert isinstance(head, Head)
        moon = Event("policy.waxed", "moon", {"phase": "full"}, "bob")
        record = encode_record(head, mesh.clock.wall_ms(), [moon])
        await _append(east, record.raw, record.head)
        await east.until(lambda: east.parts.node.projector.head(EAST) == record.head)
        (step,) = (await read(east, "policy", "moon")).steps
        assert (step.event, step.seq) == (moon, record.last_seq)
        assert step.changes is not None
        assert [(one.path, one.new) for one in step.changes] == [("phase", "full")]


async def _append(meshd: Running, raw: bytes, head: Head) -> None:
    """Append a record as a newer meshd beside this one would."""
    local = meshd.parts.node.projector.local_head
    assert local is not None
    moved = encode_local_head(LocalHead(head, local.exports))
    put = Put(SPACE.local.record(head.seq), raw)
    await meshd.kv.commit(Txn(success=(put, Put(SPACE.local.head, moved))))
