"""What a cluster says of one of its nodes.

For: the value of `node.set`, which data planes of other clusters need to reach pods. Not for: whose
ranges overlap (`core.overlaps`). Invariant: a node belongs to one cluster; its name is the event's
key.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

from meshd.model.errors import Problem, RejectedError
from meshd.model.forms import (
    PRINTABLE_PATTERN,
    Address,
    AddressRanges,
    Audiences,
    Labels,
    PlaceName,
    SourceName,
    canonical_address,
)
from meshd.model.ids import is_dns_name
from meshd.model.keyspace import DEFAULT_AUDIENCE

ADDRESSES_MAX = 16
PORT_MAX = 65_535

_WITH_PORT = re.compile(r"(?:\[(?P<v6>[^\]]*)\]|(?P<v4>[^:]*)):(?P<port>[0-9]{1,5})\Z")


def _canonical_tunnel(text: str) -> str:
    """`address:port`, with an IPv6 address in brackets; '' for none."""
    if not text:
        return text
    match = _WITH_PORT.match(text)
    if match is None or not 0 < int(match["port"]) <= PORT_MAX:
        raise ValueError("is not address:port, like 10.0.0.1:51820 or [fd00::1]:51820")
    address = canonical_address(match["v6"] if match["v4"] is None else match["v4"])
    return f"[{address}]:{match['port']}" if ":" in address else f"{address}:{match['port']}"


def _each_once(addresses: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(addresses)) != len(addresses):
        raise ValueError("two addresses are the same")
    return addresses


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One node of a cluster.

    addresses: of the node itself, the preferred one first. pod_cidrs: where the addresses of its
    pods lie. tunnel_endpoint: `address:port` where others send what is encapsulated or encrypted
    for it. public_key: for that, as its data plane writes it (WireGuard: 44 characters of base64).
    audiences: who may know of it. source: the manifest that owns it.
    """

    addresses: Annotated[
        tuple[Address, ...],
        Field(min_length=1, max_length=ADDRESSES_MAX),
        AfterValidator(_each_once),
    ]
    pod_cidrs: AddressRanges = ()
    tunnel_endpoint: Annotated[
        str, StringConstraints(max_length=64), AfterValidator(_canonical_tunnel)
    ] = ""
    public_key: Annotated[str, StringConstraints(max_length=512, pattern=PRINTABLE_PATTERN)] = ""
    region: PlaceName = ""
    zone: PlaceName = ""
    labels: Labels = field(default_factory=dict)
    audiences: Audiences = (DEFAULT_AUDIENCE,)
    source: SourceName = ""


def parse_node_name(text: str) -> str:
    """Read a node's name; raises RejectedError if it isn't a DNS name."""
    if not is_dns_name(text):
        what = f"{text!r} is not a node's name"
        remedy = "use a DNS name: a-z, 0-9, '-' and '.' inside, at most 253 characters"
        raise RejectedError((Problem("node", what, remedy),))
    return text
