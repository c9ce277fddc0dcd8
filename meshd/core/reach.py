"""Who may talk to whom, for everybody at once, and what changes about that.

For: the matrix, and a plan's effect. Not for: one connection and its reasons (`judge`).
Invariants: says the same as `judge` of every pair; what is computed grows with pairs of classes,
not with pairs of identities.

A class is the identities of one cluster that are in the same selections: no policy can tell them
apart. Each pair of classes has two sets of ports: `sure`, and `maybe`, which also holds those that
only others can judge (HTTP, named ports).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from meshd.core.policies import Policies
from meshd.core.port_sets import (
    ALL_PORTS,
    NO_PORTS,
    PortSet,
    intersection,
    numbered,
    port_set,
)
from meshd.core.selections import IdentityKey, Selection
from meshd.model.ids import ClusterName
from meshd.model.policy import Direction, Rule


@dataclass(frozen=True, slots=True)
class Ports:
    """What one may reach of another. maybe: sure, and what only others can judge."""

    sure: PortSet
    maybe: PortSet

    def __and__(self, other: Ports) -> Ports:
        """What both sides let through."""
        return Ports(intersection(self.sure, other.sure), intersection(self.maybe, other.maybe))


EVERYTHING = Ports(ALL_PORTS, ALL_PORTS)
NOTHING = Ports(NO_PORTS, NO_PORTS)


@dataclass(frozen=True, slots=True)
class IdentityClass:
    """Identities that no policy can tell apart, sorted."""

    cluster: ClusterName
    selections: frozenset[Selection]
    identities: tuple[IdentityKey, ...]


def classes_of(policies: Policies, identities: Iterable[IdentityKey]) -> list[IdentityClass]:
    """The classes that some identities are in, ordered by their first ones."""
    found: dict[tuple[ClusterName, frozenset[Selection]], list[IdentityKey]] = {}
    for identity in sorted(identities):
        found.setdefault((identity[0], policies.selections_of(identity)), []).append(identity)
    return [
        IdentityClass(cluster, selections, tuple(members))
        for (cluster, selections), members in found.items()
    ]


@dataclass(frozen=True, slots=True)
class _Opening:
    """What a rule lets through, to whom. selections: None for everybody."""

    selections: frozenset[Selection] | None
    ports: Ports


class Reach:
    """Answers for pairs of classes; what each class lets through is worked out once."""

    def __init__(self, policies: Policies) -> None:
        self._policies = policies
        self._openings: dict[
            tuple[Direction, frozenset[Selection]], tuple[_Opening, ...] | None
        ] = {}

    def ports(self, source: IdentityClass, destination: IdentityClass) -> Ports:
        """Which ports of a destination a source may reach."""
        out = self._through(Direction.EGRESS, source, destination)
        if out == NOTHING:
            return NOTHING
        return out & self._through(Direction.INGRESS, destination, source)

    def _through(self, direction: Direction, subject: IdentityClass, other: IdentityClass) -> Ports:
        key = (direction, subject.selections)
        if key not in self._openings:
            self._openings[key] = self._openings_of(*key)
        openings = self._openings[key]
        if openings is None:
            return EVERYTHING
        found = [
            one.ports
            for one in openings
            if one.selections is None or not one.selections.isdisjoint(other.selections)
        ]
        if len(found) == 1:
            return found[0]
        return Ports(
            port_set(one for ports in found for one in ports.sure),
            port_set(one for ports in found for one in ports.maybe),
        )

    def _openings_of(
        self, direction: Direction, selections: frozenset[Selection]
    ) -> tuple[_Opening, ...] | None:
        """What policies let through of whoever is in these; None if none isolates it."""
        deciding = [
            policy
            for policy in self._policies.deciding_for(selections)
            if policy.isolates(direction)
        ]
        if not deciding:
            return None
        return tuple(
            _Opening(rule.selections if rule.rule.peers else None, _ports_of(rule.rule))
            for policy in deciding
            for rule in policy.rules[direction]
        )


def _ports_of(rule: Rule) -> Ports:
    maybe = port_set(map(numbered, rule.ports)) if rule.ports else ALL_PORTS
    if rule.http:
        return Ports(NO_PORTS, maybe)
    if not rule.ports:
        return EVERYTHING
    return Ports(port_set(numbered(port) for port in rule.ports if not port.name), maybe)


@dataclass(frozen=True, slots=True)
class Cell:
    """What one class may reach of another."""

    source: IdentityClass
    destination: IdentityClass
    ports: Ports


def matrix(
    policies: Policies, sources: Iterable[IdentityKey], destinations: Iterable[IdentityKey]
) -> Iterator[Cell]:
    """Who may talk to whom, by class; pairs that may not at all are left out."""
    reach = Reach(policies)
    columns = classes_of(policies, destinations)
    for source in classes_of(policies, sources):
        for destination in columns:
            ports = reach.ports(source, destination)
            if ports.maybe:
                yield Cell(source, destination, ports)


# --- what changes ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ReachChange:
    """What identities may reach of others, before and after. Who isn't there reaches nothing."""

    sources: tuple[IdentityKey, ...]
    destinations: tuple[IdentityKey, ...]
    old: Ports
    new: Ports


@dataclass(frozen=True, slots=True)
class _Group:
    """Identities that no policy can tell apart, neither before nor after; None: not there then."""

    identities: tuple[IdentityKey, ...]
    old: IdentityClass | None
    new: IdentityClass | None
    is_affected: bool


def reach_changes(
    before: Policies, after: Policies, affected: frozenset[IdentityKey]
) -> Iterator[ReachChange | None]:
    """What changes between all pairs of which one is affected: those that came, went or moved, and
    those whose policies say something else. None for every pair that stays as it was, so that who
    asks can stop after so many.
    """
    groups = _groups(before, after, affected)
    was, now = Reach(before), Reach(after)
    for source in groups:
        for destination in groups:
            if not (source.is_affected or destination.is_affected):
                continue
            old = _ports(was, source.old, destination.old)
            new = _ports(now, source.new, destination.new)
            same = old == new
            yield (
                None if same else ReachChange(source.identities, destination.identities, old, new)
            )


def _ports(reach: Reach, source: IdentityClass | None, destination: IdentityClass | None) -> Ports:
    if source is None or destination is None:
        return NOTHING
    return reach.ports(source, destination)


def _groups(before: Policies, after: Policies, affected: frozenset[IdentityKey]) -> list[_Group]:
    old, new = _by_identity(before), _by_identity(after)
    found: dict[tuple[int, int, bool], list[IdentityKey]] = {}
    for identity in sorted({*old, *new}):
        key = (id(old.get(identity)), id(new.get(identity)), identity in affected)
        found.setdefault(key, []).append(identity)
    return [
        _Group(tuple(members), old.get(members[0]), new.get(members[0]), is_affected)
        for (_, _, is_affected), members in found.items()
    ]


def _by_identity(policies: Policies) -> Mapping[IdentityKey, IdentityClass]:
    return {
        identity: one
        for one in classes_of(policies, policies.identities())
        for identity in one.identities
    }
