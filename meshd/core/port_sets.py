"""Sets of ports, by protocol.

For: what rules allow, added up and compared. Not for: services' ports (`model.service`).
Invariants: equal sets are equal values; a set is as large as its ranges, not as its ports.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshd.model.policy import RulePort
from meshd.model.service import Transport

PORT_MAX = 65_535

PortRange = tuple[Transport, int, int]
PortSet = tuple[PortRange, ...]
"""Ranges, sorted, apart from each other."""
NO_PORTS: PortSet = ()
ALL_PORTS: PortSet = tuple(sorted((protocol, 1, PORT_MAX) for protocol in Transport))


def port_set(ranges: Iterable[PortRange]) -> PortSet:
    """A set of any ranges: those that touch are one."""
    found: list[PortRange] = []
    for protocol, first, last in sorted(ranges):
        if found and found[-1][0] == protocol and first <= found[-1][2] + 1:
            found[-1] = (protocol, found[-1][1], max(last, found[-1][2]))
        else:
            found.append((protocol, first, last))
    return tuple(found)


def intersection(one: PortSet, other: PortSet) -> PortSet:
    """The ports that are in both."""
    if one == ALL_PORTS:
        return other
    if other == ALL_PORTS:
        return one
    return port_set(
        (protocol, max(first, least), min(last, most))
        for protocol, first, last in one
        for of, least, most in other
        if of == protocol and max(first, least) <= min(last, most)
    )


def has_port(ports: PortSet, protocol: Transport, number: int) -> bool:
    """Whether a port is in a set."""
    return any(of == protocol and first <= number <= last for of, first, last in ports)


def numbered(port: RulePort) -> PortRange:
    """What a port of a rule may be: of one that is named, any of its protocol."""
    if port.port is None:
        return port.protocol, 1, PORT_MAX
    return port.protocol, port.port, port.end_port or port.port


def ports_shown(ports: PortSet) -> list[str]:
    """A set as texts: `TCP/80`, `TCP/8000-8080`, `UDP` for all of a protocol, `all` for all."""
    if ports == ALL_PORTS:
        return ["all"]
    return [_shown(*one) for one in ports]


def _shown(protocol: Transport, first: int, last: int) -> str:
    if (first, last) == (1, PORT_MAX):
        return str(protocol)
    return f"{protocol}/{first}" if first == last else f"{protocol}/{first}-{last}"
