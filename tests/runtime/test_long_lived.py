"""When the garbage collector is told to leave alone what is there."""

from __future__ import annotations

import pytest

from meshd.core.state import ClusterState
from meshd.model.event import Event
from meshd.model.ids import ClusterName, Head
from meshd.runtime import long_lived
from meshd.runtime.long_lived import LongLived
from meshd.runtime.projector import Projector
from meshd.runtime.ring import RecordRing
from meshd.runtime.table_feed import TableFeed
from tests.logs import LOG_ID, Log

EAST, WEST = ClusterName("east"), ClusterName("west")


def load(projector: Projector, cluster: ClusterName, endpoints: int) -> Log:
    """Serve a service with so many endpoints."""
    log = Log(Head.genesis(LOG_ID))
    log.append(Event("service.set", "shop/web", {"global": True}, "ann"))
    for number in range(endpoints):
        log.append(Event("endpoint.set", f"shop/web/e{number}", {"address": "10.0.0.1"}, "ann"))
    projector.begin_generation(cluster, LOG_ID)
    for record in log.records:
        projector.fold(cluster, record)
    projector.complete_generation(cluster)
    return log


@pytest.fixture
def spared(monkeypatch: pytest.MonkeyPatch) -> tuple[Projector, list[int]]:
    """A projector, and how many things were there each time."""
    monkeypatch.setattr(long_lived, "SPARED_FROM", 10)
    projector = Projector(EAST, RecordRing(1 << 20), TableFeed("a" * 16))
    times: list[int] = []
    projector.listeners.append(LongLived(projector, lambda: times.append(len(projector.states))))
    return projector, times


def test_what_was_loaded_counts_together_until_it_is_enough(
    spared: tuple[Projector, list[int]],
) -> None:
    projector, times = spared
    load(projector, EAST, 4)
    assert times == []
    load(projector, WEST, 4)
    assert times == [2]
    load(projector, WEST, 4)
    assert times == [2]


def test_the_tables_that_come_with_the_own_log_are_spared_too(
    spared: tuple[Projector, list[int]],
) -> None:
    projector, times = spared
    load(projector, WEST, 10)
    assert times == [1]
    load(projector, EAST, 1)
    assert times == [1, 2]


def test_what_changes_afterwards_counts_no_more(spared: tuple[Projector, list[int]]) -> None:
    projector, times = spared
    log = load(projector, EAST, 1)
    for _ in range(20):
        log.append(Event("endpoint.set", "shop/web/e0", {"address": "10.0.0.2"}, "ann"))
        projector.fold(EAST, log.records[-1])
    assert times == []


def test_a_cluster_that_is_removed_brings_nothing(spared: tuple[Projector, list[int]]) -> None:
    projector, times = spared
    load(projector, EAST, 8)
    load(projector, WEST, 0)
    assert times == [2]
    projector.remove(WEST)
    projector.adopt(WEST, Head.genesis(LOG_ID), ClusterState())
    assert times == [2]
