"""Whom a question about policies means: from what a person writes to identities, and to a port.

For: `meshd policy check`. Not for: the verdict (`judge`). Invariant: what is meant is never
guessed: what fits nothing, or several that are treated differently, is refused with what there is.

What can be written:
- `namespace/name@cluster`: the service of that name there, which is the identities that its
  `selector` selects. Where it has none, or there is no such service: the identities of that
  namespace whose label `app.kubernetes.io/name`, `app` or `k8s-app` is the name; the first of these
  labels by which there are any.
- `namespace/label=value,label=value@cluster`: the identities with all of these labels, or, where
  there are none, what policies would say of one with just these.
- a number: the identity of that number.
- an address, or a DNS name with a dot: somebody outside of the mesh.
- behind any of them `:port`, a number or, of a service, a name; IPv6 in brackets then.

Without `@cluster` it is this cluster.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from meshd.core.judge import AskedPort, Inside, Judgement, Outside, Party, Side, Verdict, judge
from meshd.core.policies import Policies
from meshd.core.port_sets import PORT_MAX
from meshd.core.selections import IdentityKey
from meshd.core.state import ClusterState
from meshd.model.errors import Problem, RejectedError, shown
from meshd.model.forms import canonical_address
from meshd.model.identity import cluster_id_of, parse_identity
from meshd.model.ids import ClusterName, ServiceKey, is_cluster_name, is_dns_label, is_dns_name
from meshd.model.policy import NAMESPACE_LABEL, Direction, namespace_of
from meshd.model.service import Port, Service, Transport

NAME_LABELS = ("app.kubernetes.io/name", "app", "k8s-app")
"""By which labels workloads are mostly named; the most specific first."""
IDENTITIES_MAX = 16
"""Who means more has hardly one thing in mind; each pair of them is judged."""
SHOWN_MAX = 10
FORMS = (
    "write namespace/name@cluster, namespace/label=value@cluster, an identity's number, an address"
    " or a DNS name; behind it :port"
)

_INSIDE = re.compile(
    r"(?P<namespace>[^/]+)/(?P<what>[^@]+?)(@(?P<cluster>[^@:]+))?(:(?P<port>[^:@]+))?"
)
_NUMBER = re.compile(r"(?P<number>[0-9]+)(:(?P<port>[^:]+))?")
_V6 = re.compile(r"\[(?P<address>[^\]]+)\](:(?P<port>[^:]+))?")
_OUTSIDE = re.compile(r"(?P<host>[^:/]+)(:(?P<port>[^:]+))?")

States = Mapping[ClusterName, ClusterState]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was written. name and labels: one of them, of somebody inside. outside: of nobody
    inside.
    """

    where: str
    text: str
    port: str = ""
    cluster: str = ""
    namespace: str = ""
    name: str = ""
    labels: Mapping[str, str] | None = None
    number: int | None = None
    outside: Outside | None = None

    def problem(self, what: str, remedy: str) -> RejectedError:
        """Why it can't be answered."""
        return RejectedError((Problem(self.where, f"{shown(self.text)} {what}", remedy),))


def parse_party(text: str, where: str) -> Wanted:
    """Read what a person wrote; raises RejectedError."""
    found = _NUMBER.fullmatch(text)
    if found is not None:
        number = parse_identity(found["number"])
        return Wanted(where, text, found["port"] or "", number=number)
    if "/" in text:
        return _parse_inside(text, where)
    found = _V6.fullmatch(text)
    host, port = (found["address"], found["port"]) if found is not None else (text, None)
    if found is None and text.count(":") < len("::"):
        found = _OUTSIDE.fullmatch(text)
        host, port = (found["host"], found["port"]) if found is not None else (text, None)
    try:
        outside = Outside(address=canonical_address(host))
    except ValueError:
        # What ends in a number is a wrong address rather than a name.
        is_name = is_dns_name(host) and "." in host and not host.rpartition(".")[2].isdigit()
        if not is_name:
            raise Wanted(where, text).problem("means nobody", FORMS) from None
        outside = Outside(name=host)
    return Wanted(where, text, port or "", outside=outside)


def _parse_inside(text: str, where: str) -> Wanted:
    found = _INSIDE.fullmatch(text)
    if found is None or not is_dns_label(found["namespace"]):
        raise Wanted(where, text).problem("means nobody", FORMS)
    cluster, what = found["cluster"] or "", found["what"]
    if cluster and not is_cluster_name(cluster):
        raise Wanted(where, text).problem(f"has {shown(cluster)}, which is no cluster", FORMS)
    port, namespace = found["port"] or "", found["namespace"]
    if "=" not in what:
        return Wanted(where, text, port, cluster, namespace, what)
    labels = {}
    for part in what.split(","):
        name, equals, value = part.partition("=")
        if not name or not equals:
            raise Wanted(where, text).problem(f"has {shown(part)}, which is no label", FORMS)
        labels[name] = value
    return Wanted(where, text, port, cluster, namespace, labels=labels)


@dataclass(frozen=True, slots=True)
class Answer:
    """A question's answer. sources, destinations: all that were meant; all pairs of them have the
    verdict of the first, whose judgement it is.
    """

    sources: tuple[Party, ...]
    destinations: tuple[Party, ...]
    port: AskedPort
    judgement: Judgement
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Meant:
    """Whom one end means. service: if it is one, with its ports. is_dark: nothing is known of its
    cluster, and what it is called says nothing of its labels.
    """

    parties: tuple[Party, ...]
    service: tuple[ServiceKey, Service] | None = None
    is_dark: bool = False


class Questions:
    """Answers questions about one moment."""

    def __init__(self, policies: Policies, states: States, own: ClusterName) -> None:
        self._policies = policies
        self._states = states
        self._own = own

    def ask(self, source: Wanted, destination: Wanted, protocol: Transport) -> Answer:
        """Whether a source may talk to a destination; raises RejectedError."""
        ends = self._meant(source), self._meant(destination)
        if all(isinstance(end.parties[0], Outside) for end in ends):
            raise destination.problem("and the source are both outside", "name one in the mesh")
        notes: list[str] = []
        port = self._port(destination, ends[1], protocol, notes)
        if ends[0].is_dark or ends[1].is_dark:
            judgement = _dark(ends[0], ends[1])
        else:
            judgement = self._judged(source, destination, ends, port)
        for wanted, end in ((source, ends[0]), (destination, ends[1])):
            notes += _notes_on(wanted, end)
        return Answer(ends[0].parties, ends[1].parties, port, judgement, tuple(notes))

    def _judged(
        self,
        source: Wanted,
        destination: Wanted,
        ends: tuple[_Meant, _Meant],
        port: AskedPort,
    ) -> Judgement:
        judgements = {
            (one, other): judge(self._policies, ends[0].parties[one], ends[1].parties[other], port)
            for one in range(len(ends[0].parties))
            for other in range(len(ends[1].parties))
        }
        if len({judgement.verdict for judgement in judgements.values()}) > 1:
            wanted, end = (source, ends[0]) if len(ends[0].parties) > 1 else (destination, ends[1])
            told = "; ".join(
                f"{_named(ends[0].parties[one])} to {_named(ends[1].parties[other])}:"
                f" {judgement.verdict}"
                for (one, other), judgement in list(judgements.items())[:SHOWN_MAX]
            )
            what = f"means {len(end.parties)} identities that are treated differently ({told})"
            raise wanted.problem(what, "name one of them, by its number")
        return judgements[0, 0]

    # Whom it means.

    def _meant(self, wanted: Wanted) -> _Meant:
        if wanted.outside is not None:
            return _Meant((wanted.outside,))
        if wanted.number is not None:
            return _Meant((self._numbered(wanted, wanted.number),))
        cluster = ClusterName(wanted.cluster or self._own)
        state = self._states.get(cluster)
        labels = {**(wanted.labels or {}), NAMESPACE_LABEL: wanted.namespace}
        if state is None:
            nobody = Inside(cluster, None, labels, is_known=False)
            return _Meant((nobody,), is_dark=wanted.labels is None)
        if wanted.labels is not None:
            found = self._with(cluster, state, labels)
            return _Meant(_few(wanted, found) or (Inside(cluster, None, labels),))
        return self._called(wanted, cluster, state)

    def _numbered(self, wanted: Wanted, number: int) -> Inside:
        for cluster, state in self._states.items():
            held = state.identities.get(number)
            if held is not None:
                return Inside(cluster, number, held.value.labels)
        what = f"is an identity of cluster id {cluster_id_of(number)} that nobody here knows"
        raise wanted.problem(what, "see `meshd get identities --cluster NAME`")

    def _called(self, wanted: Wanted, cluster: ClusterName, state: ClusterState) -> _Meant:
        """The service of a name, or else the workload."""
        key = ServiceKey(wanted.namespace, wanted.name)
        service = state.service(key)
        if service is not None and service.selector:
            labels = {**service.selector, NAMESPACE_LABEL: wanted.namespace}
            found = _few(wanted, self._with(cluster, state, labels))
            if found:
                return _Meant(found, (key, service))
            told = ", ".join(f"{name}={value}" for name, value in service.selector.items())
            what = f"is a service of {told} in {cluster}, and no identity there has these labels"
            raise wanted.problem(what, "apply its workload there, or give labels: namespace/app=x")
        for label in NAME_LABELS:
            labels = {label: wanted.name, NAMESPACE_LABEL: wanted.namespace}
            found = _few(wanted, self._with(cluster, state, labels))
            if found:
                return _Meant(found, (key, service) if service is not None else None)
        there = sorted(set(_names_in(wanted.namespace, state)))
        told = ", ".join(there[:SHOWN_MAX]) + (", …" if len(there) > SHOWN_MAX else "")
        remedy = f"there are {told}" if there else "no identity there is in that namespace"
        raise wanted.problem(f"is no service and no workload of {cluster}", remedy)

    def _with(
        self, cluster: ClusterName, state: ClusterState, labels: Mapping[str, str]
    ) -> list[Inside]:
        return [
            Inside(cluster, number, held.value.labels)
            for number, held in sorted(state.identities.items(), key=lambda item: item[0])
            if labels.items() <= held.value.labels.items()
        ]

    # Which port.

    def _port(
        self, wanted: Wanted, end: _Meant, protocol: Transport, notes: list[str]
    ) -> AskedPort:
        if end.service is None:
            number = int(wanted.port) if re.fullmatch(r"[0-9]{1,5}", wanted.port) else 0
            if not 1 <= number <= PORT_MAX:
                what = f"has the port {shown(wanted.port)}" if wanted.port else "has no port"
                raise wanted.problem(what, f"add a number of 1 to {PORT_MAX} behind it, like :443")
            return AskedPort(protocol, number)
        key, service = end.service
        port = _service_port(wanted, service, protocol)
        if isinstance(port, int):
            return AskedPort(protocol, port)
        return self._listening(wanted, end, key, port, notes)

    def _listening(
        self, wanted: Wanted, end: _Meant, key: ServiceKey, port: Port, notes: list[str]
    ) -> AskedPort:
        """Where those listen that serve a service's port: policies go by that."""
        party = end.parties[0]
        cluster = party.cluster if isinstance(party, Inside) else self._own
        endpoints = self._states[cluster].endpoints_of(key)
        numbers = {
            one.port
            for held in endpoints.values()
            for one in held.value.ports
            if (one.name, one.protocol) == (port.name, port.protocol)
        }
        if len(numbers) > 1:
            told = ", ".join(map(str, sorted(numbers)))
            raise wanted.problem(f"listens at {told}", "ask for one identity, by its number")
        number = next(iter(numbers), port.port)
        if number != port.port:
            notes.append(f"port {port.port} of {key} is {number} of its endpoints")
        elif not endpoints:
            notes.append(f"port {number} of {key} is taken to be that of its endpoints as well")
        return AskedPort(port.protocol, number)


def _service_port(wanted: Wanted, service: Service, protocol: Transport) -> Port | int:
    """A port of a service, or a number that is none of its own."""
    ports = service.ports
    told = ", ".join(f"{port.port}{f' ({port.name})' if port.name else ''}" for port in ports)
    if not wanted.port:
        if len(ports) == 1:
            return ports[0]
        raise wanted.problem("has no port", f"add one behind it: {told or 'like :443'}")
    for port in ports:
        if port.protocol is protocol and wanted.port in {str(port.port), port.name}:
            return port
    number = int(wanted.port) if re.fullmatch(r"[0-9]{1,5}", wanted.port) else 0
    if not 1 <= number <= PORT_MAX:
        what = f"has no {protocol} port {shown(wanted.port)}"
        raise wanted.problem(what, f"there are {told or 'none'}")
    return number


def _dark(source: _Meant, destination: _Meant) -> Judgement:
    sides = [
        Side(
            direction,
            party.cluster,
            Verdict.UNKNOWN,
            f"nothing is known here of cluster {party.cluster}, so neither what it means nor its"
            " policies can be told",
        )
        for direction, end in ((Direction.EGRESS, source), (Direction.INGRESS, destination))
        for party in end.parties
        if end.is_dark and isinstance(party, Inside)
    ]
    return Judgement(Verdict.UNKNOWN, tuple(sides))


def _few(wanted: Wanted, found: list[Inside]) -> tuple[Inside, ...]:
    if len(found) > IDENTITIES_MAX:
        told = ", ".join(map(_named, found[:SHOWN_MAX]))
        what = f"means {len(found)} identities ({told}, …)"
        raise wanted.problem(what, "name one of them, by its number")
    return tuple(found)


def _named(party: Party) -> str:
    if isinstance(party, Outside):
        return party.address or party.name
    labels = ",".join(
        f"{name}={value}" for name, value in party.labels.items() if name != NAMESPACE_LABEL
    )
    number = f"{party.number} " if party.number is not None else ""
    return f"{number}{namespace_of(party.labels)}/{labels}@{party.cluster}"


def _notes_on(wanted: Wanted, end: _Meant) -> Iterator[str]:
    for party in end.parties:
        if isinstance(party, Outside):
            continue
        if party.is_known and party.number is None:
            yield f"no identity of {party.cluster} has the labels of {wanted.text}"
        if not namespace_of(party.labels):
            yield f"{_named(party)} is in no namespace: no policy selects it"


def _names_in(namespace: str, state: ClusterState) -> Iterator[str]:
    for key in state.services:
        if key.namespace == namespace:
            yield key.name
    for held in state.identities.values():
        if namespace_of(held.value.labels) == namespace:
            for label in NAME_LABELS:
                if label in held.value.labels:
                    yield held.value.labels[label]


def identities_in(policies: Policies, namespace: str, cluster: str) -> Iterator[IdentityKey]:
    """The identities of a namespace and of a cluster; '' for any."""
    for identity, labels in policies.identities().items():
        if cluster in {"", identity[0]} and namespace in {"", namespace_of(labels)}:
            yield identity
