"""Where each cluster of the demo lives: addresses of its own on this machine's loopback.

For: choosing addresses that nobody uses, and holding them for as long as the demo runs. Not for:
what listens there. Invariant: two demos on one machine never share an address.

On Linux all of 127.0.0.0/8 is this machine. With base 77, east's control plane is at 127.0.77.1
and its endpoints at 127.77.1.x, west's at 127.0.77.2 and 127.77.2.x, and so on: the usual ports
stay the usual ports, as on machines of their own.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from meshd.model.errors import FatalError

ETCD_PORT = 2379
RAFT_PORT = 2380
REST_PORT = 7979
CLAIM_PORT = 7978
"""Bound, and nothing more, while a demo runs: what keeps a second one away."""
SHOP_PORT = 8080

BASES = range(77, 117)
PORT_SHIFTS = (0, 10_000, 20_000)
"""Somebody who listens on 0.0.0.0 takes a port on every base."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where one cluster is. number: 1, 2, 3 …; also its id in the mesh."""

    cluster: str
    number: int
    base: int
    port_shift: int = 0

    @property
    def address(self) -> str:
        """Its control plane's address."""
        return f"127.0.{self.base}.{self.number}"

    def endpoint_address(self, host: int) -> str:
        """The address of an endpoint."""
        return f"127.{self.base}.{self.number}.{host}"

    def port(self, usual: int) -> int:
        """A usual port, as it is here."""
        return usual + self.port_shift

    @property
    def etcd_port(self) -> int:
        """Its etcd's port."""
        return self.port(ETCD_PORT)

    @property
    def etcd(self) -> str:
        """Where its etcd is reached."""
        return f"{self.address}:{self.etcd_port}"

    @property
    def raft(self) -> str:
        """The address that etcd insists on."""
        return f"{self.address}:{self.port(RAFT_PORT)}"

    @property
    def rest(self) -> str:
        """Where its meshd's REST is reached."""
        return f"{self.address}:{self.port(REST_PORT)}"

    @property
    def url(self) -> str:
        """The same as a URL."""
        return f"http://{self.rest}"


@contextmanager
def claim_places(clusters: Sequence[str]) -> Iterator[dict[str, Place]]:
    """Find free addresses for these clusters and keep other demos off them."""
    for shift in PORT_SHIFTS:
        for base in BASES:
            places = {
                cluster: Place(cluster, number, base, shift)
                for number, cluster in enumerate(clusters, start=1)
            }
            with ExitStack() as claims:
                if all(_claim(place, claims) for place in places.values()):
                    yield places
                    return
    raise FatalError(
        f"no free addresses: ports {ETCD_PORT}, {RAFT_PORT}, {REST_PORT}, {SHOP_PORT} are taken on"
        f" every 127.0.{BASES[0]}.x to 127.0.{BASES[-1]}.x; end other demos first"
    )


def _claim(place: Place, claims: ExitStack) -> bool:
    held = claims.enter_context(socket.socket())
    return _binds(held, place.address, place.port(CLAIM_PORT)) and all(
        _is_free(address, place.port(port))
        for address, port in (
            (place.address, ETCD_PORT),
            (place.address, RAFT_PORT),
            (place.address, REST_PORT),
            (place.endpoint_address(11), SHOP_PORT),
        )
    )


def _is_free(address: str, port: int) -> bool:
    with socket.socket() as probe:
        # Connections of an earlier run that linger don't count; who listens does.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return _binds(probe, address, port)


def _binds(holder: socket.socket, address: str, port: int) -> bool:
    try:
        holder.bind((address, port))
    except OSError:
        return False
    return True
