"""A global service knows which of its backends take traffic."""

from __future__ import annotations

from meshd.model.ids import ClusterName, LogId, Seq, ServiceKey
from meshd.model.service import Affinity, Exposure, SessionAffinity, Spill
from meshd.model.table import Backend, GlobalService, Origin, Reason

WEST = ClusterName("west")
ORIGIN = Origin(LogId("a" * 32), Seq(1), 1000, "ann")


def backend(name: str, reason: Reason | None) -> Backend:
    return Backend(
        WEST,
        name,
        "10.0.0.1",
        (),
        0,
        100,
        100,
        "",
        "",
        "",
        serving=True,
        reason=reason,
        origin=ORIGIN,
    )


def test_those_without_a_reason_to_be_out_are_eligible_in_their_order() -> None:
    backends = (backend("a", None), backend("b", Reason.NOT_READY), backend("c", None))
    service = GlobalService(
        key=ServiceKey("shop", "web"),
        ports=(),
        headless=False,
        session_affinity=SessionAffinity.NONE,
        session_timeout_s=1,
        affinity=Affinity.NONE,
        spill=Spill(),
        exposure=Exposure.INTERNAL,
        labels={},
        clusters=(WEST,),
        conditions=(),
        tiers=(),
        backends=backends,
    )
    assert [found.name for found in service.eligible] == ["a", "c"]
