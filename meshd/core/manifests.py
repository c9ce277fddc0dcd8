"""Manifests: documents that people and tools write, read as commands.

For: our own kinds and the few of Kubernetes' that say something of services, mixed in one file. Not
for: text (`settings.yaml_text`) nor whether the state allows a command (`decide`). Invariants: one
command for each accepted document, in order; one wrong document rejects all of them; what is left
out is named, never dropped silently.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import assert_never

from meshd.core.annotations import Texts, read_json
from meshd.core.document import Fields, Report, plain_problems, shown
from meshd.core.kubernetes import (
    Asked,
    Reading,
    Skip,
    name_of,
    read_node,
    read_service,
    read_slice,
)
from meshd.core.network_policies import read_network_policy
from meshd.core.own_kinds import (
    API_VERSION,
    Here,
    read_our_cluster,
    read_our_endpoint,
    read_our_endpoints,
    read_our_identity,
    read_our_node,
    read_our_policy,
    read_our_service,
)
from meshd.core.workloads import TEMPLATE_PATHS, WORKLOADS, read_workload
from meshd.model.command import (
    AllocateIdentity,
    Command,
    DescribeCluster,
    ReplaceEndpoints,
    SetEndpoint,
    SetIdentity,
    SetNode,
    SetPolicy,
    SetService,
)
from meshd.model.errors import Problem, RejectedError
from meshd.model.ids import ClusterName, EndpointKey, ServiceKey

API_GROUP = "meshd.io/"


@dataclass(frozen=True, slots=True)
class Accepted:
    """A document that became the command at the same index. note: what else there is to say of it,
    such as what of it was left out.
    """

    where: str
    kind: str
    namespace: str
    name: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Ignored:
    """A document that means nothing here, and why."""

    where: str
    kind: str
    namespace: str
    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Manifests:
    """What the documents of one request mean. commands and accepted belong together by index."""

    commands: tuple[Command, ...]
    accepted: tuple[Accepted, ...]
    ignored: tuple[Ignored, ...]


def read_manifests(
    documents: Sequence[tuple[str, object]], cluster: ClusterName, texts: Texts = read_json
) -> Manifests:
    """Read documents, each with its place; raises RejectedError with the problems of all.

    texts: reads what annotations hold as YAML; without it, JSON alone is read there.
    """
    reader = _Reader(Here(cluster, texts))
    for where, document in documents:
        reader.read(where, document)
    reader.find_twins()
    if reader.problems:
        raise RejectedError(tuple(reader.problems))
    return Manifests(tuple(reader.commands), tuple(reader.accepted), tuple(reader.ignored))


_SAY_WHAT = f"say what this is: {API_VERSION} and one of its kinds, or Kubernetes' own"


class _Reader:
    """Collects what the documents of one request come to."""

    def __init__(self, here: Here) -> None:
        self.commands: list[Asked] = []
        self.accepted: list[Accepted] = []
        self.ignored: list[Ignored] = []
        self.problems: list[Problem] = []
        self._here = here

    def read(self, where: str, document: object) -> None:
        """Read one document, or a list of them."""
        report = Report(where)
        for path, what, remedy in plain_problems(document):
            report.add(path, what, remedy)
        if report.problems:
            self.problems += report.problems
        else:
            self._read_plain(where, document)

    def _read_plain(self, where: str, document: object) -> None:
        report = Report(where)
        if isinstance(document, Mapping):
            self._read_map(report, Fields(report, "", document))
        else:
            remedy = "a manifest has apiVersion, kind, metadata and spec"
            report.add("", f"is not a map, but {shown(document)}", remedy)
        self.problems += report.problems

    def _read_map(self, report: Report, document: Fields) -> None:
        version, kind = document.text("apiVersion"), document.text("kind")
        for key, value in (("apiVersion", version), ("kind", kind)):
            if not value and not report.problems:
                document.problem(key, "is missing", _SAY_WHAT)
        if report.problems:
            return
        if (version, kind) == ("v1", "List"):
            self._read_list(report, document)
        elif (version, kind) in _KINDS:
            self._read_kind(report, document, _KINDS[version, kind])
        elif version.startswith(API_GROUP):
            kinds = ", ".join(known for group, known in _KINDS if group == API_VERSION)
            document.problem("kind", f"{version} {kind} is unknown", f"{API_VERSION} has {kinds}")
        else:
            reason = _WHY_NOT.get(kind, "says nothing that meshd reads")
            self._ignore(report, document, f"{version} {kind} {reason}")

    def _read_list(self, report: Report, document: Fields) -> None:
        items = document.data.get("items")
        if items is not None and not isinstance(items, list | tuple):
            document.problem("items", f"is not a list, but {shown(items)}", "list the documents")
            return
        for index, item in enumerate(items or ()):
            self._read_plain(f"{report.where} items[{index}]", item)

    def _read_kind(self, report: Report, document: Fields, known: _Kind) -> None:
        kind = document.text("kind")
        namespace, name = name_of(document)
        if not known.in_namespace:
            namespace = ""
        report.subject = f"{kind} {namespace}/{name}" if namespace else f"{kind} {name}"
        reading = known.read(document, namespace, name, self._here)
        if isinstance(reading, Skip):
            self._ignore(report, document, reading.reason)
        elif reading is not None and not report.problems:
            self.commands.append(reading)
            self.accepted.append(Accepted(report.where, kind, namespace, name, report.notes))

    def _ignore(self, report: Report, document: Fields, reason: str) -> None:
        metadata = document.data.get("metadata")
        names = metadata if isinstance(metadata, Mapping) else {}
        namespace, name = (str(names.get(key) or "") for key in ("namespace", "name"))
        kind = document.text("kind")
        self.ignored.append(Ignored(report.where, kind, namespace, name, reason))

    def find_twins(self) -> None:
        """Two documents about the same thing contradict each other, or one is useless; but
        workloads with the same labels are one identity together.
        """
        seen: dict[tuple[str, str], Accepted] = {}
        for command, accepted in zip(self.commands, self.accepted, strict=True):
            for thing in _things(command):
                first = seen.setdefault(thing, accepted)
                are_workloads = {first.kind, accepted.kind} <= WORKLOADS
                if first is not accepted and not are_workloads:
                    what = f"the {thing[0]} {thing[1]} is in {first.where} already"
                    name = "/".join(filter(None, (accepted.namespace, accepted.name)))
                    place = f"{accepted.where} {accepted.kind} {name}"
                    self.problems.append(Problem(place, what, "remove one"))


def _things(command: Asked) -> Iterator[tuple[str, str]]:
    """What a command decides about; no other command of the request may."""
    match command:
        case SetService(key):
            yield "service", str(key)
        case SetEndpoint(key):
            yield "endpoint", str(key)
        case ReplaceEndpoints(service, source, endpoints):
            yield "source", source
            for name in endpoints:
                yield "endpoint", str(EndpointKey(service, name))
        case SetNode(name):
            yield "node", name
        case AllocateIdentity(labels):
            yield "identity of", _labels_text(labels)
        case SetIdentity(number, identity):
            yield "identity", str(number)
            yield "identity of", _labels_text(identity.labels)
        case SetPolicy(policy_key):
            yield "policy", str(policy_key)
        case DescribeCluster():
            yield "description of", "the cluster"
        case _:
            assert_never(command)


def _labels_text(labels: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in sorted(labels.items()))


_Read = Callable[[Fields, str, str, Here], Reading]


@dataclass(frozen=True, slots=True)
class _Kind:
    """How a kind is read. in_namespace: whether its names are those of a namespace."""

    read: _Read
    in_namespace: bool = True


def _read_kubernetes_service(document: Fields, namespace: str, name: str, here: Here) -> Reading:
    return read_service(document, ServiceKey(namespace, name), here.texts)


def _read_kubernetes_slice(document: Fields, namespace: str, name: str, _: Here) -> Reading:
    return read_slice(document, namespace, name)


def _read_kubernetes_node(document: Fields, _namespace: str, name: str, _: Here) -> Reading:
    return read_node(document, name)


def _read_kubernetes_policy(document: Fields, namespace: str, name: str, _: Here) -> Reading:
    return read_network_policy(document, namespace, name)


def _read_kubernetes_workload(document: Fields, namespace: str, name: str, _: Here) -> Reading:
    return read_workload(document, namespace, name)


_KINDS: Mapping[tuple[str, str], _Kind] = {
    (API_VERSION, "Service"): _Kind(read_our_service),
    (API_VERSION, "Endpoint"): _Kind(read_our_endpoint),
    (API_VERSION, "Endpoints"): _Kind(read_our_endpoints),
    (API_VERSION, "Node"): _Kind(read_our_node, in_namespace=False),
    (API_VERSION, "Identity"): _Kind(read_our_identity, in_namespace=False),
    (API_VERSION, "Policy"): _Kind(read_our_policy),
    (API_VERSION, "Cluster"): _Kind(read_our_cluster, in_namespace=False),
    ("v1", "Service"): _Kind(_read_kubernetes_service),
    ("v1", "Node"): _Kind(_read_kubernetes_node, in_namespace=False),
    ("discovery.k8s.io/v1", "EndpointSlice"): _Kind(_read_kubernetes_slice),
    ("networking.k8s.io/v1", "NetworkPolicy"): _Kind(_read_kubernetes_policy),
    **dict.fromkeys(TEMPLATE_PATHS, _Kind(_read_kubernetes_workload)),
}

_WHY_NOT: Mapping[str, str] = {
    "Namespace": "is not read: an identity says by itself what labels its namespace has"
    " (meshd.io/namespace.<key>)",
}
"""What to say of kinds that a reader might expect to be read."""
