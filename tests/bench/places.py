"""Where the benches' processes listen.

For: addresses on loopback that no other run uses. Not for: what listens there. Invariant: they
follow from the process id, as those of the tests do, so that two benches run at once; a child is
told its addresses by its parent and never makes its own.
"""

from __future__ import annotations

import os
from typing import Final

NET: Final = f"127.{1 + (os.getpid() >> 8) % 254}.{os.getpid() & 255}."
ETCD_PORT: Final = 2379
PEER_PORT: Final = 2380
API_PORT: Final = 8480


def etcd_at(number: int) -> str:
    """Give the address of an etcd. number: of its host, 1 to 254."""
    return f"{NET}{number}:{ETCD_PORT}"


def peers_of(address: str) -> str:
    """Give the address where an etcd would speak to other members."""
    return f"{address.rpartition(':')[0]}:{PEER_PORT}"


def api_at(number: int) -> str:
    """Give the address of a server of HTTP."""
    return f"{NET}{number}:{API_PORT}"
