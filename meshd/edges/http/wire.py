"""Values as JSON objects, as `protocols/openapi.json` describes them.

For: one function for each shape that REST answers with. Not for: requests, nor what is asked for.
Invariant: pure; every field is always there, defaults included, so that a reader needs no table of
them; whatever a peer's event holds comes out as JSON.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import asdict

import orjson

from meshd.core.merge import Definition
from meshd.core.overlaps import RangeProblem
from meshd.core.past import time_text
from meshd.core.policies import PolicyCondition
from meshd.core.state import Held
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
from meshd.model.service import Port, Service
from meshd.model.table import (
    WEIGHT_UNIT,
    Backend,
    Condition,
    GlobalService,
    Origin,
    TierShare,
)
from meshd.runtime.history import Told

DATA_DEPTH_MAX = 64
"""How deep data of unknown events is shown."""
EVENT_TYPE_PREFIX = "io.meshd."

Json = dict[str, object]


def port_fields(port: Port) -> Json:
    """One port."""
    return {
        "port": port.port,
        "name": port.name,
        "protocol": port.protocol,
        "app_protocol": port.app_protocol,
    }


def _ports(ports: Iterable[Port]) -> list[Json]:
    return [port_fields(port) for port in ports]


def origin_fields(cluster: ClusterName, origin: Origin) -> Json:
    """Which event made something so."""
    return {
        "cluster": cluster,
        "log_id": origin.log_id,
        "seq": origin.seq,
        "time": time_text(origin.time_ms),
        "actor": origin.actor,
    }


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


def table_service(service: GlobalService, digest: str, unfresh: frozenset[ClusterName]) -> Json:
    """A global service with all its backends. unfresh: the clusters that are out of sight now."""
    return {
        "namespace": service.key.namespace,
        "name": service.key.name,
        **definition_fields(service),
        "stale": [cluster for cluster in service.clusters if cluster in unfresh],
        "digest": digest,
        "tiers": [tier_fields(tier) for tier in service.tiers],
        "backends": [backend_fields(backend) for backend in service.backends],
    }


def definition_fields(service: GlobalService | Definition) -> Json:
    """What is common to a global service's backends."""
    return {
        "ports": _ports(service.ports),
        "headless": service.headless,
        "session_affinity": service.session_affinity,
        "session_timeout_s": service.session_timeout_s,
        "affinity": service.affinity,
        "spill": asdict(service.spill),
        "exposure": service.exposure,
        "labels": dict(service.labels),
        "clusters": service.clusters,
        "conditions": [_condition(condition) for condition in service.conditions],
    }


def tier_fields(tier: TierShare) -> Json:
    """The backends of one priority together."""
    return asdict(tier) | {"weight": weight_number(tier.weight)}


def weight_number(weight: int) -> int | float:
    """A weight in units of an endpoint's, whole where it can be."""
    return weight // WEIGHT_UNIT if weight % WEIGHT_UNIT == 0 else weight / WEIGHT_UNIT


def _condition(condition: Condition) -> Json:
    return {
        "type": condition.type,
        "cluster": condition.cluster,
        "message": condition.message,
    }


def backend_fields(backend: Backend) -> Json:
    """One endpoint of a global service, in or out of it."""
    return {
        "cluster": backend.cluster,
        "name": backend.name,
        "address": backend.address,
        "ports": _ports(backend.ports),
        "priority": backend.priority,
        "endpoint_weight": backend.endpoint_weight,
        "weight": weight_number(backend.weight),
        "region": backend.region,
        "zone": backend.zone,
        "node": backend.node,
        "serving": backend.serving,
        "eligible": backend.reason is None,
        "reason": backend.reason,
        "origin": origin_fields(backend.cluster, backend.origin),
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


def cloud_event(told: Told) -> Json:
    """An event as CloudEvents 1.0 has it. The cause isn't shown: it belongs to its caller."""
    position, event = told.position, told.event
    return {
        "specversion": "1.0",
        "id": str(position),
        "source": f"meshd://{position.cluster}",
        "type": EVENT_TYPE_PREFIX + event.type,
        "subject": event.key,
        "time": time_text(told.time_ms),
        "datacontenttype": "application/json",
        "meshdcluster": position.cluster,
        "meshdseq": position.seq,
        "meshdactor": event.actor,
        "data": event.data,
    }


def event_bytes(told: Told) -> bytes:
    """A cloud event as JSON text. Known types always are JSON; unknown ones may hold anything that
    msgpack can, and must not stop those who follow the others.
    """
    fields = cloud_event(told)
    try:
        return orjson.dumps(fields)
    except orjson.JSONEncodeError:
        return orjson.dumps(_plain(fields, 0))


def _plain(value: object, depth: int) -> object:
    if depth > DATA_DEPTH_MAX:
        return "…"
    match value:
        case Mapping():
            return {_text(key): _plain(item, depth + 1) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item, depth + 1) for item in value]
        case None | bool() | int() | float() | str():
            return value
        case _:
            return _text(value)


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return str(value)
