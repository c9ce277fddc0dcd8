"""A global service knows which of its backends take traffic."""

from __future__ import annotations

from meshd.model.ids import ClusterName, LogId, Seq, ServiceKey
from meshd.model.service import Affinity
from meshd.model.table import Backend, GlobalService, Origin, Reason

WEST = ClusterName("west")
ORIGIN = Origin(LogId("a" * 32), Seq(1), 1000, "ann")


def backend(name: str, reason: Reason | None) -> Backend:
    return Backend(WEST, name, "10.0.0.1", (), 0, 100, "", "", reason, ORIGIN)


def test_those_without_a_reason_to_be_out_are_eligible_in_their_order() -> None:
    backends = (backend("a", None), backend("b", Reason.NOT_READY), backend("c", None))
    service = GlobalService(ServiceKey("shop", "web"), (), Affinity.NONE, (WEST,), (), backends)
    assert [found.name for found in service.eligible] == ["a", "c"]
