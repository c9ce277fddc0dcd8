"""Values as JSON objects, as `protocols/openapi.json` describes them.

For: one function for each shape that REST alone answers with. Not for: what MQTT says too
(`core.telling`), requests, nor what is asked for.
Invariant: pure; every field is always there, defaults included, so that a reader needs no table of
them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from meshd.core.overlaps import RangeProblem
from meshd.core.policies import PolicyCondition
from meshd.core.state import Held
from meshd.core.telling import Json, origin_fields, weight_number
from meshd.model.cluster import ClusterInfo
from meshd.model.command import Outcome
from meshd.model.endpoint import Endpoint
from meshd.model.identity import Identity
from meshd.model.ids import (
    ClusterName,
    EndpointKey,
    Head,
    LogId,
    PolicyKey,
    Position,
    ServiceKey,
)
from meshd.model.node import Node
from meshd.model.policy import Policy
from meshd.model.schema import all_data
from meshd.model.service import Service

__all__ = [
    "AnyHeld",
    "Json",
    "endpoint_item",
    "head_fields",
    "identity_item",
    "node_item",
    "origin_fields",
    "own_cluster_item",
    "policy_item",
    "range_condition",
    "service_item",
    "vector_fields",
    "weight_number",
    "write_result",
]

AnyHeld = (
    Held[Service] | Held[Endpoint] | Held[ClusterInfo] | Held[Node] | Held[Identity] | Held[Policy]
)


def _origin_of(cluster: ClusterName, log_id: LogId, held: AnyHeld) -> Json:
    return origin_fields(cluster, held.origin(log_id))


def service_item(key: ServiceKey, held: Held[Service], cluster: ClusterName, log_id: LogId) -> Json:
    """A cluster's own definition of a service."""
    return {
        "namespace": key.namespace,
        "name": key.name,
        **all_data(held.value),
        "origin": _origin_of(cluster, log_id, held),
    }


def endpoint_item(
    key: EndpointKey, held: Held[Endpoint], cluster: ClusterName, log_id: LogId
) -> Json:
    """A cluster's own endpoint."""
    return {
        "namespace": key.service.namespace,
        "service": key.service.name,
        "name": key.name,
        **all_data(held.value),
        "origin": _origin_of(cluster, log_id, held),
    }


def node_item(name: str, held: Held[Node], cluster: ClusterName, log_id: LogId) -> Json:
    """A cluster's node."""
    origin = _origin_of(cluster, log_id, held)
    return {"name": name, **all_data(held.value), "origin": origin}


def identity_item(number: int, held: Held[Identity], cluster: ClusterName, log_id: LogId) -> Json:
    """A cluster's identity."""
    origin = _origin_of(cluster, log_id, held)
    return {"number": number, **all_data(held.value), "origin": origin}


def policy_item(
    key: PolicyKey,
    held: Held[Policy],
    conditions: Iterable[PolicyCondition],
    cluster: ClusterName,
    log_id: LogId,
) -> Json:
    """A cluster's policy."""
    return {
        "namespace": key.namespace,
        "name": key.name,
        **all_data(held.value),
        "conditions": [{"type": one.type, "message": one.message} for one in conditions],
        "origin": _origin_of(cluster, log_id, held),
    }


def own_cluster_item(held: Held[ClusterInfo], cluster: ClusterName, log_id: LogId) -> Json:
    """What a cluster says of itself."""
    return {**all_data(held.value), "origin": _origin_of(cluster, log_id, held)}


def range_condition(problem: RangeProblem) -> Json:
    """Ranges that collide."""
    return {
        "type": problem.type,
        "clusters": problem.clusters,
        "ranges": problem.ranges,
        "message": problem.message,
    }


def write_result(outcome: Outcome, cluster: ClusterName, log_id: LogId) -> Json:
    """What became of a write."""
    return {
        "events": outcome.events,
        "first_seq": outcome.first_seq,
        "last_seq": outcome.last_seq,
        "position": str(Position(cluster, log_id, outcome.last_seq)),
        "repeated": outcome.repeated,
    }


def head_fields(head: Head) -> Json:
    """The end of a log."""
    return {"log_id": head.log_id, "seq": head.seq, "hash": head.hash.hex()}


def vector_fields(vector: Mapping[ClusterName, Position]) -> Json:
    """A vector, by cluster."""
    return {
        name: {"log_id": vector[name].log_id, "seq": vector[name].seq} for name in sorted(vector)
    }
