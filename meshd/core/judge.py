"""Whether one may talk to another, by which rule, from which event.

For: one connection. Not for: everybody at once (`reach`), nor whom a person means (`parties`).
Invariant: what isn't known is said to be unknown, and what only others can judge (which HTTP
request it is, what a name resolves to, which number a named port has) is said to be conditional;
neither is ever told as allowed.

Rules, as in Kubernetes:
- The egress policies of the source's cluster and the ingress policies of the destination's cluster
  must both allow it. Who is outside of the mesh has no policies.
- Where no policy isolates an identity in a direction, everything is allowed there.
- Policies add up: one rule that allows is enough.
- Ranges and names mean the outside: an identity is never meant by its address.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from meshd.core.policies import Policies, PolicyInForce, RuleInForce
from meshd.core.port_sets import numbered
from meshd.core.selections import Selection
from meshd.model.forms import network_of
from meshd.model.ids import ClusterName
from meshd.model.policy import WILDCARD, Direction, HttpMatch, PathMatch, Rule, RulePeer, RulePort
from meshd.model.service import Transport


class Verdict(StrEnum):
    """What came of it."""

    ALLOWED = "allowed"
    DENIED = "denied"
    CONDITIONAL = "conditional"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Inside:
    """An identity. number: None for labels that no identity here has. is_known: whether anything of
    its cluster is known here.
    """

    cluster: ClusterName
    number: int | None
    labels: Mapping[str, str]
    is_known: bool = True


@dataclass(frozen=True, slots=True)
class Outside:
    """Somebody outside of the mesh, by address or by name; the other is ''."""

    address: str = ""
    name: str = ""


Party = Inside | Outside


@dataclass(frozen=True, slots=True)
class AskedPort:
    """The destination's port. name: '' unless it is known."""

    protocol: Transport
    number: int
    name: str = ""


@dataclass(frozen=True, slots=True)
class Grant:
    """A rule that allows. index: its place among the policy's rules of that direction. conditions:
    what must hold besides, in words; none if nothing must.
    """

    policy: PolicyInForce
    direction: Direction
    index: int
    conditions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Side:
    """What the policies of one cluster say. policies: those that isolate the subject."""

    direction: Direction
    cluster: ClusterName
    verdict: Verdict
    why: str
    policies: tuple[PolicyInForce, ...] = ()
    grant: Grant | None = None


@dataclass(frozen=True, slots=True)
class Judgement:
    """What came of a question, and why."""

    verdict: Verdict
    sides: tuple[Side, ...]


def judge(policies: Policies, source: Party, destination: Party, port: AskedPort) -> Judgement:
    """Whether a source may talk to a port of a destination."""
    sides = []
    if isinstance(source, Inside):
        sides.append(_side(policies, Direction.EGRESS, source, destination, port))
    if isinstance(destination, Inside):
        sides.append(_side(policies, Direction.INGRESS, destination, source, port))
    verdicts = {side.verdict for side in sides}
    order = (Verdict.DENIED, Verdict.UNKNOWN, Verdict.CONDITIONAL)
    verdict = next((one for one in order if one in verdicts), Verdict.ALLOWED)
    return Judgement(verdict, tuple(sides))


def selections_of(policies: Policies, party: Inside) -> frozenset[Selection]:
    """The selections that an identity is in, or would be with such labels."""
    if party.number is not None:
        return policies.selections_of((party.cluster, party.number))
    return policies.selections_for(party.cluster, party.labels)


def _side(
    policies: Policies, direction: Direction, subject: Inside, other: Party, port: AskedPort
) -> Side:
    cluster = subject.cluster
    if not subject.is_known:
        why = f"nothing is known here of cluster {cluster}, so its policies can't be told"
        return Side(direction, cluster, Verdict.UNKNOWN, why)
    deciding = tuple(
        policy
        for policy in policies.deciding_for(selections_of(policies, subject))
        if policy.isolates(direction)
    )
    if not deciding:
        why = f"no {direction} policy of {cluster} selects it, so it isn't isolated"
        return Side(direction, cluster, Verdict.ALLOWED, why)
    theirs = selections_of(policies, other) if isinstance(other, Inside) else frozenset()
    grants = list(_grants(deciding, direction, other, theirs, port))
    grant = min(grants, key=lambda one: bool(one.conditions), default=None)
    if grant is None:
        names = ", ".join(str(policy.key) for policy in deciding)
        why = f"isolated by {names} of {cluster}, and no rule allows it"
        return Side(direction, cluster, Verdict.DENIED, why, deciding)
    rule = f"{direction} rule {grant.index} of {grant.policy.key} of {cluster}"
    if grant.conditions:
        why = f"{rule} allows it, if {' and '.join(grant.conditions)}"
        return Side(direction, cluster, Verdict.CONDITIONAL, why, deciding, grant)
    by_name = isinstance(other, Outside) and bool(
        other.name and grant.policy.rules[direction][grant.index].rule.peers
    )
    why = f"{rule} allows it{_BY_NAME if by_name else ''}"
    return Side(direction, cluster, Verdict.ALLOWED, why, deciding, grant)


_BY_NAME = " by name: who resolves names for it has to enforce that"


def _grants(
    deciding: Sequence[PolicyInForce],
    direction: Direction,
    other: Party,
    theirs: frozenset[Selection],
    port: AskedPort,
) -> Iterator[Grant]:
    for policy in deciding:
        for index, rule in enumerate(policy.rules[direction]):
            peer = _by_peer(rule, other, theirs)
            by_port = _by_port(rule.rule, port)
            if peer is not None and by_port is not None:
                conditions = (*peer, *by_port, *_by_http(rule.rule.http))
                yield Grant(policy, direction, index, conditions)


Conditions = tuple[str, ...] | None
"""What must hold; None if it can't."""


def _by_peer(rule: RuleInForce, other: Party, theirs: frozenset[Selection]) -> Conditions:
    if not rule.rule.peers or not rule.selections.isdisjoint(theirs):
        return ()
    if isinstance(other, Inside):
        return None
    found = [_outside(peer, other) for peer in rule.rule.peers]
    return min((one for one in found if one is not None), key=len, default=None)


def _outside(peer: RulePeer, other: Outside) -> Conditions:
    if other.name:
        if peer.dns and _is_named(peer.dns, other.name):
            return ()
        if peer.cidr is not None:
            but = f" and none of {', '.join(peer.but)}" if peer.but else ""
            return (f"{other.name} resolves to an address in {peer.cidr}{but}",)
        return None
    if peer.cidr is None or not _lies_in(other.address, peer.cidr):
        return None
    return None if any(_lies_in(other.address, one) for one in peer.but) else ()


def _is_named(pattern: str, name: str) -> bool:
    if pattern.startswith(WILDCARD):
        return name.endswith(pattern.removeprefix("*"))
    return name == pattern


def _lies_in(address: str, text: str) -> bool:
    return ipaddress.ip_address(address) in network_of(text)


def _by_port(rule: Rule, port: AskedPort) -> Conditions:
    if not rule.ports:
        return ()
    found = [_one_port(one, port) for one in rule.ports]
    return min((one for one in found if one is not None), key=len, default=None)


def _one_port(one: RulePort, port: AskedPort) -> Conditions:
    protocol, first, last = numbered(one)
    if protocol is not port.protocol or not first <= port.number <= last:
        return None
    if not one.name or one.name == port.name:
        return ()
    return (f"port {port.number} of the destination is the one named {one.name}",)


def _by_http(matches: Sequence[HttpMatch]) -> tuple[str, ...]:
    if not matches:
        return ()
    return (f"who reads HTTP lets it through ({'; '.join(map(http_text, matches))})",)


def http_text(match: HttpMatch) -> str:
    """A condition on requests, for people: `GET,HEAD /api/*`."""
    methods = ",".join(match.methods) or "any method"
    is_prefix = match.match is PathMatch.PREFIX
    path = f"{match.path.rstrip('/')}/*" if is_prefix else match.path
    return f"{methods} {path}"
