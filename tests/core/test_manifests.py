import copy
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from meshd.core.kubernetes import endpoint_name
from meshd.core.manifests import Accepted, Manifests, read_manifests
from meshd.model.command import AllocateIdentity, ReplaceEndpoints, SetEndpoint, SetService
from meshd.model.endpoint import Endpoint
from meshd.model.errors import RejectedError
from meshd.model.ids import ClusterName, EndpointKey, ServiceKey, is_dns_name
from meshd.model.service import Affinity, Export, Port, Service, Transport

EAST = ClusterName("east")
BOUTIQUE = Path(__file__).parents[3] / "shared/data/boutique/kubernetes-manifests.yaml"


def read(*documents: object) -> Manifests:
    return read_manifests([(f"line {n}", doc) for n, doc in enumerate(documents, 1)], EAST)


def problems(*documents: object) -> list[str]:
    with pytest.raises(RejectedError) as caught:
        read(*documents)
    return [str(problem) for problem in caught.value.problems]


def our(kind: str, name: str = "web", **spec: object) -> dict[str, Any]:
    return {
        "apiVersion": "meshd.io/v1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": spec,
    }


def k8s_service(**spec: object) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": spec,
    }


def annotated(annotations: object) -> dict[str, Any]:
    document = k8s_service()
    document["metadata"]["annotations"] = annotations
    return document


def k8s_slice(*endpoints: object, **fields: object) -> dict[str, Any]:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "web-x7",
            "namespace": "shop",
            "labels": {"kubernetes.io/service-name": "web"},
        },
        "addressType": "IPv4",
        "endpoints": list(endpoints),
        "ports": [{"port": 80}],
    } | fields


# Our own kinds.


def test_our_service() -> None:
    document = our("Service", ports=[{"port": 80, "name": "http"}], affinity="local")
    document["spec"] |= {"global": True, "shared": False, "export": {"audiences": ["eu", "asia"]}}
    document["metadata"] |= {"namespace": "shop", "labels": {"team": "a"}, "cluster": "east"}
    found = read(document)
    assert found.commands == (
        SetService(
            ServiceKey("shop", "web"),
            Service(
                ports=(Port(80, "http"),),
                is_global=True,
                is_shared=False,
                affinity=Affinity.LOCAL,
                export=Export(audiences=("asia", "eu")),
                labels={"team": "a"},
            ),
        ),
    )
    assert found.accepted == (Accepted("line 1", "Service", "shop", "web"),)
    assert found.ignored == ()


def test_our_endpoint() -> None:
    document = our(
        "Endpoint",
        "web.1",
        service="web",
        address="10.0.0.1",
        ports=[{"port": 8080}],
        ready=False,
        serving=True,
        terminating=True,
        weight=7,
        zone="a",
        node="n",
    )
    document["metadata"]["labels"] = {"x": "y"}
    assert read(document).commands == (
        SetEndpoint(
            EndpointKey(ServiceKey("default", "web"), "web.1"),
            Endpoint(
                address="10.0.0.1",
                ports=(Port(8080),),
                ready=False,
                serving=True,
                terminating=True,
                weight=7,
                zone="a",
                node="n",
                labels={"x": "y"},
            ),
        ),
    )


def test_our_endpoints_are_a_whole_set() -> None:
    document = our(
        "Endpoints",
        endpoints=[
            {"name": "a", "address": "10.0.0.1", "labels": {"x": "y"}},
            {"address": "fd00::1"},
        ],
    )
    (command,) = read(document).commands
    assert command == ReplaceEndpoints(
        ServiceKey("default", "web"),
        "Endpoints/default/web",
        {
            "a": Endpoint(address="10.0.0.1", labels={"x": "y"}),
            "fd00-0000-0000-0000-0000-0000-0000-0001": Endpoint(address="fd00::1"),
        },
    )


def test_several_sets_may_serve_one_service() -> None:
    first = our("Endpoints", "rack-1", service="web", endpoints=[])
    second = our("Endpoints", "rack-2", service="web", endpoints=[{"address": "10.0.0.1"}])
    sources = [command.source for command in read(first, second).commands]  # type: ignore[union-attr]
    assert sources == ["Endpoints/default/rack-1", "Endpoints/default/rack-2"]


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (
            our("Service", pots=[]),
            "line 1 Service default/web spec.pots: unknown field (did you mean ports?)",
        ),
        (
            our("Service", source="me"),
            (
                "line 1 Service default/web spec.source: unknown field (it may have ports, "
                "global, shared, headless, session_affinity, session_timeout_s, affinity, tiers, "
                "spill, staleness, weight, exposure, export, import, probe, selector)"
            ),
        ),
        (
            our("Service") | {"status": {}},
            (
                "line 1 Service default/web status: unknown field "
                "(it may have apiVersion, kind, metadata, spec)"
            ),
        ),
        (
            our("Service") | {"metadata": {"name": "web", "annotations": {}}},
            (
                "line 1 Service default/web metadata.annotations: unknown field "
                "(it may have namespace, name, labels, cluster)"
            ),
        ),
        (
            our("Service") | {"metadata": {"name": "web", "cluster": "west"}},
            (
                "line 1 Service default/web metadata.cluster: is 'west', but this is east "
                "(apply it in west, or correct it)"
            ),
        ),
        (
            our("Service") | {"metadata": {"name": "web", "labels": {"v": 1.1}}},
            (
                "line 1 Service default/web metadata.labels.v: should be a valid string; it is 1.1 "
                "(put it in quotes)"
            ),
        ),
        (
            our("Service", "Web"),
            "line 1 Service default/Web metadata.name: 'Web' is not a DNS label (correct it)",
        ),
        (
            our("Service") | {"metadata": None},
            "line 1 Service default/ metadata.name: is missing (add it)",
        ),
        (
            our("Service") | {"metadata": 7},
            "line 1 Service default/ metadata: is not a map, but 7 (write `key: value` below it)",
        ),
        (
            our("Service") | {"metadata": {"name": 7}},
            "line 1 Service default/ metadata.name: is not a text, but 7 (put it in quotes)",
        ),
        (
            our("Service") | {"metadata": {"name": "web", "namespace": "A/B"}},
            "line 1 Service A/B/web metadata.namespace: 'A/B' is not a DNS label (rename it)",
        ),
        (
            our("Service", ports=[{"port": "80"}]),
            (
                "line 1 Service default/web spec.ports[0].port: should be a valid integer; "
                "it is '80' (write a whole number without quotes)"
            ),
        ),
        (
            our("Service", ports=7),
            "line 1 Service default/web spec.ports: is not a list, but 7 (write a list)",
        ),
        (
            our("Endpoint", service="web"),
            "line 1 Endpoint default/web spec.address: is missing (add it)",
        ),
        (
            our("Endpoint", address="10.0.0.1"),
            "line 1 Endpoint default/web spec.service: is missing (add it)",
        ),
        (
            our("Endpoint", "a_b", service="web", address="10.0.0.1"),
            "line 1 Endpoint default/a_b metadata.name: 'a_b' is not a DNS name (rename it)",
        ),
        (
            our("Endpoint", service="web", address="10.0.0.1", ready="yes"),
            (
                "line 1 Endpoint default/web spec.ready: should be a valid boolean; it is 'yes' "
                "(write true or false)"
            ),
        ),
        (
            our("Endpoints", endpoints=[{"address": "x"}]),
            (
                "line 1 Endpoints default/web spec.endpoints[0].address: "
                "is not an IPv4 or IPv6 address; it is 'x' (correct it)"
            ),
        ),
        (
            our("Endpoints", endpoints=[{"address": "10.0.0.1", "name": "A"}]),
            (
                "line 1 Endpoints default/web spec.endpoints[0].name: 'A' is not a DNS name "
                "(rename it)"
            ),
        ),
        (
            our("Endpoints", endpoints=[{"address": "10.0.0.1"}, {"address": "10.0.0.1"}]),
            (
                "line 1 Endpoints default/web spec.endpoints[1].name: '10-0-0-1' is here twice "
                "(remove or rename one)"
            ),
        ),
        (
            our("Endpoints", endpoints=["10.0.0.1"]),
            (
                "line 1 Endpoints default/web spec.endpoints[0]: is not a map, but '10.0.0.1' "
                "(write its fields below it)"
            ),
        ),
        (
            our("Endpoints", endpoints="10.0.0.1"),
            (
                "line 1 Endpoints default/web spec.endpoints: is not a list, but '10.0.0.1' "
                "(write `- ` before each item)"
            ),
        ),
        (
            our("Endpoints", service="A"),
            "line 1 Endpoints default/web spec.service: 'A' is not a DNS label (correct it)",
        ),
        (
            our("Endpoints", "web.1"),
            (
                "line 1 Endpoints default/web.1 metadata.name: 'web.1' is not a DNS label "
                "(correct it)"
            ),
        ),
        (
            our("Endpoints") | {"metadata": {"name": "web", "labels": {"a": "b"}}},
            (
                "line 1 Endpoints default/web metadata.labels: belong to single endpoints "
                "(move them there)"
            ),
        ),
    ],
)
def test_what_is_wrong_with_our_kinds(document: object, expected: str) -> None:
    assert expected in problems(document)


# Kubernetes.


def test_kubernetes_service() -> None:
    document = k8s_service(
        clusterIP="None",
        selector={"app": "web"},
        ports=[
            {"name": "http", "port": 80, "targetPort": "web", "nodePort": 30000},
            {"name": "dns", "port": 53, "protocol": "UDP", "appProtocol": "dns"},
        ],
    )
    document["metadata"] |= {"labels": {"app": "web"}, "uid": "x", "managedFields": []}
    document["status"] = {"loadBalancer": {}}
    (command,) = read(document).commands
    assert command == SetService(
        ServiceKey("shop", "web"),
        Service(
            ports=(Port(80, "http"), Port(53, "dns", Transport.UDP, "dns")),
            headless=True,
            labels={"app": "web"},
            selector={"app": "web"},
        ),
    )


@pytest.mark.parametrize("prefix", ["meshd.io/", "service.cilium.io/"])
@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("global", "true", Service(is_global=True)),
        ("global", "false", Service(is_global=False)),
        ("shared", "true", Service(is_shared=True)),
        ("shared", "false", Service(is_shared=False)),
        ("affinity", "none", Service(affinity=Affinity.NONE)),
        ("affinity", "local", Service(affinity=Affinity.LOCAL)),
        ("affinity", "remote", Service(affinity=Affinity.REMOTE)),
    ],
)
def test_annotations(prefix: str, name: str, text: str, expected: Service) -> None:
    (command,) = read(annotated({prefix + name: text, "other.io/global": "?"})).commands
    assert isinstance(command, SetService)
    assert command.service == expected


@pytest.mark.parametrize("order", [1, -1])
def test_our_annotation_wins_over_ciliums(order: int) -> None:
    both = [("meshd.io/global", "false"), ("service.cilium.io/global", "true")]
    (command,) = read(annotated(dict(both[::order]))).commands
    assert isinstance(command, SetService)
    assert command.service.is_global is False


@pytest.mark.parametrize("prefix", ["meshd.io/", "service.cilium.io/"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("global", "True"),
        ("global", "yes"),
        ("global", 1),
        ("shared", ""),
        ("affinity", "nearest"),
        ("affinity", ["local"]),
    ],
)
def test_a_wrong_annotation_is_a_problem_even_if_it_would_not_count(
    prefix: str, name: str, value: object
) -> None:
    wrong = {"meshd.io/" + name: "local" if name == "affinity" else "true"} | {prefix + name: value}
    (problem,) = problems(annotated(wrong))
    place = f"line 1 Service shop/web metadata.annotations.{prefix}{name}: is "
    assert problem.startswith(place)
    assert ' or "' in problem


def test_null_annotations_say_nothing() -> None:
    assert read(annotated(None), our("Service")).ignored == ()
    assert len(read(annotated({"meshd.io/global": None})).commands) == 1


def test_an_external_name_is_ignored_by_name() -> None:
    found = read(k8s_service(type="ExternalName", externalName="x.example"))
    (ignored,) = found.ignored
    assert (ignored.kind, ignored.namespace, ignored.name) == ("Service", "shop", "web")
    assert "ExternalName" in ignored.reason
    assert found.commands == ()


def test_an_endpoint_slice() -> None:
    document = k8s_slice(
        {
            "addresses": ["10.0.0.1", "10.0.0.9"],
            "conditions": {"ready": None, "serving": None, "terminating": None},
            "nodeName": "n1",
            "zone": "z1",
            "targetRef": {"kind": "Pod", "name": "web-1"},
            "hints": {},
        },
        {"addresses": ["10.0.0.2"], "conditions": {"ready": False, "serving": True}},
        {"addresses": ["10.0.0.3"], "conditions": {"terminating": True}},
        {"addresses": ["10.0.0.4"]},
        ports=[{"name": None, "port": 8080, "protocol": "TCP", "appProtocol": None}],
    )
    ports = (Port(8080),)
    assert read(document).commands == (
        ReplaceEndpoints(
            ServiceKey("shop", "web"),
            "EndpointSlice/shop/web-x7",
            {
                "web-x7.10-0-0-1": Endpoint(address="10.0.0.1", ports=ports, zone="z1", node="n1"),
                "web-x7.10-0-0-2": Endpoint(
                    address="10.0.0.2", ports=ports, ready=False, serving=True
                ),
                "web-x7.10-0-0-3": Endpoint(address="10.0.0.3", ports=ports, terminating=True),
                "web-x7.10-0-0-4": Endpoint(address="10.0.0.4", ports=ports),
            },
        ),
    )


def test_a_slice_of_ipv6_and_an_empty_one() -> None:
    (command,) = read(k8s_slice({"addresses": ["FD00::1"]}, addressType="IPv6")).commands
    assert isinstance(command, ReplaceEndpoints)
    assert [endpoint.address for endpoint in command.endpoints.values()] == ["fd00::1"]
    (empty,) = read(k8s_slice(ports=None, endpoints=None)).commands
    assert isinstance(empty, ReplaceEndpoints)
    assert empty.endpoints == {}


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"addressType": "FQDN"}, "FQDN"),
        ({"metadata": {"name": "x", "labels": {"a": "b"}}}, "no label"),
    ],
)
def test_slices_that_mean_nothing_here(change: dict[str, object], word: str) -> None:
    (ignored,) = read(k8s_slice(**change)).ignored
    assert word in ignored.reason


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (
            k8s_slice(addressType="IPX"),
            "line 1 EndpointSlice shop/web-x7 addressType: 'IPX' is unknown (write IPv4 or IPv6)",
        ),
        (
            k8s_slice({"addresses": ["fd00::1"]}),
            (
                "line 1 EndpointSlice shop/web-x7 endpoints[0].addresses[0]: "
                "is not of the slice's addressType (correct one of them)"
            ),
        ),
        (
            k8s_slice({"addresses": ["10.0.0.1"]}, {"addresses": ["10.0.0.1"]}),
            (
                "line 1 EndpointSlice shop/web-x7 endpoints[1].addresses[0]: "
                "10.0.0.1 is here twice (remove one)"
            ),
        ),
        (
            k8s_slice({"addresses": []}),
            "line 1 EndpointSlice shop/web-x7 endpoints[0].addresses: has no address (list one)",
        ),
        (
            k8s_slice({"addresses": "10.0.0.1"}),
            "line 1 EndpointSlice shop/web-x7 endpoints[0].addresses: has no address (list one)",
        ),
        (
            k8s_slice({"addresses": [7]}),
            (
                "line 1 EndpointSlice shop/web-x7 endpoints[0].addresses[0]: "
                "should be a valid string; it is 7 (put it in quotes)"
            ),
        ),
        (
            k8s_slice({"addresses": ["10.0.0.1"], "conditions": {"ready": "true"}}),
            (
                "line 1 EndpointSlice shop/web-x7 endpoints[0].conditions.ready: "
                "should be a valid boolean; it is 'true' (write true or false)"
            ),
        ),
        (
            k8s_slice({"addresses": ["10.0.0.1"], "nodeName": "a b"}),
            "line 1 EndpointSlice shop/web-x7 endpoints[0].nodeName: ",
        ),
        (
            k8s_slice(ports=[{"port": 70000}]),
            (
                "line 1 EndpointSlice shop/web-x7 ports[0].port: "
                "should be less than or equal to 65535; it is 70000 (correct it)"
            ),
        ),
        (
            k8s_slice(metadata={"name": "A_b", "labels": {"kubernetes.io/service-name": "A"}}),
            "line 1 EndpointSlice default/A_b metadata.name: 'A_b' is not a DNS name (rename it)",
        ),
        (
            k8s_slice(metadata={"name": "x", "labels": {"kubernetes.io/service-name": "A"}}),
            (
                "line 1 EndpointSlice default/x metadata.labels.kubernetes.io/service-name: "
                "'A' is not a DNS label (correct it)"
            ),
        ),
        (
            k8s_service(ports=[{"port": 0}]),
            (
                "line 1 Service shop/web spec.ports[0].port: "
                "should be greater than or equal to 1; it is 0 (correct it)"
            ),
        ),
        (
            k8s_service(ports=[{"port": 1}, {"port": 2}]),
            "line 1 Service shop/web spec.ports: two ports have the same name; ",
        ),
        (
            k8s_service() | {"metadata": {"name": "web.x", "labels": {"a": None}}},
            "line 1 Service default/web.x metadata.name: 'web.x' is not a DNS label (rename it)",
        ),
        (
            k8s_service() | {"metadata": {"name": "web.x", "labels": {"a": None}}},
            (
                "line 1 Service default/web.x metadata.labels.a: "
                "should be a valid string; it is None (put it in quotes)"
            ),
        ),
    ],
)
def test_what_is_wrong_with_kubernetes_kinds(document: object, expected: str) -> None:
    assert any(problem.startswith(expected) for problem in problems(document))


@given(
    st.lists(
        st.tuples(
            st.from_regex(r"[a-z0-9]([-a-z0-9.]{0,250}[a-z0-9])?", fullmatch=True).filter(
                is_dns_name
            ),
            st.ip_addresses().map(str),
        ),
        min_size=2,
        max_size=2,
        unique=True,
    )
)
def test_names_of_a_slices_endpoints_are_names_and_unique(pairs: list[tuple[str, str]]) -> None:
    names = [endpoint_name(*pair) for pair in pairs]
    assert all(is_dns_name(name) for name in names)
    assert len(set(names)) == len(names)
    assert names == [endpoint_name(*pair) for pair in pairs]


def test_long_names_of_slices_stay_apart() -> None:
    names = {endpoint_name("a" * 250 + end, "10.0.0.1") for end in "bcd"}
    assert len(names) == 3
    assert all(is_dns_name(name) for name in names)


# Files as a whole.


def test_a_list_is_unfolded_and_places_name_its_items() -> None:
    wrong = our("Service", ports=7)
    nested = {"apiVersion": "v1", "kind": "List", "items": [our("Service", "b")]}
    document = {"apiVersion": "v1", "kind": "List", "items": [our("Service", "a"), nested]}
    assert [entry.where for entry in read(document).accepted] == [
        "line 1 items[0]",
        "line 1 items[1] items[0]",
    ]
    found = problems(document | {"items": [our("Service", "a"), wrong, 5]})
    assert found[0].startswith("line 1 items[1] Service default/web spec.ports: ")
    assert found[1].startswith("line 1 items[2]: is not a map, but 5 ")
    assert read({"apiVersion": "v1", "kind": "List"}).commands == ()
    assert problems(document | {"items": "x"}) == [
        "line 1 items: is not a list, but 'x' (list the documents)",
    ]


def test_other_kinds_are_ignored_and_named() -> None:
    found = read(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "web"}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"namespace": "x", "name": 7}},
        {"apiVersion": "v1", "kind": "Endpoints", "metadata": 3},
        {"apiVersion": "serving.knative.dev/v1", "kind": "Service"},
    )
    assert found.commands == ()
    assert [(entry.where, entry.kind, entry.namespace, entry.name) for entry in found.ignored] == [
        ("line 1", "Namespace", "", "web"),
        ("line 2", "ServiceAccount", "x", "7"),
        ("line 3", "Endpoints", "", ""),
        ("line 4", "Service", "", ""),
    ]
    assert "an identity says by itself" in found.ignored[0].reason
    assert found.ignored[1].reason == "v1 ServiceAccount says nothing that meshd reads"


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ("text", "line 1: is not a map, but 'text' (a manifest has"),
        ([our("Service")], "line 1: is not a map, but ["),
        (
            {"kind": "Service"},
            "line 1 apiVersion: is missing (say what this is: meshd.io/v1 and one of",
        ),
        ({"apiVersion": "v1"}, "line 1 kind: is missing (say what this is: meshd.io/v1 and one of"),
        ({"apiVersion": "v1", "kind": 7}, "line 1 kind: is not a text, but 7 (put it in quotes)"),
        (our("Sevice"), "line 1 kind: meshd.io/v1 Sevice is unknown (meshd.io/v1 has Service, "),
        (
            our("Service") | {"apiVersion": "meshd.io/v2"},
            "line 1 kind: meshd.io/v2 Service is unknown",
        ),
        (our("Service", x=[{"y": math.nan}]), "line 1 spec.x[0].y: nan is not a number"),
        (our("Service", x=math.inf), "line 1 spec.x: inf is not a number"),
        (our("Service", x={7: 1}), "line 1 spec.x: has the key 7, which is not a text (quote it)"),
        (our("Service", x={1, 2}), "line 1 spec.x: {1, 2} is not plain data (write it as a text)"),
        (
            our("Service", x="a" * 99) | {"spec": "a" * 99},
            "line 1 Service default/web spec: is not",
        ),
    ],
)
def test_what_is_wrong_with_a_document(document: object, expected: str) -> None:
    assert problems(document)[0].startswith(expected)


def test_a_deep_document_is_refused_without_recursion() -> None:
    deep: object = []
    for _ in range(100_000):
        deep = [deep]
    (problem,) = problems(our("Service", x=deep))
    assert problem.endswith("…: nested deeper than 64 (make it flatter)")
    assert len(problem) < 200


def test_one_wrong_document_rejects_all_and_all_problems_are_told() -> None:
    found = problems(our("Service", "a"), our("Service", "b", x=1), 7, our("Service", "c", y=1))
    assert [problem.split(" ")[1].strip(":") for problem in found] == ["2", "3", "4"]


@pytest.mark.parametrize(
    ("first", "second", "thing"),
    [
        (our("Service"), our("Service"), "service default/web"),
        (our("Service"), k8s_service() | {"metadata": {"name": "web"}}, "service default/web"),
        (
            our("Endpoint", "a", service="web", address="10.0.0.1"),
            our("Endpoint", "a", service="web", address="10.0.0.2"),
            "endpoint default/web/a",
        ),
        (
            our("Endpoint", "10-0-0-1", service="web", address="10.0.0.1"),
            our("Endpoints", endpoints=[{"address": "10.0.0.1"}]),
            "endpoint default/web/10-0-0-1",
        ),
        (
            our("Endpoints", service="a"),
            our("Endpoints", service="b"),
            "source Endpoints/default/web",
        ),
        (k8s_slice(), k8s_slice(), "source EndpointSlice/shop/web-x7"),
    ],
)
def test_two_documents_about_one_thing_are_a_problem(
    first: object, second: object, thing: str
) -> None:
    (problem,) = problems(first, second)
    assert problem.startswith("line 2 ")
    assert problem.endswith(f"the {thing} is in line 1 already (remove one)")


def test_the_same_name_elsewhere_is_another_thing() -> None:
    elsewhere = our("Service")
    elsewhere["metadata"] = {"name": "web", "namespace": "shop"}
    slices = [k8s_slice({"addresses": ["10.0.0.1"]}), copy.deepcopy(k8s_slice())]
    slices[1]["metadata"]["name"] = "web-y8"
    slices[1]["endpoints"] = slices[0]["endpoints"]
    assert len(read(our("Service"), elsewhere, *slices).commands) == 4


def test_a_place_may_be_empty() -> None:
    with pytest.raises(RejectedError) as caught:
        read_manifests([("", our("Service", x=1))], EAST)
    assert caught.value.problems[0].where == "Service default/web spec.x"


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda part: (
            st.lists(part, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["name", "ports", "port", "labels", "spec", "conditions", "addresses"]
                ),
                part,
                max_size=3,
            )
        ),
        max_leaves=8,
    ),
    st.sampled_from(
        [
            lambda: our("Service"),
            lambda: our("Endpoint"),
            lambda: our("Endpoints"),
            k8s_service,
            k8s_slice,
        ]
    ),
    st.sampled_from(["metadata", "spec", "endpoints", "ports", "addressType"]),
)
def test_whatever_stands_in_a_field_is_read_or_refused(
    junk: object, make: Callable[[], dict[str, Any]], field: str
) -> None:
    try:
        found = read(make() | {field: junk})
    except RejectedError as error:
        refused = error.problems
    else:
        refused = ()
        assert len(found.commands) + len(found.ignored) == 1
    assert all(problem.where and problem.remedy for problem in refused)


@pytest.mark.skipif(not BOUTIQUE.exists(), reason=f"{BOUTIQUE} is not on this machine")
def test_the_boutique_gives_twelve_services_and_identities_and_names_the_rest() -> None:
    documents = [doc for doc in yaml.safe_load_all(BOUTIQUE.read_text()) if doc is not None]
    found = read(*documents)
    assert Counter(map(type, found.commands)) == {SetService: 12, AllocateIdentity: 12}
    assert {command.key.name for command in found.commands if isinstance(command, SetService)} >= {
        "frontend",
        "cartservice",
        "redis-cart",
    }
    kinds = Counter(entry.kind for entry in found.ignored)
    assert kinds == {"ServiceAccount": 11}
    assert all(entry.name and entry.kind in entry.reason for entry in found.ignored)
