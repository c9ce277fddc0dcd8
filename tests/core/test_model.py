"""The model of global services: one case for every sentence of its contract, in that order.

Each case says a sentence, a mesh, and what the table of its first cluster makes of it: how many
percent of the traffic go to each cluster, and why endpoints are out.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from meshd.model.cluster import Availability, ClusterSelector
from meshd.model.ids import ClusterName
from meshd.model.service import (
    Affinity,
    Export,
    Port,
    Service,
    SessionAffinity,
    Spill,
    SpillAmount,
    SpillSplit,
    Tier,
    Transport,
)
from meshd.model.staleness import Staleness, StalenessPolicy
from tests.core.model_mesh import (
    GLOBAL,
    HTTP,
    LOCAL,
    Case,
    Cluster,
    check,
    down,
    table_of,
    tiers,
    up,
)

NOT_GLOBAL = replace(GLOBAL, is_global=False)
OLDER = replace(GLOBAL, created_ms=1)
YOUNGER = replace(GLOBAL, created_ms=2)


def spilling(**fields: object) -> Service:
    """Local first, and this is how it overflows."""
    return replace(LOCAL, spill=Spill(**fields))  # type: ignore[arg-type]


CONTRACT = [
    Case(
        says="same namespace and name in several clusters: one global service",
        mesh={"east": Cluster(endpoints=up(1)), "west": Cluster(endpoints=up(1))},
        sees={"east": 50, "west": 50},
    ),
    Case(
        says="a service is global where it is marked `global` in its cluster",
        mesh={"east": Cluster(endpoints=up(1)), "west": Cluster(NOT_GLOBAL, up(1))},
        sees={"east": 100},
    ),
    Case(
        says="its endpoints are offered to others while it is `shared`",
        mesh={
            "east": Cluster(endpoints=up(1)),
            "west": Cluster(replace(GLOBAL, is_shared=False), up(1)),
        },
        sees={"east": 100},
    ),
    Case(
        says="who shares nothing takes part in its own table nevertheless",
        mesh={
            "east": Cluster(replace(GLOBAL, is_shared=False), up(1)),
            "west": Cluster(endpoints=up(1)),
        },
        sees={"east": 50, "west": 50},
    ),
    Case(
        says="a cluster that doesn't have the service marked global doesn't get it",
        mesh={"east": Cluster(NOT_GLOBAL, up(1)), "west": Cluster(endpoints=up(1))},
        sees=None,
    ),
    Case(
        says="affinity `none`: all healthy backends alike",
        mesh={"east": Cluster(GLOBAL, up(1)), "west": Cluster(endpoints=up(3))},
        sees={"east": 25, "west": 75},
    ),
    Case(
        says="affinity `local`: this cluster first",
        mesh={"east": Cluster(LOCAL, up(1)), "west": Cluster(endpoints=up(3))},
        sees={"east": 100},
    ),
    Case(
        says="affinity `remote`: the others first",
        mesh={
            "east": Cluster(replace(GLOBAL, affinity=Affinity.REMOTE), up(3)),
            "west": Cluster(endpoints=up(1)),
        },
        sees={"west": 100},
    ),
    Case(
        says="affinity `remote`: the own ones when no other has any",
        mesh={
            "east": Cluster(replace(GLOBAL, affinity=Affinity.REMOTE), up(3)),
            "west": Cluster(endpoints=down(1)),
        },
        sees={"east": 100},
        out={"west-1": "not-ready"},
    ),
    Case(
        says="tiers: an explicit order of clusters if given",
        mesh={
            "east": Cluster(tiers("south", "west", "east"), up(1)),
            "west": Cluster(endpoints=up(1)),
            "south": Cluster(endpoints=up(1)),
        },
        sees={"south": 100},
    ),
    Case(
        says="clusters of one tier stand alike",
        mesh={
            "east": Cluster(tiers("south west", "east"), up(1)),
            "west": Cluster(endpoints=up(1)),
            "south": Cluster(endpoints=up(1)),
        },
        sees={"south": 50, "west": 50},
    ),
    Case(
        says="affinity comes before the tiers: one manifest for all clusters, each itself first",
        mesh={
            "east": Cluster(),
            "west": Cluster(tiers("east", "west", affinity=Affinity.LOCAL), up(1)),
        },
        seen_from="west",
        sees={"west": 100},
    ),
    Case(
        says="`@local` and `*` stand for the own cluster and for those that no tier names",
        mesh={
            "east": Cluster(tiers("south", "@local", "*"), up(1)),
            "west": Cluster(endpoints=up(1)),
            "south": Cluster(endpoints=down(1)),
        },
        sees={"east": 100},
        out={"south-1": "not-ready"},
    ),
    Case(
        says="who isn't named comes behind the tiers",
        mesh={
            "east": Cluster(tiers("west"), ()),
            "west": Cluster(endpoints=down(1)),
            "south": Cluster(endpoints=up(1)),
        },
        sees={"south": 100},
        out={"west-1": "not-ready"},
    ),
    Case(
        says="else locality: nothing is nearer than the own cluster, whatever it says of itself",
        mesh={
            "east": Cluster(tiers("west"), up(1)),
            "west": Cluster(),
            "south": Cluster(endpoints=up(1)),
        },
        sees={"east": 100},
    ),
    Case(
        says="else locality: the own zone before the own region",
        mesh={
            "east": Cluster(LOCAL, (), {"region": "eu", "zone": "eu-1"}),
            "west": Cluster(endpoints=up(1), info={"region": "eu", "zone": "eu-1"}),
            "south": Cluster(endpoints=up(1), info={"region": "eu", "zone": "eu-2"}),
        },
        sees={"west": 100},
    ),
    Case(
        says="else locality: the own region before all others",
        mesh={
            "east": Cluster(LOCAL, (), {"region": "eu"}),
            "west": Cluster(endpoints=up(1), info={"region": "us"}),
            "south": Cluster(endpoints=up(1), info={"region": "eu"}),
        },
        sees={"south": 100},
    ),
    Case(
        says="an endpoint may say another zone and region than its cluster's",
        mesh={
            "east": Cluster(LOCAL, (), {"region": "eu", "zone": "eu-1"}),
            "west": Cluster(endpoints=up(1, zone="eu-1", region="eu"), info={"region": "us"}),
            "south": Cluster(endpoints=up(1), info={"region": "eu"}),
        },
        sees={"west": 100},
    ),
    Case(
        says="then measured distance",
        mesh={
            "east": Cluster(LOCAL, (), {"region": "eu"}),
            "west": Cluster(endpoints=up(1), info={"region": "us"}),
            "south": Cluster(endpoints=up(1), info={"region": "ap"}),
        },
        far={"west": 2, "south": 1},
        sees={"south": 100},
    ),
    Case(
        says="stale last: behind every fresh one, whatever the tiers say",
        mesh={
            "east": Cluster(tiers("west", "south"), ()),
            "west": Cluster(endpoints=up(3)),
            "south": Cluster(endpoints=up(1)),
        },
        unseen_s={"west": 30},
        sees={"south": 100},
    ),
    Case(
        says="stale last, but served when there is nothing else",
        mesh={"east": Cluster(), "west": Cluster(endpoints=up(3))},
        unseen_s={"west": 3000},
        sees={"west": 100},
    ),
    Case(
        says="per service where it differs: `keep` changes nothing",
        mesh={
            "east": Cluster(replace(GLOBAL, staleness=Staleness(policy=StalenessPolicy.KEEP))),
            "west": Cluster(endpoints=up(1)),
            "south": Cluster(endpoints=up(1)),
        },
        unseen_s={"west": 3000},
        sees={"west": 50, "south": 50},
    ),
    Case(
        says="per service where it differs: `withdraw` after a time",
        mesh={
            "east": Cluster(
                replace(
                    GLOBAL,
                    staleness=Staleness(policy=StalenessPolicy.WITHDRAW, withdraw_after_s=60),
                )
            ),
            "west": Cluster(endpoints=up(1)),
        },
        unseen_s={"west": 60},
        sees={},
        out={"west-1": "withdrawn"},
    ),
    Case(
        says="weight: the endpoint's",
        mesh={"east": Cluster(endpoints=up(1, weight=300)), "west": Cluster(endpoints=up(1))},
        sees={"east": 75, "west": 25},
    ),
    Case(
        says="weight: times the cluster's",
        mesh={
            "east": Cluster(endpoints=up(1, weight=300), info={"weight": 10}),
            "west": Cluster(endpoints=up(1, weight=10)),
        },
        sees={"east": 75, "west": 25},
    ),
    Case(
        says="weight: times the cluster's for this service",
        mesh={
            "east": Cluster(replace(GLOBAL, weight=300), up(1)),
            "west": Cluster(endpoints=up(1)),
        },
        sees={"east": 75, "west": 25},
    ),
    Case(
        says="drain and ramp act on the cluster weight: in a tier of its own it keeps that much",
        mesh={
            "east": Cluster(LOCAL, up(30), {"weight": 20}),
            "west": Cluster(endpoints=up(1)),
        },
        sees={"east": 20, "west": 80},
    ),
    Case(
        says="turned down to nothing is drained",
        mesh={"east": Cluster(LOCAL, up(1), {"weight": 0}), "west": Cluster(endpoints=up(1))},
        sees={"west": 100},
        out={"east-1": "draining"},
    ),
    Case(
        says="in a tier of several the others take it over, and nothing overflows",
        mesh={
            "east": Cluster(tiers("west north", "south"), ()),
            "west": Cluster(endpoints=up(1), info={"weight": 50}),
            "north": Cluster(endpoints=up(1)),
            "south": Cluster(endpoints=up(1)),
        },
        sees={"west": 33.3, "north": 66.7},
    ),
    Case(
        says="spill: at or above the healthy share nothing overflows",
        mesh={"east": Cluster(LOCAL, up(7) + down(3)), "west": Cluster(endpoints=up(1))},
        sees={"east": 100},
        out={f"east-{number}": "not-ready" for number in (8, 9, 10)},
    ),
    Case(
        says="spill: below it the tier keeps in proportion, and the next takes the rest",
        mesh={"east": Cluster(LOCAL, up(7) + down(13)), "west": Cluster(endpoints=up(1))},
        sees={"east": 50, "west": 50},
        out={f"east-{number}": "not-ready" for number in range(8, 21)},
    ),
    Case(
        says="spill: the share that triggers it is the service's own",
        mesh={
            "east": Cluster(spilling(below_percent=50), up(1) + down(1)),
            "west": Cluster(endpoints=up(1)),
        },
        sees={"east": 100},
        out={"east-2": "not-ready"},
    ),
    Case(
        says="spill: what is drained isn't counted on, ready or not",
        mesh={
            "east": Cluster(tiers("west north", "south"), ()),
            "west": Cluster(endpoints=down(9), info={"state": Availability.DRAINING}),
            "north": Cluster(endpoints=up(1)),
            "south": Cluster(endpoints=up(1)),
        },
        sees={"north": 100},
        out={f"west-{number}": "not-ready" for number in range(1, 10)},
    ),
    Case(
        says="spill: `below_percent: 0` waits until nothing is healthy",
        mesh={
            "east": Cluster(spilling(below_percent=0), up(1) + down(9)),
            "west": Cluster(endpoints=up(1)),
        },
        sees={"east": 100},
        out={f"east-{number}": "not-ready" for number in range(2, 11)},
    ),
    Case(
        says="spill: `amount: all` moves everything at once",
        mesh={
            "east": Cluster(spilling(amount=SpillAmount.ALL), up(1) + down(1)),
            "west": Cluster(endpoints=up(1)),
        },
        sees={"west": 100},
        out={"east-2": "not-ready"},
    ),
    Case(
        says="spill: `amount: all`, and nobody healthy enough: each keeps in proportion",
        mesh={
            "east": Cluster(spilling(amount=SpillAmount.ALL, below_percent=100), up(1) + down(1)),
        },
        sees={"east": 100},
        out={"east-2": "not-ready"},
    ),
    Case(
        says="spill: `split: next` fills one tier after the other",
        mesh={
            "east": Cluster(
                replace(tiers("east", "west", "south"), spill=Spill(below_percent=100)),
                up(1) + down(1),
            ),
            "west": Cluster(endpoints=up(1) + down(1)),
            "south": Cluster(endpoints=up(6)),
        },
        sees={"east": 50, "west": 25, "south": 25},
        out={"east-2": "not-ready", "west-2": "not-ready"},
    ),
    Case(
        says="spill: `split: spread` goes to all tiers behind, by their weight",
        mesh={
            "east": Cluster(
                replace(
                    tiers("east", "west", "south"),
                    spill=Spill(below_percent=100, split=SpillSplit.SPREAD),
                ),
                up(1) + down(1),
            ),
            "west": Cluster(endpoints=up(1)),
            "south": Cluster(endpoints=up(4)),
        },
        sees={"east": 50, "west": 10, "south": 40},
        out={"east-2": "not-ready"},
    ),
    Case(
        says="spill: `split: spread` gives a tier no more than its percent of what is spread",
        mesh={
            "east": Cluster(
                replace(
                    GLOBAL,
                    tiers=(
                        Tier(clusters=("east",), percent=60),
                        Tier(clusters=("west",), percent=10),
                        Tier(clusters=("south",)),
                    ),
                    spill=Spill(split=SpillSplit.SPREAD),
                ),
                up(1),
            ),
            "west": Cluster(endpoints=up(9)),
            "south": Cluster(endpoints=up(1)),
        },
        sees={"east": 60, "west": 4, "south": 36},
    ),
    Case(
        says="spill: what is spread and nobody may keep comes back",
        mesh={
            "east": Cluster(
                replace(
                    GLOBAL,
                    tiers=(
                        Tier(clusters=("east",), percent=60),
                        Tier(clusters=("west",), percent=10),
                    ),
                    spill=Spill(split=SpillSplit.SPREAD),
                ),
                up(1),
            ),
            "west": Cluster(endpoints=up(9)),
        },
        sees={"east": 93.8, "west": 6.2},
    ),
    Case(
        says="spill: `split: spread` leaves stale tiers alone while there are others",
        mesh={
            "east": Cluster(
                replace(
                    tiers("east", "west", "south"),
                    spill=Spill(below_percent=100, split=SpillSplit.SPREAD),
                ),
                up(1) + down(1),
            ),
            "west": Cluster(endpoints=up(1)),
            "south": Cluster(endpoints=up(4)),
        },
        unseen_s={"south": 30},
        sees={"east": 50, "west": 50},
        out={"east-2": "not-ready"},
    ),
    Case(
        says="what no tier keeps goes to those that keep something: nobody is left out",
        mesh={"east": Cluster(LOCAL, up(1) + down(9)), "west": Cluster(endpoints=up(1) + down(9))},
        sees={"east": 53.8, "west": 46.2},
        out={f"{name}-{n}": "not-ready" for name in ("east", "west") for n in range(2, 11)},
    ),
    Case(
        says="eligibility: `not-exported`, by a selector of the one who exports",
        mesh={
            "east": Cluster(endpoints=up(1), info={"region": "us"}),
            "west": Cluster(
                replace(GLOBAL, export=Export(clusters=ClusterSelector(regions=("eu",)))), up(1)
            ),
        },
        sees={"east": 100},
        out={"west-1": "not-exported"},
    ),
    Case(
        says="eligibility: `denied-by-import`, by a selector of the one who imports",
        mesh={
            "east": Cluster(
                replace(GLOBAL, import_from=ClusterSelector(not_clusters=(ClusterName("west"),))),
                up(1),
            ),
            "west": Cluster(endpoints=up(1)),
        },
        sees={"east": 100},
        out={"west-1": "denied-by-import"},
    ),
    Case(
        says="eligibility: `maintenance` of the cluster",
        mesh={
            "east": Cluster(endpoints=up(1), info={"state": Availability.MAINTENANCE}),
            "west": Cluster(endpoints=up(1)),
        },
        sees={"west": 100},
        out={"east-1": "maintenance"},
    ),
    Case(
        says="eligibility: `draining` of the cluster",
        mesh={
            "east": Cluster(endpoints=up(1), info={"state": Availability.DRAINING}),
            "west": Cluster(endpoints=up(1)),
        },
        sees={"west": 100},
        out={"east-1": "draining"},
    ),
    Case(
        says="eligibility: `draining` of an endpoint",
        mesh={"east": Cluster(endpoints=up(1) + up(1, weight=0))},
        sees={"east": 100},
        out={"east-2": "draining"},
    ),
    Case(
        says="eligibility: `no-matching-port`, by name",
        mesh={"east": Cluster(endpoints=(replace(up()[0], ports=(Port(80, "admin"),)),))},
        sees={},
        out={"east-1": "no-matching-port"},
    ),
    Case(
        says="eligibility: `no-matching-port`, by protocol",
        mesh={
            "east": Cluster(endpoints=(replace(up()[0], ports=(Port(80, "http", Transport.UDP),)),))
        },
        sees={},
        out={"east-1": "no-matching-port"},
    ),
    Case(
        says="a service without ports takes any",
        mesh={
            "east": Cluster(
                replace(GLOBAL, ports=()), (replace(up()[0], ports=(Port(80, "admin"),)),)
            )
        },
        sees={"east": 100},
    ),
    Case(
        says="eligibility: `terminating`, also while it still serves",
        mesh={"east": Cluster(endpoints=(replace(up()[0], terminating=True, serving=True),))},
        sees={},
        out={"east-1": "terminating"},
    ),
    Case(
        says="conflicts: the oldest definition of the ports wins, and who lost is told",
        mesh={
            "east": Cluster(replace(YOUNGER, ports=(Port(80, "web"),)), up(1)),
            "west": Cluster(OLDER, up(1)),
        },
        sees={"west": 100},
        out={"east-1": "no-matching-port"},
        conditions=(("PortsConflict", "east"),),
    ),
    Case(
        says="conflicts: another protocol is another port",
        mesh={
            "east": Cluster(replace(YOUNGER, ports=(Port(80, "http", Transport.UDP),))),
            "west": Cluster(OLDER, up(1)),
        },
        sees={"west": 100},
        conditions=(("PortsConflict", "east"),),
    ),
    Case(
        says="conflicts: session affinity, and its time-out",
        mesh={
            "east": Cluster(replace(OLDER, session_affinity=SessionAffinity.CLIENT_IP), up(1)),
            "west": Cluster(YOUNGER),
            "south": Cluster(
                replace(YOUNGER, session_affinity=SessionAffinity.CLIENT_IP, session_timeout_s=60)
            ),
        },
        sees={"east": 100},
        conditions=(("SessionAffinityConflict", "south"), ("SessionAffinityConflict", "west")),
    ),
    Case(
        says="conflicts: headless or not",
        mesh={"east": Cluster(replace(YOUNGER, headless=True), up(1)), "west": Cluster(OLDER)},
        sees={"east": 100},
        conditions=(("TypeConflict", "east"),),
    ),
    Case(
        says="a cluster in a tier that nobody knows is a condition: it may still come",
        mesh={"east": Cluster(tiers("west", "east"), up(1))},
        sees={"east": 100},
        conditions=(("UnknownCluster", "east"),),
    ),
]


@pytest.mark.parametrize("case", CONTRACT, ids=[case.says for case in CONTRACT])
def test_the_contract(case: Case) -> None:
    check(case)


@pytest.mark.parametrize("seen_from", ["east", "west"])
def test_conflicts_resolve_the_same_way_everywhere(seen_from: str) -> None:
    mesh = {
        "east": Cluster(replace(YOUNGER, ports=(Port(81, "web"),), headless=True)),
        "west": Cluster(replace(OLDER, session_affinity=SessionAffinity.CLIENT_IP)),
    }
    service = table_of(Case(says="", mesh=mesh, sees={}, seen_from=seen_from))
    assert service is not None
    assert (service.ports, service.headless) == ((HTTP,), False)
    assert service.session_affinity is SessionAffinity.CLIENT_IP
    assert [str(condition.type) for condition in service.conditions] == [
        "PortsConflict",
        "TypeConflict",
        "SessionAffinityConflict",
    ]
