"""What is told to programs outside, as JSON objects: events, and services of a table.

For: what REST, streams and MQTT say alike. Not for: what only one of them says. Invariant: every
field is always there, defaults included; whatever a peer's event holds comes out as JSON.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import asdict

import orjson

from meshd.core.merge import Definition
from meshd.core.past import time_text
from meshd.model.event import Told
from meshd.model.ids import ClusterName
from meshd.model.publishing import Reset
from meshd.model.service import Port
from meshd.model.table import (
    WEIGHT_UNIT,
    Backend,
    Condition,
    GlobalService,
    Origin,
    TierShare,
)

DATA_DEPTH_MAX = 64
"""How deep data of unknown events is shown."""
EVENT_TYPE_PREFIX = "io.meshd."
RESET = "meshd.reset"
"""What is told next does not follow what was told before."""

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
    return {
        "priority": tier.priority,
        "clusters": tier.clusters,
        "backends": tier.backends,
        "eligible": tier.eligible,
        "weight": weight_number(tier.weight),
        "healthy_ppm": tier.healthy_ppm,
        "turned_ppm": tier.turned_ppm,
        "percent": tier.percent,
        "reach_ppm": tier.reach_ppm,
        "share_ppm": tier.share_ppm,
    }


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


def reset_event(reset: Reset) -> Json:
    """The word that events are missing, or belong to another log, as a cloud event."""
    position = reset.next
    before = None if reset.before is None else str(reset.before)
    return {
        "specversion": "1.0",
        "id": f"reset:{before or ''}:{position.log_id}:{position.seq}",
        "source": f"meshd://{position.cluster}",
        "type": EVENT_TYPE_PREFIX + RESET,
        "datacontenttype": "application/json",
        "meshdcluster": position.cluster,
        "data": {"before": before, "next": str(position), "reason": reset.reason},
    }


def event_bytes(told: Told) -> bytes:
    """A cloud event as JSON text. Known types always are JSON; unknown ones may hold anything that
    msgpack can, and must not stop those who follow the others.
    """
    fields = cloud_event(told)
    try:
        return kept_json(fields)
    except orjson.JSONEncodeError:
        return kept_json(_plain(fields, 0))


def kept_json(value: object) -> bytes:
    """JSON text that is kept, in as many bytes as it has: what orjson gives lies in the buffer that
    it was written into, which is never shrunk and of 4 KiB at least. Raises JSONEncodeError.
    """
    return bytes(memoryview(orjson.dumps(value)))


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
