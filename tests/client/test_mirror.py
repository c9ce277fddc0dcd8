"""A mirror that is fed by a stream's messages is the tables, whatever stalls, breaks or is late."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshd.client import (
    OutOfStepError,
    ServiceChanged,
    ServiceRemoved,
    ServiceTold,
    SnapshotBegun,
    SnapshotEnded,
    TableMirror,
    TablesReset,
)
from meshd.client.sse import SseParser
from meshd.client.table_stream import message_of
from meshd.core.table_changes import ALL, Selection, TableChanges
from meshd.core.telling import table_service
from meshd.edges.http.messages import Batch, sse_bytes
from meshd.edges.http.table_messages import TableMessages
from meshd.edges.http.table_telling import TableTelling, TableWish
from meshd.model.ids import ClusterName
from meshd.model.place import TablePlace
from meshd.runtime.projector import Projector
from meshd.runtime.ring import RecordRing
from meshd.runtime.table_feed import TableFeed
from tests.core.test_tables import CLUSTERS, Mesh, Step, beginnings, steps

A, B = ClusterName("a"), ClusterName("b")
BLUE = Selection(labels=(("team", "blue"),))
SELECTIONS = (ALL, ALL, BLUE, Selection(clusters=frozenset({B})))
TURNS = 8
"""So many turns of the event loop see a subscriber to its next standstill."""


@dataclass
class Subscriber:
    """A client with a connection to a server, both in this process: bytes go from one to the other
    when they are let through, and a connection may break anywhere in them.
    """

    projector: Projector
    messages: TableMessages
    wish: TableWish
    mirror: TableMirror = field(default_factory=TableMirror)
    waiting: list[Batch] = field(default_factory=list)
    parser: SseParser = field(default_factory=SseParser)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    room: asyncio.Event = field(default_factory=asyncio.Event)

    async def send(self, batch: Batch) -> None:
        """Be the server's outlet: there is room for one batch at a time."""
        while self.waiting:
            self.room.clear()
            await self.room.wait()
        self.waiting.append(batch)

    async def beat(self) -> None:
        raise NotImplementedError

    def connect(self, tasks: asyncio.TaskGroup) -> None:
        """Open a connection that goes on where the last one broke."""
        self.parser = self.parser.resumed()
        self.tasks = [tasks.create_task(self._serve(self.parser.last_id))]

    async def _serve(self, text: str) -> None:
        telling = TableTelling(self.projector, self.messages, self.wish, self)
        number = TablePlace.parse(text).number if text else None
        if number is not None and not self.projector.feed.changes.reaches(number):
            await telling.reset("it is out of reach")
            number = None
        await telling.follow(number)

    def take(self, limit: int | None = None) -> None:
        """Let the batch that waits through, or so many of its messages."""
        for batch in self.waiting:
            for message in batch.messages[:limit]:
                for event in self.parser.feed(sse_bytes(message)):
                    told = message_of(event)
                    assert told is not None
                    self.mirror.take(told)
        self.waiting.clear()
        self.room.set()

    async def cut(self, limit: int) -> None:
        """Break the connection within what is under way."""
        self.take(limit)
        for task in self.tasks:
            task.cancel()
        await asyncio.wait(self.tasks)
        self.waiting.clear()

    async def settle(self) -> None:
        """Take everything that there is."""
        for _ in range(TURNS):
            await asyncio.sleep(0)
        while self.waiting:
            self.take()
            for _ in range(TURNS):
                await asyncio.sleep(0)


def listed(projector: Projector, selection: Selection) -> list[Any]:
    """What `GET /v1/tables` lists, of what is selected."""
    tables, unfresh = projector.tables, projector.feed.unfresh
    found = []
    keys = tables.keys()
    for key in keys:
        view = tables.view(key)
        if view is not None and selection.has(key, tables.definition_of(key)):
            found.append(table_service(view, tables.digest_of(key) or "", unfresh))
    return list(orjson.loads(orjson.dumps(found)))


@given(
    beginning=beginnings,
    history=st.lists(steps, max_size=12),
    selection=st.sampled_from(SELECTIONS),
    by_deltas=st.booleans(),
    limits=st.sampled_from([(20_000, 10_000), (3, 10_000), (20_000, 1), (0, 0)]),
    flush_bytes=st.sampled_from([1, 64 * 1024]),
    data=st.data(),
)
@settings(max_examples=200, deadline=None)
def test_a_mirror_ends_with_the_tables_whatever_happens_on_the_way(
    beginning: list[Step],
    history: list[Step],
    selection: Selection,
    by_deltas: bool,
    limits: tuple[int, int],
    flush_bytes: int,
    data: st.DataObject,
) -> None:
    projector = Projector(A, RecordRing(1), TableFeed("a" * 32))
    projector.feed.changes = TableChanges(*limits)
    mesh = Mesh(projector.tables)
    wish = TableWish(selection, by_deltas, is_reset=True, path="")

    async def live() -> None:
        subscriber = Subscriber(projector, TableMessages(projector), wish)
        async with asyncio.TaskGroup() as tasks:
            subscriber.connect(tasks)
            for step in (*beginning, *history):
                await happen(step, subscriber, tasks)
            await subscriber.settle()
            assert subscriber.mirror.is_whole
            assert subscriber.mirror.services() == listed(projector, selection)
            await subscriber.cut(0)

    async def happen(step: Step, subscriber: Subscriber, tasks: asyncio.TaskGroup) -> None:
        projector.feed.note(mesh.take(step), mesh.tables)
        projector.version += 1
        if data.draw(st.booleans()):
            unfresh = data.draw(st.frozensets(st.sampled_from(CLUSTERS)))
            projector.see_unfresh(unfresh)
        match data.draw(st.sampled_from(["stall", "stall", "take", "settle", "cut"])):
            case "take":
                await asyncio.sleep(0)
                subscriber.take()
            case "settle":
                await subscriber.settle()
                assert subscriber.mirror.services() == listed(projector, selection)
            case "cut":
                await asyncio.sleep(0)
                await subscriber.cut(data.draw(st.integers(0, 2)))
                subscriber.connect(tasks)
            case _:
                pass

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("meshd.edges.http.table_telling.FLUSH_BYTES", flush_bytes)
        # Turns of the event loop are counted here, and none of them waits.
        patch.setattr("meshd.edges.http.table_telling.ROUNDS_APART_S", 0.0)
        asyncio.run(live())


# --- one message after the other ------------------------------------------------------------------


def whole(change: int, *backends: str, name: str = "web") -> ServiceTold:
    service: Any = {
        "namespace": "shop",
        "name": name,
        "affinity": "local",
        "stale": [],
        "digest": f"d{change}",
        "tiers": [{"priority": 0}],
        "backends": [backend(one) for one in backends],
        "change": change,
    }
    return ServiceTold(f"p{change}", service)


def backend(name: str, priority: int = 0) -> Any:
    return {"cluster": "a", "name": name, "priority": priority}


def delta(change: int, before: int, **fields: Any) -> ServiceChanged:
    nothing: dict[str, Any] = {
        "stale": [],
        "definition": None,
        "tiers": None,
        "upserts": [],
        "removals": [],
    }
    named = {"namespace": "shop", "name": "web", "change": change, "before": before}
    made: Any = {**named, "digest": f"d{change}", **nothing, **fields}
    return ServiceChanged(f"p{change}", made)


def removed(change: int, place: str = "") -> ServiceRemoved:
    return ServiceRemoved(place or f"p{change}", "shop", "web", change)


BEGUN, ENDED = SnapshotBegun("", "a", "", 1), SnapshotEnded("p1", 1)


def mirror_of(*told: Any) -> TableMirror:
    mirror = TableMirror()
    for message in (BEGUN, *told):
        mirror.take(message)
    return mirror


def names(mirror: TableMirror) -> list[str]:
    service = mirror.service("shop", "web")
    return [] if service is None else [one["name"] for one in service["backends"]]


def test_nothing_is_shown_before_the_first_snapshot_is_whole() -> None:
    mirror = mirror_of(whole(1, "x"))
    assert (mirror.is_whole, mirror.services(), mirror.place) == (False, [], "")
    mirror.take(ENDED)
    assert (mirror.is_whole, names(mirror), mirror.place) == (True, ["x"], "p1")


def test_after_a_reset_the_old_copy_is_shown_until_the_new_one_is_whole() -> None:
    mirror = mirror_of(whole(1, "x"), ENDED, TablesReset("p1", "gone"), BEGUN, whole(7, "y"))
    assert (names(mirror), mirror.place) == (["x"], "p1")
    mirror.take(SnapshotEnded("p7", 7))
    assert (names(mirror), mirror.place) == (["y"], "p7")


def test_a_delta_changes_what_it_says_and_the_order_is_that_of_the_tables() -> None:
    mirror = mirror_of(whole(1, "x", "y"), ENDED)
    mirror.take(
        delta(
            *(2, 1),
            upserts=[backend("x", 5), backend("z")],
            removals=[{"cluster": "a", "name": "y"}],
            stale=["b"],
        )
    )
    service = mirror.service("shop", "web")
    assert service is not None
    assert names(mirror) == ["z", "x"]
    assert (service["stale"], service["digest"], service["affinity"]) == (["b"], "d2", "local")
    assert [tier["priority"] for tier in service["tiers"]] == [0]
    mirror.take(delta(3, 2, definition={"affinity": "none"}, tiers=[]))
    service = mirror.service("shop", "web")
    assert service is not None
    assert (service["affinity"], service["tiers"], names(mirror)) == ("none", [], ["z", "x"])


@pytest.mark.parametrize(
    "late", [whole(1, "old"), delta(2, 1, upserts=[backend("old")]), removed(1), removed(2)]
)
def test_what_is_older_than_what_is_held_is_passed_over(late: Any) -> None:
    mirror = mirror_of(whole(3, "x"), ENDED)
    mirror.take(late)
    assert names(mirror) == ["x"]


@pytest.mark.parametrize("late", [whole(1, "old"), delta(2, 1), delta(1, 0)])
def test_what_is_older_than_a_removal_is_passed_over(late: Any) -> None:
    mirror = mirror_of(whole(1, "x"), ENDED, removed(3, "p2"))
    mirror.take(late)
    assert mirror.services() == []
    mirror.take(delta(4, 0, definition={}, tiers=[], upserts=[backend("new")]))
    assert names(mirror) == ["new"]


@pytest.mark.parametrize(
    ("held", "wrong"),
    [
        ((whole(3, "x"),), delta(5, 4)),
        ((whole(3, "x"),), delta(5, 0)),
        ((), delta(5, 4)),
        ((removed(3),), delta(5, 3)),
    ],
)
def test_a_delta_of_something_else_is_refused_and_changes_nothing(
    held: Sequence[Any], wrong: Any
) -> None:
    mirror = mirror_of(*held, ENDED)
    before = names(mirror)
    with pytest.raises(OutOfStepError, match="shop/web: change 5 follows"):
        mirror.take(wrong)
    assert (names(mirror), mirror.place) == (before, "p1")


def test_removals_are_remembered_for_two_places_and_no_longer() -> None:
    mirror = mirror_of(whole(1, "x"), ENDED, removed(4, "p2"), removed(5, "p3"))
    assert len(mirror._shown) == 1
    for place in ("p5", "p6"):
        mirror.take(ServiceRemoved(place, "shop", "other", int(place[1:])))
    assert [name for name, _ in mirror._shown.items()] == [("shop", "other")]
