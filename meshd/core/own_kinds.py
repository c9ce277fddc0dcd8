"""Our own kinds of manifests, read as commands.

For: what `meshd.io/v1` documents say. Not for: sorting out which kind is which (`manifests`), nor
Kubernetes' kinds (`kubernetes`). Invariant: a field that isn't known is a problem.

Our kinds, apiVersion `meshd.io/v1`; in each, metadata.cluster, if given, must be the cluster that
the manifest is applied to. A spec has the fields of the value as REST has them, but for its labels,
which are metadata.labels, and for what meshd itself notes of it (`protocols/model.md`):
- Service: in metadata.namespace (`default` unless given), as the next three.
- Policy: its name may have dots.
- Endpoint: also spec.service.
- Endpoints: spec {service (default: metadata.name), endpoints: a list of Endpoint's fields, name
  (default: from its address) and labels}. Applied again, it takes away what is no longer in it.
- Node: in no namespace, as the next two.
- Identity: spec {labels, audiences, number (the next free one unless given)}; its metadata.name is
  for people.
- Cluster: spec {state, weight, announces}; its metadata.name is the cluster's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from meshd.core.annotations import Texts
from meshd.core.document import Fields, shown
from meshd.core.kubernetes import Reading, address_label
from meshd.model.cluster import ClusterInfo
from meshd.model.command import (
    AllocateIdentity,
    DescribeCluster,
    ReplaceEndpoints,
    SetEndpoint,
    SetIdentity,
    SetNode,
    SetPolicy,
    SetService,
)
from meshd.model.endpoint import Endpoint
from meshd.model.errors import RejectedError
from meshd.model.identity import Identity, parse_identity
from meshd.model.ids import (
    ClusterName,
    EndpointKey,
    PolicyKey,
    ServiceKey,
    is_dns_label,
    is_dns_name,
)
from meshd.model.node import Node
from meshd.model.policy import Policy
from meshd.model.schema import field_names
from meshd.model.service import Service

API_VERSION = "meshd.io/v1"

_DOCUMENT_FIELDS = ("apiVersion", "kind", "metadata", "spec")
_METADATA_FIELDS = ("namespace", "name", "labels", "cluster")
_NOT_IN_SPEC = frozenset(
    {"labels", "source", "created_ms", "turned_percent", "probed", "probed_by"}
)
"""Labels stand in the metadata, and the others are for meshd itself to say."""
_SERVICE_FIELDS = tuple(name for name in field_names(Service) if name not in _NOT_IN_SPEC)
_ENDPOINT_FIELDS = tuple(name for name in field_names(Endpoint) if name not in _NOT_IN_SPEC)
_NODE_FIELDS = tuple(name for name in field_names(Node) if name not in _NOT_IN_SPEC)
_POLICY_FIELDS = tuple(name for name in field_names(Policy) if name not in _NOT_IN_SPEC)
_IDENTITY_FIELDS = ("labels", "audiences")
_CLUSTER_FIELDS = ("state", "weight", "announces")
"""What a person says while the cluster runs; the rest of it stands in its settings."""


@dataclass(frozen=True, slots=True)
class Here:
    """Where manifests are applied. texts: reads a text as YAML."""

    cluster: ClusterName
    texts: Texts


def read_our_service(document: Fields, namespace: str, name: str, here: Here) -> Reading:
    """Read a Service."""
    spec, labels = _open(document, here)
    spec.allow(_SERVICE_FIELDS)
    _check_label(document, "metadata.name", name)
    data = {**_only(spec, _SERVICE_FIELDS), "labels": labels}
    service = spec.value(Service, data, {"labels": "metadata.labels"})
    return SetService(ServiceKey(namespace, name), service) if service is not None else None


def read_our_endpoint(document: Fields, namespace: str, name: str, here: Here) -> Reading:
    """Read an Endpoint."""
    spec, labels = _open(document, here)
    spec.allow(("service", *_ENDPOINT_FIELDS))
    _check_dns_name(document, name)
    service = spec.text("service")
    _check_label(document, "spec.service", service)
    data = {**_only(spec, _ENDPOINT_FIELDS), "labels": labels}
    endpoint = spec.value(Endpoint, data, {"labels": "metadata.labels"})
    if endpoint is None:
        return None
    return SetEndpoint(EndpointKey(ServiceKey(namespace, service), name), endpoint)


def read_our_endpoints(document: Fields, namespace: str, name: str, here: Here) -> Reading:
    """Read Endpoints: all that one source gives to a service."""
    spec, labels = _open(document, here)
    spec.allow(("service", "endpoints"))
    if labels:
        document.problem("metadata.labels", "belong to single endpoints", "move them there")
    service = spec.text("service") or name
    _check_label(document, "spec.service" if "service" in spec.data else "metadata.name", service)
    endpoints: dict[str, Endpoint] = {}
    for item in spec.maps("endpoints"):
        item.allow(("name", "labels", *_ENDPOINT_FIELDS))
        endpoint = item.value(Endpoint, _only(item, ("labels", *_ENDPOINT_FIELDS)), {})
        if endpoint is None:
            continue
        own_name = item.text("name") or address_label(endpoint.address)
        if not is_dns_name(own_name):
            item.problem("name", f"{shown(own_name)} is not a DNS name", "rename it")
        elif own_name in endpoints:
            item.problem("name", f"{shown(own_name)} is here twice", "remove or rename one")
        endpoints[own_name] = endpoint
    source = f"Endpoints/{namespace}/{name}"
    return ReplaceEndpoints(ServiceKey(namespace, service), source, endpoints)


def read_our_node(document: Fields, _namespace: str, name: str, here: Here) -> Reading:
    """Read a Node."""
    spec, labels = _open(document, here, in_namespace=False)
    spec.allow(_NODE_FIELDS)
    _check_dns_name(document, name)
    node = spec.value(
        Node, {**_only(spec, _NODE_FIELDS), "labels": labels}, {"labels": "metadata.labels"}
    )
    return SetNode(name, node) if node is not None else None


def read_our_identity(document: Fields, _namespace: str, name: str, here: Here) -> Reading:
    """Read an Identity."""
    spec, labels = _open(document, here, in_namespace=False)
    spec.allow((*_IDENTITY_FIELDS, "number"))
    _check_dns_name(document, name)
    if labels:
        what = "say nothing: an identity is what spec.labels say"
        document.problem("metadata.labels", what, "move them there")
    identity = spec.value(Identity, _only(spec, _IDENTITY_FIELDS), {})
    number = spec.data.get("number")
    if identity is None:
        return None
    if number is None:
        return AllocateIdentity(identity.labels, identity.audiences)
    try:
        if isinstance(number, int):
            return SetIdentity(parse_identity(str(number)), identity)
        spec.problem("number", f"is not a number, but {shown(number)}", "write it without quotes")
    except RejectedError as error:
        spec.problem("number", error.problems[0].what, error.problems[0].remedy)
    return None


def read_our_policy(document: Fields, namespace: str, name: str, here: Here) -> Reading:
    """Read a Policy."""
    spec, labels = _open(document, here)
    spec.allow(_POLICY_FIELDS)
    _check_dns_name(document, name)
    data = {**_only(spec, _POLICY_FIELDS), "labels": labels}
    policy = spec.value(Policy, data, {"labels": "metadata.labels"})
    return SetPolicy(PolicyKey(namespace, name), policy) if policy is not None else None


def read_our_cluster(document: Fields, _namespace: str, name: str, here: Here) -> Reading:
    """Read what a Cluster says of itself."""
    spec, labels = _open(document, here, in_namespace=False)
    spec.allow(_CLUSTER_FIELDS)
    if labels:
        what = "stand in the settings of the cluster (cluster.labels)"
        document.problem("metadata.labels", what, "leave them out")
    if name != here.cluster:
        remedy = f"apply it in {shown(name)}, or correct it"
        document.problem("metadata.name", f"is {shown(name)}, but this is {here.cluster}", remedy)
    data = {**_only(spec, _CLUSTER_FIELDS), "name": here.cluster, "id": 1}
    info = spec.value(ClusterInfo, data, {})
    if info is None:
        return None
    return DescribeCluster(info.state, info.weight, info.announces)


def _open(
    document: Fields, here: Here, *, in_namespace: bool = True
) -> tuple[Fields, Mapping[str, object]]:
    """What our kinds have in common: the spec and the labels."""
    document.allow(_DOCUMENT_FIELDS)
    metadata = document.map("metadata")
    metadata.allow(_METADATA_FIELDS)
    if not in_namespace and "namespace" in metadata.data:
        metadata.problem("namespace", "is for kinds that are in one", "leave it out")
    meant = metadata.text("cluster")
    if meant and meant != here.cluster:
        remedy = f"apply it in {meant}, or correct it"
        metadata.problem("cluster", f"is {shown(meant)}, but this is {here.cluster}", remedy)
    return document.map("spec"), metadata.map("labels").data


def _check_label(document: Fields, path: str, text: str) -> None:
    if not text:
        document.problem(path, "is missing", "add it")
    elif not is_dns_label(text):
        document.problem(path, f"{shown(text)} is not a DNS label", "correct it")


def _check_dns_name(document: Fields, name: str) -> None:
    if name and not is_dns_name(name):
        document.problem("metadata.name", f"{shown(name)} is not a DNS name", "rename it")


def _only(fields: Fields, names: Sequence[str]) -> dict[str, object]:
    return {name: value for name, value in fields.data.items() if name in names}
