"""Manifests: documents that people and tools write, read as commands.

For: our own kinds and the few of Kubernetes' that say something of services, mixed in one file. Not
for: text (`settings.yaml_text`) nor whether the state allows a command (`decide`). Invariants: one
command for each accepted document, in order; one wrong document rejects all of them; what is left
out is named, never dropped silently.

Our kinds, apiVersion `meshd.io/v1`; in each, metadata.namespace is `default` unless given, and
metadata.cluster, if given, must be the cluster that the manifest is applied to:
- Service: spec {ports, global, shared, affinity}.
- Endpoint: spec {service, address, ports, ready, serving, terminating, weight, zone, node}.
- Endpoints: spec {service (default: metadata.name), endpoints: a list of Endpoint's fields, name
  (default: from its address) and labels}. Applied again, it takes away what is no longer in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import assert_never

from meshd.core.document import Fields, Report, plain_problems, shown
from meshd.core.kubernetes import (
    Asked,
    Reading,
    Skip,
    address_label,
    name_of,
    read_service,
    read_slice,
)
from meshd.model.command import Command, ReplaceEndpoints, SetEndpoint, SetService
from meshd.model.endpoint import Endpoint
from meshd.model.errors import Problem, RejectedError
from meshd.model.ids import ClusterName, EndpointKey, ServiceKey, is_dns_label, is_dns_name
from meshd.model.service import Service

API_VERSION = "meshd.io/v1"
API_GROUP = "meshd.io/"

_DOCUMENT_FIELDS = ("apiVersion", "kind", "metadata", "spec")
_METADATA_FIELDS = ("namespace", "name", "labels", "cluster")
_SERVICE_FIELDS = ("ports", "global", "shared", "affinity", "export")
_VALUE_FIELDS = (
    "address",
    "ports",
    "ready",
    "serving",
    "terminating",
    "weight",
    "zone",
    "node",
)


@dataclass(frozen=True, slots=True)
class Accepted:
    """A document that became the command at the same index."""

    where: str
    kind: str
    namespace: str
    name: str


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


def read_manifests(documents: Sequence[tuple[str, object]], cluster: ClusterName) -> Manifests:
    """Read documents, each with its place; raises RejectedError with the problems of all."""
    reader = _Reader(cluster)
    for where, document in documents:
        reader.read(where, document)
    reader.find_twins()
    if reader.problems:
        raise RejectedError(tuple(reader.problems))
    return Manifests(tuple(reader.commands), tuple(reader.accepted), tuple(reader.ignored))


class _Reader:
    """Collects what the documents of one request come to."""

    def __init__(self, cluster: ClusterName) -> None:
        self.commands: list[Asked] = []
        self.accepted: list[Accepted] = []
        self.ignored: list[Ignored] = []
        self.problems: list[Problem] = []
        self._cluster = cluster

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
                document.problem(key, "is missing", "say what this is")
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
            self._ignore(report, document, f"{version} {kind} says nothing that meshd reads")

    def _read_list(self, report: Report, document: Fields) -> None:
        items = document.data.get("items")
        if items is not None and not isinstance(items, list | tuple):
            document.problem("items", f"is not a list, but {shown(items)}", "list the documents")
            return
        for index, item in enumerate(items or ()):
            self._read_plain(f"{report.where} items[{index}]", item)

    def _read_kind(self, report: Report, document: Fields, read: _Read) -> None:
        kind = document.text("kind")
        namespace, name = name_of(document)
        report.subject = f"{kind} {namespace}/{name}"
        reading = read(document, namespace, name, self._cluster)
        if isinstance(reading, Skip):
            self._ignore(report, document, reading.reason)
        elif reading is not None and not report.problems:
            self.commands.append(reading)
            self.accepted.append(Accepted(report.where, kind, namespace, name))

    def _ignore(self, report: Report, document: Fields, reason: str) -> None:
        metadata = document.data.get("metadata")
        names = metadata if isinstance(metadata, Mapping) else {}
        namespace, name = (str(names.get(key) or "") for key in ("namespace", "name"))
        kind = document.text("kind")
        self.ignored.append(Ignored(report.where, kind, namespace, name, reason))

    def find_twins(self) -> None:
        """Two documents about the same thing contradict each other, or one is useless."""
        seen: dict[tuple[str, str], Accepted] = {}
        for command, accepted in zip(self.commands, self.accepted, strict=True):
            for thing in _things(command):
                first = seen.setdefault(thing, accepted)
                if first is not accepted:
                    what = f"the {thing[0]} {thing[1]} is in {first.where} already"
                    place = f"{accepted.where} {accepted.kind} {accepted.namespace}/{accepted.name}"
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
        case _:
            assert_never(command)


_Read = Callable[[Fields, str, str, ClusterName], Reading]


def _read_kubernetes_service(
    document: Fields, namespace: str, name: str, _cluster: ClusterName
) -> Reading:
    return read_service(document, ServiceKey(namespace, name))


def _read_kubernetes_slice(
    document: Fields, namespace: str, name: str, _cluster: ClusterName
) -> Reading:
    return read_slice(document, namespace, name)


def _read_our_service(document: Fields, namespace: str, name: str, cluster: ClusterName) -> Reading:
    spec, labels = _open(document, cluster)
    spec.allow(_SERVICE_FIELDS)
    _check_label(document, "metadata.name", name)
    data = {**_only(spec, _SERVICE_FIELDS), "labels": labels}
    service = spec.value(Service, data, {"labels": "metadata.labels"})
    return SetService(ServiceKey(namespace, name), service) if service is not None else None


def _read_our_endpoint(
    document: Fields, namespace: str, name: str, cluster: ClusterName
) -> Reading:
    spec, labels = _open(document, cluster)
    spec.allow(("service", *_VALUE_FIELDS))
    if name and not is_dns_name(name):
        document.problem("metadata.name", f"{shown(name)} is not a DNS name", "rename it")
    service = spec.text("service")
    _check_label(document, "spec.service", service)
    data = {**_only(spec, _VALUE_FIELDS), "labels": labels}
    endpoint = spec.value(Endpoint, data, {"labels": "metadata.labels"})
    if endpoint is None:
        return None
    return SetEndpoint(EndpointKey(ServiceKey(namespace, service), name), endpoint)


def _read_our_endpoints(
    document: Fields, namespace: str, name: str, cluster: ClusterName
) -> Reading:
    spec, labels = _open(document, cluster)
    spec.allow(("service", "endpoints"))
    if labels:
        document.problem("metadata.labels", "belong to single endpoints", "move them there")
    service = spec.text("service") or name
    _check_label(document, "spec.service" if "service" in spec.data else "metadata.name", service)
    endpoints: dict[str, Endpoint] = {}
    for item in spec.maps("endpoints"):
        item.allow(("name", "labels", *_VALUE_FIELDS))
        endpoint = item.value(Endpoint, _only(item, ("labels", *_VALUE_FIELDS)), {})
        if endpoint is None:
            continue
        own_name = item.text("name") or address_label(endpoint.address)
        if not is_dns_name(own_name):
            item.problem("name", f"{shown(own_name)} is not a DNS name", "rename it")
        elif own_name in endpoints:
            item.problem("name", f"{shown(own_name)} is here twice", "remove or rename one")
        endpoints[own_name] = endpoint
    source = f"Endpoints/{namespace}/{name}"
    return ReplaceEndpoints(ServiceKey(namespace, service), source, endpoints)


def _open(document: Fields, cluster: ClusterName) -> tuple[Fields, Mapping[str, object]]:
    """What our kinds have in common: the spec and the labels."""
    document.allow(_DOCUMENT_FIELDS)
    metadata = document.map("metadata")
    metadata.allow(_METADATA_FIELDS)
    meant = metadata.text("cluster")
    if meant and meant != cluster:
        remedy = f"apply it in {meant}, or correct it"
        metadata.problem("cluster", f"is {shown(meant)}, but this is {cluster}", remedy)
    return document.map("spec"), metadata.map("labels").data


def _check_label(document: Fields, path: str, text: str) -> None:
    if not text:
        document.problem(path, "is missing", "add it")
    elif not is_dns_label(text):
        document.problem(path, f"{shown(text)} is not a DNS label", "correct it")


def _only(fields: Fields, names: Sequence[str]) -> dict[str, object]:
    return {name: value for name, value in fields.data.items() if name in names}


_KINDS: Mapping[tuple[str, str], _Read] = {
    (API_VERSION, "Service"): _read_our_service,
    (API_VERSION, "Endpoint"): _read_our_endpoint,
    (API_VERSION, "Endpoints"): _read_our_endpoints,
    ("v1", "Service"): _read_kubernetes_service,
    ("discovery.k8s.io/v1", "EndpointSlice"): _read_kubernetes_slice,
}
