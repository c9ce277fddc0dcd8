"""Which endpoints a cluster probes, where, and which it must not.

For: the own endpoints of services with a probe. Not for: asking them (`runtime.prober`), nor what
the answers come to (`health`). Invariants: what isn't this cluster's own is never asked, so that
whoever may write here can't have its meshd call on others; whatever isn't asked has a reason.

Rules:
- Where the cluster says which ranges it announces, an endpoint outside them is held.
- Loopback, link-local, multicast and the like are held unless the settings allow them, and then
  also outside what is announced: they are this machine's own.
- An address in what another cluster announces is held, unless it is in what this one does, too.
- A result belongs to the probe that it came from: `mark` tells them apart, so that a probe that was
  changed or taken away has none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache
from hashlib import blake2b

from meshd.core.claims import Claims, may_announce
from meshd.core.draft import Draft
from meshd.core.state import ClusterState
from meshd.model.command import RecordProbe
from meshd.model.endpoint import Endpoint
from meshd.model.errors import Problem
from meshd.model.forms import network_of
from meshd.model.ids import ClusterName, EndpointKey, ServiceKey
from meshd.model.probe import Probe, ProbeResult
from meshd.model.schema import to_data
from meshd.model.service import Port, Service, Transport

MARK_BYTES = 4
"""Two probes of one service, one after the other: a chance of one in four billion to be taken for
each other is no worry.
"""
PROBES_REMEMBERED = 4096
"""Of so many services each endpoint's result costs a look-up."""


class HeldReason(StrEnum):
    """Why an endpoint isn't probed."""

    NO_PORT = "no-port"
    NOT_ANNOUNCED = "address-not-announced"
    NOT_REACHABLE = "address-not-reachable"
    OF_ANOTHER = "address-of-another-cluster"


@dataclass(frozen=True, slots=True)
class Aim:
    """An endpoint that is probed, or not. port: 0 where it is held. held: None if it isn't."""

    address: str
    port: int
    probe: Probe
    mark: str
    held: HeldReason | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Ground:
    """Where a cluster's own addresses are. others: by cluster. allows_local: also on loopback and
    the like.
    """

    own: Claims
    others: Mapping[ClusterName, Claims]
    allows_local: bool


def ground_of(
    own: ClusterName, states: Mapping[ClusterName, ClusterState], *, allows_local: bool
) -> Ground:
    """What clusters announce."""
    claims = {
        name: tuple(map(network_of, state.info.value.announces))
        for name, state in states.items()
        if state.info is not None
    }
    mine = claims.pop(own, ())
    return Ground(mine, claims, allows_local)


@lru_cache(maxsize=PROBES_REMEMBERED)
def mark_of(probe: Probe) -> str:
    """What tells a probe from another one of the same service: of what isn't at its default, so
    that a field that a later version knows makes no difference where nobody uses it.
    """
    said = to_data(Service(probe=probe)).get("probe")
    return blake2b(repr(said).encode(), digest_size=MARK_BYTES).hexdigest()


def aims(
    service: Service, endpoints: Iterable[tuple[str, Endpoint]], ground: Ground
) -> Iterator[tuple[str, Aim]]:
    """Where the endpoints of a service are probed, by name."""
    probe = service.probe
    if probe is None:
        return
    mark = mark_of(probe)
    for name, endpoint in endpoints:
        port = _port_of(probe, endpoint.ports or service.ports)
        held = _held(endpoint.address, port, probe, ground)
        if held is None:
            yield name, Aim(endpoint.address, port, probe, mark)
        else:
            yield name, Aim(endpoint.address, 0, probe, mark, *held)


def _port_of(probe: Probe, ports: tuple[Port, ...]) -> int:
    """The number to ask at; 0 if the endpoint has none. A number is asked as it is: whether it is
    well is often told at another port than those that are served.
    """
    if isinstance(probe.port, int):
        return probe.port
    found = (
        port.port
        for port in ports
        if port.protocol is Transport.TCP and probe.port in {"", port.name}
    )
    return next(found, 0)


def _held(address: str, port: int, probe: Probe, ground: Ground) -> tuple[HeldReason, str] | None:
    if not port:
        name = f"port {probe.port!r}" if probe.port else "TCP port"
        return HeldReason.NO_PORT, f"it has no {name}"
    if not may_announce((), address):
        if ground.allows_local:
            return None
        why = f"{address} is no address that others could reach; see health.probe_local"
        return HeldReason.NOT_REACHABLE, why
    if ground.own:
        if may_announce(ground.own, address):
            return None
        return HeldReason.NOT_ANNOUNCED, f"{address} is outside what this cluster announces"
    for cluster, claims in sorted(ground.others.items()):
        if claims and may_announce(claims, address):
            return HeldReason.OF_ANOTHER, f"{address} is in what {cluster} announces"
    return None


def nobodys_port(key: ServiceKey, service: Service, draft: Draft) -> Iterator[Problem]:
    """Why a probe's port makes no sense: neither the service nor any endpoint has it."""
    probe = service.probe
    if probe is None or not isinstance(probe.port, str):
        return
    several = [service.ports, *(endpoint.ports for _, endpoint in draft.endpoints_of(key))]
    if any(_port_of(probe, ports) for ports in several):
        return
    what = f"no endpoint of {key} has a TCP port {probe.port!r}"
    if not probe.port:
        what = f"neither the service nor any endpoint of {key} has a TCP port"
    yield Problem("probe.port", what, "name one of the service's ports, or give a number")


def with_result(known: Endpoint | None, wanted: Endpoint) -> Endpoint:
    """An endpoint as its source says, with what probes found as long as it is the same place."""
    if known is not None and (known.address, known.ports) == (wanted.address, wanted.ports):
        return replace(wanted, probed=known.probed, probed_by=known.probed_by)
    return replace(wanted, probed=ProbeResult.UNKNOWN, probed_by="")


def recorded(
    command: RecordProbe, known: Endpoint | None, service: Service | None
) -> Endpoint | None:
    """The endpoint with a result; None where it came too late: for another probe or place."""
    if known is None or command.address != known.address:
        return None
    probe = service.probe if service is not None else None
    is_clear = command.result is ProbeResult.UNKNOWN
    if not is_clear and (probe is None or mark_of(probe) != command.mark):
        return None
    mark = "" if is_clear else command.mark
    return replace(known, probed=command.result, probed_by=mark)


def outdated(key: ServiceKey, state: ClusterState) -> Iterator[RecordProbe]:
    """The results of a service that are of no probe that it has now, to be cleared."""
    service = state.service(key)
    mark = mark_of(service.probe) if service is not None and service.probe is not None else ""
    for name, held in state.endpoints_of(key).items():
        if held.value.probed_by not in {"", mark}:
            endpoint_key = EndpointKey(key, name)
            yield RecordProbe(endpoint_key, held.value.address, ProbeResult.UNKNOWN)
