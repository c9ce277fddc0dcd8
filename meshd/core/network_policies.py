"""Kubernetes' NetworkPolicy (networking.k8s.io/v1), read as a policy.

For: what its spec says, and two annotations that say more. Not for: our own kind (`own_kinds`).
Invariant: a field of the spec that isn't known is a problem; what Kubernetes itself passes over is
named in a note; nothing is dropped silently.

Without an annotation a peer is whoever has such labels in such a namespace, in any cluster: a
namespace is the same one everywhere. `meshd.io/clusters` (names with commas between) narrows all
peers of the policy to identities of these clusters; addresses aren't concerned.
`meshd.io/export-audiences` says who may know of the policy.
"""

from __future__ import annotations

from collections.abc import Mapping

from meshd.core.annotations import OURS
from meshd.core.document import Fields, shown
from meshd.core.kubernetes import Reading
from meshd.model.command import SetPolicy
from meshd.model.ids import PolicyKey, is_dns_name
from meshd.model.policy import Direction, Policy

CLUSTERS_ANNOTATION = f"{OURS}clusters"
AUDIENCES_ANNOTATION = f"{OURS}export-audiences"
_ANNOTATIONS = (CLUSTERS_ANNOTATION, AUDIENCES_ANNOTATION)
_DIRECTIONS: Mapping[str, Direction] = {"Ingress": Direction.INGRESS, "Egress": Direction.EGRESS}
_PEERS = {Direction.INGRESS: "from", Direction.EGRESS: "to"}

Data = dict[str, object]


def read_network_policy(document: Fields, namespace: str, name: str) -> Reading:
    """Read a NetworkPolicy."""
    if name and not is_dns_name(name):
        document.problem("metadata.name", f"{shown(name)} is not a DNS name", "rename it")
    return _Reader(document).read(PolicyKey(namespace, name))


class _Reader:
    """Reads one; notes where each part of the value stands in the document, inner ones first."""

    def __init__(self, document: Fields) -> None:
        self._document = document
        self._places: dict[str, str] = {}
        self._clusters: tuple[str, ...] = ()

    def read(self, key: PolicyKey) -> Reading:
        document, metadata = self._document, self._document.map("metadata")
        data: Data = {"labels": metadata.map("labels").data}
        data |= self._annotated(metadata.map("annotations"))
        spec = document.map("spec")
        spec.allow(("podSelector", "policyTypes", "ingress", "egress"))
        data["subjects"] = self._selector(spec.map("podSelector"), "subjects")
        directions = self._directions(spec)
        data["directions"] = directions
        for direction in Direction:
            rules = [
                self._rule(rule, direction, f"{direction}[{number}]")
                for number, rule in enumerate(spec.maps(direction))
            ]
            if direction in directions:
                data[direction] = rules
            elif rules:
                what = f"its {direction} rules say nothing, since its policyTypes don't have them"
                document.report.note(what)
            self._places[str(direction)] = spec.at(direction)
        self._places |= {"labels": metadata.at("labels"), "directions": spec.at("policyTypes")}
        policy = document.value(Policy, data, self._places)
        return SetPolicy(key, policy) if policy is not None else None

    def _annotated(self, annotations: Fields) -> Data:
        for name in annotations.data:
            if name.startswith(OURS) and name not in _ANNOTATIONS:
                remedy = f"there are {', '.join(_ANNOTATIONS)}"
                annotations.problem(name, "unknown annotation", remedy)
        self._clusters = _names(annotations.text(CLUSTERS_ANNOTATION))
        audiences = _names(annotations.text(AUDIENCES_ANNOTATION))
        self._places["audiences"] = annotations.at(AUDIENCES_ANNOTATION)
        return {"audiences": audiences} if audiences else {}

    def _directions(self, spec: Fields) -> list[Direction]:
        """As Kubernetes has it: ingress if nothing is said, and egress if there are such rules."""
        said = spec.data.get("policyTypes")
        if not said:
            has_egress = bool(spec.data.get("egress"))
            return [Direction.INGRESS, *([Direction.EGRESS] if has_egress else ())]
        found = []
        for number, text in enumerate(said if isinstance(said, list | tuple) else [said]):
            direction = _DIRECTIONS.get(text) if isinstance(text, str) else None
            if direction is None:
                what = f"{shown(text)} is unknown"
                spec.problem(f"policyTypes[{number}]", what, "write Ingress or Egress")
            elif direction not in found:
                found.append(direction)
        # With a problem already, so that the rules are looked at as well.
        return found or list(Direction)

    def _rule(self, rule: Fields, direction: Direction, path: str) -> Data:
        peers_field = _PEERS[direction]
        rule.allow((peers_field, "ports"))
        peers = [
            self._peer(peer, f"{path}.peers[{number}]")
            for number, peer in enumerate(rule.maps(peers_field))
        ]
        ports = [
            self._port(port, f"{path}.ports[{number}]")
            for number, port in enumerate(rule.maps("ports"))
        ]
        self._places[f"{path}.peers"] = rule.at(peers_field)
        self._places[path] = rule.path
        return {"peers": peers, "ports": ports}

    def _peer(self, peer: Fields, path: str) -> Data:
        peer.allow(("podSelector", "namespaceSelector", "ipBlock"))
        data: Data = {}
        if peer.data.get("podSelector") is not None:
            data["labels"] = self._selector(peer.map("podSelector"), f"{path}.labels")
        if peer.data.get("namespaceSelector") is not None:
            namespaces = self._selector(peer.map("namespaceSelector"), f"{path}.namespaces")
            data["namespaces"] = namespaces
        if data and self._clusters:
            data["clusters"] = {"clusters": self._clusters}
            annotations = self._document.map("metadata").map("annotations")
            self._places[f"{path}.clusters"] = annotations.at(CLUSTERS_ANNOTATION)
        if peer.data.get("ipBlock") is not None:
            block = peer.map("ipBlock")
            block.allow(("cidr", "except"))
            data["cidr"] = block.data.get("cidr", "")
            data["except"] = block.data.get("except") or ()
            for name in ("cidr", "except"):
                self._places[f"{path}.{name}"] = block.at(name)
        if not data:
            peer.problem("", "says nobody", "write podSelector, namespaceSelector or ipBlock")
        self._places[path] = peer.path
        return data

    def _selector(self, selector: Fields, path: str) -> Data:
        selector.allow(("matchLabels", "matchExpressions"))
        expressions = []
        for expression in selector.maps("matchExpressions"):
            expression.allow(("key", "operator", "values"))
            given = {name: value for name, value in expression.data.items() if value is not None}
            expressions.append(given)
        self._places[f"{path}.expressions"] = selector.at("matchExpressions")
        self._places[f"{path}.labels"] = selector.at("matchLabels")
        return {"labels": selector.map("matchLabels").data, "expressions": expressions}

    def _port(self, port: Fields, path: str) -> Data:
        port.allow(("protocol", "port", "endPort"))
        number, last = port.data.get("port"), port.data.get("endPort")
        data: Data = {"protocol": port.data.get("protocol") or "TCP"}
        if isinstance(number, str):
            data["name"] = number
        elif number is not None:
            data["port"] = number
        if last is not None:
            data["end_port"] = last
        self._places[f"{path}.name"] = port.at("port")
        self._places[f"{path}.end_port"] = port.at("endPort")
        self._places[path] = port.path
        return data


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",")) if text else ()
