"""What users of other systems report as missing or broken there, and how it is here."""

from __future__ import annotations

from dataclasses import replace

import pytest

from meshd.core.state import ClusterState
from meshd.core.tables import Tables
from meshd.model.ids import ClusterName, LogId
from meshd.model.service import (
    Tier,
)
from tests.core.model_mesh import (
    GLOBAL,
    LOCAL,
    WEB,
    Case,
    Cluster,
    check,
    down,
    tiers,
    up,
)

THREE_REMOTE = tiers("@local", "north", "west", "south")
TEN_PERCENT = replace(GLOBAL, tiers=(Tier(clusters=("@local",), percent=90), Tier(clusters=("*",))))

REPORTS = [
    Case(
        says="an order among more than two remote clusters: the first",
        mesh={
            "east": Cluster(THREE_REMOTE),
            "north": Cluster(endpoints=up(1)),
            "west": Cluster(endpoints=up(1)),
            "south": Cluster(endpoints=up(1)),
        },
        sees={"north": 100},
    ),
    Case(
        says="an order among more than two remote clusters: the second when the first is away",
        mesh={
            "east": Cluster(THREE_REMOTE),
            "north": Cluster(endpoints=up(1)),
            "west": Cluster(endpoints=up(1)),
            "south": Cluster(endpoints=up(1)),
        },
        unseen_s={"north": 30},
        sees={"west": 100},
    ),
    Case(
        says="a percentage to remote, however many endpoints there are on either side",
        mesh={"east": Cluster(TEN_PERCENT, up(3)), "west": Cluster(endpoints=up(40))},
        sees={"east": 90, "west": 10},
    ),
    Case(
        says="a percentage to remote goes home when no remote has a backend",
        mesh={"east": Cluster(TEN_PERCENT, up(3)), "west": Cluster()},
        sees={"east": 100},
    ),
    Case(
        says="the first of thirty local pods does not take 100 %",
        mesh={"east": Cluster(LOCAL, up(1) + down(29)), "west": Cluster(endpoints=up(30))},
        sees={"east": 4.8, "west": 95.2},
        out={f"east-{number}": "not-ready" for number in range(2, 31)},
    ),
    Case(
        says="weights together with failover: weights count within the tier that is used",
        mesh={
            "east": Cluster(LOCAL, down(1)),
            "west": Cluster(endpoints=up(1, weight=300)),
            "south": Cluster(endpoints=up(1, weight=100)),
        },
        sees={"west": 75, "south": 25},
        out={"east-1": "not-ready"},
    ),
    Case(
        says="affinity `none` really balances over all, near and far, here and there",
        mesh={
            "east": Cluster(GLOBAL, up(1), {"region": "eu", "zone": "eu-1"}),
            "west": Cluster(endpoints=up(1), info={"region": "eu", "zone": "eu-1"}),
            "south": Cluster(endpoints=up(2), info={"region": "us"}),
        },
        far={"south": 2},
        sees={"east": 25, "west": 25, "south": 50},
    ),
    Case(
        says="not-ready endpoints never leak, even where nothing else is left",
        mesh={"east": Cluster(LOCAL, down(1)), "west": Cluster(endpoints=down(2))},
        sees={},
        out={"east-1": "not-ready", "west-1": "not-ready", "west-2": "not-ready"},
    ),
]


@pytest.mark.parametrize("case", REPORTS, ids=[case.says for case in REPORTS])
def test_what_others_lack(case: Case) -> None:
    check(case)


def mesh_of(
    *names: str,
) -> tuple[Tables, dict[ClusterName, ClusterState], dict[ClusterName, LogId]]:
    states = {
        ClusterName(name): Cluster(endpoints=up(1)).state(ClusterName(name), number)
        for number, name in enumerate(names, 1)
    }
    log_ids = {name: LogId("a" * 32) for name in states}
    tables = Tables(ClusterName(names[0]))
    for name in states:
        tables.replace(name, states, log_ids)
    return tables, states, log_ids


def test_removing_c1_leaves_c10_alone() -> None:
    tables, states, log_ids = mesh_of("east", "c1", "c10")
    c1 = ClusterName("c1")
    del states[c1]
    (delta,) = tables.replace(c1, states, log_ids)
    assert delta.removals == ((c1, "c1-1"),)
    view = tables.view(WEB)
    assert view is not None
    assert [backend.cluster for backend in view.eligible] == ["c10", "east"]


def test_a_peer_that_is_unknown_is_not_empty() -> None:
    """One that says nothing yet has no part in the service; an empty one takes part in it."""
    tables, states, log_ids = mesh_of("east", "west")
    known = tables.view(WEB)
    states[ClusterName("south")] = ClusterState()
    log_ids[ClusterName("south")] = LogId("a" * 32)
    assert tables.replace(ClusterName("south"), states, log_ids) == ()
    assert tables.view(WEB) is known
    states[ClusterName("south")] = Cluster().state(ClusterName("south"), 3)
    tables.replace(ClusterName("south"), states, log_ids)
    view = tables.view(WEB)
    assert view is not None
    assert view.clusters == ("east", "south", "west")
