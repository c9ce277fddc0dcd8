"""The state that one log folds into.

For: holding it, and reading it. Not for: what an
event does to it (`fold`). Invariant: only `fold` writes to a ClusterState, so it always equals the
fold of its log from the start.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from meshd.core.numbering import Numbering
from meshd.core.sources import Sources, move
from meshd.core.turned import node_turns
from meshd.model.cluster import ClusterInfo
from meshd.model.command import Outcome
from meshd.model.endpoint import Endpoint
from meshd.model.identity import Identity
from meshd.model.ids import ClusterName, EndpointKey, LogId, PolicyKey, Seq, ServiceKey
from meshd.model.listed import ListedPeer, Skip
from meshd.model.node import Node
from meshd.model.operation import Operation
from meshd.model.policy import Policy
from meshd.model.service import Service
from meshd.model.snapshot import Kept
from meshd.model.table import Origin

T = TypeVar(
    "T", Service, Endpoint, ClusterInfo, Node, Identity, Policy, ListedPeer, Skip, Operation
)

CAUSES_MAX = 100_000
"""How many idempotency keys are remembered: hours of a busy cluster, about 20 MB."""

UNKNOWN_TYPES_MAX = 64
"""How many types of unknown events are counted by name."""

CARRIED_MAX = 10_000
"""How many values of unknown types are carried: what a newer meshd beside this one may have set."""


@dataclass(frozen=True, slots=True)
class Held(Generic[T]):
    """A value and the event that made it so: its seq in its cluster's log, time and actor."""

    value: T
    seq: Seq
    time_ms: int
    actor: str

    def origin(self, log_id: LogId) -> Origin:
        """That event, in the log that was read."""
        return Origin(log_id, self.seq, self.time_ms, self.actor)


_BEFORE_FIRST = Seq(0)


@dataclass(slots=True)
class ClusterState:
    """What one cluster's log says, folded up to `seq`.

    endpoints: by service and then by name; a service without endpoints has no entry. nodes: by
    name. identities: by number. policies: by name. peers, skips: whom this cluster follows by its
    log, and what it passes over of whose. operations: by name, in the order of their last change.
    causes: the idempotency keys seen, oldest first. unknown: how many events of each type that this
    version doesn't know were read. carried: the last of them by type and key, for a snapshot to
    keep. is_whole: false once there were more than can be carried. ranges_seq: the last seq at
    which what it says of address ranges may have changed. numbering, sources, turned: what
    `numbers`, by service `endpoints_from`, and `nodes_turned` made; a copy (`replace`) begins
    without, since they would be written to for both.
    """

    seq: Seq = _BEFORE_FIRST
    time_ms: int = 0
    info: Held[ClusterInfo] | None = None
    services: dict[ServiceKey, Held[Service]] = field(default_factory=dict)
    endpoints: dict[ServiceKey, dict[str, Held[Endpoint]]] = field(default_factory=dict)
    nodes: dict[str, Held[Node]] = field(default_factory=dict)
    identities: dict[int, Held[Identity]] = field(default_factory=dict)
    policies: dict[PolicyKey, Held[Policy]] = field(default_factory=dict)
    peers: dict[ClusterName, Held[ListedPeer]] = field(default_factory=dict)
    skips: dict[ClusterName, Held[Skip]] = field(default_factory=dict)
    operations: dict[str, Held[Operation]] = field(default_factory=dict)
    causes: dict[str, Outcome] = field(default_factory=dict)
    unknown: Counter[str] = field(default_factory=Counter)
    carried: dict[tuple[str, str], Kept] = field(default_factory=dict)
    is_whole: bool = True
    ranges_seq: Seq = field(default=_BEFORE_FIRST, compare=False)
    numbering: Numbering | None = field(default=None, init=False, compare=False, repr=False)
    sources: dict[ServiceKey, Sources] = field(
        default_factory=dict, init=False, compare=False, repr=False
    )
    turned: dict[str, int] | None = field(default=None, init=False, compare=False, repr=False)

    def service(self, key: ServiceKey) -> Service | None:
        """The service's definition, or None."""
        held = self.services.get(key)
        return None if held is None else held.value

    def endpoint(self, key: EndpointKey) -> Endpoint | None:
        """The endpoint's value, or None."""
        held = self.endpoints.get(key.service, _NONE).get(key.name)
        return None if held is None else held.value

    def node(self, name: str) -> Node | None:
        """What is said of a node, or None."""
        held = self.nodes.get(name)
        return None if held is None else held.value

    def identity(self, number: int) -> Identity | None:
        """The identity of a number, or None."""
        held = self.identities.get(number)
        return None if held is None else held.value

    def policy(self, key: PolicyKey) -> Policy | None:
        """What a policy says, or None."""
        held = self.policies.get(key)
        return None if held is None else held.value

    def numbers(self) -> Numbering:
        """Which numbers are taken, by which labels. Made when it is first asked for, which is for
        the own cluster only, and then kept up to date by the fold.
        """
        if self.numbering is None:
            self.numbering = Numbering()
            for number, held in self.identities.items():
                self.numbering.take(number, held.value.labels)
        return self.numbering

    def nodes_turned(self) -> Mapping[str, int]:
        """How far operations have turned nodes up. Made when it is asked for, and kept until one of
        them changes: there may be thousands, and every new endpoint asks.
        """
        if self.turned is None:
            self.turned = node_turns({name: held.value for name, held in self.operations.items()})
        return self.turned

    def skip(self, peer: ClusterName) -> Skip | None:
        """What is passed over of a peer's log, or None."""
        held = self.skips.get(peer)
        return None if held is None else held.value

    def endpoints_of(self, key: ServiceKey) -> Mapping[str, Held[Endpoint]]:
        """All endpoints of a service, by name."""
        return self.endpoints.get(key, _NONE)

    def endpoints_from(self, key: ServiceKey, source: str) -> dict[str, Held[Endpoint]]:
        """The endpoints that a source gives to a service, in the order of their names.

        All are looked through when a service is first asked about, which is in the own cluster
        only; then the fold keeps it up to date. Not for a state that shares its endpoints with the
        one that is folded into (`standpoint`).
        """
        named = self.endpoints.get(key)
        if named is None:
            # Nothing is kept of it: anybody may ask about any number of services that aren't there.
            return {}
        sources = self.sources.get(key)
        if sources is None:
            sources = self.sources[key] = {}
            for name, held in named.items():
                move(sources, name, None, held.value.source)
        return {name: named[name] for name in sorted(sources.get(source, ()))}


_NONE: Mapping[str, Held[Endpoint]] = {}
