"""Whether a peer may say what it says: the addresses of its endpoints, and its own id.

For: one record, or one part of a snapshot, before it is folded. Not for: whose keys they are
(`fold`). Invariant: an address that is let in lies in what the peer may announce, so that no
cluster can draw others' traffic to this machine or to somebody else's network; and no log is let in
that has another cluster's id, since that other would be refused for it at its next link.

Rule for addresses (design, 6, rule 6): with ranges, only those. Without, any address of one host
that others could reach: not loopback, link-local, multicast, unspecified or reserved.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from functools import lru_cache

from meshd.core.state import ClusterState
from meshd.model.event import Event, EventType
from meshd.model.ids import ClusterName

Range = ipaddress.IPv4Network | ipaddress.IPv6Network
Claims = tuple[Range, ...]
"""The ranges that a peer may announce; () for any that others could reach."""

ADDRESSES_CACHED = 100_000
"""A flapping endpoint keeps its address: so the cost of a check is that of a look-up."""


@lru_cache(maxsize=ADDRESSES_CACHED)
def may_announce(claims: Claims, address: str) -> bool:
    """Whether an address is one that a peer with these claims may announce."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        # Not an address at all: the fold says so, with the field.
        return True
    if claims:
        return any(found.version == one.version and found in one for one in claims)
    return not (
        found.is_loopback
        or found.is_link_local
        or found.is_multicast
        or found.is_unspecified
        or found.is_reserved
    )


def trespass(claims: Claims, events: Iterable[Event]) -> str:
    """What a peer says that it may not; '' if it may say all of it."""
    for event in events:
        if event.type == EventType.ENDPOINT_SET and event.data is not None:
            address = event.data.get("address")
            if isinstance(address, str) and not may_announce(claims, address):
                return _reason(event.key, address)
    return ""


def stolen_id(
    cluster: ClusterName, events: Iterable[Event], taken: Callable[[], frozenset[int]]
) -> str:
    """Why a log may not say the id that it says its cluster has, since another one has it; ''
    if it may.

    taken: the ids of all others; asked for only if an id is said, which is seldom. Who speaks for
    another cluster altogether is told so by the fold.
    """
    for event in events:
        if event.type == EventType.CLUSTER_SET and event.data and event.key == cluster:
            number = event.data.get("id")
            is_own = event.data.get("name") == cluster
            if is_own and isinstance(number, int) and number in taken():
                return id_taken(number)
    return ""


def trespass_in(claims: Claims, state: ClusterState) -> str:
    """The same of all that a peer has said so far."""
    for key, endpoints in state.endpoints.items():
        for name, held in endpoints.items():
            if not may_announce(claims, held.value.address):
                return _reason(f"{key}/{name}", held.value.address)
    return ""


def id_taken(number: int) -> str:
    """Why a cluster with this id is not let in."""
    return f"cluster id {number} is already another cluster's; give each its own"


def _reason(key: str, address: str) -> str:
    return (
        f"endpoint {key} has address {address}, which this peer may not announce; see the peer's"
        " `announces`"
    )
