"""What an audience may know of a cluster, and what becomes of services that name none that is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from meshd.core.standpoint import (
    EXPORT_LOGS_MAX,
    as_seen_by,
    as_told_to,
    check_export_logs,
    unwritten,
    written,
)
from meshd.core.state import ClusterState, Held
from meshd.model.cluster import ClusterInfo, ClusterSelector
from meshd.model.command import RemoveService, SetCluster
from meshd.model.errors import RejectedError
from meshd.model.ids import ClusterName, PolicyKey, Seq, ServiceKey
from meshd.model.listed import ListedPeer
from meshd.model.policy import Policy
from meshd.model.service import Export, Service
from tests.logs import submission

INFO = ClusterInfo(name="west", id=7, audiences=("eu", "us"))
WEB, CART, OWN = (ServiceKey("shop", name) for name in ("web", "cart", "own"))
DENY, OTHER = PolicyKey("shop", "deny"), PolicyKey("shop", "other")
SOUTH = ClusterName("south")
ONLY_SOUTH = ClusterSelector(clusters=(SOUTH,))


def held(service: Service) -> Held[Service]:
    return Held(service, Seq(3), 1000, "ann")


def offered(*audiences: str) -> Service:
    return Service(is_global=True, export=Export(audiences=audiences, clusters=ONLY_SOUTH))


def state(info: ClusterInfo | None = INFO) -> ClusterState:
    return ClusterState(
        seq=Seq(9),
        time_ms=5000,
        info=Held(info, Seq(1), 1000, "meshd") if info else None,
        services={
            WEB: held(offered("eu", "mesh")),
            CART: held(offered("us")),
            OWN: held(replace(offered("eu"), is_shared=False)),
        },
        policies={
            DENY: Held(Policy(audiences=("eu", "mesh")), Seq(4), 0, "ann"),
            OTHER: Held(Policy(audiences=("us",)), Seq(5), 0, "ann"),
        },
        peers={SOUTH: Held(ListedPeer(endpoints=("s:1",)), Seq(2), 0, "ann")},
    )


@pytest.mark.parametrize(
    ("info", "audiences"),
    [
        (None, {"mesh"}),
        (replace(INFO, audiences=()), {"mesh"}),
        (INFO, {"mesh", "eu", "us"}),
    ],
)
def test_mesh_is_always_written(info: ClusterInfo | None, audiences: set[str]) -> None:
    assert written(info) == audiences


@pytest.mark.parametrize(
    ("info", "audience", "keys"),
    [
        (INFO, "mesh", {WEB}),
        (INFO, "eu", {WEB}),
        (INFO, "us", {CART}),
        (INFO, "asia", set()),
        # Written no more: there is nothing for it, whatever names it.
        (replace(INFO, audiences=("eu",)), "us", set()),
        (None, "mesh", {WEB}),
        (None, "eu", set()),
    ],
)
def test_an_audience_sees_what_is_offered_to_it_and_no_audience(
    info: ClusterInfo | None, audience: str, keys: set[ServiceKey]
) -> None:
    seen = as_seen_by(state(info), audience)
    assert seen.services.keys() == keys
    for key in keys:
        assert seen.services[key] == held(offered("mesh")), key
    assert (seen.info.value if seen.info else None) == (info and replace(info, audiences=()))
    assert (seen.seq, seen.time_ms, seen.peers) == (9, 5000, {})


def test_the_state_itself_stays_as_it_is() -> None:
    whole = state()
    as_seen_by(whole, "eu")
    assert whole == state()


def test_which_services_name_what_isnt_written() -> None:
    assert unwritten(state()) == {}
    assert unwritten(state(replace(INFO, audiences=("us",)))) == {"eu": [WEB, OWN]}
    assert unwritten(state(None)) == {"eu": [WEB, OWN], "us": [CART]}


@pytest.mark.parametrize(("audience", "audiences"), [("mesh", ()), ("eu", ("eu",))])
def test_what_one_audience_was_told_is_offered_to_it_alone(
    audience: str, audiences: tuple[str, ...]
) -> None:
    """The way back, from an export log to a local one, opens nothing to anybody else."""
    log = as_seen_by(state(), audience)
    local = as_told_to(log, audience)
    assert local.info is not None
    assert local.info.value == replace(INFO, audiences=audiences)
    assert as_seen_by(local, audience) == log
    for other in {"mesh", "eu", "us"} - {audience}:
        assert as_seen_by(local, other).services == {}
        assert as_seen_by(local, other).policies == {}
    assert set(log.policies) == {DENY}
    assert as_told_to(as_seen_by(state(None), audience), audience).info is None


def test_there_are_only_so_many_export_logs() -> None:
    names = [f"a{number}" for number in range(EXPORT_LOGS_MAX - 1)]
    there = {"mesh", *names}

    def ask(*audiences: str) -> None:
        command = SetCluster(replace(INFO, audiences=audiences))
        check_export_logs(there, submission(RemoveService(WEB), command))

    ask("a1", "a2")
    with pytest.raises(RejectedError, match=r"would be 65 export logs; at most 64 \(use a name"):
        ask("a1", "b")
    there = there - {"a7"}
    ask("b")
    # More than there may be were made elsewhere: what is there can be gone on with.
    there = {"mesh", *names, "x", "y"}
    ask("x")
