"""What a cluster says of who may talk to whom.

For: the value of `policy.set` and its limits. Not for: whom a policy means, nor what it allows
(`core.policies`, `core.judge`). Invariants: a policy decides for identities of its own cluster and
of its own namespace, and for nobody else; what it doesn't allow in a direction that it isolates is
denied, unless another policy allows it, so policies only ever add up.

The words are those of Kubernetes' NetworkPolicy, with clusters, names and HTTP beside them. An
identity says where it stands by labels: its namespace by `meshd.io/namespace`, and a label of its
namespace by `meshd.io/namespace.<key>`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, assert_never

from pydantic import AfterValidator, Field, StrictInt, StringConstraints

from meshd.model.cluster import ClusterSelector
from meshd.model.forms import (
    AddressRange,
    Audiences,
    Labels,
    LabelText,
    SourceName,
    network_of,
    sorted_once,
)
from meshd.model.ids import DNS_LABEL_PATTERN, is_dns_name
from meshd.model.keyspace import DEFAULT_AUDIENCE
from meshd.model.service import Transport

NAMESPACE_LABEL = "meshd.io/namespace"
"""The label by which an identity says its namespace. Without it, it is in none."""
NAMESPACE_LABELS = f"{NAMESPACE_LABEL}."
"""What the labels begin with by which it says its namespace's labels."""
NAMESPACE_NAME_LABEL = "kubernetes.io/metadata.name"
"""The label that every namespace has by itself: its name."""
RULES_MAX = 128
PEERS_MAX = 64
RULE_PORTS_MAX = 64
HTTP_MAX = 64
EXPRESSIONS_MAX = 32
VALUES_MAX = 64
EXCEPT_MAX = 64
NAMESPACES_MAX = 64
"""All these are far beyond what people write by hand; together they are bounded by the 64 KiB of an
event."""
WILDCARD = "*."
METHOD_PATTERN = r"^[A-Z]{1,32}$"
PATH_PATTERN = r"^/[!-~]{0,1023}$"
PORT_NAME_PATTERN = r"^$|^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"


class Direction(StrEnum):
    """Which way traffic goes, seen from the policy's subjects."""

    INGRESS = "ingress"
    EGRESS = "egress"


class Operator(StrEnum):
    """How an expression asks for a label, spelled as Kubernetes does."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


class PathMatch(StrEnum):
    """How a path is compared. prefix: by whole segments: `/a` holds of `/a` and of `/a/b`."""

    EXACT = "exact"
    PREFIX = "prefix"


@dataclass(frozen=True, slots=True, kw_only=True)
class Expression:
    """One condition on a label. values: for In and NotIn, which alone have some. A label that isn't
    there fulfils NotIn, as in Kubernetes.
    """

    key: Annotated[LabelText, StringConstraints(min_length=1)]
    operator: Operator
    values: Annotated[
        tuple[LabelText, ...], Field(max_length=VALUES_MAX), AfterValidator(sorted_once)
    ] = ()

    def __post_init__(self) -> None:
        """Raise ValueError if the operator and the values don't fit."""
        takes_values = self.operator in {Operator.IN, Operator.NOT_IN}
        if takes_values and not self.values:
            raise ValueError(f"has no values, which {self.operator} needs")
        if self.values and not takes_values:
            raise ValueError(f"has values, which {self.operator} takes none of")

    def holds(self, labels: Mapping[str, str]) -> bool:
        """Whether labels fulfil it."""
        match self.operator:
            case Operator.IN:
                return labels.get(self.key) in self.values
            case Operator.NOT_IN:
                return labels.get(self.key) not in self.values
            case Operator.EXISTS:
                return self.key in labels
            case Operator.DOES_NOT_EXIST:
                return self.key not in labels
            case _:
                assert_never(self.operator)


Expressions = Annotated[tuple[Expression, ...], Field(max_length=EXPRESSIONS_MAX)]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelSelector:
    """Some of the identities of a namespace: those with all these labels that fulfil all the
    expressions; without any, all.
    """

    labels: Labels = field(default_factory=dict)
    expressions: Expressions = ()

    def selects(self, labels: Mapping[str, str]) -> bool:
        """Whether labels fulfil it."""
        return all(labels.get(name) == value for name, value in self.labels.items()) and all(
            expression.holds(labels) for expression in self.expressions
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class NamespaceSelector:
    """Some of the namespaces: those of these names whose labels fulfil the rest; without any
    condition, all.
    """

    names: Annotated[
        tuple[Annotated[str, StringConstraints(pattern=DNS_LABEL_PATTERN)], ...],
        Field(max_length=NAMESPACES_MAX),
        AfterValidator(sorted_once),
    ] = ()
    labels: Labels = field(default_factory=dict)
    expressions: Expressions = ()

    def selects(self, name: str, labels: Mapping[str, str]) -> bool:
        """Whether a namespace is one of them. labels: of the namespace, with its name as one."""
        if self.names and name not in self.names:
            return False
        return LabelSelector(labels=self.labels, expressions=self.expressions).selects(labels)


def _dns_pattern(text: str) -> str:
    if text and not is_dns_name(text.removeprefix(WILDCARD)):
        raise ValueError("is not a DNS name; write it like example.org or *.example.org")
    return text


DnsPattern = Annotated[str, StringConstraints(max_length=255), AfterValidator(_dns_pattern)]


@dataclass(frozen=True, slots=True, kw_only=True)
class RulePeer:
    """Who is at the other end, as one of three kinds.

    Identities: `labels`, `namespaces` and `clusters` together. Null means any labels, the policy's
    own namespace, and all clusters. Addresses outside of the mesh: `cidr`, without those of `but`
    (`except`). Names outside of it, for egress alone: `dns`; `*.example.org` holds of every name
    below example.org, and not of that one.
    """

    labels: LabelSelector | None = None
    namespaces: NamespaceSelector | None = None
    clusters: ClusterSelector | None = None
    cidr: AddressRange | None = None
    but: Annotated[
        tuple[AddressRange, ...],
        Field(max_length=EXCEPT_MAX, alias="except"),
        AfterValidator(sorted_once),
    ] = ()
    dns: DnsPattern = ""

    def __post_init__(self) -> None:
        """Raise ValueError if it isn't exactly one of the three kinds."""
        kinds = (self.is_of_identities, self.cidr is not None, bool(self.dns))
        if sum(kinds) != 1:
            raise ValueError(
                "is not one kind of peer: write labels, namespaces and clusters, or a cidr, or a"
                " dns name"
            )
        if self.but and self.cidr is None:
            raise ValueError("has except without a cidr")
        for text in self.but:
            if not _lies_in(text, self.cidr or ""):
                raise ValueError(f"excepts {text}, which is not within {self.cidr}")

    @property
    def is_of_identities(self) -> bool:
        """Whether it means identities."""
        parts = (self.labels, self.namespaces, self.clusters)
        return any(part is not None for part in parts)


def _lies_in(text: str, other: str) -> bool:
    inner, outer = network_of(text), network_of(other)
    if inner.version != outer.version:
        return False
    # Two ranges never cross: the one with the longer prefix lies in the other, or they are apart.
    return inner.prefixlen >= outer.prefixlen and inner.overlaps(outer)


@dataclass(frozen=True, slots=True, kw_only=True)
class RulePort:
    """Ports of the destination: `port`, or `port` through `end_port`, or the one of this `name`;
    without any of them, all ports of the protocol.
    """

    protocol: Transport = Transport.TCP
    port: Annotated[StrictInt, Field(ge=1, le=65535)] | None = None
    end_port: Annotated[StrictInt, Field(ge=1, le=65535)] | None = None
    name: Annotated[str, StringConstraints(pattern=PORT_NAME_PATTERN)] = ""

    def __post_init__(self) -> None:
        """Raise ValueError if its fields contradict each other."""
        if self.name and self.port is not None:
            raise ValueError("has a port and a name; write one of them")
        if self.end_port is not None and (self.port is None or self.end_port < self.port):
            raise ValueError("has an end_port that is not behind its port")


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpMatch:
    """Some requests: of these methods, and with such a path; without any condition, all. Only who
    reads HTTP can tell: a sidecar or a gateway.
    """

    methods: Annotated[
        tuple[Annotated[str, StringConstraints(pattern=METHOD_PATTERN)], ...],
        Field(max_length=32),
        AfterValidator(sorted_once),
    ] = ()
    path: Annotated[str, StringConstraints(pattern=PATH_PATTERN)] = "/"
    match: PathMatch = PathMatch.PREFIX


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What is allowed: any of the peers, on any of the ports, with any of the requests; none of
    them means all.
    """

    peers: Annotated[tuple[RulePeer, ...], Field(max_length=PEERS_MAX)] = ()
    ports: Annotated[tuple[RulePort, ...], Field(max_length=RULE_PORTS_MAX)] = ()
    http: Annotated[tuple[HttpMatch, ...], Field(max_length=HTTP_MAX)] = ()

    def __post_init__(self) -> None:
        """Raise ValueError for HTTP on what can't carry it."""
        if self.http and any(port.protocol is Transport.SCTP for port in self.ports):
            raise ValueError("has HTTP on SCTP, which doesn't carry it")


Rules = Annotated[tuple[Rule, ...], Field(max_length=RULES_MAX)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What some identities of a namespace of this cluster may receive and send.

    subjects: for whom it decides. directions: which it isolates: what no rule of any policy allows
    there is denied; none makes it a policy that says nothing. audiences: who may know of it.
    """

    subjects: LabelSelector = field(default_factory=LabelSelector)
    directions: Annotated[
        tuple[Direction, ...], Field(min_length=1, max_length=2), AfterValidator(sorted_once)
    ] = (Direction.INGRESS,)
    ingress: Rules = ()
    egress: Rules = ()
    labels: Labels = field(default_factory=dict)
    audiences: Audiences = (DEFAULT_AUDIENCE,)
    source: SourceName = ""

    def __post_init__(self) -> None:
        """Raise ValueError for rules that could never mean anything."""
        for direction in Direction:
            if self.rules(direction) and direction not in self.directions:
                raise ValueError(
                    f"has {direction} rules, but its directions don't have {direction}"
                )
        if any(peer.dns for rule in self.ingress for peer in rule.peers):
            raise ValueError("has dns in an ingress rule; names are for egress")

    def rules(self, direction: Direction) -> tuple[Rule, ...]:
        """The rules of a direction."""
        return self.ingress if direction is Direction.INGRESS else self.egress


def namespace_of(labels: Mapping[str, str]) -> str:
    """The namespace that an identity says it is in; '' for none."""
    return labels.get(NAMESPACE_LABEL, "")


def namespace_labels_of(labels: Mapping[str, str]) -> dict[str, str]:
    """The labels of the namespace that an identity says it is in, its name among them."""
    found = {
        name.removeprefix(NAMESPACE_LABELS): value
        for name, value in labels.items()
        if name.startswith(NAMESPACE_LABELS)
    }
    return found | {NAMESPACE_NAME_LABEL: namespace_of(labels)}
