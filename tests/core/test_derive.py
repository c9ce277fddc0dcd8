"""What the global tables are, by example. `test_tables.py` proves the incremental form equal."""

from dataclasses import replace
from itertools import permutations

import pytest

from meshd.core.derive import derive, digest_of_table, digests_of_services
from meshd.core.digest import DIGEST_ZERO, Digest, digest_hex, digest_of_backend, minus, plus
from meshd.core.state import ClusterState, Held
from meshd.core.tiers import DEMOTION, DISTANCE_MAX, PLACE_STEP, RANK_STEP, RANKS_MAX
from meshd.model.endpoint import Endpoint
from meshd.model.ids import ClusterName, LogId, Seq, ServiceKey
from meshd.model.service import TIERS_MAX, Affinity, Port, Service, Transport
from meshd.model.table import (
    WEIGHT_UNIT,
    Condition,
    ConditionType,
    GlobalService,
    Origin,
    Reason,
    Standing,
)
from tests.core.sights import SIGHTS

CART = ServiceKey("shop", "cart")
EAST, NORTH, WEST = ClusterName("east"), ClusterName("north"), ClusterName("west")
LOG_IDS = {EAST: LogId("e" * 32), NORTH: LogId("a" * 32), WEST: LogId("f" * 32)}

HTTP, GRPC = Port(80, "http"), Port(90, "grpc", app_protocol="grpc")

UP = Endpoint(address="10.0.0.1")
GLOBAL = Service(is_global=True, ports=(HTTP,))
UNSHARED = replace(GLOBAL, is_shared=False)
PRIVATE = replace(GLOBAL, is_global=False)
PRIVATE_YET_SHARED = replace(PRIVATE, is_shared=True)


def cluster(service: Service | None, **endpoints: Endpoint) -> ClusterState:
    """A cluster that defines the one service, or doesn't, and has these endpoints of it."""
    state = ClusterState()
    if service is not None:
        state.services[CART] = Held(service, Seq(1), 1000, "ann")
    if endpoints:
        state.endpoints[CART] = {
            name: Held(endpoint, Seq(seq), seq * 1000, "kubelet")
            for seq, (name, endpoint) in enumerate(endpoints.items(), 2)
        }
    return state


def cart(
    *, standings: dict[ClusterName, Standing] | None = None, **states: ClusterState
) -> GlobalService | None:
    """The service as west sees it."""
    named = {ClusterName(name): state for name, state in states.items()}
    sights = {name: SIGHTS[standing] for name, standing in (standings or {}).items()}
    return derive(WEST, named, LOG_IDS, sights).get(CART)


def in_short(service: GlobalService | None) -> list[str] | None:
    """Each backend as 'priority cluster/name', with the reason if it is out."""
    if service is None:
        return None
    return [
        f"{backend.priority} {backend.cluster}/{backend.name} {backend.reason or ''}".strip()
        for backend in service.backends
    ]


@pytest.mark.parametrize(
    ("west", "east", "backends"),
    [
        pytest.param(cluster(GLOBAL, w=UP), cluster(GLOBAL, e=UP), ["0 east/e", "0 west/w"],
                     id="global in both: the backends of both"),
        pytest.param(cluster(GLOBAL), cluster(GLOBAL, e=UP), ["0 east/e"],
                     id="no backend here: the peer's"),
        pytest.param(cluster(GLOBAL), cluster(GLOBAL), [],
                     id="no backend anywhere: served, and empty"),
        pytest.param(cluster(None), cluster(GLOBAL, e=UP), None,
                     id="not defined here: not served"),
        pytest.param(cluster(PRIVATE, w=UP), cluster(GLOBAL, e=UP), None,
                     id="not global here: not served"),
        pytest.param(cluster(PRIVATE_YET_SHARED, w=UP), cluster(GLOBAL, e=UP), None,
                     id="shared without being global says nothing: not served"),
        pytest.param(cluster(GLOBAL, w=UP), cluster(PRIVATE, e=UP), ["0 west/w"],
                     id="not global there: that cluster takes no part"),
        pytest.param(cluster(GLOBAL, w=UP), cluster(PRIVATE_YET_SHARED, e=UP), ["0 west/w"],
                     id="shared but not global there: that cluster takes no part"),
        pytest.param(cluster(GLOBAL, w=UP), cluster(UNSHARED, e=UP), ["0 west/w"],
                     id="not shared there: that cluster keeps its backends"),
        pytest.param(cluster(UNSHARED, w=UP), cluster(GLOBAL, e=UP), ["0 east/e", "0 west/w"],
                     id="not shared here: takes from others, gives nothing"),
        pytest.param(cluster(GLOBAL, w=UP), cluster(None, e=UP), ["0 west/w"],
                     id="endpoints before their service wait for it"),
        pytest.param(cluster(None, w=UP), cluster(None, e=UP), None,
                     id="endpoints alone make no service"),
    ],
)  # fmt: skip
def test_who_takes_part(west: ClusterState, east: ClusterState, backends: list[str] | None) -> None:
    assert in_short(cart(west=west, east=east)) == backends


def test_without_the_perspectives_own_state_there_is_no_table() -> None:
    assert derive(WEST, {EAST: cluster(GLOBAL, e=UP)}, LOG_IDS) == {}
    assert digest_of_table(WEST, {EAST: cluster(GLOBAL, e=UP)}, LOG_IDS) == "0" * 32


def test_the_clusters_that_take_part_are_named_even_without_a_backend() -> None:
    service = cart(west=cluster(GLOBAL), north=cluster(PRIVATE), east=cluster(GLOBAL))
    assert service is not None
    assert service.clusters == (EAST, WEST)


@pytest.mark.parametrize(
    ("affinity", "backends"),
    [
        (Affinity.NONE, ["0 east/e", "0 north/n", "0 west/w"]),
        (Affinity.LOCAL, ["0 west/w", "16 east/e", "16 north/n"]),
        (Affinity.REMOTE, ["6 east/e", "6 north/n", "10 west/w"]),
    ],
)
def test_affinity_orders_the_tiers(affinity: Affinity, backends: list[str]) -> None:
    here = replace(GLOBAL, affinity=affinity)
    service = cart(
        west=cluster(here, w=UP), north=cluster(GLOBAL, n=UP), east=cluster(GLOBAL, e=UP)
    )
    assert service is not None
    assert in_short(service) == backends
    assert service.affinity is affinity


def test_affinity_is_the_perspectives_own_also_when_another_definition_is_older() -> None:
    older = replace(GLOBAL, affinity=Affinity.LOCAL)
    younger = replace(GLOBAL, affinity=Affinity.NONE, created_ms=5)
    service = cart(west=cluster(younger, w=UP), east=cluster(older, e=UP))
    assert in_short(service) == ["0 east/e", "0 west/w"]


def test_tiers_are_fixed_by_relation_and_not_moved_up_when_one_is_empty() -> None:
    here = replace(GLOBAL, affinity=Affinity.LOCAL)
    assert in_short(cart(west=cluster(here), east=cluster(GLOBAL, e=UP))) == ["16 east/e"]


@pytest.mark.parametrize(
    ("endpoint", "reason"),
    [
        (UP, None),
        (replace(UP, weight=1), None),
        (replace(UP, serving=False), None),
        (replace(UP, weight=0), Reason.DRAINING),
        (replace(UP, ready=False), Reason.NOT_READY),
        (replace(UP, ready=False, serving=True), Reason.NOT_READY),
        (replace(UP, ready=False, weight=0), Reason.NOT_READY),
        (replace(UP, terminating=True), Reason.TERMINATING),
        (replace(UP, terminating=True, ready=False, weight=0), Reason.TERMINATING),
    ],
)
def test_an_endpoint_that_is_out_stays_with_its_first_reason(
    endpoint: Endpoint, reason: Reason | None
) -> None:
    service = cart(west=cluster(GLOBAL, w=endpoint))
    assert service is not None
    assert [backend.reason for backend in service.backends] == [reason]
    assert service.eligible == (service.backends if reason is None else ())


@pytest.mark.parametrize(
    ("standing", "backends"),
    [
        (Standing.FRESH, ["0 west/w", "16 east/down not-ready", "16 east/e", "16 north/n"]),
        (
            Standing.DEMOTED,
            ["0 west/w", "16 north/n", "1016 east/down not-ready", "1016 east/e"],
        ),
        (
            Standing.WITHDRAWN,
            ["0 west/w", "16 east/down withdrawn", "16 east/e withdrawn", "16 north/n"],
        ),
    ],
)
def test_a_standing_is_laid_over_a_clusters_backends(
    standing: Standing, backends: list[str]
) -> None:
    service = cart(
        west=cluster(replace(GLOBAL, affinity=Affinity.LOCAL), w=UP),
        north=cluster(GLOBAL, n=UP),
        east=cluster(GLOBAL, e=UP, down=replace(UP, ready=False)),
        standings={EAST: standing},
    )
    assert in_short(service) == backends


@pytest.mark.parametrize("standing", Standing)
def test_a_cluster_never_loses_sight_of_itself(standing: Standing) -> None:
    assert in_short(cart(west=cluster(GLOBAL, w=UP), standings={WEST: standing})) == ["0 west/w"]


def test_a_demoted_backend_is_behind_every_tier_there_can_be() -> None:
    assert DEMOTION > (RANKS_MAX - 1) * RANK_STEP + 2 * PLACE_STEP + DISTANCE_MAX
    assert RANKS_MAX == TIERS_MAX + 2


def test_a_backend_carries_what_its_endpoint_says_and_the_event_that_said_it() -> None:
    endpoint = Endpoint(
        address="10.0.0.7", ports=(HTTP,), weight=7, region="r", zone="z1", node="n1", serving=False
    )
    service = cart(west=cluster(GLOBAL), east=cluster(GLOBAL, e=endpoint))
    assert service is not None
    (backend,) = service.backends
    assert (backend.address, backend.ports) == ("10.0.0.7", (HTTP,))
    assert (backend.endpoint_weight, backend.weight) == (7, 7 * WEIGHT_UNIT)
    assert (backend.region, backend.zone, backend.node) == ("r", "z1", "n1")
    assert not backend.serving
    assert backend.origin == Origin(LOG_IDS[EAST], Seq(2), 2000, "kubelet")


def test_an_endpoint_without_ports_listens_where_its_own_definition_says() -> None:
    younger = replace(GLOBAL, ports=(replace(HTTP, port=8080), GRPC), created_ms=1)
    service = cart(west=cluster(GLOBAL), east=cluster(younger, e=UP))
    assert service is not None
    assert service.backends[0].ports == (replace(HTTP, port=8080),)


HTTP_OR_GRPC = replace(GLOBAL, ports=(HTTP, GRPC))
LATER = replace(GLOBAL, created_ms=1)
GRPC_ONLY = replace(GLOBAL, ports=(GRPC,))


@pytest.mark.parametrize(
    ("west", "east", "served", "loser"),
    [
        pytest.param(GLOBAL, LATER, (HTTP,), None,
                     id="equal ports: no conflict"),
        pytest.param(HTTP_OR_GRPC, replace(LATER, ports=(GRPC, HTTP)), (HTTP, GRPC), None,
                     id="equal but for their order: no conflict, the older order"),
        pytest.param(GLOBAL, replace(LATER, ports=(GRPC,)), (HTTP,), EAST,
                     id="the older definition wins, here the own"),
        pytest.param(LATER, GRPC_ONLY, (GRPC,), WEST,
                     id="the own definition can lose too"),
        pytest.param(GLOBAL, GRPC_ONLY, (GRPC,), WEST,
                     id="of the same age: the first by cluster name wins"),
        pytest.param(HTTP_OR_GRPC, LATER, (HTTP, GRPC), EAST,
                     id="fewer ports are other ports"),
        pytest.param(GLOBAL, replace(LATER, ports=()), (HTTP,), EAST,
                     id="no port is other ports"),
        pytest.param(GLOBAL, replace(LATER, ports=(replace(HTTP, app_protocol="h2c"),)),
                     (HTTP,), EAST, id="another application protocol is another port"),
        pytest.param(GLOBAL, replace(PRIVATE, ports=(GRPC,)), (HTTP,), None,
                     id="who takes no part has no say"),
    ],
)  # fmt: skip
def test_the_oldest_definitions_ports_are_served_and_others_are_told(
    west: Service, east: Service, served: tuple[Port, ...], loser: ClusterName | None
) -> None:
    service = cart(west=cluster(west), east=cluster(east))
    assert service is not None
    assert service.ports == served
    assert [condition.cluster for condition in service.conditions] == ([loser] if loser else [])


@pytest.mark.parametrize(
    ("lost", "words"),
    [
        ((GRPC, HTTP), "grpc=90/TCP (grpc), http=80/TCP"),
        ((Port(53, protocol=Transport.UDP),), "53/UDP"),
        ((), "no port"),
    ],
)
def test_a_conflict_says_who_defines_what_and_what_to_do(
    lost: tuple[Port, ...], words: str
) -> None:
    service = cart(west=cluster(GLOBAL), east=cluster(replace(LATER, ports=lost)))
    assert service is not None
    message = (
        f"east defines {words}; http=80/TCP is served, since the definition of west is older:"
        " make both definitions alike, or give one service another name"
    )
    assert service.conditions == (Condition(ConditionType.PORTS_CONFLICT, EAST, message),)


def test_conflicts_are_sorted_by_the_cluster_that_lost() -> None:
    other = replace(GLOBAL, ports=(GRPC,), created_ms=1)
    service = cart(north=cluster(other), west=cluster(GLOBAL), east=cluster(other))
    assert service is not None
    assert [condition.cluster for condition in service.conditions] == [EAST, NORTH]


def test_the_order_in_which_anything_is_held_means_nothing() -> None:
    states = {
        WEST: cluster(GLOBAL, a=UP, b=UP),
        EAST: cluster(replace(GLOBAL, ports=(GRPC,)), c=UP),
        NORTH: cluster(GLOBAL, d=UP),
    }
    tables = []
    digests = set()
    for order in permutations(states):
        shuffled = {name: states[name] for name in order}
        tables.append(derive(WEST, shuffled, LOG_IDS))
        digests.add(digest_of_table(WEST, shuffled, LOG_IDS))
    assert all(table == tables[0] for table in tables)
    assert len(digests) == 1


# --- digests --------------------------------------------------------------------------------------


def digest(
    west: ClusterState, east: ClusterState, log_ids: dict[ClusterName, LogId] = LOG_IDS
) -> str:
    """The digest of west's one service."""
    return digests_of_services(WEST, {WEST: west, EAST: east}, log_ids)[CART]


def test_the_digest_is_the_same_everywhere_and_for_ever() -> None:
    """A golden value: another one means that versions disagree about equal tables."""
    endpoint = Endpoint(address="10.0.0.7", ports=(GRPC, HTTP), weight=7, zone="z1", node="n1")
    east = cluster(replace(GLOBAL, ports=(GRPC,)), e=endpoint, f=replace(UP, ready=False))
    assert digest(cluster(GLOBAL, w=UP), east) == "c76cd70e3eed97b35ac22bc056d1de3c"


PLAIN = cluster(GLOBAL, e=UP)


@pytest.mark.parametrize(
    "east",
    [
        pytest.param(cluster(GLOBAL), id="an endpoint less"),
        pytest.param(cluster(GLOBAL, e=UP, f=UP), id="an endpoint more"),
        pytest.param(cluster(GLOBAL, f=UP), id="its name"),
        pytest.param(cluster(GLOBAL, e=replace(UP, address="10.0.0.2")), id="its address"),
        pytest.param(cluster(GLOBAL, e=replace(UP, weight=99)), id="its weight"),
        pytest.param(cluster(GLOBAL, e=replace(UP, zone="z")), id="its zone"),
        pytest.param(cluster(GLOBAL, e=replace(UP, node="z")), id="its node"),
        pytest.param(cluster(GLOBAL, e=replace(UP, region="z")), id="its region"),
        pytest.param(cluster(GLOBAL, e=replace(UP, serving=False)), id="whether it serves"),
        pytest.param(cluster(GLOBAL, e=replace(UP, ports=(GRPC,))), id="its ports"),
        pytest.param(cluster(GLOBAL, e=replace(UP, ready=False)), id="its reason"),
        pytest.param(cluster(replace(GLOBAL, ports=(GRPC,)), e=UP), id="the definition's ports"),
        pytest.param(cluster(replace(GLOBAL, ports=(GRPC,), created_ms=1), e=UP), id="a conflict"),
        pytest.param(cluster(PRIVATE, e=UP), id="who takes part"),
    ],
)
def test_the_digest_tells_tables_apart(east: ClusterState) -> None:
    assert digest(cluster(GLOBAL), east) != digest(cluster(GLOBAL), PLAIN)


def test_the_digest_tells_apart_whose_backend_it_is() -> None:
    assert digest(PLAIN, cluster(GLOBAL)) != digest(cluster(GLOBAL), PLAIN)


def test_the_digest_tells_priorities_and_affinities_apart() -> None:
    digests = {
        digest(cluster(replace(GLOBAL, affinity=affinity)), east)
        for affinity in Affinity
        for east in (PLAIN, cluster(GLOBAL))
    }
    assert len(digests) == len(Affinity) * 2


def test_the_digest_tells_services_apart() -> None:
    renamed = ServiceKey("shop", "card")
    state = ClusterState(services={renamed: Held(GLOBAL, Seq(1), 0, "")})
    (other,) = digests_of_services(WEST, {WEST: state}, LOG_IDS).values()
    (one,) = digests_of_services(WEST, {WEST: cluster(GLOBAL)}, LOG_IDS).values()
    assert other != one


def test_the_digest_tells_priorities_apart_whatever_made_them() -> None:
    service = cart(west=PLAIN)
    assert service is not None
    (backend,) = service.backends
    lower = replace(backend, priority=1)
    assert digest_of_backend(CART, lower) != digest_of_backend(CART, backend)


def test_the_digest_leaves_out_which_log_said_it() -> None:
    """A peer reads the export log, which has another log id and other seqs."""
    moved = cluster(GLOBAL)
    moved.endpoints[CART] = {"e": Held(UP, Seq(77), 5, "somebody")}
    log_ids = {**LOG_IDS, EAST: LogId("0" * 32)}
    assert digest(cluster(GLOBAL), moved, log_ids) == digest(cluster(GLOBAL), PLAIN)


def test_the_digest_leaves_out_the_order_of_ports() -> None:
    one = cluster(GLOBAL, e=replace(UP, ports=(HTTP, GRPC)))
    other = cluster(GLOBAL, e=replace(UP, ports=(GRPC, HTTP)))
    assert digest(cluster(GLOBAL), one) == digest(cluster(GLOBAL), other)


@pytest.mark.parametrize("hidden", [UNSHARED, PRIVATE, None])
def test_a_tables_digest_leaves_out_what_the_perspective_does_not_offer(
    hidden: Service | None,
) -> None:
    states = {WEST: cluster(hidden, w=UP), EAST: PLAIN}
    assert digest_of_table(WEST, states, LOG_IDS) == "0" * 32


def test_a_tables_digest_is_the_sum_of_its_services() -> None:
    west = cluster(GLOBAL, w=UP)
    west.services[ServiceKey("shop", "card")] = Held(GLOBAL, Seq(9), 0, "")
    states = {WEST: west, EAST: PLAIN}
    one, other = digests_of_services(WEST, states, LOG_IDS).values()
    total = (int(one, 16) + int(other, 16)) % (1 << 128)
    assert digest_of_table(WEST, states, LOG_IDS) == f"{total:032x}"


def test_digests_are_added_and_taken_away_within_128_bits() -> None:
    top = Digest((1 << 128) - 1)
    assert plus(top, Digest(1)) == DIGEST_ZERO
    assert minus(DIGEST_ZERO, Digest(1)) == top
    assert digest_hex(Digest(10)) == "0" * 31 + "a"
