"""The incremental tables equal the tables derived from scratch, after any history."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import assert_never

from hypothesis import given, settings
from hypothesis import strategies as st

from meshd.core.derive import (
    derive,
    derive_with_digests,
    digest_of_table,
    digests_of_services,
)
from meshd.core.fold import Change, fold_record
from meshd.core.liveness import Sight, StalenessRules
from meshd.core.standpoint import told_service
from meshd.core.state import ClusterState
from meshd.core.tables import Tables
from meshd.model.cluster import Availability
from meshd.model.event import Event, EventType, Record
from meshd.model.ids import GENESIS_HASH, ClusterName, LogId, Seq, ServiceKey
from meshd.model.service import Affinity, SpillAmount, SpillSplit
from meshd.model.staleness import StalenessPolicy
from meshd.model.table import Backend, GlobalService, ServiceDelta, TableDelta

CLUSTERS = tuple(map(ClusterName, ("a", "b", "c")))
CART, CARD = ServiceKey("shop", "cart"), ServiceKey("shop", "card")

Events = tuple[Event, ...]
Table = dict[ServiceKey, GlobalService]

# --- random histories -----------------------------------------------------------------------------
# Few names and values: then they collide, and colliding is what goes wrong.


@dataclass(frozen=True)
class Fold:
    """A cluster's log goes on by a record."""

    cluster: ClusterName
    events: Events


@dataclass(frozen=True)
class Renew:
    """A cluster's log is a new one, loaded as a whole."""

    cluster: ClusterName
    events: Events


@dataclass(frozen=True)
class Leave:
    """A cluster leaves the mesh."""

    cluster: ClusterName


@dataclass(frozen=True)
class See:
    """A cluster is seen otherwise."""

    cluster: ClusterName
    sight: Sight | None


Step = Fold | Renew | Leave | See

service_names = st.sampled_from(["shop/cart", "shop/card"])
endpoint_names = st.builds("{}/{}".format, service_names, st.sampled_from(["x", "y", "z"]))
ports = st.sampled_from([[], [{"port": 80}], [{"port": 80, "name": "h"}, {"port": 90}]])
service_data = st.fixed_dictionaries(
    {"global": st.sampled_from([True, True, True, False])},
    optional={
        "shared": st.booleans(),
        "ports": ports,
        "affinity": st.sampled_from([str(affinity) for affinity in Affinity]),
        "created_ms": st.integers(0, 2),
        "labels": st.sampled_from([{}, {"team": "blue"}]),
        "headless": st.booleans(),
        "session_affinity": st.sampled_from(["none", "client-ip"]),
        "session_timeout_s": st.sampled_from([1, 2]),
        "tiers": st.sampled_from(
            [
                [],
                [{"clusters": ["b"]}, {"clusters": ["a", "c"], "percent": 50}],
                [{"clusters": ["@local"], "percent": 90}, {"clusters": ["*"]}],
                [{"clusters": ["nobody"]}, {"clusters": ["c"]}],
            ]
        ),
        "spill": st.fixed_dictionaries(
            {},
            optional={
                "below_percent": st.sampled_from([0, 50, 100]),
                "amount": st.sampled_from([str(amount) for amount in SpillAmount]),
                "split": st.sampled_from([str(split) for split in SpillSplit]),
            },
        ),
        "staleness": st.sampled_from([{}, {"policy": "keep"}, {"stale_after_s": 15.0}]),
        "weight": st.sampled_from([0, 50, 100]),
        "turned_percent": st.sampled_from([0, 33, 100]),
        "exposure": st.sampled_from(["internal", "external"]),
        "export": st.sampled_from(
            [
                {},
                {"clusters": {"not_clusters": ["a"]}},
                {"clusters": {"regions": ["r"]}},
                {"audiences": ["eu"]},
                {"audiences": ["eu", "mesh"]},
            ]
        ),
        "import": st.sampled_from([{}, {"clusters": ["b"]}, {"labels": {"gold": "yes"}}]),
    },
)
info_data = st.fixed_dictionaries(
    {"id": st.just(1)},
    optional={
        "region": st.sampled_from(["r", "s"]),
        "zone": st.sampled_from(["z", "y"]),
        "labels": st.sampled_from([{}, {"gold": "yes"}]),
        "state": st.sampled_from([str(state) for state in Availability]),
        "weight": st.sampled_from([0, 50, 100]),
        "turned_percent": st.sampled_from([0, 50, 100]),
    },
)
endpoint_data = st.fixed_dictionaries(
    {"address": st.sampled_from(["10.0.0.1", "10.0.0.2"])},
    optional={
        "ready": st.booleans(),
        "terminating": st.booleans(),
        "weight": st.sampled_from([0, 1, 100]),
        "turned_percent": st.sampled_from([0, 7, 100]),
        "ports": ports,
        "zone": st.sampled_from(["", "z"]),
        "region": st.sampled_from(["", "r"]),
    },
)
rules = st.builds(
    StalenessRules,
    st.sampled_from(StalenessPolicy),
    st.just(10.0),
    st.just(20.0),
)
sights = st.builds(Sight, rules, st.sampled_from([0.0, 10.0, 15.0, 20.0]), st.sampled_from([0, 2]))


def event(kind: EventType, key: str, data: dict[str, object] | None = None) -> Event:
    return Event(kind, key, data, "ann")


events = st.lists(
    st.one_of(
        st.builds(event, st.just(EventType.SERVICE_SET), service_names, service_data),
        st.builds(event, st.just(EventType.ENDPOINT_SET), endpoint_names, endpoint_data),
        st.builds(event, st.just(EventType.ENDPOINT_SET), endpoint_names, endpoint_data),
        st.builds(event, st.just(EventType.ENDPOINT_REMOVED), endpoint_names),
        st.builds(event, st.just(EventType.SERVICE_REMOVED), service_names),
    ),
    min_size=1,
    max_size=4,
).map(tuple)
clusters = st.sampled_from(CLUSTERS)


@st.composite
def informed(draw: st.DrawFn) -> Fold:
    """A cluster says something of itself."""
    cluster = draw(clusters)
    data = draw(info_data) | {"name": str(cluster)}
    return Fold(cluster, (event(EventType.CLUSTER_SET, cluster, data),))


# Most histories begin with a mesh at work: from nothing, few steps lead to a service in several
# clusters, and it is there that one cluster's definition reaches another's endpoints.
at_work: Events = (
    event(
        EventType.SERVICE_SET,
        "shop/cart",
        {"global": True, "ports": [{"port": 80}], "created_ms": 1},
    ),
    event(EventType.SERVICE_SET, "shop/card", {"global": True, "affinity": "local"}),
    event(EventType.ENDPOINT_SET, "shop/cart/x", {"address": "10.0.0.1"}),
    event(
        EventType.ENDPOINT_SET,
        "shop/cart/y",
        {"address": "10.0.0.2", "ports": [{"port": 8080}]},
    ),
    event(EventType.ENDPOINT_SET, "shop/card/x", {"address": "10.0.0.1"}),
)
folds = st.one_of(st.builds(Fold, clusters, events), st.builds(Fold, clusters, events), informed())
# In every other one the clusters are out of sight before anybody says what that is to do.
works = st.sampled_from(
    [[Renew(cluster, at_work) for cluster in CLUSTERS[:number]] for number in (3, 3, 2, 0)]
)
unseen = st.builds(Sight, rules, st.just(20.0), st.sampled_from([0, 2]))
losses: st.SearchStrategy[list[Step]] = st.one_of(
    st.just([]), unseen.map(lambda sight: [See(one, sight) for one in CLUSTERS])
)
beginnings: st.SearchStrategy[list[Step]] = st.builds(lambda one, two: [*one, *two], works, losses)
steps: st.SearchStrategy[Step] = st.one_of(
    folds,
    folds,
    folds,
    st.builds(Renew, clusters, events),
    st.builds(Leave, clusters),
    st.builds(See, clusters, st.none() | sights),
)


# --- the mesh that lives through them -------------------------------------------------------------


@dataclass
class Mesh:
    """The states of all clusters, and one perspective's tables beside them."""

    tables: Tables
    states: dict[ClusterName, ClusterState] = field(default_factory=dict)
    log_ids: dict[ClusterName, LogId] = field(default_factory=dict)
    sights: dict[ClusterName, Sight] = field(default_factory=dict)
    logs_made: int = 0

    def renew(self, cluster: ClusterName) -> None:
        self.logs_made += 1
        self.states[cluster] = ClusterState()
        self.log_ids[cluster] = LogId(f"{self.logs_made:032x}")

    def fold(self, cluster: ClusterName, new: Events) -> list[Change]:
        state = self.states[cluster]
        log_id, first = self.log_ids[cluster], Seq(state.seq + 1)
        record = Record(log_id, first, 1000 * first, GENESIS_HASH, new, b"", GENESIS_HASH)
        return fold_record(state, record, cluster)

    def apply(self, cluster: ClusterName, changes: list[Change]) -> TableDelta:
        return self.tables.apply(cluster, changes, self.states, self.log_ids)

    def take(self, step: Step) -> TableDelta:
        cluster = step.cluster
        match step:
            case Fold() if cluster in self.states:
                return self.apply(cluster, self.fold(cluster, step.events))
            case Fold() | Renew():
                self.renew(cluster)
                self.fold(cluster, step.events)
                return self.tables.replace(cluster, self.states, self.log_ids)
            case Leave():
                self.states.pop(cluster, None)
                self.log_ids.pop(cluster, None)
                return self.tables.replace(cluster, self.states, self.log_ids)
            case See():
                self.sights.pop(cluster, None)
                if step.sight is not None:
                    self.sights[cluster] = step.sight
                return self.tables.set_sight(cluster, step.sight)
            case _:
                assert_never(step)

    def from_scratch(self) -> Table:
        return derive(self.tables.perspective, self.states, self.log_ids, self.sights)


def table_of(tables: Tables) -> Table:
    views = {key: tables.view(key) for key in (CART, CARD)}
    return {key: view for key, view in views.items() if view is not None}


def digests_of(tables: Tables) -> dict[ServiceKey, str]:
    found = {key: tables.digest_of(key) for key in (CART, CARD)}
    return {key: digest for key, digest in found.items() if digest is not None}


def definition_part(service: GlobalService) -> GlobalService:
    return replace(service, tiers=(), backends=())


def by_key(backends: Sequence[Backend]) -> dict[tuple[ClusterName, str], Backend]:
    return {(backend.cluster, backend.name): backend for backend in backends}


def patched(old: GlobalService | None, delta: ServiceDelta, new: GlobalService) -> GlobalService:
    """The old service with the delta. `redefined` is a hint to read the definition again, so that
    part comes from the new one; the backends come from the delta alone.
    """
    assert old is not None or delta.redefined
    assert delta.redefined == (old is None or definition_part(old) != definition_part(new))
    backends = by_key(() if old is None else old.backends)
    for key in delta.removals:
        del backends[key]  # a KeyError: it reports a removal of what wasn't there
    upserts = by_key(delta.upserts)
    assert len(upserts) == len(delta.upserts)
    assert not upserts.keys() & set(delta.removals)
    assert all(backends.get(key) != backend for key, backend in upserts.items())
    old_tiers = () if old is None else old.tiers
    assert delta.tiers != old_tiers
    backends.update(upserts)
    ordered = sorted(backends.values(), key=lambda one: (one.priority, one.cluster, one.name))
    return replace(
        definition_part(new if old is None or delta.redefined else old),
        tiers=old_tiers if delta.tiers is None else delta.tiers,
        backends=tuple(ordered),
    )


def patched_table(old: Table, delta: TableDelta, new: Table) -> Table:
    keys = [change.key for change in delta]
    assert keys == sorted(set(keys))
    result = dict(old)
    for change in delta:
        if change.gone:
            assert change == ServiceDelta(change.key, gone=True, redefined=False,
                                          tiers=None, upserts=(), removals=())  # fmt: skip
            del result[change.key]
        else:
            result[change.key] = patched(old.get(change.key), change, new[change.key])
    return result


def assert_equals_scratch(mesh: Mesh) -> None:
    tables, perspective = mesh.tables, mesh.tables.perspective
    digests = digests_of_services(perspective, mesh.states, mesh.log_ids)
    expected = mesh.from_scratch()
    assert tables.keys() == tuple(sorted(expected))
    assert table_of(tables) == expected
    assert {key: tables.digest_of(key) for key in expected} == digests
    assert tables.digest == digest_of_table(perspective, mesh.states, mesh.log_ids)
    at_once = derive_with_digests(perspective, mesh.states, mesh.log_ids)
    assert at_once.services == derive(perspective, mesh.states, mesh.log_ids)
    assert (at_once.digests, at_once.digest) == (digests, tables.digest)


# --- properties -----------------------------------------------------------------------------------


@given(perspective=clusters, beginning=beginnings, history=st.lists(steps, max_size=10))
@settings(max_examples=500, deadline=None)
def test_after_every_step_the_tables_equal_those_from_scratch_and_the_delta_says_how(
    perspective: ClusterName, beginning: list[Step], history: list[Step]
) -> None:
    mesh = Mesh(Tables(perspective))
    for step in (*beginning, *history):
        before, digests = table_of(mesh.tables), digests_of(mesh.tables)
        delta = mesh.take(step)
        assert_equals_scratch(mesh)
        after = table_of(mesh.tables)
        assert patched_table(before, delta, after) == after
        untouched = before.keys() - {change.key for change in delta}
        assert all(after[key] is before[key] for key in untouched)
        told = {change.key: change.digest for change in delta}
        assert digests_of(mesh.tables) == {key: digests[key] for key in untouched} | {
            key: digest for key, digest in told.items() if key in after
        }
        for change in delta:
            says_more = change.redefined or change.upserts or change.removals or change.gone
            is_shared_anew = change.tiers is not None
            assert says_more or is_shared_anew or change.digest != digests[change.key]


@given(
    perspective=clusters,
    records=st.lists(folds, max_size=8),
    seen=st.dictionaries(clusters, sights),
    data=st.data(),
)
@settings(max_examples=100, deadline=None)
def test_how_the_clusters_logs_interleave_means_nothing(
    perspective: ClusterName,
    records: list[Fold],
    seen: dict[ClusterName, Sight],
    data: st.DataObject,
) -> None:
    """Each log keeps its own order; whose turn it is, is anybody's guess."""
    turns = data.draw(st.permutations([record.cluster for record in records]))
    queues = {name: [one for one in records if one.cluster == name] for name in CLUSTERS}
    others = [queues[cluster].pop(0) for cluster in turns]
    one, other = Mesh(Tables(perspective)), Mesh(Tables(perspective))
    for mesh, order in ((one, records), (other, others)):
        for cluster in CLUSTERS:
            mesh.take(Renew(cluster, at_work))
        for record in order:
            mesh.take(record)
        for cluster, sight in seen.items():
            mesh.take(See(cluster, sight))
    assert table_of(one.tables) == table_of(other.tables)
    assert one.tables.digest == other.tables.digest
    assert_equals_scratch(one)


@given(perspective=clusters, records=st.lists(folds, max_size=8), data=st.data())
@settings(max_examples=100, deadline=None)
def test_states_may_run_ahead_of_the_changes_as_long_as_the_changes_follow(
    perspective: ClusterName, records: list[Fold], data: st.DataObject
) -> None:
    mesh = Mesh(Tables(perspective))
    for cluster in CLUSTERS:
        mesh.take(Renew(cluster, at_work))
    folded = [(record.cluster, mesh.fold(record.cluster, record.events)) for record in records]
    for cluster, changes in data.draw(st.permutations(folded)):
        before = table_of(mesh.tables)
        delta = mesh.apply(cluster, changes)
        after = table_of(mesh.tables)
        assert patched_table(before, delta, after) == after
    assert_equals_scratch(mesh)


@given(
    perspective=clusters,
    viewer=clusters,
    beginning=beginnings,
    records=st.lists(folds, max_size=8),
)
@settings(max_examples=100, deadline=None)
def test_any_cluster_comes_to_the_digest_of_any_other(
    perspective: ClusterName, viewer: ClusterName, beginning: list[Step], records: list[Fold]
) -> None:
    """The viewer has its own local log, and of the others only what they offer, in other logs: of
    the perspective what it offers to the audience that the viewer is.
    """
    mesh = Mesh(Tables(perspective))
    for step in (*beginning, *records):
        mesh.take(step)
    for audience in ("mesh", "eu"):
        seen = Mesh(Tables(perspective))
        for cluster, state in mesh.states.items():
            seen.log_ids[cluster] = LogId("f" * 32)
            # Of third clusters both read the same, whichever log it is.
            told = audience if cluster == perspective else ""
            seen.states[cluster] = state if cluster == viewer else what_it_exports(state, told)
            seen.tables.replace(cluster, seen.states, seen.log_ids)
        if perspective != viewer:
            assert seen.tables.digest == mesh.tables.digest_for(audience)
        assert digest_of_table(perspective, seen.states, seen.log_ids) == seen.tables.digest
    assert mesh.tables.digest_for("mesh") == mesh.tables.digest


def what_it_exports(state: ClusterState, audience: str) -> ClusterState:
    """To an audience, or with '' to any."""
    services = {
        key: replace(held, value=told_service(held.value))
        for key, held in state.services.items()
        if held.value.is_offered_to(audience) or (held.value.is_offered and not audience)
    }
    endpoints = {key: held for key, held in state.endpoints.items() if key in services}
    return ClusterState(info=state.info, services=services, endpoints=endpoints)
