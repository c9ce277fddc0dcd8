"""Kubernetes' Service, EndpointSlice and Node, read as commands.

For: manifests written for Kubernetes, which carry much that means nothing here. Not for: our own
kinds, workloads and policies (`workloads`, `network_policies`), nor sorting out which kind is
which (`manifests`). Invariant: unknown fields are passed over;
a field that is read and wrong is a problem.

Annotations: `meshd.io/global`, `meshd.io/shared` and `meshd.io/affinity` say here what Cilium's
`service.cilium.io/...` say there. Both are read, and both must be right; where they differ,
`meshd.io/` wins, so that a service can be treated differently here without touching Cilium. What
else may be said of a service by annotation is `core.annotations`.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeGuard

from meshd.core.annotations import Texts, read_annotations
from meshd.core.document import Fields, shown
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
from meshd.model.ids import ServiceKey, is_dns_label, is_dns_name
from meshd.model.node import Node
from meshd.model.service import Port, Service, SessionAffinity

NAMESPACE_DEFAULT = "default"
SERVICE_NAME_LABEL = "kubernetes.io/service-name"
REGION_LABEL = "topology.kubernetes.io/region"
ZONE_LABEL = "topology.kubernetes.io/zone"
NAME_CHARS_MAX = 253

_FAMILIES: Mapping[str, type] = {
    "IPv4": ipaddress.IPv4Address,
    "IPv6": ipaddress.IPv6Address,
}


@dataclass(frozen=True, slots=True)
class Skip:
    """It is left out, and nothing is wrong with it."""

    reason: str


Asked = (
    SetService
    | SetEndpoint
    | ReplaceEndpoints
    | SetNode
    | AllocateIdentity
    | SetIdentity
    | SetPolicy
    | DescribeCluster
)
"""What a manifest can ask for."""
Reading = Asked | Skip | None
"""None: it has problems, which are in its report."""


def name_of(document: Fields) -> tuple[str, str]:
    """A document's namespace and name; empty texts where they are wrong."""
    metadata = document.map("metadata")
    namespace = metadata.text("namespace") or NAMESPACE_DEFAULT
    name = metadata.text("name")
    if not is_dns_label(namespace):
        metadata.problem("namespace", f"{shown(namespace)} is not a DNS label", "rename it")
    if not name:
        metadata.problem("name", "is missing", "add it")
    return namespace, name


def read_service(document: Fields, key: ServiceKey, texts: Texts) -> Reading:
    """Read a v1 Service. texts: reads what annotations hold as YAML."""
    if not is_dns_label(key.name):
        document.problem("metadata.name", f"{shown(key.name)} is not a DNS label", "rename it")
    spec = document.map("spec")
    if spec.data.get("type") == "ExternalName":
        return Skip("an ExternalName Service has no backends, only another name")
    said, said_where = read_annotations(document.map("metadata").map("annotations"), texts)
    data: dict[str, object] = {
        "ports": [_port(port) for port in spec.maps("ports")],
        "labels": document.map("metadata").map("labels").data,
        "selector": spec.map("selector").data,
        "headless": spec.data.get("clusterIP") == "None",
        **_session(spec),
        **said,
    }
    places = {
        "labels": "metadata.labels",
        "ports": "spec.ports",
        "selector": "spec.selector",
        "session_timeout_s": "spec.sessionAffinityConfig.clientIP.timeoutSeconds",
        **said_where,
    }
    service = document.value(Service, data, places)
    return SetService(key, service) if service is not None else None


def _session(spec: Fields) -> dict[str, object]:
    """Whether clients stick to a backend, and for how long."""
    kind = spec.text("sessionAffinity") or "None"
    if kind not in _SESSIONS:
        spec.problem("sessionAffinity", f"{shown(kind)} is unknown", "write None or ClientIP")
        return {}
    timeout_s = spec.map("sessionAffinityConfig").map("clientIP").data.get("timeoutSeconds")
    found: dict[str, object] = {"session_affinity": _SESSIONS[kind]}
    return found if timeout_s is None else found | {"session_timeout_s": timeout_s}


_SESSIONS: Mapping[str, SessionAffinity] = {
    "None": SessionAffinity.NONE,
    "ClientIP": SessionAffinity.CLIENT_IP,
}


def read_node(document: Fields, name: str) -> Reading:
    """Read a v1 Node: its internal addresses, the ranges of its pods, and where it stands."""
    if not is_dns_name(name):
        document.problem("metadata.name", f"{shown(name)} is not a DNS name", "rename it")
    listed = document.map("status").maps("addresses")
    addresses = [item.data.get("address") for item in listed if item.text("type") == "InternalIP"]
    if not addresses:
        return Skip("it has no address of type InternalIP yet")
    spec, labels = document.map("spec"), document.map("metadata").map("labels")
    ranges = spec.data.get("podCIDRs") or [spec.data.get("podCIDR") or ""]
    data: dict[str, object] = {
        "addresses": addresses,
        "pod_cidrs": [text for text in ranges if text != ""] if _is_list(ranges) else ranges,
        "region": labels.text(REGION_LABEL),
        "zone": labels.text(ZONE_LABEL),
        "labels": labels.data,
    }
    places = {
        "addresses": "status.addresses",
        "pod_cidrs": "spec.podCIDRs" if "podCIDRs" in spec.data else "spec.podCIDR",
        "region": labels.at(REGION_LABEL),
        "zone": labels.at(ZONE_LABEL),
        "labels": "metadata.labels",
    }
    node = document.value(Node, data, places)
    return SetNode(name, node) if node is not None else None


def _is_list(value: object) -> TypeGuard[Sequence[object]]:
    return isinstance(value, list | tuple)


def read_slice(document: Fields, namespace: str, name: str) -> Reading:
    """Read a discovery.k8s.io/v1 EndpointSlice: all the endpoints that it gives to its service."""
    if not is_dns_name(name):
        document.problem("metadata.name", f"{shown(name)} is not a DNS name", "rename it")
    labels = document.map("metadata").map("labels")
    service = labels.text(SERVICE_NAME_LABEL)
    if SERVICE_NAME_LABEL not in labels.data:
        return Skip(f"it has no label {SERVICE_NAME_LABEL}, so it belongs to no Service")
    if not is_dns_label(service):
        labels.problem(SERVICE_NAME_LABEL, f"{shown(service)} is not a DNS label", "correct it")
    family = document.text("addressType")
    if family == "FQDN":
        return Skip("its endpoints are names (addressType FQDN), not addresses")
    if family not in _FAMILIES:
        document.problem("addressType", f"{shown(family)} is unknown", "write IPv4 or IPv6")
        return None
    ports = _ports(document)
    endpoints = _endpoints(document, name, _FAMILIES[family], ports)
    source = f"EndpointSlice/{namespace}/{name}"
    return ReplaceEndpoints(ServiceKey(namespace, service), source, endpoints)


def endpoint_name(slice_name: str, address: str) -> str:
    """A name for an address of a slice: unique, and the same each time.

    The address is the last label and the slice's name is all before it, so no two pairs share a
    name. Too long a name of a slice is cut and told apart by its hash.
    """
    label = address_label(address)
    room = NAME_CHARS_MAX - len(label) - 1
    if len(slice_name) > room:
        digest = hashlib.blake2b(slice_name.encode(), digest_size=8).hexdigest()
        slice_name = f"{slice_name[: room - len(digest) - 1]}-{digest}"
    return f"{slice_name}.{label}"


def address_label(address: str) -> str:
    """An address as a DNS label: 10.0.0.1 becomes 10-0-0-1."""
    exploded = ipaddress.ip_address(address).exploded
    return exploded.replace(".", "-").replace(":", "-")


def _port(port: Fields) -> dict[str, object]:
    """A port of a Service or a slice; what is null there is at its default here."""
    given = {
        "port": port.data.get("port"),
        "name": port.data.get("name"),
        "protocol": port.data.get("protocol"),
        "app_protocol": port.data.get("appProtocol"),
    }
    return {key: value for key, value in given.items() if value is not None}


def _ports(document: Fields) -> tuple[Port, ...]:
    """A slice's ports, checked once for all its endpoints."""
    data = {"ports": [_port(port) for port in document.maps("ports")]}
    service = document.value(Service, data, {})
    return service.ports if service is not None else ()


def _endpoints(
    document: Fields, slice_name: str, family: type, ports: tuple[Port, ...]
) -> dict[str, Endpoint]:
    endpoints: dict[str, Endpoint] = {}
    for item in document.maps("endpoints"):
        endpoint = _endpoint(item)
        if endpoint is None:
            continue
        name = endpoint_name(slice_name, endpoint.address)
        if not isinstance(ipaddress.ip_address(endpoint.address), family):
            item.problem("addresses[0]", "is not of the slice's addressType", "correct one of them")
        elif name in endpoints:
            item.problem("addresses[0]", f"{endpoint.address} is here twice", "remove one")
        endpoints[name] = replace(endpoint, ports=ports)
    return endpoints


def _endpoint(item: Fields) -> Endpoint | None:
    """One endpoint. Its first address counts; Kubernetes calls the others fungible."""
    addresses = item.data.get("addresses")
    if not isinstance(addresses, list | tuple) or not addresses:
        item.problem("addresses", "has no address", "list one")
        return None
    conditions = item.map("conditions")
    given = {
        "address": addresses[0],
        "ready": conditions.data.get("ready"),
        "serving": conditions.data.get("serving"),
        "terminating": conditions.data.get("terminating"),
        "zone": item.data.get("zone"),
        "node": item.data.get("nodeName"),
    }
    places = {
        "address": item.at("addresses[0]"),
        "node": item.at("nodeName"),
        "ready": conditions.at("ready"),
        "serving": conditions.at("serving"),
        "terminating": conditions.at("terminating"),
    }
    data = {key: value for key, value in given.items() if value is not None}
    return item.value(Endpoint, data, places)
