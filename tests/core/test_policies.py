"""Policies over identities: incremental equals from scratch, and the cost of a change."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import meshd.core.selections
from meshd.core.fold import fold_record
from meshd.core.policies import Policies, plain_view, policies_of
from meshd.core.reach import Reach, classes_of
from meshd.core.selections import Selection
from meshd.core.state import ClusterState
from meshd.core.what_if import changes_reach, reach_beside
from meshd.model.cluster import ClusterInfo
from meshd.model.event import Event, Record
from meshd.model.identity import identity_number
from meshd.model.ids import GENESIS_HASH, ClusterName, LogId, PolicyKey, Seq

A, B, C = map(ClusterName, ("a", "b", "c"))
IDS = {A: 1, B: 2, C: 3}
LOG_ID = LogId("f" * 32)
Json = dict[str, Any]


class Mesh:
    """States of clusters, and their policies beside them."""

    def __init__(self, *clusters: ClusterName) -> None:
        self.states = {name: ClusterState() for name in clusters}
        self.policies = Policies()
        for name in clusters:
            self.policies.replace(name, self.states)

    def fold(self, cluster: ClusterName, *events: Event) -> Any:
        state = self.states[cluster]
        first = Seq(state.seq + 1)
        record = Record(LOG_ID, first, 1000, GENESIS_HASH, events, b"", GENESIS_HASH)
        changes = fold_record(state, record, cluster)
        return self.policies.apply(cluster, changes, self.states)

    def identity(self, cluster: ClusterName, local: int, labels: Json | None) -> Any:
        key = str(identity_number(IDS[cluster], 256 + local))
        if labels is None:
            return self.fold(cluster, Event("identity.removed", key, None, "ann"))
        return self.fold(cluster, Event("identity.set", key, {"labels": labels}, "ann"))

    def policy(self, cluster: ClusterName, key: str, data: Json | None) -> Any:
        kind = "policy.removed" if data is None else "policy.set"
        return self.fold(cluster, Event(kind, key, data, "ann"))


def key(cluster: ClusterName, local: int) -> tuple[ClusterName, int]:
    return cluster, identity_number(IDS[cluster], 256 + local)


def labels(app: str, namespace: str = "shop", **more: str) -> Json:
    return {"app": app, "meshd.io/namespace": namespace, **more}


# --- histories ------------------------------------------------------------------------------------

some_labels = st.builds(
    lambda namespace, own, its: {
        **own,
        **({"meshd.io/namespace": namespace} if namespace else {}),
        **({"meshd.io/namespace.team": its} if its else {}),
    },
    st.sampled_from(("shop", "card", "")),
    st.dictionaries(st.sampled_from(("app", "tier")), st.sampled_from(("x", "y")), min_size=1),
    st.sampled_from(("x", "y", "")),
)
expressions = st.one_of(
    st.builds(
        lambda key, operator, values: {"key": key, "operator": operator, "values": sorted(values)},
        st.sampled_from(("app", "tier", "team")),
        st.sampled_from(("In", "NotIn")),
        st.sets(st.sampled_from(("x", "y", "z")), min_size=1),
    ),
    st.builds(
        lambda key, operator: {"key": key, "operator": operator},
        st.sampled_from(("app", "tier", "team")),
        st.sampled_from(("Exists", "DoesNotExist")),
    ),
)
selectors = st.builds(
    lambda own, conditions: {"labels": own, "expressions": conditions},
    st.dictionaries(st.sampled_from(("app", "tier")), st.sampled_from(("x", "y")), max_size=2),
    st.lists(expressions, max_size=2),
)
names_of_namespaces = st.sampled_from(("shop", "card"))
namespaces = st.one_of(
    st.just({}),
    st.builds(lambda name: {"names": [name]}, names_of_namespaces),
    st.builds(lambda team: {"labels": {"team": team}}, st.sampled_from(("x", "y"))),
    st.builds(lambda name: {"labels": {"kubernetes.io/metadata.name": name}}, names_of_namespaces),
    st.builds(
        lambda name, operator: {
            "expressions": [
                {"key": "kubernetes.io/metadata.name", "operator": operator, "values": [name]}
            ]
        },
        names_of_namespaces,
        st.sampled_from(("In", "NotIn")),
    ),
    st.builds(lambda one: {"expressions": [one]}, expressions),
)
clusters = st.sampled_from(
    (
        {"clusters": ["b"]},
        {"not_clusters": ["a", "z"]},
        {"regions": ["eu"]},
        {"labels": {"env": "prod"}},
        {},
    )
)
peers = st.one_of(
    st.fixed_dictionaries(
        {"labels": selectors}, optional={"namespaces": namespaces, "clusters": clusters}
    ),
    st.fixed_dictionaries({"namespaces": namespaces}),
    st.fixed_dictionaries({"clusters": clusters}),
    st.just({"cidr": "10.0.0.0/8"}),
)
ports = st.sampled_from(
    ({"port": 80}, {"port": 80, "end_port": 90}, {"name": "http"}, {"protocol": "UDP"}, {})
)
rules = st.builds(
    lambda peers, ports, http: {"peers": peers, "ports": ports, "http": http},
    st.lists(peers, max_size=2),
    st.lists(ports, max_size=2),
    st.sampled_from(([], [], [{"methods": ["GET"]}])),
)
some_policies = st.builds(
    lambda subjects, ingress, egress: {
        "subjects": subjects,
        "directions": ["egress", "ingress"],
        "ingress": ingress,
        "egress": egress,
    },
    selectors,
    st.lists(rules, max_size=2),
    st.lists(rules, max_size=2),
)
infos = st.builds(
    lambda region, env: {"region": region, "labels": {"env": env}},
    st.sampled_from(("eu", "us")),
    st.sampled_from(("prod", "test")),
)
cluster_names = st.sampled_from((A, B, C))
steps = st.one_of(
    st.tuples(
        st.just("identity"), cluster_names, st.integers(0, 3), st.one_of(st.none(), some_labels)
    ),
    st.tuples(
        st.just("identity"), cluster_names, st.integers(0, 3), st.one_of(st.none(), some_labels)
    ),
    st.tuples(
        st.just("policy"),
        cluster_names,
        st.sampled_from(("shop/one", "shop/two", "card/one")),
        st.one_of(st.none(), some_policies),
    ),
    st.tuples(st.just("info"), cluster_names, st.just(0), infos),
    st.tuples(st.just("leave"), cluster_names, st.just(0), st.none()),
)


def begun() -> Mesh:
    """Three clusters in which there is somebody to be selected already, and who selects them."""
    mesh = Mesh(A, B, C)
    for cluster in (A, B, C):
        for local, (app, namespace) in enumerate(product(("x", "y"), ("shop", "card"))):
            mesh.identity(cluster, local, labels(app, namespace))
        peer = {"labels": {"labels": {"app": "x"}}, "namespaces": {}}
        mesh.policy(cluster, "shop/one", {"ingress": [{"peers": [peer]}]})
    return mesh


def take(mesh: Mesh, step: tuple[Any, ...]) -> None:
    what, cluster, name, data = step
    if what == "leave":
        # Left and come back, empty: another generation of its log.
        del mesh.states[cluster]
        mesh.policies.replace(cluster, mesh.states)
        assert mesh.policies.view() == plain_view(mesh.states)
        mesh.states[cluster] = ClusterState()
        mesh.policies.replace(cluster, mesh.states)
    elif what == "info":
        info = {"name": cluster, "id": IDS[cluster], **data}
        mesh.fold(cluster, Event("cluster.set", cluster, info, "ann"))
    elif what == "identity":
        mesh.identity(cluster, name, data)
    else:
        mesh.policy(cluster, name, data)


@given(st.lists(steps, max_size=25))
def test_incremental_equals_from_scratch(history: list[tuple[Any, ...]]) -> None:
    mesh = begun()
    for step in history:
        take(mesh, step)
        assert mesh.policies.view() == plain_view(mesh.states)
    again = policies_of(mesh.states)
    assert again.view() == mesh.policies.view()
    # Nothing is left of what nobody uses, and everything comes to the same.
    assert reaches(again) == reaches(mesh.policies)
    for cluster in (A, B, C):
        del mesh.states[cluster]
        mesh.policies.replace(cluster, mesh.states)
    rest = vars(mesh.policies._selections)
    assert all(not held for name, held in rest.items() if name != "_infos")


def reaches(policies: Policies) -> Json:
    """Which ports everybody may reach of everybody."""
    reach = Reach(policies)
    classes = classes_of(policies, policies.identities())
    return {
        f"{one} {other}": reach.ports(source, destination)
        for source in classes
        for destination in classes
        for one in source.identities
        for other in destination.identities
    }


@given(st.lists(steps, max_size=12), steps)
def test_a_delta_names_all_that_changed(
    history: list[tuple[Any, ...]], last: tuple[Any, ...]
) -> None:
    mesh = begun()
    for step in history:
        take(mesh, step)
    before, known = mesh.policies.view(), dict(mesh.policies.identities())
    deltas = []
    apply = mesh.policies.apply
    replace = mesh.policies.replace
    mesh.policies.apply = lambda *args: deltas.append(apply(*args))  # type: ignore[method-assign,assignment]
    mesh.policies.replace = lambda *args: deltas.append(replace(*args))  # type: ignore[method-assign,assignment]
    take(mesh, last)
    after = mesh.policies.view()
    told = {ref for delta in deltas for ref in delta.policies}
    assert {ref for ref in {*before, *after} if (ref in before) != (ref in after)} <= told
    moved = {one for delta in deltas for one in delta.identities}
    now = mesh.policies.identities()
    assert {one for one in {*known, *now} if known.get(one) != now.get(one)} <= moved
    for ref in {*before} & {*after} - told:
        assert _flat(before[ref]) ^ _flat(after[ref]) <= moved


def _flat(view: Any) -> set[tuple[str, int]]:
    subjects, directions = view
    return set(subjects).union(*(members for rules in directions for members in rules))


# --- examples -------------------------------------------------------------------------------------


def selecting(app: str, **more: object) -> Json:
    return {"subjects": {"labels": {"app": app}}, **more}


def test_a_policy_decides_for_its_own_cluster_alone() -> None:
    mesh = Mesh(A, B)
    for cluster in (A, B):
        mesh.identity(cluster, 0, labels("web"))
        mesh.identity(cluster, 1, labels("db"))
    peer = {"labels": {"labels": {"app": "web"}}}
    mesh.policy(A, "shop/db", selecting("db", ingress=[{"peers": [peer]}]))
    ((subjects, (ingress, _)),) = mesh.policies.view().values()
    assert subjects == {key(A, 1)}
    # Whom it lets in may be anywhere: a namespace is the same one in every cluster.
    assert ingress == (frozenset({key(A, 0), key(B, 0)}),)


def test_who_is_in_no_namespace_is_meant_by_nobody() -> None:
    mesh = Mesh(A)
    mesh.policy(A, "shop/all", {"ingress": [{"peers": [{"namespaces": {}}]}]})
    mesh.identity(A, 0, {"app": "web"})
    ((subjects, (ingress, _)),) = mesh.policies.view().values()
    assert (subjects, ingress) == (frozenset(), (frozenset(),))


def test_conditions() -> None:
    mesh = Mesh(A, B)
    peer = {"clusters": {"clusters": ["b", "z"], "not_clusters": ["y"]}}
    rules = [{"peers": [peer, {"labels": {}}, {"cidr": "10.0.0.0/8"}]}]
    mesh.policy(A, "shop/web", selecting("web", ingress=rules))
    ref = (A, PolicyKey("shop", "web"))
    assert [(one.type, one.message) for one in mesh.policies.conditions(ref)] == [
        (
            "SelectsNothing",
            "no identity of its cluster is selected now; it decides once there is one",
        ),
        ("UnknownCluster", "nothing is known here of a cluster y, which it names"),
        ("UnknownCluster", "nothing is known here of a cluster z, which it names"),
    ]
    mesh.identity(A, 0, labels("web"))
    for name in ("y", "z"):
        mesh.states[ClusterName(name)] = ClusterState()
        mesh.policies.replace(ClusterName(name), mesh.states)
    assert list(mesh.policies.conditions(ref)) == []


def test_what_says_the_same_again_is_no_change() -> None:
    mesh = Mesh(A)
    delta = mesh.identity(A, 0, labels("web"))
    assert (delta.policies, delta.identities) == (frozenset(), {key(A, 0)})
    assert mesh.identity(A, 0, labels("web")).identities == frozenset()
    delta = mesh.policy(A, "shop/web", selecting("web"))
    assert (delta.policies, delta.identities) == ({(A, PolicyKey("shop", "web"))}, frozenset())
    assert mesh.policies.replace(A, mesh.states).policies == frozenset()
    assert mesh.policy(A, "shop/other", None).policies == frozenset()
    assert mesh.identity(A, 7, None).identities == frozenset()
    endpoint = Event("endpoint.set", "shop/web/a", {"address": "10.0.0.1"}, "ann")
    assert mesh.fold(A, endpoint).policies == frozenset()
    assert mesh.policies.policy((A, PolicyKey("shop", "web"))) is not None


def test_what_a_cluster_says_of_itself_moves_its_identities() -> None:
    mesh = Mesh(A, B)
    mesh.identity(B, 0, labels("web"))
    rules = [{"peers": [{"clusters": {"regions": ["eu"]}}]}]
    mesh.policy(A, "shop/db", selecting("db", ingress=rules))
    info = ClusterInfo(name="b", id=2, region="eu")
    event = Event("cluster.set", "b", {"name": "b", "id": 2, "region": info.region}, "ann")
    assert mesh.fold(B, event).identities == {key(B, 0)}
    assert mesh.policies.view() == plain_view(mesh.states)
    assert mesh.fold(B, event).identities == frozenset()


def _counting(monkeypatch: pytest.MonkeyPatch) -> list[Selection]:
    """Count every time that a selector is held against an identity."""
    tried: list[Selection] = []
    matches = Selection.matches

    def counted(self: Selection, *args: Any) -> bool:
        tried.append(self)
        return matches(self, *args)

    monkeypatch.setattr(meshd.core.selections.Selection, "matches", counted)
    return tried


def many(mesh: Mesh, apps: Iterable[str]) -> None:
    for number, app in enumerate(apps):
        mesh.identity(A, number, labels(app))


def test_one_identity_is_held_against_what_asks_for_its_labels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mesh = Mesh(A)
    many(mesh, (f"app-{number}" for number in range(50)))
    for number in range(50):
        peer = {"labels": {"labels": {"app": f"app-{number}"}}}
        mesh.policy(A, f"shop/p{number}", selecting(f"app-{number}", ingress=[{"peers": [peer]}]))
    tried = _counting(monkeypatch)
    mesh.identity(A, 7, labels("app-7", tier="new"))
    # Its policy's subjects, and the peers of that one's rule.
    assert len(tried) == 2


def test_one_policy_is_held_against_what_has_its_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    mesh = Mesh(A)
    many(mesh, (f"app-{number}" for number in range(50)))
    mesh.identity(A, 99, labels("app-7", tier="back"))
    tried = _counting(monkeypatch)
    mesh.policy(A, "shop/p", selecting("app-7"))
    assert len(tried) == 2
    # The same selector again costs nothing, and of several labels the rarest is looked at.
    tried.clear()
    mesh.policy(A, "shop/q", selecting("app-7"))
    assert tried == []
    mesh.policy(A, "shop/q", None)
    assert mesh.policies.view() == plain_view(mesh.states)
    tried.clear()
    mesh.policy(A, "shop/r", {"subjects": {"labels": {"app": "app-7", "tier": "back"}}})
    assert len(tried) == 1


def test_what_a_plan_concerns_is_told_and_nothing_else_is_touched() -> None:
    mesh = Mesh(A, B)
    for local, app in enumerate(("web", "db", "cart")):
        mesh.identity(A, local, labels(app))
    mesh.policy(A, "shop/db", selecting("db"))
    events = [
        Event("policy.removed", "shop/db", None, "ann"),
        Event("policy.set", "shop/cart", selecting("cart"), "ann"),
        Event("identity.set", str(key(A, 7)[1]), {"labels": labels("new")}, "ann"),
    ]
    beside = reach_beside(mesh.states, A, events, 5)
    assert beside.affected == {key(A, 1), key(A, 2), key(A, 7)}
    assert beside.before.view() == plain_view(mesh.states) == mesh.policies.view()
    assert [str(ref[1]) for ref in beside.after.view()] == ["shop/cart"]


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("policy.set", True),
        ("policy.removed", True),
        ("identity.set", True),
        ("cluster.set", True),
        ("service.set", False),
        ("endpoint.removed", False),
    ],
)
def test_which_events_may_change_who_may_talk_to_whom(kind: str, *, changes: bool) -> None:
    assert changes_reach([Event("node.set", "n", {}, "ann"), Event(kind, "", {}, "ann")]) is changes
