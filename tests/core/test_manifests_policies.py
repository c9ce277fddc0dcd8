"""Manifests of policies, and workloads as identities."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from meshd.core.manifests import Manifests, read_manifests
from meshd.core.workloads import TEMPLATE_PATHS
from meshd.model.command import AllocateIdentity, SetPolicy
from meshd.model.errors import RejectedError
from meshd.model.ids import ClusterName, PolicyKey
from meshd.model.policy import Direction, Policy, RulePort
from meshd.model.schema import to_data

EAST = ClusterName("east")
FOLDER = Path(__file__).parents[3] / "shared/data/boutique"


def read(*documents: object) -> Manifests:
    return read_manifests([(f"line {n}", doc) for n, doc in enumerate(documents, 1)], EAST)


def problems(*documents: object) -> list[str]:
    with pytest.raises(RejectedError) as caught:
        read(*documents)
    return [str(problem) for problem in caught.value.problems]


def ours(**spec: object) -> dict[str, Any]:
    metadata = {"namespace": "shop", "name": "web.v1", "labels": {"a": "b"}}
    return {"apiVersion": "meshd.io/v1", "kind": "Policy", "metadata": metadata, "spec": spec}


def theirs(
    spec: dict[str, Any], annotations: dict[str, object] | None = None, name: str = "web"
) -> dict[str, Any]:
    metadata = {"namespace": "shop", "name": name, "annotations": annotations}
    version = "networking.k8s.io/v1"
    return {"apiVersion": version, "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}


def policy(document: dict[str, Any]) -> Policy:
    (command,) = read(document).commands
    assert isinstance(command, SetPolicy)
    assert command.key.namespace == "shop"
    return command.policy


def test_our_own_kind_has_the_fields_of_the_value() -> None:
    (command,) = read(ours(subjects={"labels": {"app": "web"}}, ingress=[{}])).commands
    assert isinstance(command, SetPolicy)
    assert command.key == PolicyKey("shop", "web.v1")
    assert to_data(command.policy) == {
        "subjects": {"labels": {"app": "web"}},
        "ingress": [{}],
        "labels": {"a": "b"},
    }
    assert problems(ours(ingress=[{"peers": [{}]}], source="x"))[0].startswith(
        "line 1 Policy shop/web.v1 spec.source: unknown field"
    )
    (wrong,) = problems(ours(egress=[{}]))
    assert wrong == (
        "line 1 Policy shop/web.v1 spec: has egress rules, but its directions don't have egress;"
        " it is {'egress': [{}], 'labels': {'a': 'b'}} (correct it)"
    )
    assert "is in line 1 already" in problems(ours(), ours())[0]


SPEC: dict[str, Any] = {
    "podSelector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["web"]}]},
    "policyTypes": ["Ingress", "Egress", "Ingress"],
    "ingress": [
        {
            "from": [
                {"podSelector": {"matchLabels": {"app": "cart"}}},
                {"namespaceSelector": {}},
                {"podSelector": None, "namespaceSelector": {"matchLabels": {"team": "a"}}},
                {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}},
            ],
            "ports": [{"port": 80}, {"port": 90, "endPort": 99, "protocol": "UDP"}, {}],
        },
        {"from": [], "ports": [{"port": "http"}]},
    ],
    "egress": [{}],
}


def test_a_network_policy_says_what_it_says_in_kubernetes() -> None:
    assert to_data(policy(theirs(SPEC))) == {
        "subjects": {"expressions": [{"key": "app", "operator": "In", "values": ["web"]}]},
        "directions": ["egress", "ingress"],
        "ingress": [
            {
                "peers": [
                    {"labels": {"labels": {"app": "cart"}}},
                    {"namespaces": {}},
                    {"namespaces": {"labels": {"team": "a"}}},
                    {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]},
                ],
                "ports": [{"port": 80}, {"protocol": "UDP", "port": 90, "end_port": 99}, {}],
            },
            {"ports": [{"name": "http"}]},
        ],
        "egress": [{}],
    }


def test_annotations_narrow_who_is_meant_and_who_is_told() -> None:
    found = policy(
        theirs(SPEC, {"meshd.io/clusters": "west, east", "meshd.io/export-audiences": "eu"})
    )
    narrowed = [
        peer.clusters.clusters if peer.clusters else None for peer in found.ingress[0].peers
    ]
    assert narrowed == [("east", "west")] * 3 + [None]
    assert found.audiences == ("eu",)
    assert policy(theirs({}, {"other.io/x": "y"})) == Policy()


@pytest.mark.parametrize(
    ("spec", "directions"),
    [
        ({}, ["ingress"]),
        ({"egress": []}, ["ingress"]),
        ({"egress": [{}]}, ["egress", "ingress"]),
        ({"policyTypes": ["Egress"]}, ["egress"]),
    ],
)
def test_which_directions_are_isolated_is_as_in_kubernetes(
    spec: dict[str, Any], directions: list[str]
) -> None:
    assert list(policy(theirs(spec)).directions) == directions


def test_rules_that_say_nothing_are_noted() -> None:
    document = theirs({"policyTypes": ["Egress"], "ingress": [{}]})
    assert policy(document) == Policy(directions=(Direction.EGRESS,))
    (accepted,) = read(document).accepted
    assert accepted.note == "its ingress rules say nothing, since its policyTypes don't have them"
    assert read(theirs({})).accepted[0].note == ""


PLACE = "line 1 NetworkPolicy shop/web"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"podSelektor": {}}, "spec.podSelektor: unknown field (did you mean podSelector?)"),
        ({"policyTypes": ["Up"]}, "spec.policyTypes[0]: 'Up' is unknown (write Ingress or Egress)"),
        ({"policyTypes": "Up"}, "spec.policyTypes[0]: 'Up' is unknown (write Ingress or Egress)"),
        ({"policyTypes": [1]}, "spec.policyTypes[0]: 1 is unknown (write Ingress or Egress)"),
        ({"ingress": [{"to": []}]}, "spec.ingress[0].to: unknown field (it may have from, ports)"),
        (
            {"ingress": [{"from": [{}]}]},
            "spec.ingress[0].from[0]: says nobody (write podSelector, namespaceSelector or",
        ),
        (
            {"egress": [{"to": [{"podSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8"}}]}]},
            "spec.egress[0].to[0]: is not one kind of peer",
        ),
        (
            {"egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.1/8"}}]}]},
            "spec.egress[0].to[0].ipBlock.cidr: has host bits set",
        ),
        ({"egress": [{"to": [{"ipBlock": {}}]}]}, "spec.egress[0].to[0].ipBlock.cidr: is not an"),
        (
            {"egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["x"]}}]}]},
            "spec.egress[0].to[0].ipBlock.except[0]: is not an address range",
        ),
        (
            {"ingress": [{"from": [{"podSelector": {"matchLabels": {"a": 1}}}]}]},
            "spec.ingress[0].from[0].podSelector.matchLabels.a: should be a valid string",
        ),
        (
            {"podSelector": {"matchExpressions": [{"key": "a", "operator": "Near"}]}},
            "spec.podSelector.matchExpressions[0].operator: should be 'In', 'NotIn'",
        ),
        ({"ingress": [{"ports": [{"port": 99999}]}]}, "spec.ingress[0].ports[0].port: should be"),
        ({"ingress": [{"ports": [{"port": "Up!"}]}]}, "spec.ingress[0].ports[0].port: is not a"),
        (
            {"ingress": [{"ports": [{"port": "a", "endPort": 9}]}]},
            "spec.ingress[0].ports[0]: has an end_port that is not behind its port",
        ),
    ],
)
def test_what_is_wrong_with_a_network_policy(spec: dict[str, Any], expected: str) -> None:
    found = problems(theirs(spec))
    assert any(one.startswith(f"{PLACE} {expected}") for one in found), found


def test_wrong_names_and_annotations() -> None:
    assert "is not a DNS name" in problems(theirs({}, name="A b"))[0]
    (wrong,) = problems(theirs({}, {"meshd.io/cluster": "west"}))
    assert wrong == (
        f"{PLACE} metadata.annotations.meshd.io/cluster: unknown annotation"
        " (there are meshd.io/clusters, meshd.io/export-audiences)"
    )
    peers: dict[str, Any] = {"ingress": [{"from": [{"podSelector": {}}]}]}
    (wrong,) = problems(theirs(peers, {"meshd.io/clusters": "West"}))
    assert wrong.startswith(f"{PLACE} metadata.annotations.meshd.io/clusters.clusters[0]: is not a")
    wrong, *_ = problems(theirs({}, {"meshd.io/export-audiences": "E U"}))
    assert wrong.startswith(f"{PLACE} metadata.annotations.meshd.io/export-audiences[0]: is not a")


def test_ports_without_a_protocol_are_tcp() -> None:
    found = policy(theirs({"ingress": [{"ports": [{"port": 80, "protocol": None}]}]}))
    assert found.ingress[0].ports == (RulePort(port=80),)


# --- workloads ------------------------------------------------------------------------------------


def workload(version: str, kind: str, pods: dict[str, Any]) -> dict[str, Any]:
    """A manifest of this kind with these pods."""
    document: dict[str, Any] = pods
    for step in reversed(TEMPLATE_PATHS[version, kind]):
        document = {step: document}
    named = {"namespace": "shop", "name": "web"}
    metadata = {**document.get("metadata", {}), **named}
    return document | {"apiVersion": version, "kind": kind, "metadata": metadata}


@pytest.mark.parametrize(("version", "kind"), TEMPLATE_PATHS)
def test_every_workload_is_the_identity_of_its_pods(version: str, kind: str) -> None:
    pods = {"metadata": {"labels": {"app": "web", "pod-template-hash": "x"}}, "spec": {}}
    found = read(workload(version, kind, pods))
    assert found.commands == (AllocateIdentity({"app": "web", "meshd.io/namespace": "shop"}),)
    (accepted,) = found.accepted
    assert (accepted.kind, accepted.namespace, accepted.name) == (kind, "shop", "web")
    assert accepted.note == (
        "read as an identity: the labels of its pods and its namespace;"
        " left out, since they differ from pod to pod: pod-template-hash"
    )


def deployment(labels: object, **spec: object) -> dict[str, Any]:
    return workload("apps/v1", "Deployment", {"metadata": {"labels": labels}, "spec": spec})


def test_workloads_with_the_same_labels_are_one_identity() -> None:
    found = read(deployment({"app": "web"}), deployment({"app": "web"}), deployment(None))
    assert Counter(json.dumps(command.labels) for command in found.commands) == {  # type: ignore[union-attr]
        '{"app": "web", "meshd.io/namespace": "shop"}': 2,
        '{"meshd.io/namespace": "shop"}': 1,
    }
    identity = {
        "apiVersion": "meshd.io/v1",
        "kind": "Identity",
        "metadata": {"name": "web"},
        "spec": {"labels": {"app": "web", "meshd.io/namespace": "shop"}},
    }
    (wrong,) = problems(deployment({"app": "web"}), identity)
    assert "is in line 1 already" in wrong


def test_pods_in_their_nodes_network_have_no_identity() -> None:
    (ignored,) = read(deployment({"app": "web"}, hostNetwork=True)).ignored
    assert "no policy holds for them" in ignored.reason


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (
            deployment({"meshd.io/namespace": "x"}),
            "line 1 Deployment shop/web spec.template.metadata.labels.meshd.io/namespace: is for",
        ),
        (
            deployment({"meshd.io/namespace.team": "x"}),
            "line 1 Deployment shop/web spec.template.metadata.labels.meshd.io/namespace.team: is",
        ),
        (
            deployment({"app": 1}),
            "line 1 Deployment shop/web spec.template.metadata.labels.app: should be a valid",
        ),
        (
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "A b"}},
            "line 1 Pod default/A b metadata.name: 'A b' is not a DNS name",
        ),
    ],
)
def test_what_is_wrong_with_a_workload(document: object, expected: str) -> None:
    assert problems(document)[0].startswith(expected)


@pytest.mark.skipif(not FOLDER.exists(), reason=f"{FOLDER} is not on this machine")
def test_the_boutique_goes_in_with_its_policies() -> None:
    documents = [
        document
        for name in ("kubernetes-manifests.yaml", "network-policies.yaml")
        for document in yaml.safe_load_all((FOLDER / name).read_text())
        if document is not None
    ]
    found = read(*documents)
    assert Counter(entry.kind for entry in found.accepted) == {
        "Service": 12,
        "Deployment": 12,
        "NetworkPolicy": 13,
    }
    assert {entry.kind for entry in found.ignored} == {"ServiceAccount"}
