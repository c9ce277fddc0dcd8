"""Every change of the tables is numbered as it happens, and wakes those who wait for it."""

from __future__ import annotations

import asyncio

import pytest

from meshd.core.table_changes import ALL
from meshd.model.event import Event
from meshd.model.ids import ClusterName, Head
from meshd.model.table import Standing
from meshd.runtime.projector import Projector
from meshd.runtime.ring import RecordRing
from meshd.runtime.table_feed import RUN_CHARS, TableFeed
from tests.core.sights import SIGHTS
from tests.logs import OTHER_LOG_ID, WEST, Log, log_of
from tests.runtime.test_projector import EAST, ENDPOINT, SERVICE, WEB, logged, read

OTHER = Event("service.set", "shop/other", {"global": True, "ports": [{"port": 80}]}, "ann")


@pytest.fixture
def projector() -> Projector:
    projector = Projector(EAST, RecordRing(1 << 20), TableFeed("ab" * RUN_CHARS))
    read(projector, EAST, logged(SERVICE, OTHER, log_id=OTHER_LOG_ID))
    return projector


def last(projector: Projector) -> list[tuple[str, frozenset[ClusterName]]]:
    """What the last change was of."""
    steps = projector.feed.changes.steps_after(projector.feed.number - 1) or []
    return [(str(step.delta.key), step.unfresh) for step in steps]


def test_a_run_is_named_shortly(projector: Projector) -> None:
    assert projector.feed.run == "ab" * (RUN_CHARS // 2)


def test_whatever_changes_the_tables_is_in_the_feed_and_nothing_else(projector: Projector) -> None:
    feed = projector.feed
    assert (feed.number, feed.changes.changed_after(0, ALL)) == (1, list(projector.tables.keys()))
    read(projector, WEST, logged(SERVICE, ENDPOINT))
    assert last(projector) == [("shop/web", frozenset())]
    projector.see(WEST, SIGHTS[Standing.DEMOTED])
    assert (feed.number, len(last(projector))) == (3, 1)
    log = Log(Head.genesis(OTHER_LOG_ID))
    log.append(SERVICE, OTHER)
    projector.fold(EAST, log.append(Event("node.set", "n1", {"addresses": ["10.0.0.9"]}, "ann")))
    projector.touch()
    assert feed.number == 3
    projector.remove(WEST)
    assert (feed.number, last(projector)) == (4, [("shop/web", frozenset())])


def test_who_is_out_of_sight_is_a_change_of_the_services_in_which_it_takes_part(
    projector: Projector,
) -> None:
    read(projector, WEST, logged(SERVICE, ENDPOINT))
    number, version = projector.feed.number, projector.version
    projector.see_unfresh(frozenset({WEST}))
    assert (projector.feed.number, projector.version) == (number + 1, version + 1)
    assert last(projector) == [("shop/web", frozenset({WEST}))]
    step = (projector.feed.changes.steps_after(number) or [])[0]
    assert step.delta.digest == projector.tables.digest_of(WEB)
    projector.see_unfresh(frozenset({WEST}))
    projector.see_unfresh(frozenset({WEST, ClusterName("mars")}))
    assert (projector.feed.number, projector.version) == (number + 1, version + 1)
    projector.see_unfresh(frozenset())
    assert last(projector) == [("shop/web", frozenset())]


async def test_all_who_wait_are_woken_by_the_next_change_and_nobody_by_none(
    projector: Projector,
) -> None:
    feed = projector.feed
    async with asyncio.TaskGroup() as tasks:
        waiting = [tasks.create_task(feed.beyond(number)) for number in (0, 1, 1, 2)]
        await asyncio.sleep(0)
        projector.touch()
        await asyncio.sleep(0)
        assert [one.done() for one in waiting] == [True, False, False, False]
        read(projector, WEST, log_of(1))
        await waiting[1]
        await waiting[2]
        assert not waiting[3].done()
        projector.remove(WEST)
