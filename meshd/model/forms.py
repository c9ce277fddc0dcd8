"""The forms that the texts, numbers and addresses inside values may have.

For: checks that several kinds of values share, declared once each. Not for: the values themselves
(`service`, `endpoint`, `cluster`, `node`, `identity`, `listed`). Invariant: what came through a
check is in the one spelling that equal things share, so that comparing values compares things.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from functools import lru_cache
from itertools import pairwise
from typing import Annotated

from pydantic import AfterValidator, Field, Strict, StrictInt, StringConstraints

from meshd.model.ids import CLUSTER_NAME_PATTERN, DNS_LABEL_PATTERN, ClusterName

LABELS_MAX = 64
WEIGHT_MAX = 1000
WEIGHT_DEFAULT = 100
"""In the middle of the range, so that one backend can be given more as well as less."""
TURNED_UP = 100
"""Percent: nothing is turned away from it."""
AUDIENCES_MAX = 16
"""Every audience is a log of its own, written in the same transaction as all the others."""
ADDRESSES_CACHED = 65_536
"""Checking an address costs more than all other checks of an endpoint, and endpoints flap."""
PRINTABLE_PATTERN = r"^[^\x00-\x1f\x7f]*$"
PLACE_PATTERN = r"^[A-Za-z0-9._-]*$"
TIME_MS_MAX = 1 << 53
"""The largest integer that JSON's readers agree on."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@lru_cache(maxsize=ADDRESSES_CACHED)
def canonical_address(text: str) -> str:
    """The one spelling of the address of one host; raises ValueError."""
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


@lru_cache(maxsize=ADDRESSES_CACHED)
def network_of(text: str) -> Network:
    """The address range that a text names; raises ValueError."""
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        what = "has host bits set" if "host bits" in str(error) else "is not an address range"
        raise ValueError(f"{what}; write it like 10.1.0.0/16 or fd00:1::/48") from None


def overlap_of(networks: Iterable[Network]) -> tuple[Network, Network] | None:
    """Two of the ranges that have an address in common, or None.

    Sorted, a range is followed at once by what lies in it, since two ranges never cross.
    """
    ordered = sorted(networks, key=lambda network: (network.version, network))
    for one, other in pairwise(ordered):
        if one.version == other.version and one.overlaps(other):
            return one, other
    return None


def _canonical_range(text: str) -> str:
    return str(network_of(text))


def _disjoint(ranges: tuple[str, ...]) -> tuple[str, ...]:
    overlap = overlap_of(map(network_of, ranges))
    if overlap is not None:
        raise ValueError(f"{overlap[0]} and {overlap[1]} overlap; keep one of them")
    return ranges


def _few_labels(labels: Mapping[str, str]) -> Mapping[str, str]:
    if len(labels) > LABELS_MAX:
        raise ValueError(f"more than {LABELS_MAX} labels")
    return labels


def sorted_once(names: tuple[str, ...]) -> tuple[str, ...]:
    """Names whose order means nothing, in one order; raises ValueError for one that is twice."""
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice} is named twice")
    return tuple(sorted(names))


LabelText = Annotated[str, StringConstraints(max_length=253, pattern=PRINTABLE_PATTERN)]
Labels = Annotated[Mapping[LabelText, LabelText], AfterValidator(_few_labels)]
Address = Annotated[str, StringConstraints(max_length=45), AfterValidator(canonical_address)]
AddressRange = Annotated[str, StringConstraints(max_length=64), AfterValidator(_canonical_range)]
AddressRanges = Annotated[
    tuple[AddressRange, ...], Field(max_length=256), AfterValidator(_disjoint)
]
"""Ranges of which none lies in another: which of the two would count?"""
PlaceName = Annotated[str, StringConstraints(max_length=63, pattern=PLACE_PATTERN)]
NodeName = Annotated[str, StringConstraints(max_length=253, pattern=PLACE_PATTERN)]
SourceName = Annotated[str, StringConstraints(max_length=512, pattern=PRINTABLE_PATTERN)]
TimeMs = Annotated[StrictInt, Field(ge=0, le=TIME_MS_MAX)]
Weight = Annotated[StrictInt, Field(ge=0, le=WEIGHT_MAX)]
Percent = Annotated[StrictInt, Field(ge=0, le=100)]
TurnedPercent = Percent
"""How far operations have turned something up: of the traffic that it would take by its weight."""
Seconds = Annotated[float, Strict(), Field(ge=1, le=30 * 86_400)]
ClusterText = Annotated[ClusterName, StringConstraints(pattern=CLUSTER_NAME_PATTERN)]
AudienceName = Annotated[str, StringConstraints(pattern=DNS_LABEL_PATTERN)]
Audiences = Annotated[
    tuple[AudienceName, ...],
    Field(min_length=1, max_length=AUDIENCES_MAX),
    AfterValidator(sorted_once),
]
