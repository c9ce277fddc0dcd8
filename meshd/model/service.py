"""What a cluster says of its services, endpoints and itself: the values inside events.

For: the values and their limits, declared once; `schema` turns the declarations into checks for
REST, files and peers' records alike. Not for: names (`ids`), nor what clusters together make of the
values (`table`). Invariant: a value never holds its own name; the event's key does.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import Annotated

from pydantic import AfterValidator, Field, StrictBool, StrictInt, StringConstraints

from meshd.model.ids import CLUSTER_ID_MAX, CLUSTER_NAME_PATTERN, DNS_LABEL_PATTERN

LABELS_MAX = 64
PORTS_MAX = 64
WEIGHT_MAX = 1000
WEIGHT_DEFAULT = 100
"""In the middle of the range, so that one backend can be given more as well as less."""
ADDRESSES_CACHED = 65_536
"""Checking an address costs more than all other checks of an endpoint, and endpoints flap."""
PRINTABLE_PATTERN = r"^[^\x00-\x1f\x7f]*$"
PLACE_PATTERN = r"^[A-Za-z0-9._-]*$"
TIME_MS_MAX = 1 << 53
"""The largest integer that JSON's readers agree on."""


class Affinity(StrEnum):
    """Whose backends come first, seen from the cluster that says it."""

    NONE = "none"
    LOCAL = "local"
    REMOTE = "remote"


class Transport(StrEnum):
    """A port's transport protocol, spelled as Kubernetes does."""

    TCP = "TCP"
    UDP = "UDP"
    SCTP = "SCTP"


@lru_cache(maxsize=ADDRESSES_CACHED)
def _canonical_address(text: str) -> str:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise ValueError("is not an IPv4 or IPv6 address") from None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        # One host, one spelling: Pythons write mapped addresses differently.
        address = address.ipv4_mapped
    if address.is_unspecified or address.is_multicast or "%" in text:
        raise ValueError("is not the address of one host")
    return str(address)


def _unique_ports(ports: tuple[Port, ...]) -> tuple[Port, ...]:
    if len({port.name for port in ports}) != len(ports):
        raise ValueError("two ports have the same name")
    return ports


def _few_labels(labels: Mapping[str, str]) -> Mapping[str, str]:
    if len(labels) > LABELS_MAX:
        raise ValueError(f"more than {LABELS_MAX} labels")
    return labels


LabelText = Annotated[str, StringConstraints(max_length=253, pattern=PRINTABLE_PATTERN)]
Labels = Annotated[Mapping[LabelText, LabelText], AfterValidator(_few_labels)]
Address = Annotated[str, StringConstraints(max_length=45), AfterValidator(_canonical_address)]
PlaceName = Annotated[str, StringConstraints(max_length=63, pattern=PLACE_PATTERN)]
NodeName = Annotated[str, StringConstraints(max_length=253, pattern=PLACE_PATTERN)]
SourceName = Annotated[str, StringConstraints(max_length=512, pattern=PRINTABLE_PATTERN)]
TimeMs = Annotated[StrictInt, Field(ge=0, le=TIME_MS_MAX)]


@dataclass(frozen=True, slots=True)
class Port:
    """One port. name: '' or a DNS label, unique among its neighbours; joins a service's ports to
    its endpoints'. app_protocol: as in Kubernetes (`http`, `grpc`, `kubernetes.io/h2c`, …).
    """

    port: Annotated[StrictInt, Field(ge=1, le=65535)]
    name: Annotated[str, StringConstraints(pattern=rf"^$|{DNS_LABEL_PATTERN}")] = ""
    protocol: Transport = Transport.TCP
    app_protocol: Annotated[str, StringConstraints(max_length=128, pattern=r"^[!-~]*$")] = ""


Ports = Annotated[tuple[Port, ...], Field(max_length=PORTS_MAX), AfterValidator(_unique_ports)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One cluster's definition of a service.

    is_global (`global`): one service with those of the same name in other clusters.
    is_shared (`shared`): its endpoints are offered to others; None means 'as global'.
    created_ms: when this cluster first defined it; the oldest definition wins a conflict.
    """

    ports: Ports = ()
    is_global: Annotated[StrictBool, Field(alias="global")] = False
    is_shared: Annotated[StrictBool | None, Field(alias="shared")] = None
    affinity: Affinity = Affinity.NONE
    labels: Labels = field(default_factory=dict)
    source: SourceName = ""
    created_ms: TimeMs = 0

    @property
    def is_offered(self) -> bool:
        """Whether peers may know of it and use its endpoints."""
        return self.is_global and self.is_shared is not False


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One address that serves a service.

    ports: where it listens, joined to the service's by name; empty means the service's own.
    ready, serving, terminating: EndpointSlice's conditions; serving None means 'as ready'.
    weight: its share of its tier's traffic relative to the others'; 0 takes none.
    source: the manifest that owns it, so that applying that manifest again can remove it.
    """

    address: Address
    ports: Ports = ()
    ready: StrictBool = True
    serving: StrictBool | None = None
    terminating: StrictBool = False
    zone: PlaceName = ""
    node: NodeName = ""
    weight: Annotated[StrictInt, Field(ge=0, le=WEIGHT_MAX)] = WEIGHT_DEFAULT
    labels: Labels = field(default_factory=dict)
    source: SourceName = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterInfo:
    """What a cluster says of itself. The name is the event's key as well: a peer's log must not
    speak for another cluster.
    """

    name: Annotated[str, StringConstraints(pattern=CLUSTER_NAME_PATTERN)]
    id: Annotated[StrictInt, Field(ge=1, le=CLUSTER_ID_MAX)]
    region: PlaceName = ""
    zone: PlaceName = ""
    labels: Labels = field(default_factory=dict)
