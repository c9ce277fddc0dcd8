"""A cluster's state as it would be after some more events.

For: deciding several commands of one record, each on what those before it did. Not for: the state
that is served, which changes only by reading the log. Invariant: a draft never writes to the state
below it, so throwing it away undoes everything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from operator import itemgetter

from meshd.core.numbering import Numbering
from meshd.core.readable import OfState, Readable
from meshd.core.sources import Sources, move
from meshd.core.turned import node_turns
from meshd.model.cluster import ClusterInfo
from meshd.model.command import Outcome
from meshd.model.endpoint import Endpoint
from meshd.model.event import Event, EventType
from meshd.model.identity import Identity
from meshd.model.ids import ClusterName, EndpointKey, PolicyKey, Seq, ServiceKey
from meshd.model.listed import ListedPeer, Skip
from meshd.model.node import Node
from meshd.model.operation import Operation
from meshd.model.policy import Policy
from meshd.model.schema import from_data
from meshd.model.service import Service

__all__ = ["Draft", "OfState"]


class Draft:
    """Events on top of a state that stays as it is."""

    __slots__ = (
        *("_base", "_causes", "_cleared", "_endpoints", "_identities", "_info", "_length"),
        *("_nodes", "_numbers", "_operations", "_peers", "_policies", "_services", "_skips"),
        "_sources",
        "_turned",
    )

    def __init__(self, base: Readable) -> None:
        self._base = base
        self._length = 0
        self._info: ClusterInfo | None = None
        self._services: dict[ServiceKey, Service | None] = {}
        self._endpoints: dict[ServiceKey, dict[str, Endpoint | None]] = {}
        self._sources: dict[ServiceKey, Sources] = {}
        self._cleared: set[ServiceKey] = set()
        self._nodes: dict[str, Node | None] = {}
        self._identities: dict[int, Identity | None] = {}
        self._numbers: Numbering | None = None
        self._policies: dict[PolicyKey, Policy | None] = {}
        self._peers: dict[ClusterName, ListedPeer | None] = {}
        self._skips: dict[ClusterName, Skip | None] = {}
        self._operations: dict[str, Operation | None] = {}
        self._turned: dict[str, int] | None = None
        self._causes: dict[str, Outcome] = {}

    @property
    def last(self) -> tuple[Seq, int]:
        """The seq and the time (ms) of the last event; a draft's own events have no time yet."""
        seq, time_ms = self._base.last
        return Seq(seq + self._length), time_ms

    def cluster(self) -> ClusterInfo | None:
        """What the cluster says of itself."""
        return self._info or self._base.cluster()

    def service(self, key: ServiceKey) -> Service | None:
        """The service's definition, or None."""
        return self._services[key] if key in self._services else self._base.service(key)

    def services(self) -> Iterator[tuple[ServiceKey, Service]]:
        """All services with their definitions, in no particular order."""
        for key, service in self._base.services():
            if key not in self._services:
                yield key, service
        for key, mine in self._services.items():
            if mine is not None:
                yield key, mine

    def endpoint(self, key: EndpointKey) -> Endpoint | None:
        """The endpoint's value, or None."""
        over = self._endpoints.get(key.service)
        if over is not None and key.name in over:
            return over[key.name]
        return None if key.service in self._cleared else self._base.endpoint(key)

    def endpoints_of(self, key: ServiceKey) -> Iterator[tuple[str, Endpoint]]:
        """All endpoints of a service with their names, in no particular order."""
        over = self._endpoints.get(key)
        if over is None and key not in self._cleared:
            # Drafts lie on drafts, and a service may have ten thousands: no step for nothing.
            return self._base.endpoints_of(key)
        return self._merged(key, over or {})

    def _merged(
        self, key: ServiceKey, over: Mapping[str, Endpoint | None]
    ) -> Iterator[tuple[str, Endpoint]]:
        if key not in self._cleared:
            for name, endpoint in self._base.endpoints_of(key):
                if name not in over:
                    yield name, endpoint
        for name, mine in over.items():
            if mine is not None:
                yield name, mine

    def endpoints_from(self, key: ServiceKey, source: str) -> dict[str, Endpoint]:
        """The endpoints that a source gives to a service, in the order of their names."""
        below = {} if key in self._cleared else self._base.endpoints_from(key, source)
        over = self._endpoints.get(key)
        if over is None:
            return below
        found = {name: endpoint for name, endpoint in below.items() if name not in over}
        mine = ((name, over[name]) for name in self._sources[key].get(source, ()))
        found.update((name, endpoint) for name, endpoint in mine if endpoint is not None)
        return dict(sorted(found.items(), key=itemgetter(0)))

    def has_endpoints(self, key: ServiceKey) -> bool:
        """Whether the service has any endpoint at all."""
        return next(self.endpoints_of(key), None) is not None

    def nodes(self) -> dict[str, Node]:
        """All nodes by name."""
        over: dict[str, Node | None] = {**self._base.nodes(), **self._nodes}
        return {name: node for name, node in over.items() if node is not None}

    def identities(self) -> dict[int, Identity]:
        """All identities by number."""
        over: dict[int, Identity | None] = {**self._base.identities(), **self._identities}
        return {number: identity for number, identity in over.items() if identity is not None}

    def node(self, name: str) -> Node | None:
        """What is said of a node, or None."""
        return self._nodes[name] if name in self._nodes else self._base.node(name)

    def identity(self, number: int) -> Identity | None:
        """The identity of a number, or None."""
        if number in self._identities:
            return self._identities[number]
        return self._base.identity(number)

    def numbers(self) -> Numbering:
        """Which numbers identities have; the base's while the draft changes none."""
        return self._numbers or self._base.numbers()

    def policy(self, key: PolicyKey) -> Policy | None:
        """What a policy says, or None."""
        return self._policies[key] if key in self._policies else self._base.policy(key)

    def policies(self) -> dict[PolicyKey, Policy]:
        """All policies by name."""
        over: dict[PolicyKey, Policy | None] = {**self._base.policies(), **self._policies}
        return {key: policy for key, policy in over.items() if policy is not None}

    def peers(self) -> dict[ClusterName, ListedPeer]:
        """The peers that the log lists."""
        over: dict[ClusterName, ListedPeer | None] = {**self._base.peers(), **self._peers}
        return {name: peer for name, peer in over.items() if peer is not None}

    def skip(self, peer: ClusterName) -> Skip | None:
        """What is passed over of a peer's log, or None."""
        return self._skips[peer] if peer in self._skips else self._base.skip(peer)

    def operations(self) -> dict[str, Operation]:
        """All operations by name, in the order of their last change."""
        below = self._base.operations()
        over = {name: one for name, one in below.items() if name not in self._operations}
        return over | {name: one for name, one in self._operations.items() if one is not None}

    def nodes_turned(self) -> Mapping[str, int]:
        """How far operations have turned nodes up; the base's while the draft changes none."""
        if not self._operations:
            return self._base.nodes_turned()
        if self._turned is None:
            self._turned = node_turns(self.operations())
        return self._turned

    def outcome_of(self, cause: str) -> Outcome | None:
        """What an idempotency key did, in the log or in this draft."""
        return self._causes.get(cause) or self._base.outcome_of(cause)

    def remember(self, cause: str, outcome: Outcome) -> None:
        """Note what an idempotency key does in this draft."""
        self._causes[cause] = outcome

    def absorb(self, above: Draft) -> None:
        """Take over what a draft on top of this one says."""
        self._length += above._length
        self._info = above._info or self._info
        self._services.update(above._services)
        for key in above._cleared:
            self._clear(key)
        for key, over in above._endpoints.items():
            for name, endpoint in over.items():
                self._put_endpoint(key, name, endpoint)
        self._nodes.update(above._nodes)
        self._identities.update(above._identities)
        if above._numbers is not None:
            self._own_numbers().absorb(above._numbers)
        self._policies.update(above._policies)
        self._peers.update(above._peers)
        self._skips.update(above._skips)
        for name, operation in above._operations.items():
            self._put_operation(name, operation)
        self._causes.update(above._causes)

    def fold(self, event: Event) -> None:
        """Do to the draft what `fold.fold_event` will do to the state."""
        self._length += 1
        match event.type:
            case EventType.CLUSTER_SET:
                self._info = from_data(ClusterInfo, event.data, "", "ignore")
            case EventType.SERVICE_SET:
                key = ServiceKey.parse(event.key)
                self._services[key] = from_data(Service, event.data, "", "ignore")
            case EventType.SERVICE_REMOVED:
                key = ServiceKey.parse(event.key)
                self._services[key] = None
                self._clear(key)
            case EventType.ENDPOINT_SET | EventType.ENDPOINT_REMOVED:
                endpoint_key = EndpointKey.parse(event.key)
                is_set = event.type == EventType.ENDPOINT_SET
                endpoint = from_data(Endpoint, event.data, "", "ignore") if is_set else None
                self._put_endpoint(endpoint_key.service, endpoint_key.name, endpoint)
            case EventType.NODE_SET | EventType.NODE_REMOVED:
                is_set = event.type == EventType.NODE_SET
                node = from_data(Node, event.data, "", "ignore") if is_set else None
                self._nodes[event.key] = node
            case EventType.IDENTITY_SET:
                self._fold_identity(event.key, from_data(Identity, event.data, "", "ignore"))
            case EventType.IDENTITY_REMOVED:
                self._fold_identity(event.key, None)
            case EventType.POLICY_SET | EventType.POLICY_REMOVED:
                is_set = event.type == EventType.POLICY_SET
                policy = from_data(Policy, event.data, "", "ignore") if is_set else None
                self._policies[PolicyKey.parse(event.key)] = policy
            case _:
                self._fold_of_own(event)

    def _put_operation(self, name: str, operation: Operation | None) -> None:
        self._turned = None
        self._operations.pop(name, None)
        self._operations[name] = operation

    def _clear(self, key: ServiceKey) -> None:
        self._cleared.add(key)
        self._endpoints.pop(key, None)
        self._sources.pop(key, None)

    def _put_endpoint(self, key: ServiceKey, name: str, endpoint: Endpoint | None) -> None:
        over = self._endpoints.setdefault(key, {})
        before = over.get(name)
        was = None if before is None else before.source
        now = None if endpoint is None else endpoint.source
        move(self._sources.setdefault(key, {}), name, was, now)
        over[name] = endpoint

    def _fold_identity(self, key: str, identity: Identity | None) -> None:
        number = int(key)
        before, numbers = self.identity(number), self._own_numbers()
        if before is not None:
            numbers.free(number, before.labels)
        if identity is not None:
            numbers.take(number, identity.labels)
        self._identities[number] = identity

    def _own_numbers(self) -> Numbering:
        if self._numbers is None:
            self._numbers = Numbering(self._base.numbers())
        return self._numbers

    def _fold_of_own(self, event: Event) -> None:
        """What the log says to its own cluster alone."""
        name = ClusterName(event.key)
        match event.type:
            case EventType.OPERATION_SET:
                operation = from_data(Operation, event.data, "", "ignore")
                self._put_operation(event.key, operation)
            case EventType.OPERATION_REMOVED:
                self._put_operation(event.key, None)
            case EventType.PEER_SET:
                self._peers[name] = from_data(ListedPeer, event.data, "", "ignore")
            case EventType.PEER_REMOVED:
                self._peers[name] = self._skips[name] = None
            case EventType.SKIP_SET:
                self._skips[name] = from_data(Skip, event.data, "", "ignore")
            case EventType.SKIP_REMOVED:
                self._skips[name] = None
            case _:
                raise AssertionError(f"meshd decided on {event.type}, which it does not know")
