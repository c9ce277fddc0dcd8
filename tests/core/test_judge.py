"""Who may talk to whom: as an independent evaluator of NetworkPolicy says, and by example."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from meshd.core.decide import decide
from meshd.core.draft import Draft, OfState
from meshd.core.fold import fold_record
from meshd.core.judge import (
    AskedPort,
    Inside,
    Judgement,
    Outside,
    Party,
    Verdict,
    http_text,
    judge,
)
from meshd.core.manifests import read_manifests
from meshd.core.policies import Policies, policies_of
from meshd.core.port_sets import (
    ALL_PORTS,
    NO_PORTS,
    has_port,
    intersection,
    port_set,
    ports_shown,
)
from meshd.core.reach import Reach, classes_of, matrix, reach_changes
from meshd.core.state import ClusterState
from meshd.model.cluster import ClusterInfo
from meshd.model.codec import encode_record
from meshd.model.command import IntroduceCluster, Submission
from meshd.model.ids import ClusterName, Head, LogId
from meshd.model.policy import HttpMatch, PathMatch
from meshd.model.service import Transport
from tests.network_policies import Pod, Yaml, is_allowed, lets_address_in, pods_in

FOLDER = Path(__file__).parents[3] / "shared/data/boutique"
A, B = ClusterName("a"), ClusterName("b")
TCP, UDP = Transport.TCP, Transport.UDP


def state_of(cluster: ClusterName, number: int, documents: list[Yaml]) -> ClusterState:
    """What a cluster's log comes to, once these are applied to it."""
    state = ClusterState()
    commands = read_manifests([(f"{n}", doc) for n, doc in enumerate(documents)], cluster).commands
    introduced = IntroduceCluster(ClusterInfo(name=cluster, id=number))
    submission = Submission((introduced, *commands), "ann")
    events = decide(Draft(OfState(state)), submission, 5).events
    fold_record(state, encode_record(Head.genesis(LogId("a" * 32)), 5, events), cluster)
    return state


def parties_of(policies: Policies) -> dict[Pod, Inside]:
    """Every identity, by the pods that it stands for."""
    found = {}
    for (cluster, number), labels in policies.identities().items():
        own, its = {}, {}
        for name, value in labels.items():
            if name.startswith("meshd.io/namespace."):
                its[name.removeprefix("meshd.io/namespace.")] = value
            elif name != "meshd.io/namespace":
                own[name] = value
        pod = Pod(
            cluster,
            labels["meshd.io/namespace"],
            tuple(sorted(own.items())),
            tuple(sorted(its.items())),
        )
        found[pod] = Inside(cluster, number, labels)
    return found


def check_all(
    policies: Policies, raw: Mapping[str, list[Yaml]], ports: list[tuple[Transport, int]]
) -> int:
    """Hold every pair's answer against the evaluator's; returns how many are allowed."""
    parties, reach = parties_of(policies), Reach(policies)
    classes = {
        one: each for each in classes_of(policies, policies.identities()) for one in each.identities
    }
    allowed = 0
    for (source, one), (destination, other) in product(parties.items(), repeat=2):
        assert one.number
        assert other.number
        through = reach.ports(
            classes[one.cluster, one.number], classes[other.cluster, other.number]
        )
        assert through.sure == through.maybe
        for protocol, number in ports:
            expected = is_allowed(raw, source, destination, protocol, number)
            found = judge(policies, one, other, AskedPort(protocol, number))
            assert found.verdict is (Verdict.ALLOWED if expected else Verdict.DENIED), found
            assert has_port(through.sure, protocol, number) is expected
            allowed += expected
    return allowed


@pytest.mark.skipif(not FOLDER.exists(), reason=f"{FOLDER} is not on this machine")
def test_the_boutique_is_as_kubernetes_has_it() -> None:
    manifests, network_policies = (
        [doc for doc in yaml.safe_load_all((FOLDER / name).read_text()) if doc is not None]
        for name in ("kubernetes-manifests.yaml", "network-policies.yaml")
    )
    policies = policies_of({A: state_of(A, 1, manifests + network_policies)})
    assert set(parties_of(policies)) == set(pods_in(manifests, A))
    numbers = {
        port["port"]
        for policy in network_policies
        for rule in policy["spec"].get("ingress", [])
        for port in rule.get("ports", [])
    }
    ports = [(protocol, number) for protocol in (TCP, UDP) for number in (*sorted(numbers), 1)]
    allowed = check_all(policies, {A: network_policies}, ports)
    assert 100 < allowed < len(ports) * 12 * 12
    cells = {
        (
            _app(policies, cell.source.identities[0]),
            _app(policies, cell.destination.identities[0]),
        ): (ports_shown(cell.ports.sure))
        for cell in matrix(policies, policies.identities(), policies.identities())
    }
    assert cells["checkoutservice", "paymentservice"] == ["TCP/50051"]
    assert cells["loadgenerator", "frontend"] == ["all"]
    assert ("frontend", "paymentservice") not in cells


def _app(policies: Policies, identity: tuple[ClusterName, int]) -> str:
    return policies.identities()[identity]["app"]


# --- random policies ------------------------------------------------------------------------------

labels = st.dictionaries(st.sampled_from(("app", "tier")), st.sampled_from(("x", "y")), max_size=2)
expressions = st.one_of(
    st.builds(
        lambda key, operator, values: {"key": key, "operator": operator, "values": sorted(values)},
        st.sampled_from(("app", "tier", "team")),
        st.sampled_from(("In", "NotIn")),
        st.sets(st.sampled_from(("x", "y")), min_size=1),
    ),
    st.builds(
        lambda key, operator: {"key": key, "operator": operator},
        st.sampled_from(("app", "tier", "team")),
        st.sampled_from(("Exists", "DoesNotExist")),
    ),
)
selectors = st.builds(
    lambda own, conditions: {"matchLabels": own, "matchExpressions": conditions},
    labels,
    st.lists(expressions, max_size=1),
)
namespace_selectors = st.one_of(
    selectors,
    st.builds(
        lambda name: {"matchLabels": {"kubernetes.io/metadata.name": name}},
        st.sampled_from(("shop", "card")),
    ),
)
peers = st.one_of(
    st.builds(lambda one: {"podSelector": one}, selectors),
    st.builds(lambda one: {"namespaceSelector": one}, namespace_selectors),
    st.builds(
        lambda one, other: {"podSelector": one, "namespaceSelector": other},
        selectors,
        namespace_selectors,
    ),
    st.sampled_from(
        (
            {"ipBlock": {"cidr": "192.0.2.0/24", "except": ["192.0.2.128/25"]}},
            {"ipBlock": {"cidr": "0.0.0.0/0"}},
        )
    ),
)
rule_ports = st.sampled_from(
    (
        {"port": 80},
        {"port": 80, "protocol": "UDP"},
        {"port": 80, "endPort": 90},
        {"protocol": "UDP"},
    )
)


def _rules(peers_name: str) -> st.SearchStrategy[list[Yaml]]:
    rule = st.fixed_dictionaries(
        {},
        optional={
            peers_name: st.lists(peers, max_size=2),
            "ports": st.lists(rule_ports, max_size=2),
        },
    )
    return st.lists(rule, max_size=2)


few_selectors = st.sampled_from(({}, {}, {"matchLabels": {"app": "x"}}))
"""Random ones mostly select nobody, who is then isolated by nothing."""
specs = st.fixed_dictionaries(
    {
        "podSelector": st.one_of(few_selectors, selectors),
        "ingress": _rules("from"),
        "egress": _rules("to"),
    },
    optional={
        "policyTypes": st.sampled_from((["Ingress"], ["Egress"], ["Ingress", "Egress"])),
    },
)
network_policies = st.builds(
    lambda namespace, spec, narrowed: {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"namespace": namespace}
        | ({"annotations": {"meshd.io/clusters": narrowed}} if narrowed else {}),
        "spec": spec,
    },
    st.sampled_from(("shop", "card")),
    specs,
    st.sampled_from(("", "", "", "b", "a,b")),
)
pods = st.builds(
    Pod,
    st.sampled_from((A, B)),
    st.sampled_from(("shop", "card")),
    labels.map(lambda found: tuple(sorted(found.items()))),
    st.sampled_from(((), (("team", "x"),))),
)


ALWAYS = {
    Pod(cluster, namespace, (("app", app),), team)
    for cluster, namespace, app, team in (
        *((A, "shop", "x", ()), (A, "card", "y", (("team", "x"),)), (B, "shop", "y", ())),
    )
}


def identity(pod: Pod) -> Yaml:
    its = {f"meshd.io/namespace.{name}": value for name, value in pod.namespace_labels}
    return {
        "apiVersion": "meshd.io/v1",
        "kind": "Identity",
        "metadata": {"name": "x"},
        "spec": {"labels": {**dict(pod.labels), **its, "meshd.io/namespace": pod.namespace}},
    }


@given(
    st.sets(pods, max_size=3).map(lambda found: found | ALWAYS),
    st.lists(network_policies, max_size=3),
    st.lists(network_policies, max_size=3),
)
def test_any_policies_of_two_clusters_are_as_kubernetes_has_them(
    found: set[Pod], of_a: list[Yaml], of_b: list[Yaml]
) -> None:
    raw: dict[str, list[Yaml]] = {A: of_a, B: of_b}
    states = {}
    for number, (cluster, documents) in enumerate(((A, of_a), (B, of_b)), 1):
        for index, document in enumerate(documents):
            document["metadata"]["name"] = f"p{index}"
        its = [identity(pod) for pod in sorted(found, key=str) if pod.cluster == cluster]
        states[cluster] = state_of(cluster, number, its + documents)
    policies = policies_of(states)
    check_all(policies, raw, [(TCP, 80), (TCP, 90), (UDP, 80), (UDP, 1)])
    for pod, inside in parties_of(policies).items():
        for address in ("192.0.2.1", "192.0.2.200", "2001:db8::1"):
            outside, port = Outside(address=address), AskedPort(TCP, 80)
            came = judge(policies, outside, inside, port).verdict is Verdict.ALLOWED
            went = judge(policies, inside, outside, port).verdict is Verdict.ALLOWED
            its = raw[pod.cluster]
            assert came is lets_address_in(its, pod, address, "Ingress", "TCP", 80)
            assert went is lets_address_in(its, pod, address, "Egress", "TCP", 80)


# --- examples -------------------------------------------------------------------------------------


def ours(name: str, **spec: object) -> Yaml:
    metadata = {"namespace": "shop", "name": name}
    return {"apiVersion": "meshd.io/v1", "kind": "Policy", "metadata": metadata, "spec": spec}


def pod(app: str) -> Yaml:
    return identity(Pod(A, "shop", (("app", app),)))


def inside(policies: Policies, app: str) -> Inside:
    for (cluster, number), found in policies.identities().items():
        if found.get("app") == app:
            return Inside(cluster, number, found)
    return Inside(A, None, {"app": app, "meshd.io/namespace": "shop"})


def asked(
    documents: list[Yaml], source: str | Party, destination: str | Party, port: AskedPort
) -> Judgement:
    policies = policies_of({A: state_of(A, 1, documents)})
    ends = [inside(policies, one) if isinstance(one, str) else one for one in (source, destination)]
    return judge(policies, ends[0], ends[1], port)


HTTP = AskedPort(TCP, 80)
WEB = {"labels": {"app": "web"}}
LETS_WEB_IN = ours(
    "db", subjects={"labels": {"app": "db"}}, ingress=[{}, {"peers": [{"labels": WEB}]}]
)


def test_who_is_isolated_by_nothing_is_told_so() -> None:
    found = asked([pod("web"), pod("db")], "web", "db", HTTP)
    assert found.verdict is Verdict.ALLOWED
    assert [side.why for side in found.sides] == [
        "no egress policy of a selects it, so it isn't isolated",
        "no ingress policy of a selects it, so it isn't isolated",
    ]


def test_the_rule_and_the_event_that_decided() -> None:
    found = asked([pod("web"), pod("db"), LETS_WEB_IN], "web", "db", HTTP)
    grant = found.sides[1].grant
    assert grant is not None
    assert (str(grant.policy.key), grant.index, grant.direction) == ("shop/db", 0, "ingress")
    assert (grant.policy.held.seq, grant.policy.held.actor) == (4, "ann")
    denied = asked([pod("web"), pod("db"), ours("deny")], "web", "db", HTTP)
    assert denied.verdict is Verdict.DENIED
    assert denied.sides[1].why == "isolated by shop/deny of a, and no rule allows it"


def test_labels_that_nobody_has_are_judged_as_if_somebody_had_them() -> None:
    assert asked([pod("db"), LETS_WEB_IN], "web", "db", HTTP).verdict is Verdict.ALLOWED
    deny = ours("deny", subjects=WEB, directions=["egress"])
    assert asked([pod("db"), deny], "web", "db", HTTP).verdict is Verdict.DENIED


def test_a_cluster_of_which_nothing_is_known_is_not_taken_to_allow() -> None:
    there = Inside(B, None, {"app": "db", "meshd.io/namespace": "shop"}, is_known=False)
    found = asked([pod("web")], "web", there, HTTP)
    assert found.verdict is Verdict.UNKNOWN
    assert "nothing is known here of cluster b" in found.sides[1].why
    # What the one side denies needs no word of the other.
    deny = ours("deny", directions=["egress"])
    assert asked([pod("web"), deny], "web", there, HTTP).verdict is Verdict.DENIED


@pytest.mark.parametrize(
    ("rule", "verdict", "why"),
    [
        ({"http": [{"methods": ["GET"], "path": "/api/"}]}, "conditional", "GET /api/*"),
        ({"ports": [{"name": "http"}]}, "conditional", "is the one named http"),
        ({"ports": [{"name": "http"}, {"port": 80}]}, "allowed", "rule 0 of shop/db"),
        ({"ports": [{"name": "http", "protocol": "UDP"}]}, "denied", "no rule"),
        ({"ports": [{"port": 81}]}, "denied", "no rule"),
        ({"ports": [{"port": 79, "end_port": 81}]}, "allowed", "rule 0"),
        ({"ports": [{}]}, "allowed", "rule 0"),
    ],
)
def test_what_only_others_can_judge_is_conditional(
    rule: dict[str, Any], verdict: str, why: str
) -> None:
    document = ours("db", subjects={"labels": {"app": "db"}}, ingress=[rule])
    found = asked([pod("web"), pod("db"), document], "web", "db", HTTP)
    assert found.verdict == verdict
    assert why in found.sides[1].why
    policies = policies_of({A: state_of(A, 1, [pod("web"), pod("db"), document])})
    classes = {
        _app(policies, one.identities[0]): one
        for one in classes_of(policies, policies.identities())
    }
    through = Reach(policies).ports(classes["web"], classes["db"])
    assert has_port(through.sure, TCP, 80) is (verdict == "allowed")
    assert has_port(through.maybe, TCP, 80) is (verdict != "denied")


def test_a_rule_without_a_condition_goes_before_one_with() -> None:
    rules = [{"http": [{}]}, {"peers": [{"labels": WEB}]}]
    document = ours("db", subjects={"labels": {"app": "db"}}, ingress=rules)
    found = asked([pod("web"), pod("db"), document], "web", "db", HTTP)
    assert found.verdict is Verdict.ALLOWED
    assert found.sides[1].grant is not None
    assert found.sides[1].grant.index == 1
    named = asked(
        [pod("web"), pod("db"), ours("db", ingress=[{"ports": [{"name": "http"}]}])],
        "web",
        "db",
        AskedPort(TCP, 80, "http"),
    )
    assert named.verdict is Verdict.ALLOWED


@pytest.mark.parametrize(
    ("peer", "name", "verdict", "why"),
    [
        ({"dns": "api.example.org"}, "api.example.org", "allowed", "who resolves names"),
        ({"dns": "*.example.org"}, "api.example.org", "allowed", "who resolves names"),
        ({"dns": "*.example.org"}, "a.b.example.org", "allowed", "who resolves names"),
        ({"dns": "*.example.org"}, "example.org", "denied", "no rule"),
        ({"dns": "example.org"}, "badexample.org", "denied", "no rule"),
        ({"dns": "*.example.org"}, "badexample.org", "denied", "no rule"),
        ({"labels": {}}, "example.org", "denied", "no rule"),
        ({"cidr": "192.0.2.0/24"}, "example.org", "conditional", "an address in 192.0.2.0/24"),
        (
            {"cidr": "192.0.2.0/24", "except": ["192.0.2.0/25"]},
            "example.org",
            "conditional",
            "and none of 192.0.2.0/25",
        ),
    ],
)
def test_names_outside(peer: dict[str, Any], name: str, verdict: str, why: str) -> None:
    document = ours("web", directions=["egress"], egress=[{"peers": [peer]}])
    found = asked([pod("web"), document], "web", Outside(name=name), HTTP)
    assert found.verdict == verdict
    assert why in found.sides[0].why


def test_names_are_not_meant_by_addresses_nor_identities_by_either() -> None:
    peers = [{"dns": "example.org"}, {"cidr": "0.0.0.0/0"}]
    document = ours("web", directions=["egress"], egress=[{"peers": peers}])
    found = asked([pod("web"), pod("db"), document], "web", "db", HTTP)
    assert found.verdict is Verdict.DENIED
    address = asked([pod("web"), document], "web", Outside(address="192.0.2.1"), HTTP)
    assert address.verdict is Verdict.ALLOWED
    assert "resolves" not in address.sides[0].why
    anywhere = ours("web", directions=["egress"], egress=[{}])
    found = asked([pod("web"), anywhere], "web", Outside(name="example.org"), HTTP)
    assert "resolves" not in found.sides[0].why


def test_requests_in_words() -> None:
    assert http_text(HttpMatch()) == "any method /*"
    assert http_text(HttpMatch(path="/a")) == "any method /a/*"
    exact = HttpMatch(methods=("GET", "HEAD"), path="/a", match=PathMatch.EXACT)
    assert http_text(exact) == "GET,HEAD /a"


def test_sets_of_ports() -> None:
    ranges = port_set([(TCP, 80, 90), (TCP, 91, 99), (UDP, 53, 53), (TCP, 85, 86)])
    assert ranges == ((TCP, 80, 99), (UDP, 53, 53))
    assert ports_shown(ranges) == ["TCP/80-99", "UDP/53"]
    assert ports_shown(ALL_PORTS) == ["all"]
    assert ports_shown(((TCP, 1, 65_535),)) == ["TCP"]
    assert intersection(ranges, ALL_PORTS) == ranges == intersection(ALL_PORTS, ranges)
    assert intersection(ranges, ((TCP, 90, 100),)) == ((TCP, 90, 99),)
    assert intersection(ranges, ((UDP, 54, 60),)) == NO_PORTS


# --- what changes ---------------------------------------------------------------------------------


def test_what_changes_is_told_by_who_is_affected() -> None:
    documents = [pod("web"), pod("db"), pod("cart")]
    before = policies_of({A: state_of(A, 1, documents)})
    more = [*documents, pod("new"), LETS_WEB_IN | {"spec": {"subjects": {"labels": {"app": "db"}}}}]
    after = policies_of({A: state_of(A, 1, more)})
    apps = {one["app"]: key for key, one in after.identities().items()}
    affected = frozenset({apps["db"], apps["new"]})
    found = [one for one in reach_changes(before, after, affected) if one is not None]
    changed = {
        (_app(after, source), _app(after, destination)): (
            ports_shown(one.old.sure),
            ports_shown(one.new.sure),
        )
        for one in found
        for source in one.sources
        for destination in one.destinations
    }
    others = {"web", "cart", "db", "new"}
    assert changed == {
        **{(one, "db"): (["all"], []) for one in others - {"new"}},
        **{("new", one): ([], ["all"]) for one in others - {"db"}},
        **{(one, "new"): ([], ["all"]) for one in others},
    }
    assert None in list(reach_changes(before, after, affected))
