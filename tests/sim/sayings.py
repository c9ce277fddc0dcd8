"""What the clusters of ring 1 say, made once, and what that must come to.

For: events that a cluster may say, events that no reader may take, and the truth that readers are
held against. Not for: logs (`peer_log`). Invariant: `tell` shares no code with `core.fold`, so that
the two can disagree.
"""

from __future__ import annotations

from dataclasses import dataclass

from meshd.core.state import ClusterState, Held
from meshd.model.cluster import ClusterInfo
from meshd.model.codec import PROTOCOL_MAX, PROTOCOL_MIN, Descriptor
from meshd.model.endpoint import Endpoint
from meshd.model.event import Event, Record
from meshd.model.identity import Identity, identity_number
from meshd.model.ids import ClusterName, Seq, ServiceKey
from meshd.model.node import Node
from meshd.model.schema import from_data
from meshd.model.service import Service
from meshd.model.snapshot import Kept

OWN = ClusterName("north")
"""The cluster whose meshds read."""
IDS = {OWN: 1, ClusterName("west"): 7, ClusterName("east"): 8, ClusterName("south"): 9}
NAMES = tuple(name for name in IDS if name != OWN)
DESCRIPTORS = {
    name: Descriptor(name, number, PROTOCOL_MIN, PROTOCOL_MAX, 0) for name, number in IDS.items()
}
ACTOR = "ann"
SERVICES = (ServiceKey("shop", "cart"), ServiceKey("shop", "web"))
ENDPOINTS = ("x", "y", "z")

Value = ClusterInfo | Service | Endpoint | Node | Identity | None


@dataclass(frozen=True, slots=True)
class Saying:
    """An event and what it means. service: whose, or which. name: of an endpoint or a node. number:
    of an identity.
    """

    event: Event
    value: Value = None
    service: ServiceKey | None = None
    name: str = ""
    number: int = 0


def _info(cluster: ClusterName, zone: str) -> Saying:
    data = {"name": cluster, "id": IDS[cluster], "zone": zone}
    event = Event("cluster.set", cluster, data, ACTOR)
    return Saying(event, from_data(ClusterInfo, data, ""))


def _service(key: ServiceKey, data: dict[str, object] | None) -> Saying:
    if data is None:
        return Saying(Event("service.removed", str(key), None, ACTOR), None, key)
    event = Event("service.set", str(key), data, ACTOR)
    return Saying(event, from_data(Service, data, ""), key)


def _endpoint(key: ServiceKey, name: str, data: dict[str, object] | None) -> Saying:
    place = f"{key}/{name}"
    if data is None:
        return Saying(Event("endpoint.removed", place, None, ACTOR), None, key, name)
    event = Event("endpoint.set", place, data, ACTOR)
    return Saying(event, from_data(Endpoint, data, ""), key, name)


def _node(name: str, data: dict[str, object] | None) -> Saying:
    if data is None:
        return Saying(Event("node.removed", name, None, ACTOR), None, None, name)
    return Saying(Event("node.set", name, data, ACTOR), from_data(Node, data, ""), None, name)


def _identity(number: int, data: dict[str, object] | None) -> Saying:
    key = str(number)
    if data is None:
        return Saying(Event("identity.removed", key, None, ACTOR), number=number)
    event = Event("identity.set", key, data, ACTOR)
    return Saying(event, from_data(Identity, data, ""), number=number)


def address_of(cluster: ClusterName, number: int) -> str:
    """Says by its second number whose it is."""
    return f"10.{IDS[cluster]}.0.{number}"


DEFINITIONS: tuple[dict[str, object] | None, ...] = (
    {"global": True, "ports": [{"port": 80}], "created_ms": 5},
    {"global": True, "ports": [{"port": 8080}], "created_ms": 3},
    {"global": True, "shared": False},
    None,
)


def _sayings(cluster: ClusterName) -> tuple[Saying, ...]:
    found = [_info(cluster, "z1"), _info(cluster, "z2")]
    for key in SERVICES:
        found += [_service(key, data) for data in (*DEFINITIONS, *DEFINITIONS[:2])]
        for number, name in enumerate(ENDPOINTS, 1):
            address = address_of(cluster, number)
            found += [
                _endpoint(key, name, {"address": address}),
                _endpoint(key, name, {"address": address, "weight": 7}),
                _endpoint(key, name, {"address": address, "ready": False}),
                _endpoint(key, name, {"address": address, "ports": [{"port": 81}]}),
                _endpoint(key, name, None),
            ]
    for number, name in enumerate(("n1", "n2"), 1):
        node: dict[str, object] = {"addresses": [address_of(cluster, number)]}
        ranges = [f"10.{IDS[cluster]}.{number}.0/24"]
        found += [_node(name, node), _node(name, node | {"pod_cidrs": ranges}), _node(name, None)]
    for local, app in ((256, "web"), (257, "cart")):
        labels: dict[str, object] = {"labels": {"app": app}}
        identity = identity_number(IDS[cluster], local)
        found += [_identity(identity, labels), _identity(identity, None)]
    for name in ("g1", "g2"):
        found.append(Saying(Event("gadget.set", name, {"size": 3}, ACTOR)))
        found.append(Saying(Event("gadget.removed", name, None, ACTOR)))
    return tuple(found)


POOL = {name: _sayings(name) for name in IDS}
OPENING = {name: (_info(name, ""), _service(SERVICES[0], DEFINITIONS[0])) for name in IDS}
"""What every log begins with."""
POISONS = {
    name: (
        Event("cluster.set", OWN, {"name": OWN, "id": 1}, "eve"),
        Event("service.set", "no-slash", {"global": True}, "eve"),
        Event("endpoint.set", "shop/cart/x", {"address": "nowhere"}, "eve"),
        # Let in by the fold, and what no peer may announce.
        Event("endpoint.set", "shop/cart/x", {"address": "127.0.0.1"}, "eve"),
        Event("node.set", "n1", {"addresses": ["127.0.0.1"]}, "eve"),
        Event("identity.set", "5", {"labels": {"app": "web"}}, "eve"),
    )
    for name in NAMES
}
GREED = tuple(
    Event("service.set", f"shop/s{number}", {"global": True}, "eve") for number in range(6)
)
"""More services than a peer may have."""


def tell(truth: ClusterState, said: tuple[Saying, ...], record: Record) -> None:
    """Let a record do to the truth what it must do to every state."""
    for seq, saying in enumerate(said, record.first_seq):
        _tell(truth, saying, Seq(seq), record.time_ms)
    truth.seq, truth.time_ms = record.last_seq, record.time_ms


def _tell(truth: ClusterState, saying: Saying, seq: Seq, time_ms: int) -> None:
    value, key, name = saying.value, saying.service, saying.name
    if isinstance(value, ClusterInfo):
        truth.info = Held(value, seq, time_ms, ACTOR)
    elif key is None:
        _tell_beside_services(truth, saying, seq, time_ms)
    elif isinstance(value, Service):
        truth.services[key] = Held(value, seq, time_ms, ACTOR)
    elif isinstance(value, Endpoint):
        truth.endpoints.setdefault(key, {})[name] = Held(value, seq, time_ms, ACTOR)
    elif name:
        endpoints = truth.endpoints.get(key, {})
        endpoints.pop(name, None)
        if not endpoints:
            truth.endpoints.pop(key, None)
    else:
        truth.services.pop(key, None)
        truth.endpoints.pop(key, None)


def _tell_beside_services(truth: ClusterState, saying: Saying, seq: Seq, time_ms: int) -> None:
    value, event = saying.value, saying.event
    if isinstance(value, Node):
        truth.nodes[saying.name] = Held(value, seq, time_ms, ACTOR)
    elif isinstance(value, Identity):
        truth.identities[saying.number] = Held(value, seq, time_ms, ACTOR)
    elif saying.number:
        truth.identities.pop(saying.number, None)
    elif saying.name:
        truth.nodes.pop(saying.name, None)
    else:
        truth.carried[event.type, event.key] = Kept(seq, time_ms, event)


def copied(truth: ClusterState) -> ClusterState:
    """The same, to be told further by itself."""
    return ClusterState(
        seq=truth.seq,
        time_ms=truth.time_ms,
        info=truth.info,
        services=dict(truth.services),
        endpoints={key: dict(endpoints) for key, endpoints in truth.endpoints.items()},
        nodes=dict(truth.nodes),
        identities=dict(truth.identities),
        carried=dict(truth.carried),
    )


def is_same(state: ClusterState, truth: ClusterState) -> bool:
    """Whether a state says what is true. How often unknown types came is no part of a snapshot."""
    return (
        state.seq == truth.seq
        and state.time_ms == truth.time_ms
        and state.info == truth.info
        and state.services == truth.services
        and state.endpoints == truth.endpoints
        and state.nodes == truth.nodes
        and state.identities == truth.identities
        and state.carried == truth.carried
        and state.is_whole
    )


def _own_state() -> ClusterState:
    """What the readers' own cluster says: it offers the one service and only uses the other."""
    state = ClusterState(info=Held(ClusterInfo(name=OWN, id=IDS[OWN]), Seq(1), 0, ACTOR))
    definitions = ({"global": True, "ports": [{"port": 80}], "created_ms": 4}, DEFINITIONS[2])
    for number, (key, data) in enumerate(zip(SERVICES, definitions, strict=True), 1):
        state.services[key] = Held(from_data(Service, data, ""), Seq(number), 0, ACTOR)
    return state


OWN_STATE = _own_state()
"""To be read, never written: all schedules share it."""
