"""What a change does to the tables, by example. `test_tables.py` has the properties."""

from dataclasses import dataclass, field

import pytest

import meshd.core.served
from meshd.core.backend import backend_of
from meshd.core.derive import derive
from meshd.core.fold import Change, EndpointChange, InfoChange, ServiceChange, fold_record
from meshd.core.liveness import Sight, StalenessRules
from meshd.core.state import ClusterState, Held
from meshd.core.tables import Tables
from meshd.core.tiers import DEMOTION
from meshd.model.endpoint import Endpoint
from meshd.model.event import Event, EventType, Record
from meshd.model.identity import identity_number
from meshd.model.ids import GENESIS_HASH, ClusterName, EndpointKey, LogId, Seq, ServiceKey
from meshd.model.service import Port, Service
from meshd.model.staleness import StalenessPolicy
from meshd.model.table import (
    WEIGHT_UNIT,
    Backend,
    Reason,
    ServiceDelta,
    Standing,
    TableDelta,
)
from tests.core.sights import SIGHTS

A, B, C = map(ClusterName, ("a", "b", "c"))
CART, CARD = ServiceKey("shop", "cart"), ServiceKey("shop", "card")
LOG_ID = LogId("f" * 32)
UP = Endpoint(address="10.0.0.1")
GLOBAL = Service(is_global=True, ports=(Port(80),))


@dataclass
class Mesh:
    """The states of the clusters, and a's tables beside them."""

    tables: Tables = field(default_factory=lambda: Tables(A))
    states: dict[ClusterName, ClusterState] = field(default_factory=dict)
    log_ids: dict[ClusterName, LogId] = field(default_factory=lambda: dict.fromkeys((A, B), LOG_ID))

    def fold(self, cluster: ClusterName, *events: Event) -> TableDelta:
        state = self.states[cluster]
        first = Seq(state.seq + 1)
        record = Record(LOG_ID, first, 1000, GENESIS_HASH, events, b"", GENESIS_HASH)
        changes = fold_record(state, record, cluster)
        return self.tables.apply(cluster, changes, self.states, self.log_ids)

    def renew(self, cluster: ClusterName, *endpoints: str) -> TableDelta:
        """The cluster's state is another: it defines the service and has these endpoints of it."""
        state = self.states[cluster] = ClusterState(services={CART: Held(GLOBAL, Seq(1), 0, "ann")})
        if endpoints:
            state.endpoints[CART] = {name: Held(UP, Seq(2), 0, "ann") for name in endpoints}
        return self.tables.replace(cluster, self.states, self.log_ids)

    def leave(self, cluster: ClusterName) -> TableDelta:
        del self.states[cluster]
        return self.tables.replace(cluster, self.states, self.log_ids)

    def backends(self, standings: dict[ClusterName, Standing]) -> tuple[Backend, ...]:
        """The backends as derived from scratch."""
        return derive(A, self.states, self.log_ids, seen(standings))[CART].backends


def seen(standings: dict[ClusterName, Standing]) -> dict[ClusterName, Sight]:
    return {name: SIGHTS[standing] for name, standing in standings.items()}


def mesh_of(size: int) -> Mesh:
    """Clusters a and b define the service; b has that many endpoints of it."""
    mesh = Mesh()
    mesh.renew(A)
    mesh.renew(B, *(f"e{number}" for number in range(size)))
    return mesh


def event(kind: EventType, key: str, data: dict[str, object] | None = None) -> Event:
    return Event(kind, key, data, "ann")


def set_service(**data: object) -> Event:
    """The definition as it is already, but for these fields."""
    ports = [{"port": 80}]
    return event(EventType.SERVICE_SET, "shop/cart", {"global": True, "ports": ports, **data})


def set_endpoint(name: str, **data: object) -> Event:
    return event(EventType.ENDPOINT_SET, f"shop/cart/{name}", {"address": "10.0.0.1", **data})


def test_what_is_not_served_has_no_view_and_no_digest() -> None:
    tables = Tables(A)
    assert tables.keys() == ()
    assert tables.view(CART) is None
    assert tables.digest_of(CART) is None
    assert tables.digest == "0" * 32


def test_one_endpoint_is_one_endpoints_work_in_a_large_service(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mesh = mesh_of(1000)
    built: list[str] = []

    def counted(*args: object) -> Backend:
        built.append("one")
        return backend_of(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(meshd.core.served, "backend_of", counted)
    (delta,) = mesh.fold(B, set_endpoint("e7", ready=False))
    assert len(built) == 1
    assert [backend.name for backend in delta.upserts] == ["e7"]
    assert not delta.redefined
    assert delta.removals == ()


def test_a_definition_that_comes_to_the_same_looks_at_no_endpoint(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mesh = mesh_of(10)
    monkeypatch.setattr(meshd.core.served, "backend_of", None)
    assert mesh.fold(B, set_service(labels={"team": "blue"}, spill={"below_percent": 1})) == ()


def test_other_affinity_moves_the_backends_of_every_cluster() -> None:
    mesh = mesh_of(2)
    (delta,) = mesh.fold(A, set_service(affinity="local"))
    assert delta.redefined
    assert [(backend.name, backend.priority) for backend in delta.upserts] == [
        ("e0", 16),
        ("e1", 16),
    ]


def test_other_ports_reach_the_backends_that_have_none_of_their_own() -> None:
    mesh = mesh_of(1)
    mesh.fold(B, set_endpoint("own", ports=[{"port": 8080}]))
    (delta,) = mesh.fold(B, set_service(ports=[{"port": 81}]))
    assert delta.redefined
    assert [(backend.name, backend.ports) for backend in delta.upserts] == [("e0", (Port(81),))]


def test_other_names_of_the_served_ports_reach_every_backend() -> None:
    mesh = mesh_of(1)
    (delta,) = mesh.fold(A, set_service(ports=[{"port": 80, "name": "http"}]))
    assert [(backend.name, backend.reason) for backend in delta.upserts] == [
        ("e0", Reason.NO_MATCHING_PORT)
    ]


def test_when_the_winner_leaves_its_backends_go_and_the_next_ports_are_served() -> None:
    mesh = mesh_of(0)
    mesh.fold(A, set_service(created_ms=2), set_endpoint("own"))
    mesh.fold(B, set_service(ports=[{"port": 81}]), set_endpoint("o"))
    (delta,) = mesh.leave(B)
    assert delta.redefined
    assert delta.upserts == ()
    assert delta.removals == ((B, "o"),)


def test_nothing_is_kept_of_a_cluster_that_left() -> None:
    mesh = mesh_of(2)
    mesh.leave(B)
    assert mesh.tables._services[CART]._backends == {}


def test_many_changes_of_a_backend_in_one_call_are_one_change() -> None:
    mesh = mesh_of(1)
    (delta,) = mesh.fold(
        B, set_endpoint("e0", weight=1), set_endpoint("new"), set_endpoint("e0", weight=2)
    )
    assert [(backend.name, backend.endpoint_weight) for backend in delta.upserts] == [
        ("e0", 2),
        ("new", 100),
    ]


def test_what_came_and_went_in_one_call_is_no_change() -> None:
    mesh = mesh_of(1)
    removal = event(EventType.ENDPOINT_REMOVED, "shop/cart/new")
    assert mesh.fold(B, set_endpoint("new"), removal) == ()


def test_what_is_no_backend_changes_no_table() -> None:
    mesh = mesh_of(1)
    number = str(identity_number(7, 256))
    node = event(EventType.NODE_SET, "n1", {"addresses": ["10.0.0.1"]})
    identity = event(EventType.IDENTITY_SET, number, {"labels": {"a": "b"}})
    removals = (
        event(EventType.NODE_REMOVED, "n1"),
        event(EventType.IDENTITY_REMOVED, number),
    )
    assert mesh.fold(B, node, identity, *removals) == ()


def test_a_service_that_went_and_came_back_in_one_call_lost_its_endpoints() -> None:
    mesh = mesh_of(1)
    (delta,) = mesh.fold(B, event(EventType.SERVICE_REMOVED, "shop/cart"), set_service())
    digest = mesh.tables.digest_of(CART)
    assert digest is not None
    assert delta == ServiceDelta(CART, gone=False, redefined=False, tiers=(), upserts=(),
                                 removals=((B, "e0"),), digest=digest)  # fmt: skip


def test_upserts_and_removals_are_in_one_order_everywhere() -> None:
    mesh = mesh_of(20)
    mesh.tables.set_sight(B, SIGHTS[Standing.DEMOTED])
    (delta,) = mesh.renew(B, *(f"n{number}" for number in range(20)))
    assert [backend.name for backend in delta.upserts] == sorted(f"n{n}" for n in range(20))
    assert delta.removals == tuple(sorted((B, f"e{n}") for n in range(20)))


def test_what_a_withdrawal_hides_still_changes_the_digest_and_this_is_said() -> None:
    mesh = mesh_of(1)
    mesh.tables.set_sight(B, SIGHTS[Standing.WITHDRAWN])
    before = mesh.tables.digest_of(CART)
    (delta,) = mesh.fold(A, set_service(**{"import": {"labels": {"gold": "yes"}}}))
    digest = mesh.tables.digest_of(CART)
    assert digest not in {before, None}
    assert delta == ServiceDelta(CART, gone=False, redefined=False, tiers=None, upserts=(),
                                 removals=(), digest=digest or "")  # fmt: skip


def test_unsharing_takes_a_service_out_of_the_tables_digest_and_changes_nothing_else() -> None:
    mesh = mesh_of(1)
    digest = mesh.tables.digest
    assert mesh.fold(A, set_service(shared=False)) == ()
    assert mesh.tables.digest == "0" * 32
    assert mesh.tables.digest_of(CART) == digest
    assert mesh.fold(A, set_service()) == ()
    assert mesh.tables.digest == digest


@pytest.mark.parametrize("standing", [Standing.DEMOTED, Standing.WITHDRAWN])
def test_a_standing_changes_views_and_not_digests(standing: Standing) -> None:
    mesh = mesh_of(2)
    digest = mesh.tables.digest
    (delta,) = mesh.tables.set_sight(B, SIGHTS[standing])
    assert delta.upserts == mesh.backends({B: standing})
    assert mesh.tables.digest == digest
    assert mesh.tables.set_sight(B, SIGHTS[standing]) == ()
    (back,) = mesh.tables.set_sight(B, None)
    assert back.upserts == mesh.backends({})


def test_a_standing_of_the_own_or_of_an_unknown_cluster_changes_nothing_here() -> None:
    mesh = mesh_of(1)
    assert mesh.tables.set_sight(A, SIGHTS[Standing.WITHDRAWN]) == ()
    assert mesh.tables.set_sight(C, SIGHTS[Standing.WITHDRAWN]) == ()
    view = mesh.tables.view(CART)
    assert view is not None
    assert view.backends == mesh.backends({})


def test_a_standing_outlives_the_state_it_was_said_of() -> None:
    mesh = mesh_of(1)
    mesh.tables.set_sight(B, SIGHTS[Standing.DEMOTED])
    mesh.leave(B)
    (delta,) = mesh.renew(B, "e0")
    assert [backend.priority for backend in delta.upserts] == [DEMOTION]


def test_what_a_cluster_says_of_itself_changes_its_backends_if_anything() -> None:
    mesh = mesh_of(1)
    assert mesh.tables.apply(B, [InfoChange()], mesh.states, mesh.log_ids) == ()
    (delta,) = mesh.fold(B, event(EventType.CLUSTER_SET, "b", {"name": "b", "id": 2, "weight": 50}))
    assert [(backend.name, backend.weight) for backend in delta.upserts] == [
        ("e0", WEIGHT_UNIT * 50)
    ]


def test_views_are_kept_until_their_service_changes() -> None:
    mesh = mesh_of(1)
    view = mesh.tables.view(CART)
    elsewhere: list[Change] = [EndpointChange(EndpointKey(CARD, "x")), ServiceChange(CARD)]
    assert mesh.tables.apply(B, elsewhere, mesh.states, mesh.log_ids) == ()
    assert mesh.tables.view(CART) is view
    mesh.fold(B, set_endpoint("e0"))
    assert mesh.tables.view(CART) is not view


def test_a_sight_changes_only_services_that_have_backends_of_that_cluster() -> None:
    mesh = mesh_of(0)
    mesh.fold(A, set_endpoint("own"))
    assert mesh.tables.set_sight(B, SIGHTS[Standing.WITHDRAWN]) == ()


def test_a_service_may_stand_by_a_cluster_that_others_demote() -> None:
    mesh = mesh_of(1)
    card = event(EventType.SERVICE_SET, "shop/card", {"global": True})
    mesh.fold(A, set_service(staleness={"policy": "keep"}), card)
    mesh.fold(B, card, event(EventType.ENDPOINT_SET, "shop/card/x", {"address": "10.0.0.1"}))
    (delta,) = mesh.tables.set_sight(B, SIGHTS[Standing.DEMOTED])
    assert delta.key == CARD
    assert delta.tiers is not None
    assert [tier.priority for tier in delta.tiers] == [DEMOTION]


def test_the_digest_for_an_audience_is_over_what_is_offered_to_it() -> None:
    mesh = mesh_of(1)
    both = mesh.tables.digest
    mesh.fold(A, set_service(export={"audiences": ["eu", "mesh"]}))
    assert (mesh.tables.digest, mesh.tables.digest_for("eu")) == (both, both)
    mesh.fold(A, set_service(export={"audiences": ["eu"]}))
    assert (mesh.tables.digest, mesh.tables.digest_for("eu")) == ("0" * 32, both)


def test_a_cluster_that_a_definition_names_is_known_once_it_comes() -> None:
    mesh = mesh_of(1)
    mesh.fold(A, set_service(tiers=[{"clusters": ["c"]}]))
    view = mesh.tables.view(CART)
    assert view is not None
    assert [condition.type for condition in view.conditions] == ["UnknownCluster"]
    mesh.states[C] = ClusterState()
    (delta,) = mesh.tables.replace(C, mesh.states, mesh.log_ids)
    assert delta.redefined
    view = mesh.tables.view(CART)
    assert view is not None
    assert view.conditions == ()


def test_another_word_on_staleness_is_shown_where_everything_is_out_already() -> None:
    """Neither definition nor tiers nor backends change, only how the cluster's are seen."""
    mesh = mesh_of(0)
    mesh.fold(B, set_endpoint("e0", ready=False))
    keep = Sight(StalenessRules(StalenessPolicy.KEEP, 10, 20), 20)
    mesh.tables.set_sight(B, keep)
    before = mesh.tables.view(CART)
    (delta,) = mesh.fold(A, set_service(staleness={"policy": "withdraw"}))
    view = mesh.tables.view(CART)
    assert view is not None
    assert view != before
    assert view == derive(A, mesh.states, mesh.log_ids, {B: keep})[CART]
    assert [backend.reason for backend in delta.upserts] == [Reason.WITHDRAWN]


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ({"staleness": {"policy": "withdraw"}, "affinity": "local"}, (12, Reason.WITHDRAWN)),
        # Its place doesn't count any more: the same rank, and no distance on top of it.
        ({"tiers": [{"clusters": ["b"]}], "affinity": "local"}, (10, None)),
    ],
)
def test_what_is_seen_otherwise_is_told_though_its_endpoint_is_as_it_was(
    said: dict[str, object], shown: tuple[int, Reason | None]
) -> None:
    mesh = mesh_of(1)
    for cluster, number in ((A, 1), (B, 2)):
        info = {"name": cluster, "id": number, "region": "r", "zone": "z"}
        mesh.fold(cluster, event(EventType.CLUSTER_SET, cluster, info))
    mesh.fold(A, set_service(affinity="local"))
    mesh.tables.set_sight(B, Sight(StalenessRules(StalenessPolicy.KEEP, 10, 20), 20, 2))
    (delta,) = mesh.fold(A, set_service(**said))
    assert [(backend.priority, backend.reason) for backend in delta.upserts] == [shown]


def test_what_is_shown_as_it_was_is_not_told() -> None:
    """It is withdrawn whatever else there is to say against it."""
    mesh = mesh_of(1)
    mesh.tables.set_sight(B, SIGHTS[Standing.WITHDRAWN])
    (delta,) = mesh.fold(A, set_service(**{"import": {"not_clusters": ["b"]}, "headless": True}))
    assert (delta.upserts, delta.removals) == ((), ())
