"""Whether a peer may say what it says: addresses of its endpoints and nodes, its id, its numbers.

For: one record, or one part of a snapshot, before it is folded. Not for: whose keys they are
(`fold`). Invariant: an address that is let in lies in what the peer may announce, so that no
cluster can draw others' traffic to this machine or to somebody else's network; and no log is let in
that has another cluster's id, since that other would be refused for it at its next link, or gives
out another cluster's numbers, since policies go by them.

Rules (design, 6, rule 6):
- Addresses: with ranges, only those. Without, any address of one host that others could reach: not
  loopback, link-local, multicast, unspecified or reserved.
- A range of pods' addresses lies in one of the ranges; without any, it holds none of the same.
- A number is made of the id that its cluster has said, or of one that no other is known to have.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from functools import lru_cache

from meshd.core.state import ClusterState
from meshd.model.errors import RejectedError
from meshd.model.event import Event, EventType
from meshd.model.forms import network_of
from meshd.model.identity import cluster_id_of, parse_identity
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


_UNREACHABLE: Claims = tuple(
    map(
        ipaddress.ip_network,
        (
            *("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3"),
            *("::/127", "fe80::/10", "ff00::/8"),
        ),
    )
)
"""Where no address is that others could reach: unspecified, loopback, link-local, multicast,
reserved.
"""


@lru_cache(maxsize=ADDRESSES_CACHED)
def may_announce_range(claims: Claims, text: str) -> bool:
    """Whether a range of addresses is one that a peer with these claims may announce."""
    try:
        found = network_of(text)
    except ValueError:
        return True
    if claims:
        # Two ranges never cross: the one with the longer prefix lies in the other.
        return any(
            found.prefixlen >= one.prefixlen and found.overlaps(one)
            for one in claims
            if found.version == one.version
        )
    return not any(found.version == one.version and found.overlaps(one) for one in _UNREACHABLE)


def trespass(claims: Claims, events: Iterable[Event]) -> str:
    """What a peer says that it may not; '' if it may say all of it."""
    for event in events:
        if event.type == EventType.ENDPOINT_SET and event.data is not None:
            address = event.data.get("address")
            if isinstance(address, str) and not may_announce(claims, address):
                return _reason(f"endpoint {event.key}", address)
        elif event.type == EventType.NODE_SET and event.data is not None:
            stray = _stray(claims, *map(event.data.get, ("addresses", "pod_cidrs")))
            stray = stray or _stray_tunnel(claims, event.data.get("tunnel_endpoint"))
            if stray:
                return _reason(f"node {event.key}", stray)
    return ""


def _stray(claims: Claims, addresses: object, ranges: object) -> str:
    """An address or a range of a node that a peer may not announce; '' if it may all of them."""
    for texts, may in ((addresses, may_announce), (ranges, may_announce_range)):
        # What is no list of texts is for the fold to refuse.
        for text in texts if isinstance(texts, list | tuple) else ():
            if isinstance(text, str) and not may(claims, text):
                return text
    return ""


def _stray_tunnel(claims: Claims, tunnel: object) -> str:
    address = tunnel.rpartition(":")[0].strip("[]") if isinstance(tunnel, str) else ""
    return address if address and not may_announce(claims, address) else ""


def stolen_number(
    said_id: int | None, events: Iterable[Event], taken: Callable[[], frozenset[int]]
) -> str:
    """Which identity's number isn't this cluster's own; '' if all are.

    said_id: what the cluster said its id to be, as far as it is folded. taken: the ids of others.
    """
    for event in events:
        if event.type == EventType.CLUSTER_SET and event.data:
            said = event.data.get("id")
            said_id = said if isinstance(said, int) else said_id
        elif event.type == EventType.IDENTITY_SET:
            try:
                number = parse_identity(event.key)
            except RejectedError:
                # The fold names it.
                continue
            owner = cluster_id_of(number)
            if owner != said_id if said_id is not None else owner in taken():
                return _not_its_own(number)
    return ""


def stolen_number_in(state: ClusterState) -> str:
    """The same of a whole state, however its events were ordered."""
    if state.info is None:
        return ""
    own = state.info.value.id
    return next(
        (_not_its_own(number) for number in state.identities if cluster_id_of(number) != own), ""
    )


def _not_its_own(number: int) -> str:
    return (
        f"identity {number} has a number of cluster id {cluster_id_of(number)}, which is not this"
        " cluster's; its owner can remove it"
    )


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
                return _reason(f"endpoint {key}/{name}", held.value.address)
    for name, node in state.nodes.items():
        stray = _stray(claims, node.value.addresses, node.value.pod_cidrs)
        stray = stray or _stray_tunnel(claims, node.value.tunnel_endpoint)
        if stray:
            return _reason(f"node {name}", stray)
    return ""


def id_taken(number: int) -> str:
    """Why a cluster with this id is not let in."""
    return f"cluster id {number} is already another cluster's; give each its own"


def _reason(thing: str, address: str) -> str:
    return (
        f"{thing} has address {address}, which this peer may not announce; see the peer's"
        " `announces`"
    )
