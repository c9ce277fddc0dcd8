"""How a cluster looks whether a service's endpoints are well, and what it found.

For: what a service says of its probe. Not for: what becomes of the answers (`core.health`), nor who
may be probed (`core.probing`). Invariant: a probe ends before the next one of its endpoint begins.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, Field, Strict, StrictInt, StringConstraints

from meshd.model.ids import DNS_LABEL_PATTERN

PROBE_INTERVAL_S_MIN = 1
"""Oftener would be a load, and is what a client's own retries are for."""
PROBE_INTERVAL_S_MAX = 3600
PROBE_TIMEOUT_S_MIN = 0.1
IN_A_ROW_MAX = 100
PATH_PATTERN = r"^/[!-~]{0,1023}$"
HOST_PATTERN = r"^[A-Za-z0-9._:\[\]-]{0,255}$"
GRPC_SERVICE_PATTERN = r"^[A-Za-z0-9._/-]{0,255}$"
MARK_PATTERN = r"^([0-9a-f]{8})?$"
STATUS_MIN = 100
STATUS_MAX = 599


class ProbeType(StrEnum):
    """What is asked. tcp: takes a connection. http: answers a GET with an expected status. grpc:
    says SERVING by grpc.health.v1.
    """

    TCP = "tcp"
    HTTP = "http"
    GRPC = "grpc"


class ProbeResult(StrEnum):
    """What the probes of an endpoint come to. unknown: as its source says. flapping: it came back
    so often that it is held out until it stays.
    """

    UNKNOWN = "unknown"
    PASSING = "passing"
    FAILING = "failing"
    FLAPPING = "flapping"


PortNumber = Annotated[int, Strict(), Field(ge=1, le=65535)]
PortText = Annotated[str, StringConstraints(pattern=rf"^$|{DNS_LABEL_PATTERN}")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """How this cluster looks after its own endpoints of a service.

    port: a number, or the name of one of the endpoint's ports; empty for the first TCP one. path,
    host, status_min, status_max: of HTTP. service: what gRPC is asked for; empty for the server.
    rise, fall: answers in a row that make it passing or failing.
    """

    type: ProbeType = ProbeType.TCP
    port: PortNumber | PortText = ""
    path: Annotated[str, StringConstraints(pattern=PATH_PATTERN)] = "/"
    host: Annotated[str, StringConstraints(pattern=HOST_PATTERN)] = ""
    status_min: Annotated[StrictInt, Field(ge=STATUS_MIN, le=STATUS_MAX)] = 200
    status_max: Annotated[StrictInt, Field(ge=STATUS_MIN, le=STATUS_MAX)] = 399
    service: Annotated[str, StringConstraints(pattern=GRPC_SERVICE_PATTERN)] = ""
    interval_s: Annotated[
        float, Strict(), Field(ge=PROBE_INTERVAL_S_MIN, le=PROBE_INTERVAL_S_MAX)
    ] = 10.0
    timeout_s: Annotated[
        float, Strict(), Field(ge=PROBE_TIMEOUT_S_MIN, le=PROBE_INTERVAL_S_MAX)
    ] = 2.0
    rise: Annotated[StrictInt, Field(ge=1, le=IN_A_ROW_MAX)] = 2
    fall: Annotated[StrictInt, Field(ge=1, le=IN_A_ROW_MAX)] = 3


def _sound(probe: Probe | None) -> Probe | None:
    if probe is not None and probe.timeout_s >= probe.interval_s:
        raise ValueError(
            f"timeout_s ({probe.timeout_s:g}) must be less than interval_s ({probe.interval_s:g})"
        )
    if probe is not None and probe.status_min > probe.status_max:
        raise ValueError(f"status_min ({probe.status_min}) is above status_max")
    return probe


SoundProbe = Annotated[Probe | None, AfterValidator(_sound)]
"""One that can be run; None for none."""
