"""Whose things are: what one set of manifests owns, and what it no longer has.

For: `meshd apply --owner`, `--take-over` and `--prune`. Not for: who may do what; an owner is a
name that keeps teams from overwriting each other by mistake, not a lock. Invariants: of the state
that a request is decided on, nothing that has another owner is changed or removed; what has none is
adopted, and never removed.

Rules:
- A service, an endpoint, a node or a policy is owned by its label `meshd.io/owner`. An identity
  *is* its labels, so it is owned by its source, `Owner/<name>`. What a cluster says of itself has
  no owner.
- Applied without an owner, a thing keeps the one that it has.
- What an Endpoints or an EndpointSlice of the request gives to its service is that one's business.
- A service takes its endpoints along, so it isn't removed while another owner, or the request
  itself, has endpoints of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from meshd.core.registered import is_registered
from meshd.core.state import ClusterState
from meshd.model.command import (
    AllocateIdentity,
    Command,
    RemoveEndpoint,
    RemoveIdentity,
    RemoveNode,
    RemovePolicy,
    RemoveService,
    ReplaceEndpoints,
    SetEndpoint,
    SetIdentity,
    SetNode,
    SetPolicy,
    SetService,
)
from meshd.model.endpoint import Endpoint
from meshd.model.errors import Problem, RejectedError
from meshd.model.ids import EndpointKey, PolicyKey, ServiceKey

OWNER_LABEL = "meshd.io/owner"
OWNER_SOURCE = "Owner/"
OWNER_PATTERN = r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$"

Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Owner:
    """In whose name manifests are applied. name: '' for nobody's. is_taking_over: what others own
    becomes this one's.
    """

    name: str = ""
    is_taking_over: bool = False


@dataclass(frozen=True, slots=True)
class Removal:
    """A thing that its owner no longer has. name: of an endpoint with its service's before it."""

    kind: str
    namespace: str
    name: str
    command: Command = field(repr=False)


def owned(
    commands: Sequence[Command], places: Sequence[str], owner: Owner, state: ClusterState
) -> tuple[Command, ...]:
    """The commands as their owner's; places: what people call each, for problems.

    Raises RejectedError naming everything that is another's.
    """
    problems: list[Problem] = []
    found = []
    for command, place in zip(commands, places, strict=True):
        claim = _Claim(owner, state, place)
        found.append(claim.on(command))
        problems += claim.problems
    if problems:
        raise RejectedError(tuple(problems))
    return tuple(found)


class _Claim:
    """Puts an owner on one document's things."""

    def __init__(self, owner: Owner, state: ClusterState, place: str) -> None:
        self.problems: list[Problem] = []
        self._owner = owner
        self._state = state
        self._place = place

    def on(self, command: Command) -> Command:
        state = self._state
        match command:
            case SetService(key, service):
                known = state.service(key)
                before = known.labels if known else None
                labels = self._labels(f"service {key}", service.labels, before)
                return SetService(key, replace(service, labels=labels))
            case SetEndpoint(key, endpoint):
                return SetEndpoint(key, self._on_endpoint(key, endpoint))
            case ReplaceEndpoints():
                return self._on_endpoints(command)
            case SetNode(name, node):
                known_node = state.node(name)
                before = known_node.labels if known_node else None
                labels = self._labels(f"node {name}", node.labels, before)
                return SetNode(name, replace(node, labels=labels))
            case SetPolicy(policy_key, policy):
                known_policy = state.policy(policy_key)
                before = known_policy.labels if known_policy else None
                labels = self._labels(f"policy {policy_key}", policy.labels, before)
                return SetPolicy(policy_key, replace(policy, labels=labels))
            case AllocateIdentity(labels):
                numbers = state.numbers().numbers_of(labels)
                source = self._source(numbers[0] if numbers else 0)
                return replace(command, source=source or None)
            case SetIdentity(number, identity):
                source = self._source(number)
                return SetIdentity(number, replace(identity, source=source))
            case _:
                return command

    def _on_endpoints(self, command: ReplaceEndpoints) -> ReplaceEndpoints:
        known = self._state.endpoints_from(command.service, command.source)
        for name, held in known.items():
            if name not in command.endpoints:
                key = EndpointKey(command.service, name)
                self._check(f"endpoint {key}", held.value.labels.get(OWNER_LABEL, ""))
        endpoints = {
            name: self._on_endpoint(EndpointKey(command.service, name), endpoint)
            for name, endpoint in command.endpoints.items()
        }
        return replace(command, endpoints=endpoints)

    def _on_endpoint(self, key: EndpointKey, endpoint: Endpoint) -> Endpoint:
        known = self._state.endpoint(key)
        labels = self._labels(f"endpoint {key}", endpoint.labels, known.labels if known else None)
        return replace(endpoint, labels=labels)

    def _labels(self, thing: str, labels: Labels, known: Labels | None) -> Labels:
        before = known.get(OWNER_LABEL, "") if known else ""
        said = labels.get(OWNER_LABEL, "")
        if said and self._owner.name not in {"", said}:
            what = f"its label {OWNER_LABEL} says {said}, but it is applied as {self._owner.name}'s"
            self._add(what, "correct one of them")
        owner = self._owner.name or said or before
        if self._owner.name:
            self._check(thing, before)
        return {**labels, OWNER_LABEL: owner} if owner else labels

    def _source(self, number: int) -> str:
        known = self._state.identity(number)
        source = known.source if known is not None else ""
        if not self._owner.name:
            return source
        before = source.removeprefix(OWNER_SOURCE)
        self._check(f"identity {number}", before if len(before) < len(source) else "")
        return OWNER_SOURCE + self._owner.name

    def _check(self, thing: str, before: str) -> None:
        """Another's thing stays another's."""
        if self._owner.name and before not in {"", self._owner.name}:
            if self._owner.is_taking_over:
                return
            remedy = f"apply it as {before}'s, or take it over (--take-over, ?take_over=true)"
            self._add(f"{thing} belongs to {before}, not to {self._owner.name}", remedy)

    def _add(self, what: str, remedy: str) -> None:
        self.problems.append(Problem(self._place, what, remedy))


def pruned(state: ClusterState, commands: Sequence[Command], owner: str) -> tuple[Removal, ...]:
    """What an owner has beyond what the commands speak of; raises RejectedError."""
    asked = _Asked(commands)
    removals: list[Removal] = []
    problems: list[Problem] = []
    gone: set[ServiceKey] = set()
    for key in sorted(state.services):
        if key not in asked.services and _is_owned(state.services[key].value.labels, owner):
            problems += _obstacles(state, key, asked, owner)
            gone.add(key)
            removals.append(Removal("Service", key.namespace, key.name, RemoveService(key)))
    removals += _endpoints(state, asked, gone, owner)
    for name in sorted(state.nodes):
        if name not in asked.nodes and _is_owned(state.nodes[name].value.labels, owner):
            removals.append(Removal("Node", "", name, RemoveNode(name)))
    for number in sorted(state.identities):
        identity = state.identities[number].value
        is_asked = number in asked.numbers or frozenset(identity.labels.items()) in asked.labels
        if not is_asked and identity.source == OWNER_SOURCE + owner:
            removals.append(Removal("Identity", "", str(number), RemoveIdentity(number)))
    for policy_key in sorted(state.policies):
        is_owned = _is_owned(state.policies[policy_key].value.labels, owner)
        if policy_key not in asked.policies and is_owned:
            removal = RemovePolicy(policy_key)
            removals.append(Removal("Policy", policy_key.namespace, policy_key.name, removal))
    if problems:
        raise RejectedError(tuple(problems))
    return tuple(removals)


class _Asked:
    """What a request speaks of. sources: which source of which service."""

    def __init__(self, commands: Sequence[Command]) -> None:
        self.services: set[ServiceKey] = set()
        self.endpoints: set[EndpointKey] = set()
        self.sources: set[tuple[ServiceKey, str]] = set()
        self.nodes: set[str] = set()
        self.numbers: set[int] = set()
        self.policies: set[PolicyKey] = set()
        self.labels: set[frozenset[tuple[str, str]]] = set()
        for command in commands:
            self._add(command)

    def _add(self, command: Command) -> None:
        match command:
            case SetService(key):
                self.services.add(key)
            case SetEndpoint(endpoint_key):
                self.endpoints.add(endpoint_key)
            case ReplaceEndpoints(key, source, endpoints):
                self.sources.add((key, source))
                self.endpoints.update(EndpointKey(key, name) for name in endpoints)
            case SetNode(name):
                self.nodes.add(name)
            case AllocateIdentity(labels):
                self.labels.add(frozenset(labels.items()))
            case SetIdentity(number):
                self.numbers.add(number)
            case SetPolicy(policy_key):
                self.policies.add(policy_key)
            case _:
                pass

    def has_endpoints_of(self, service: ServiceKey) -> bool:
        return any(key.service == service for key in self.endpoints)


def _obstacles(
    state: ClusterState, key: ServiceKey, asked: _Asked, owner: str
) -> Iterator[Problem]:
    """Why a service can't go with all its endpoints."""
    where = f"Service {key}"
    if asked.has_endpoints_of(key):
        what = "is no longer among the documents, but endpoints of it are"
        yield Problem(where, what, "add the service again, or leave its endpoints out")
    for name, held in state.endpoints_of(key).items():
        other = held.value.labels.get(OWNER_LABEL, owner)
        if other != owner:
            what = f"is no longer among the documents, but its endpoint {name} belongs to {other}"
            yield Problem(where, what, f"keep the service, or have {other} remove that first")
            return


def _endpoints(
    state: ClusterState, asked: _Asked, gone: set[ServiceKey], owner: str
) -> Iterator[Removal]:
    for service in sorted(state.endpoints):
        if service in gone:
            continue
        for name, held in sorted(state.endpoints[service].items(), key=lambda item: item[0]):
            key = EndpointKey(service, name)
            is_asked = key in asked.endpoints or (service, held.value.source) in asked.sources
            if is_registered(held.value):
                continue
            if not is_asked and _is_owned(held.value.labels, owner):
                label = f"{service.name}/{name}"
                yield Removal("Endpoint", service.namespace, label, RemoveEndpoint(key))


def _is_owned(labels: Labels, owner: str) -> bool:
    return labels.get(OWNER_LABEL) == owner
