"""Explaining a service: every endpoint in or out, why, and the event that made it so."""

from __future__ import annotations

from dataclasses import replace

import pytest

from meshd.core.explain import ExplainedEndpoint, Explanation, explain
from meshd.core.liveness import Sight, StalenessRules
from meshd.model.cluster import Availability, ClusterSelector
from meshd.model.errors import NotFoundError
from meshd.model.ids import ClusterName, LogId, ServiceKey
from meshd.model.service import (
    Affinity,
    Export,
    Port,
    Service,
    Spill,
    SpillAmount,
    SpillSplit,
    Tier,
)
from meshd.model.staleness import StalenessPolicy
from tests.core.model_mesh import GLOBAL, LOCAL, WEB, Cluster, Mesh, down, states_of, tiers, up

EAST, WEST = ClusterName("east"), ClusterName("west")
WITHDRAW = StalenessRules(StalenessPolicy.WITHDRAW, stale_after_s=30, withdraw_after_s=300)
PRIVATE = replace(GLOBAL, is_global=False)
UNSHARED = replace(GLOBAL, is_shared=False)
EU_ONLY = replace(GLOBAL, export=Export(clusters=ClusterSelector(regions=("eu",))))
NOT_FROM_WEST = replace(GLOBAL, import_from=ClusterSelector(not_clusters=(WEST,)))
GONE = {"west": 312.0}
DRAINING, MAINTENANCE = Availability.DRAINING, Availability.MAINTENANCE


def explained(mesh: Mesh, unseen_s: dict[str, float] | None = None) -> Explanation:
    """The service as east sees it."""
    states = states_of(mesh)
    log_ids = {name: LogId("a" * 32) for name in states}
    sights = {ClusterName(name): Sight(WITHDRAW, s) for name, s in (unseen_s or {}).items()}
    return explain(EAST, WEB, states, log_ids, sights)


def made(endpoint: ExplainedEndpoint) -> list[str]:
    return [f"{one.cluster}:{one.origin.seq} {one.what}" for one in endpoint.made]


SERVICE_SET = "west:2 service.set shop/web"
ENDPOINT_SET = "west:3 endpoint.set shop/web/west-1"
CLUSTER_SET = "west:1 cluster.set west"


@pytest.mark.parametrize(
    ("east", "west", "unseen_s", "reason", "why", "events"),
    [
        (GLOBAL, Cluster(endpoints=up()), {}, None, "takes traffic in tier 0", [ENDPOINT_SET]),
        (
            GLOBAL,
            Cluster(endpoints=up()),
            GONE,
            "withdrawn",
            "west has been out of sight for 312 s, and is then withdrawn",
            [ENDPOINT_SET],
        ),
        (
            GLOBAL,
            Cluster(None, up()),
            {},
            "no-service",
            "west defines no service shop/web; the endpoint waits for it",
            [ENDPOINT_SET],
        ),
        (
            GLOBAL,
            Cluster(PRIVATE, up()),
            {},
            "not-global",
            "west does not mark it global",
            [SERVICE_SET, ENDPOINT_SET],
        ),
        (
            GLOBAL,
            Cluster(UNSHARED, up()),
            {},
            "not-shared",
            "west does not share it (`shared: false`)",
            [SERVICE_SET, ENDPOINT_SET],
        ),
        (
            PRIVATE,
            Cluster(endpoints=up()),
            {},
            "no-service",
            "it is not served in east at all",
            [ENDPOINT_SET],
        ),
        (
            GLOBAL,
            Cluster(EU_ONLY, up()),
            {},
            "not-exported",
            "west exports it to others than east (`export.clusters`)",
            [SERVICE_SET, "east:1 cluster.set east", ENDPOINT_SET],
        ),
        (
            NOT_FROM_WEST,
            Cluster(endpoints=up()),
            {},
            "denied-by-import",
            "east takes none of it from west (`import`)",
            ["east:2 service.set shop/web", ENDPOINT_SET],
        ),
        (
            GLOBAL,
            Cluster(endpoints=up(), info={"state": MAINTENANCE}),
            {},
            "maintenance",
            "west is in maintenance",
            [CLUSTER_SET, ENDPOINT_SET],
        ),
        (
            GLOBAL,
            Cluster(endpoints=(replace(up()[0], ports=(Port(9, "x"), Port(8))),)),
            {},
            "no-matching-port",
            "it listens on x/TCP, 8/TCP, which the service does not have",
            ["east:2 service.set shop/web", ENDPOINT_SET],
        ),
        (
            GLOBAL,
            Cluster(replace(GLOBAL, ports=(), created_ms=1), up()),
            {},
            "no-matching-port",
            "it listens on no port, which the service does not have",
            ["east:2 service.set shop/web", ENDPOINT_SET],
        ),
        (
            GLOBAL,
            Cluster(endpoints=(replace(up()[0], terminating=True),)),
            {},
            "terminating",
            "it is terminating",
            [ENDPOINT_SET],
        ),
        (GLOBAL, Cluster(endpoints=down()), {}, "not-ready", "it is not ready", [ENDPOINT_SET]),
        (
            GLOBAL,
            Cluster(endpoints=up(), info={"state": DRAINING}),
            {},
            "draining",
            "it is drained: west is draining",
            [CLUSTER_SET, ENDPOINT_SET],
        ),
        (
            GLOBAL,
            Cluster(endpoints=up(), info={"weight": 0}),
            {},
            "draining",
            "it is drained: the weight of west is 0",
            [CLUSTER_SET, ENDPOINT_SET],
        ),
        (
            GLOBAL,
            Cluster(endpoints=up(), info={"turned_percent": 0}),
            {},
            "draining",
            "it is drained: all of west is turned away",
            [CLUSTER_SET, ENDPOINT_SET],
        ),
        (
            GLOBAL,
            Cluster(replace(GLOBAL, weight=0), up()),
            {},
            "draining",
            "it is drained: the weight of the service in west is 0",
            [SERVICE_SET, ENDPOINT_SET],
        ),
        (
            GLOBAL,
            Cluster(replace(GLOBAL, turned_percent=0), up()),
            {},
            "draining",
            "it is drained: the service is turned away in west",
            [SERVICE_SET, ENDPOINT_SET],
        ),
        (
            GLOBAL,
            Cluster(endpoints=tuple(replace(one, turned_percent=0) for one in up())),
            {},
            "draining",
            "it is drained: it is turned away",
            [ENDPOINT_SET],
        ),
        (
            GLOBAL,
            Cluster(endpoints=up(weight=0)),
            {},
            "draining",
            "it is drained: its weight is 0",
            [ENDPOINT_SET],
        ),
    ],
)
def test_every_endpoint_is_in_or_out_for_a_reason_and_by_an_event(
    east: Service,
    west: Cluster,
    unseen_s: dict[str, float],
    reason: str | None,
    why: str,
    events: list[str],
) -> None:
    (endpoint,) = explained({"east": Cluster(east), "west": west}, unseen_s).endpoints
    assert (endpoint.cluster, endpoint.name, endpoint.reason) == ("west", "west-1", reason)
    assert endpoint.why == why
    assert made(endpoint) == events


@pytest.mark.parametrize("said_ms", [0, 7])
def test_who_is_passed_over_for_what_it_says_of_itself_is_told_so(said_ms: int) -> None:
    """The later of the two events comes first: it is the one that decided."""
    golden = replace(GLOBAL, import_from=ClusterSelector(labels={"gold": "yes"}))
    states = states_of({"east": Cluster(golden), "west": Cluster(endpoints=up())})
    states[EAST].services[WEB] = replace(states[EAST].services[WEB], time_ms=5)
    info = states[WEST].info
    assert info is not None
    states[WEST].info = replace(info, time_ms=said_ms)
    log_ids = {name: LogId("a" * 32) for name in states}
    (endpoint,) = explain(EAST, WEB, states, log_ids).endpoints
    assert endpoint.reason == "denied-by-import"
    chosen = ["east:2 service.set shop/web", CLUSTER_SET]
    assert made(endpoint)[:2] == (chosen if said_ms < 5 else chosen[::-1])


@pytest.mark.parametrize(
    ("east", "is_served", "why"),
    [
        (GLOBAL, True, "east marks it global, so it is served there"),
        (PRIVATE, False, "east does not mark it global, so it is not served there"),
        (
            None,
            False,
            "east does not define it, so it is not served there: define it there as global",
        ),
    ],
)
def test_a_service_is_served_or_not_for_a_reason(
    east: Service | None, is_served: bool, why: str
) -> None:
    found = explained({"east": Cluster(east), "west": Cluster(endpoints=up())})
    assert (found.service is not None, found.why) == (is_served, why)
    assert bool(found.tiers) is is_served


def test_who_offers_it_to_another_audience_is_unheard() -> None:
    states = states_of({"east": Cluster(), "west": Cluster(None, up())})
    log_ids = {name: LogId("a" * 32) for name in states}
    found = explain(EAST, WEB, states, log_ids, {}, {WEST})
    (endpoint,) = found.endpoints
    assert endpoint.reason == "not-exported"
    assert endpoint.why == "west exports it to another audience than east reads"
    assert made(endpoint) == [ENDPOINT_SET]


def test_what_nobody_has_heard_of_is_not_found() -> None:
    with pytest.raises(NotFoundError, match="shop/cart"):
        explain(EAST, ServiceKey("shop", "cart"), states_of({"east": Cluster()}), {})


TENTH = replace(GLOBAL, tiers=(Tier(clusters=("@local",), percent=10), Tier(clusters=("west",))))


@pytest.mark.parametrize(
    ("mesh", "unseen_s", "orders"),
    [
        (
            {"east": Cluster(LOCAL, up()), "west": Cluster(endpoints=up(region="us"))},
            {},
            ["the own cluster first (affinity local)", "elsewhere"],
        ),
        (
            {
                "east": Cluster(replace(GLOBAL, affinity=Affinity.REMOTE), up(), {"region": "eu"}),
                "west": Cluster(endpoints=up(region="eu")),
            },
            {},
            ["in the own region", "the own cluster last (affinity remote)"],
        ),
        (
            {
                "east": Cluster(tiers("south", "west"), up()),
                "west": Cluster(endpoints=up()),
            },
            {},
            ["tier 2 of the definition", "the own cluster or zone"],
        ),
        (
            {"east": Cluster(GLOBAL, up()), "west": Cluster(endpoints=up())},
            {"west": 60.0},
            [
                "all clusters alike (affinity none)",
                "out of sight, so behind all others; all clusters alike (affinity none)",
            ],
        ),
    ],
)
def test_a_tiers_place_is_explained(
    mesh: Mesh, unseen_s: dict[str, float], orders: list[str]
) -> None:
    assert [tier.order for tier in explained(mesh, unseen_s).tiers] == orders


def test_what_is_spread_is_explained_as_that() -> None:
    service = replace(
        GLOBAL,
        tiers=(
            Tier(clusters=("@local",), percent=60),
            Tier(clusters=("west",), percent=10),
            Tier(clusters=("south",)),
        ),
        spill=Spill(split=SpillSplit.SPREAD),
    )
    mesh = {
        "east": Cluster(service, up()),
        "west": Cluster(endpoints=up(9) + down(81)),
        "south": Cluster(endpoints=up()),
    }
    assert [tier.why for tier in explained(mesh).tiers][1:] == [
        "40 % are spread over it and the others by weight; it may take 10 % at most; takes 4 %",
        "40 % are spread over it and the others by weight; takes 36 %",
    ]


def test_a_measured_distance_is_told() -> None:
    states = states_of({"east": Cluster(LOCAL), "west": Cluster(endpoints=up())})
    log_ids = {name: LogId("a" * 32) for name in states}
    orders = [
        explain(EAST, WEB, states, log_ids, {WEST: Sight(WITHDRAW, 0, step)}).tiers[0].order
        for step in range(3)
    ]
    assert orders == ["elsewhere", "elsewhere, far", "elsewhere, very far"]


ALL = replace(LOCAL, spill=Spill(amount=SpillAmount.ALL))


@pytest.mark.parametrize(
    ("mesh", "whys"),
    [
        (
            {"east": Cluster(LOCAL, up(7) + down(13)), "west": Cluster(endpoints=up())},
            [
                (
                    "100 % reach it; 35 % healthy, below 70 %: the rest overflows (proportional);"
                    " takes 50 %"
                ),
                "50 % reach it; 100 % healthy, which is enough (from 70 %); takes 50 %",
            ],
        ),
        (
            {"east": Cluster(LOCAL, down(1)), "west": Cluster(endpoints=up(), info={"weight": 25})},
            [
                "none of its 1 backends is in, so it takes nothing",
                (
                    "100 % reach it; 100 % healthy, which is enough (from 70 %); its clusters are"
                    " turned down to 25 %; what nobody keeps comes back; takes 100 %"
                ),
            ],
        ),
        (
            {"east": Cluster(TENTH, up()), "west": Cluster(endpoints=up())},
            [
                (
                    "100 % reach it; 100 % healthy, which is enough (from 70 %);"
                    " it may take 10 % at most; takes 10 %"
                ),
                "90 % reach it; 100 % healthy, which is enough (from 70 %); takes 90 %",
            ],
        ),
        (
            {"east": Cluster(ALL, up(1) + down(1)), "west": Cluster(endpoints=up())},
            [
                "100 % reach it; 50 % healthy, below 70 %: the rest overflows (all); takes 0 %",
                "100 % reach it; 100 % healthy, which is enough (from 70 %); takes 100 %",
            ],
        ),
    ],
)
def test_a_tiers_share_is_explained(mesh: Mesh, whys: list[str]) -> None:
    found = explained(mesh)
    assert [tier.why for tier in found.tiers] == whys
    shares = [0] * len(whys)
    for endpoint in found.endpoints:
        assert endpoint.tier is not None
        shares[endpoint.tier] += endpoint.share_ppm
    assert [abs(a - b.share.share_ppm) < 20 for a, b in zip(shares, found.tiers, strict=True)]
