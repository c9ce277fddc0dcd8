"""Manifests of all that a service may say, and of nodes, identities and the cluster itself."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from meshd.core.manifests import Accepted, Manifests, read_manifests
from meshd.model.cluster import Availability, ClusterSelector
from meshd.model.command import (
    AllocateIdentity,
    DescribeCluster,
    SetIdentity,
    SetNode,
    SetService,
)
from meshd.model.errors import Problem, RejectedError
from meshd.model.identity import Identity
from meshd.model.ids import ClusterName, ServiceKey
from meshd.model.node import Node
from meshd.model.schema import all_data
from meshd.model.service import (
    Affinity,
    Export,
    Exposure,
    Port,
    Service,
    SessionAffinity,
    Spill,
    SpillAmount,
    SpillSplit,
    Tier,
)
from meshd.model.staleness import Staleness, StalenessPolicy

EAST = ClusterName("east")
NUMBER = (1 << 16) + 300


def _yaml(text: str) -> object:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise RejectedError((Problem("", "is not YAML", "mend it"),)) from None


def read(*documents: object) -> Manifests:
    places = [(f"line {number}", document) for number, document in enumerate(documents, 1)]
    return read_manifests(places, EAST, _yaml)


def problems(*documents: object) -> list[str]:
    with pytest.raises(RejectedError) as caught:
        read(*documents)
    return [str(problem) for problem in caught.value.problems]


def our(kind: str, name: str = "n1", **spec: object) -> dict[str, Any]:
    metadata = {"name": name}
    return {"apiVersion": "meshd.io/v1", "kind": kind, "metadata": metadata, "spec": spec}


def k8s(kind: str, spec: object = None, **metadata: object) -> dict[str, Any]:
    named = {"name": "web"} | metadata
    return {"apiVersion": "v1", "kind": kind, "metadata": named, "spec": spec}


def node(**fields: object) -> dict[str, Any]:
    """A Node as Kubernetes has it."""
    document = k8s("Node", {"podCIDRs": ["10.1.1.0/24"], "podCIDR": "10.1.1.0/24"}, name="n1")
    addresses = [
        {"type": "Hostname", "address": "n1"},
        {"type": "InternalIP", "address": "10.0.0.1"},
        {"type": "InternalIP", "address": "2001:db8::1"},
        {"type": "ExternalIP", "address": "192.0.2.1"},
    ]
    return document | {"status": {"addresses": addresses}} | fields


WHOLE = Service(
    ports=(Port(80, "http"),),
    is_global=True,
    is_shared=True,
    headless=True,
    session_affinity=SessionAffinity.CLIENT_IP,
    session_timeout_s=60,
    affinity=Affinity.LOCAL,
    tiers=(Tier(clusters=("@local", "west"), percent=80), Tier(clusters=("*",))),
    spill=Spill(below_percent=50, amount=SpillAmount.ALL, split=SpillSplit.SPREAD),
    staleness=Staleness(policy=StalenessPolicy.WITHDRAW, withdraw_after_s=60.0),
    weight=7,
    exposure=Exposure.EXTERNAL,
    export=Export(audiences=("eu", "mesh"), clusters=ClusterSelector(regions=("eu",))),
    import_from=ClusterSelector(not_clusters=(ClusterName("south"),)),
)


def test_a_service_takes_all_that_the_model_has() -> None:
    spec = all_data(WHOLE)
    for noted in ("labels", "source", "created_ms", "turned_percent"):
        spec.pop(noted)
    (command,) = read(our("Service", "web", **spec)).commands
    assert command == SetService(ServiceKey("default", "web"), WHOLE)


def test_a_kubernetes_service_says_the_same_by_its_fields_and_annotations() -> None:
    document = k8s(
        "Service",
        {
            "ports": [{"port": 80}],
            "clusterIP": "None",
            "sessionAffinity": "ClientIP",
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}},
        },
        annotations={
            "meshd.io/weight": "7",
            "meshd.io/tiers": "[{clusters: ['@local', west], percent: 80}, {clusters: ['*']}]",
            "meshd.io/spill-below-percent": "50",
            "meshd.io/export-audiences": "mesh, eu",
            "meshd.io/exposure": "external",
            "meshd.io/staleness-policy": "withdraw",
        },
    )
    (command,) = read(document).commands
    assert isinstance(command, SetService)
    assert command.service == Service(
        ports=(Port(80),),
        headless=True,
        session_affinity=SessionAffinity.CLIENT_IP,
        session_timeout_s=60,
        weight=7,
        tiers=WHOLE.tiers,
        spill=Spill(below_percent=50),
        export=Export(audiences=("eu", "mesh")),
        exposure=Exposure.EXTERNAL,
        staleness=Staleness(policy=StalenessPolicy.WITHDRAW),
    )
    plain = k8s("Service", {"sessionAffinity": "None", "clusterIP": "10.96.0.1"})
    assert read(plain).commands == (SetService(ServiceKey("default", "web"), Service()),)


def test_annotations_are_json_where_nobody_reads_yaml() -> None:
    def read_plainly(text: str) -> Manifests:
        document = k8s("Service", annotations={"meshd.io/tiers": text})
        return read_manifests([("line 1", document)], EAST)

    (command,) = read_plainly('[{"clusters": ["west"]}]').commands
    assert isinstance(command, SetService)
    assert command.service.tiers == (Tier(clusters=("west",)),)
    with pytest.raises(RejectedError, match="is not JSON"):
        read_plainly("[{clusters: [west]}]")


@pytest.mark.parametrize(
    ("name", "text", "what"),
    [
        ("weight", "heavy", "should be a valid integer"),
        ("weight", "1001", "less than or equal to 1000"),
        ("weight", 7, "is not a text"),
        ("tiers", "[", "is '[': is not YAML (mend it)"),
        ("tiers", "west", "is not a list"),
        ("tiers", "[[west]]", "is not a map, but ['west'] (write a map of its fields)"),
        ("tiers", "[{clusters: [west]}, {clusters: [west]}]", "west is in two places"),
        ("spill-below-percent", "101", "less than or equal to 100"),
        ("export-audiences", "mesh, EU", "is not a DNS label"),
        ("exposure", "open", "should be 'internal' or 'external'"),
        ("staleness-policy", "forget", "should be 'keep', 'demote' or 'withdraw'"),
        ("wieght", "7", "unknown annotation (did you mean meshd.io/weight?)"),
        ("colour", "red", "unknown annotation (there are meshd.io/global, "),
    ],
)
def test_a_wrong_annotation_is_named(name: str, text: object, what: str) -> None:
    (problem,) = problems(k8s("Service", annotations={f"meshd.io/{name}": text}))
    assert problem.startswith(f"line 1 Service default/web metadata.annotations.meshd.io/{name}")
    assert what in problem


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"sessionAffinity": "Sticky"}, "spec.sessionAffinity: 'Sticky' is unknown"),
        (
            {"sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 0}}},
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds: should be greater",
        ),
    ],
)
def test_a_wrong_session_is_named(spec: dict[str, object], expected: str) -> None:
    assert expected in problems(k8s("Service", spec))[0]


def test_nodes_identities_and_the_cluster_are_in_no_namespace() -> None:
    whole = Node(
        addresses=("10.0.0.1",),
        pod_cidrs=("10.1.1.0/24",),
        tunnel_endpoint="10.0.0.1:51820",
        public_key="key=",
        region="eu",
        zone="a",
        labels={"rack": "7"},
        audiences=("eu",),
    )
    spec = all_data(whole)
    spec.pop("source")
    document = our("Node", "n1.rack", **spec)
    document["metadata"]["labels"] = document["spec"].pop("labels")
    found = read(
        document,
        our("Identity", "web", labels={"app": "web"}),
        our("Identity", "cart", labels={"app": "cart"}, audiences=["eu"], number=NUMBER),
        our("Cluster", "east", state="draining", weight=5, announces=["10.1.0.0/16"]),
    )
    assert found.commands == (
        SetNode("n1.rack", whole),
        AllocateIdentity({"app": "web"}, ("mesh",)),
        SetIdentity(NUMBER, Identity(labels={"app": "cart"}, audiences=("eu",))),
        DescribeCluster(Availability.DRAINING, 5, ("10.1.0.0/16",)),
    )
    assert found.accepted[0] == Accepted("line 1", "Node", "", "n1.rack")
    assert read(our("Cluster", "east")).commands == (DescribeCluster(),)
    bare = our("Node", addresses=["10.0.0.1"], tunnel_endpoint="")
    assert read(bare).commands == (SetNode("n1", Node(addresses=("10.0.0.1",))),)


def test_a_kubernetes_node_is_its_internal_addresses_and_where_its_pods_are() -> None:
    labels = {"topology.kubernetes.io/region": "eu", "topology.kubernetes.io/zone": "eu-1a"}
    document = node(metadata={"name": "n1", "labels": labels, "uid": "x"})
    expected = Node(
        addresses=("10.0.0.1", "2001:db8::1"),
        pod_cidrs=("10.1.1.0/24",),
        region="eu",
        zone="eu-1a",
        labels=labels,
    )
    assert read(document).commands == (SetNode("n1", expected),)
    older = node(spec={"podCIDR": "10.1.2.0/24"})
    (command,) = read(older).commands
    assert isinstance(command, SetNode)
    assert command.node.pod_cidrs == ("10.1.2.0/24",)
    (command,) = read(node(spec={})).commands
    assert isinstance(command, SetNode)
    assert command.node.pod_cidrs == ()
    (ignored,) = read(node(status={"addresses": []})).ignored
    assert (ignored.kind, ignored.name) == ("Node", "n1")
    assert "InternalIP" in ignored.reason


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (our("Node"), "line 1 Node n1 spec.addresses: is missing (add it)"),
        (our("Node", "N1", addresses=["10.0.0.1"]), "line 1 Node N1 metadata.name: 'N1' is not"),
        (our("Node", addresses=["10.0.0.1"], source="x"), "spec.source: unknown field"),
        (
            our("Node", addresses=["10.0.0.1"]) | {"metadata": {"name": "n", "namespace": "x"}},
            "metadata.namespace: is for kinds that are in one (leave it out)",
        ),
        (our("Identity"), "line 1 Identity n1 spec.labels: is missing"),
        (our("Identity", labels={}), "spec.labels: holds no label"),
        (
            our("Identity", labels={"a": "b"}) | {"metadata": {"name": "n", "labels": {"x": "y"}}},
            "metadata.labels: say nothing: an identity is what spec.labels say",
        ),
        (our("Identity", labels={"a": "b"}, number="7"), "spec.number: is not a number, but '7'"),
        (our("Identity", labels={"a": "b"}, number=7), "spec.number: '7' is not the number of"),
        (our("Cluster", "west"), "line 1 Cluster west metadata.name: is 'west', but this is east"),
        (our("Cluster", "east", state="asleep"), "line 1 Cluster east spec.state: should be"),
        (our("Cluster", "east", region="eu"), "spec.region: unknown field"),
        (
            our("Cluster", "east") | {"metadata": {"name": "east", "labels": {"x": "y"}}},
            "metadata.labels: stand in the settings of the cluster",
        ),
        (node(spec={"podCIDRs": ["10.1.1.1/24"]}), "spec.podCIDRs[0]: has host bits set"),
        (node(spec={"podCIDRs": "10.1.1.0/24"}), "spec.podCIDRs: is not a list"),
        (node(spec={"podCIDR": "x"}), "spec.podCIDR[0]: is not an address range"),
        (node(metadata={"name": "N"}), "line 1 Node N metadata.name: 'N' is not a DNS name"),
        (
            node(metadata={"name": "n", "labels": {"topology.kubernetes.io/zone": "a b"}}),
            "metadata.labels.topology.kubernetes.io/zone: may hold A-Z",
        ),
    ],
)
def test_what_is_wrong_with_them_is_named(document: object, expected: str) -> None:
    assert any(expected in problem for problem in problems(document)), problems(document)


@pytest.mark.parametrize(
    ("documents", "expected"),
    [
        ([our("Node", addresses=["10.0.0.1"]), node()], "line 2 Node n1: the node n1 is in line 1"),
        (
            [our("Identity", "a", labels={"x": "y"}), our("Identity", "b", labels={"x": "y"})],
            "line 2 Identity b: the identity of x=y is in line 1",
        ),
        (
            [
                our("Identity", "a", labels={"x": "y"}, number=NUMBER),
                our("Identity", "b", labels={"x": "z"}, number=NUMBER),
            ],
            f"line 2 Identity b: the identity {NUMBER} is in line 1",
        ),
        (
            [our("Cluster", "east"), our("Cluster", "east", weight=1)],
            "line 2 Cluster east: the description of the cluster is in line 1",
        ),
    ],
)
def test_two_documents_about_one_thing_are_a_problem(
    documents: list[object], expected: str
) -> None:
    assert any(expected in problem for problem in problems(*documents)), problems(*documents)
