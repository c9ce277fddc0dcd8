"""What Kubernetes' NetworkPolicies allow, evaluated from their YAML by the book.

For: holding meshd's answers against. It shares no code with meshd and knows nothing of its values:
it reads raw manifests, of one cluster or of several that have the same namespaces, and answers for
one connection at a time, by looking at every policy. After the documentation of NetworkPolicy v1.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Yaml = dict[str, Any]


@dataclass(frozen=True)
class Pod:
    """Pods with these labels. namespace_labels: without the one that every namespace has."""

    cluster: str
    namespace: str
    labels: tuple[tuple[str, str], ...]
    namespace_labels: tuple[tuple[str, str], ...] = ()


def pods_in(documents: list[Yaml], cluster: str) -> Iterator[Pod]:
    """The pods of all Deployments."""
    for document in documents:
        if document["kind"] == "Deployment":
            labels = document["spec"]["template"]["metadata"].get("labels", {})
            namespace = document["metadata"].get("namespace", "default")
            yield Pod(cluster, namespace, tuple(sorted(labels.items())))


def is_allowed(
    policies: Mapping[str, list[Yaml]], source: Pod, destination: Pod, protocol: str, port: int
) -> bool:
    """Whether a connection is let out by the source's cluster and in by the destination's.

    policies: the NetworkPolicies of each cluster.
    """
    return _lets(policies, source, destination, "Egress", protocol, port) and _lets(
        policies, destination, source, "Ingress", protocol, port
    )


def _lets(
    policies: Mapping[str, list[Yaml]], pod: Pod, other: Pod, way: str, protocol: str, port: int
) -> bool:
    isolating = [
        policy
        for policy in policies.get(pod.cluster, [])
        if policy["metadata"].get("namespace", "default") == pod.namespace
        and way in _types(policy["spec"])
        and _selects(policy["spec"].get("podSelector") or {}, dict(pod.labels))
    ]
    if not isolating:
        return True
    for policy in isolating:
        for rule in policy["spec"].get(way.lower()) or []:
            peers = rule.get("from" if way == "Ingress" else "to") or []
            ports = rule.get("ports") or []
            if peers and not any(_is_peer(peer, policy, other) for peer in peers):
                continue
            if ports and not any(_is_port(one, protocol, port) for one in ports):
                continue
            return True
    return False


def _types(spec: Yaml) -> list[str]:
    said: list[str] = spec.get("policyTypes") or []
    if said:
        return said
    return ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]


def _is_peer(peer: Yaml, policy: Yaml, other: Pod) -> bool:
    if "ipBlock" in peer:
        return False
    annotations = policy["metadata"].get("annotations") or {}
    narrowed = annotations.get("meshd.io/clusters")
    if narrowed and other.cluster not in narrowed.split(","):
        return False
    if peer.get("namespaceSelector") is None:
        if other.namespace != policy["metadata"].get("namespace", "default"):
            return False
    else:
        labels = {**dict(other.namespace_labels), "kubernetes.io/metadata.name": other.namespace}
        if not _selects(peer["namespaceSelector"], labels):
            return False
    return peer.get("podSelector") is None or _selects(peer["podSelector"], dict(other.labels))


def _selects(selector: Yaml, labels: dict[str, str]) -> bool:
    for key, value in (selector.get("matchLabels") or {}).items():
        if key not in labels or labels[key] != value:
            return False
    for wanted in selector.get("matchExpressions") or []:
        key, operator, values = wanted["key"], wanted["operator"], wanted.get("values") or []
        if operator == "In" and (key not in labels or labels[key] not in values):
            return False
        if operator == "NotIn" and key in labels and labels[key] in values:
            return False
        if operator == "Exists" and key not in labels:
            return False
        if operator == "DoesNotExist" and key in labels:
            return False
    return True


def _is_port(one: Yaml, protocol: str, port: int) -> bool:
    if (one.get("protocol") or "TCP") != protocol:
        return False
    if one.get("port") is None:
        return True
    first = int(one["port"])
    return first <= port <= int(one.get("endPort", first))


def lets_address_in(
    policies: list[Yaml], pod: Pod, address: str, way: str, protocol: str, port: int
) -> bool:
    """The same of an address outside of the cluster at the other end."""
    isolating = [
        policy
        for policy in policies
        if policy["metadata"].get("namespace", "default") == pod.namespace
        and way in _types(policy["spec"])
        and _selects(policy["spec"].get("podSelector") or {}, dict(pod.labels))
    ]
    for policy in isolating:
        for rule in policy["spec"].get(way.lower()) or []:
            peers = rule.get("from" if way == "Ingress" else "to") or []
            ports = rule.get("ports") or []
            blocks = [peer["ipBlock"] for peer in peers if "ipBlock" in peer]
            if peers and not any(_is_in_block(block, address) for block in blocks):
                continue
            if ports and not any(_is_port(one, protocol, port) for one in ports):
                continue
            return True
    return not isolating


def _is_in_block(block: Yaml, address: str) -> bool:
    found = ipaddress.ip_address(address)
    if found not in ipaddress.ip_network(block["cidr"]):
        return False
    return all(found not in ipaddress.ip_network(one) for one in block.get("except") or [])
