"""A cluster's state, as what lies on top of it reads it.

For: what a draft needs of the thing below it, and a state that gives it. Not for: changing either.
Invariant: reading leaves a state as it is, but for the indexes that it makes of itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

from meshd.core.numbering import Numbering
from meshd.core.state import ClusterState
from meshd.model.cluster import ClusterInfo
from meshd.model.command import Outcome
from meshd.model.endpoint import Endpoint
from meshd.model.identity import Identity
from meshd.model.ids import ClusterName, EndpointKey, PolicyKey, Seq, ServiceKey
from meshd.model.listed import ListedPeer, Skip
from meshd.model.node import Node
from meshd.model.operation import Operation
from meshd.model.policy import Policy
from meshd.model.service import Service


class Readable(Protocol):
    """What a draft needs of the thing below it: a state, or another draft."""

    @property
    def last(self) -> tuple[Seq, int]:
        """The seq and the time (ms) of the last event."""
        ...

    def cluster(self) -> ClusterInfo | None:
        """What the cluster says of itself."""
        ...

    def service(self, key: ServiceKey) -> Service | None:
        """The service's definition, or None."""
        ...

    def services(self) -> Iterator[tuple[ServiceKey, Service]]:
        """All services with their definitions, in no particular order."""
        ...

    def endpoint(self, key: EndpointKey) -> Endpoint | None:
        """The endpoint's value, or None."""
        ...

    def endpoints_of(self, key: ServiceKey) -> Iterator[tuple[str, Endpoint]]:
        """All endpoints of a service with their names, in no particular order."""
        ...

    def endpoints_from(self, key: ServiceKey, source: str) -> dict[str, Endpoint]:
        """The endpoints that a source gives to a service, in the order of their names."""
        ...

    def nodes(self) -> dict[str, Node]:
        """All nodes by name."""
        ...

    def identities(self) -> dict[int, Identity]:
        """All identities by number."""
        ...

    def node(self, name: str) -> Node | None:
        """What is said of a node, or None."""
        ...

    def identity(self, number: int) -> Identity | None:
        """The identity of a number, or None."""
        ...

    def numbers(self) -> Numbering:
        """Which numbers identities have; to be read, never written."""
        ...

    def policy(self, key: PolicyKey) -> Policy | None:
        """What a policy says, or None."""
        ...

    def policies(self) -> dict[PolicyKey, Policy]:
        """All policies by name."""
        ...

    def peers(self) -> dict[ClusterName, ListedPeer]:
        """The peers that the log lists."""
        ...

    def skip(self, peer: ClusterName) -> Skip | None:
        """What is passed over of a peer's log, or None."""
        ...

    def operations(self) -> dict[str, Operation]:
        """All operations by name, in the order of their last change."""
        ...

    def nodes_turned(self) -> Mapping[str, int]:
        """How far operations have turned nodes up, as far as any has."""
        ...

    def outcome_of(self, cause: str) -> Outcome | None:
        """What an idempotency key did."""
        ...


class OfState:
    """A cluster's state, read as a draft reads it."""

    __slots__ = ("_state",)

    def __init__(self, state: ClusterState) -> None:
        self._state = state

    @property
    def last(self) -> tuple[Seq, int]:
        """The seq and the time (ms) of the last event."""
        return self._state.seq, self._state.time_ms

    def cluster(self) -> ClusterInfo | None:
        """What the cluster says of itself."""
        return self._state.info.value if self._state.info else None

    def service(self, key: ServiceKey) -> Service | None:
        """The service's definition, or None."""
        return self._state.service(key)

    def services(self) -> Iterator[tuple[ServiceKey, Service]]:
        """All services with their definitions, in no particular order."""
        for key, held in self._state.services.items():
            yield key, held.value

    def endpoint(self, key: EndpointKey) -> Endpoint | None:
        """The endpoint's value, or None."""
        return self._state.endpoint(key)

    def endpoints_of(self, key: ServiceKey) -> Iterator[tuple[str, Endpoint]]:
        """All endpoints of a service with their names, in no particular order."""
        return ((name, held.value) for name, held in self._state.endpoints_of(key).items())

    def endpoints_from(self, key: ServiceKey, source: str) -> dict[str, Endpoint]:
        """The endpoints that a source gives to a service, in the order of their names."""
        found = self._state.endpoints_from(key, source)
        return {name: held.value for name, held in found.items()}

    def nodes(self) -> dict[str, Node]:
        """All nodes by name."""
        return {name: held.value for name, held in self._state.nodes.items()}

    def identities(self) -> dict[int, Identity]:
        """All identities by number."""
        return {number: held.value for number, held in self._state.identities.items()}

    def node(self, name: str) -> Node | None:
        """What is said of a node, or None."""
        return self._state.node(name)

    def identity(self, number: int) -> Identity | None:
        """The identity of a number, or None."""
        return self._state.identity(number)

    def numbers(self) -> Numbering:
        """Which numbers identities have."""
        return self._state.numbers()

    def policy(self, key: PolicyKey) -> Policy | None:
        """What a policy says, or None."""
        return self._state.policy(key)

    def policies(self) -> dict[PolicyKey, Policy]:
        """All policies by name."""
        return {key: held.value for key, held in self._state.policies.items()}

    def peers(self) -> dict[ClusterName, ListedPeer]:
        """The peers that the log lists."""
        return {name: held.value for name, held in self._state.peers.items()}

    def skip(self, peer: ClusterName) -> Skip | None:
        """What is passed over of a peer's log, or None."""
        return self._state.skip(peer)

    def operations(self) -> dict[str, Operation]:
        """All operations by name, in the order of their last change."""
        return {name: held.value for name, held in self._state.operations.items()}

    def nodes_turned(self) -> Mapping[str, int]:
        """How far operations have turned nodes up, as far as any has."""
        return self._state.nodes_turned()

    def outcome_of(self, cause: str) -> Outcome | None:
        """What an idempotency key did."""
        return self._state.causes.get(cause)
