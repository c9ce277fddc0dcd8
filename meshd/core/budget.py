"""What one peer may cost: how fast it is read, and how much of it is held.

For: slowing a peer that floods, and stopping one that is too large (design, 6, rule 7). Not for:
waiting (`runtime.follower`). Invariants: a bucket never lets more through than its rate and one
burst; a state never holds more than its ceilings, whatever the order of events.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from meshd.core.state import ClusterState
from meshd.model.errors import RejectedError
from meshd.model.event import Event, EventType
from meshd.model.identity import parse_identity
from meshd.model.ids import EndpointKey, PolicyKey, ServiceKey


@dataclass(frozen=True, slots=True)
class Budget:
    """Rates are means over seconds; `burst_s` of each may come at once. The ceilings are of what
    the peer's state holds.
    """

    events_per_s: float
    bytes_per_s: float
    burst_s: float
    services_max: int
    endpoints_max: int
    state_bytes_max: int
    nodes_max: int
    identities_max: int
    policies_max: int


@dataclass(slots=True)
class Bucket:
    """How much may still come. left: below 0 there is a debt to be waited for."""

    rate: float
    burst: float
    left: float = field(init=False)
    at_s: float | None = None

    def __post_init__(self) -> None:
        """Begin full."""
        self.left = self.burst

    def take(self, amount: float, now_s: float) -> float:
        """Take what came; returns how long to wait before taking more."""
        if self.at_s is not None:
            self.left = min(self.burst, self.left + (now_s - self.at_s) * self.rate)
        self.at_s = now_s
        self.left -= amount
        return max(0.0, -self.left / self.rate)


class Rates:
    """The two buckets of one peer."""

    def __init__(self, budget: Budget) -> None:
        self._events = Bucket(budget.events_per_s, budget.events_per_s * budget.burst_s)
        self._bytes = Bucket(budget.bytes_per_s, budget.bytes_per_s * budget.burst_s)

    def take(self, events: int, size_bytes: int, now_s: float) -> float:
        """Take what came; returns how many seconds to wait before reading on."""
        return max(self._events.take(events, now_s), self._bytes.take(size_bytes, now_s))


COUNTED_ANEW_SHARE = 0.95
"""What a state may take at most when it is counted anew: with less room it would be counted at
nearly every record, which takes seconds for each GiB.
"""


class Ceiling:
    """Watches over one peer's state. Bytes are counted as they come, and anew only when the count
    says that there may be too many: then a state that is overwritten again and again costs nothing.
    """

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._endpoints = 0
        self._bytes = 0

    def begin(self, state: ClusterState) -> None:
        """Count a state that came to be elsewhere."""
        self._endpoints = _endpoints_in(state)
        self._bytes = _bytes_in(state)

    def passed_by(self, state: ClusterState, events: Iterable[Event], size_bytes: int) -> str:
        """Why a state would be too large with these events; '' if it wouldn't be.

        size_bytes: of the events as they came.
        """
        new, budget = _new_in(state, events), self._budget
        for kind, held, most in (
            ("services", len(state.services), budget.services_max),
            ("nodes", len(state.nodes), budget.nodes_max),
            ("identities", len(state.identities), budget.identities_max),
            ("policies", len(state.policies), budget.policies_max),
        ):
            if held + new[kind] > most:
                return _too_many(kind, most)
        self._endpoints += new["endpoints"]
        if self._endpoints > budget.endpoints_max:
            self._endpoints = _endpoints_in(state) + new["endpoints"]
            if self._endpoints > budget.endpoints_max:
                return _too_many("endpoints", budget.endpoints_max)
        self._bytes += size_bytes
        if self._bytes > budget.state_bytes_max:
            self._bytes = _bytes_in(state) + size_bytes
            if self._bytes > budget.state_bytes_max * COUNTED_ANEW_SHARE:
                return (
                    f"its state takes more than {budget.state_bytes_max} bytes; see"
                    " `budget.state_bytes_max`"
                )
        return ""


def _too_many(kind: str, most: int) -> str:
    return f"it has more than {most} {kind}; see `budget.{kind}_max`"


_NOTHING_NEW: Final[Mapping[str, int]] = Counter()
"""What most records add: they change what is there."""


def _new_in(state: ClusterState, events: Iterable[Event]) -> Mapping[str, int]:
    """How many things of each kind events would add; what they remove isn't counted."""
    found: set[tuple[str, str]] = set()
    for event in events:
        try:
            kind = _kind_of_new(state, event)
        except RejectedError:
            # The fold names it.
            continue
        if kind:
            found.add((kind, event.key))
    return Counter(kind for kind, _ in found) if found else _NOTHING_NEW


def _kind_of_new(state: ClusterState, event: Event) -> str:
    """What an event adds; '' if it adds nothing. Raises RejectedError for a key that is none."""
    match event.type:
        case EventType.SERVICE_SET if ServiceKey.parse(event.key) not in state.services:
            return "services"
        case EventType.ENDPOINT_SET if state.endpoint(EndpointKey.parse(event.key)) is None:
            return "endpoints"
        case EventType.NODE_SET if event.key not in state.nodes:
            return "nodes"
        case EventType.IDENTITY_SET if parse_identity(event.key) not in state.identities:
            return "identities"
        case EventType.POLICY_SET if PolicyKey.parse(event.key) not in state.policies:
            return "policies"
        case _:
            return ""


def _endpoints_in(state: ClusterState) -> int:
    return sum(map(len, state.endpoints.values()))


ENDPOINT_BYTES = 300
"""What an endpoint without labels takes in a record and in its key, about."""


def _bytes_in(state: ClusterState) -> int:
    """About what a state would take as events: labels and long names are what makes it large."""
    total = len(state.services) * ENDPOINT_BYTES
    for service in state.services.values():
        total += _labels_bytes(service.value.labels) + _labels_bytes(service.value.tiers)
        for selector in (service.value.export.clusters, service.value.import_from):
            total += _labels_bytes((*selector.clusters, *selector.not_clusters, *selector.regions))
            total += _labels_bytes(selector.labels)
    for endpoints in state.endpoints.values():
        total += len(endpoints) * ENDPOINT_BYTES
        for held in endpoints.values():
            total += _labels_bytes(held.value.labels)
    total += sum(len(str(node.value)) for node in state.nodes.values())
    total += sum(len(str(identity.value)) for identity in state.identities.values())
    total += sum(len(str(policy.value)) for policy in state.policies.values())
    # Peers and skips mean something in the own log only; in another's they are ballast.
    total += sum(len(str(peer.value)) for peer in state.peers.values())
    total += sum(len(str(skip.value)) for skip in state.skips.values())
    return total + sum(len(str(item.event.data)) for item in state.carried.values())


def _labels_bytes(labels: object) -> int:
    return len(str(labels)) if labels else 0
