"""A JSON Schema of each event type's data.

For: `protocols/events/`, and the messages in asyncapi.json. Not for: what is around the data
(`openapi_schemas`). Invariant: every type of the code has one.
"""

from __future__ import annotations

from typing import Any, Final

from meshd.model.cluster import ClusterInfo
from meshd.model.endpoint import Endpoint
from meshd.model.event import EventType
from meshd.model.identity import Identity
from meshd.model.listed import ListedPeer, Skip
from meshd.model.node import Node
from meshd.model.operation import Operation
from meshd.model.policy import Policy
from meshd.model.schema import Value, json_schema
from meshd.model.service import Service

DIALECT = "https://json-schema.org/draft/2020-12/schema"
ID_BASE = "https://meshd.io/schemas/events/"

DATA_OF: Final[dict[EventType, type[Value] | None]] = {
    EventType.CLUSTER_SET: ClusterInfo,
    EventType.SERVICE_SET: Service,
    EventType.SERVICE_REMOVED: None,
    EventType.ENDPOINT_SET: Endpoint,
    EventType.ENDPOINT_REMOVED: None,
    EventType.NODE_SET: Node,
    EventType.NODE_REMOVED: None,
    EventType.IDENTITY_SET: Identity,
    EventType.IDENTITY_REMOVED: None,
    EventType.POLICY_SET: Policy,
    EventType.POLICY_REMOVED: None,
    EventType.PEER_SET: ListedPeer,
    EventType.PEER_REMOVED: None,
    EventType.SKIP_SET: Skip,
    EventType.SKIP_REMOVED: None,
    EventType.OPERATION_SET: Operation,
    EventType.OPERATION_REMOVED: None,
}


def data_schema(kind: EventType) -> dict[str, Any]:
    """The schema of one event type's data, to be put into another document."""
    value = DATA_OF[kind]
    return {"type": "null"} if value is None else json_schema(value)


def event_schema(kind: EventType) -> dict[str, object]:
    """The same as a document of its own."""
    return {"$schema": DIALECT, "$id": f"{ID_BASE}{kind}.schema.json"} | data_schema(kind)
