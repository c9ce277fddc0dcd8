"""Digests: how two clusters see that they derived the same, without sending it.

For: the digest of one backend and of one definition, and adding them up. Not for: proof against
somebody who forges endpoints on purpose: a sum is easy to keep up to date and hard to hit by
accident, no more. Invariants: the digest of a table is a function of the logs alone, so it leaves
out standings, origins (a peer reads the export log, whose seqs differ) and messages for people; it
doesn't depend on any order.

Layout: BLAKE2b-128 over a msgpack array, read as a big-endian number; a service's digest is the
sum of its definition's and its backends', a table's is the sum of its services', modulo 2^128.
- definition: [0, "namespace/name", affinity, ports, clusters, [[condition, cluster], …], headless,
  session affinity, its time-out in s, exposure, spill: [below %, amount, split], labels: [[name,
  value], …] sorted by name]
- backend: [1, "namespace/name", cluster, name, address, ports, priority, weight, region, zone,
  node, serving, reason or ""]
- ports: [[name, port, protocol, app protocol], …], sorted by name
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final, NewType

import msgpack

from meshd.core.merge import Definition, ports_by_name
from meshd.model.forms import TURNED_UP
from meshd.model.ids import ServiceKey
from meshd.model.service import Port
from meshd.model.table import Backend

Digest = NewType("Digest", int)
"""A number below 2^128. They are added up with `plus` and `minus`."""

DIGEST_BYTES: Final = 16
DIGEST_ZERO: Final = Digest(0)
"""The digest of nothing."""

_DEFINITION: Final = 0
_BACKEND: Final = 1
_MASK: Final = (1 << 8 * DIGEST_BYTES) - 1


def digest_of_backend(key: ServiceKey, backend: Backend) -> Digest:
    """The digest of a backend, which must be without the overlay of a standing."""
    return _hash(
        [
            _BACKEND,
            str(key),
            backend.cluster,
            backend.name,
            backend.address,
            _plain_ports(backend.ports),
            backend.priority,
            _plain_weight(backend.weight),
            backend.region,
            backend.zone,
            backend.node,
            backend.serving,
            backend.reason or "",
        ]
    )


def digest_of_definition(key: ServiceKey, definition: Definition) -> Digest:
    """The digest of what is common to a service's backends."""
    spill = definition.spill
    return _hash(
        [
            _DEFINITION,
            str(key),
            definition.affinity,
            _plain_ports(definition.ports),
            definition.clusters,
            [[condition.type, condition.cluster] for condition in definition.conditions],
            definition.headless,
            definition.session_affinity,
            definition.session_timeout_s,
            definition.exposure,
            [spill.below_percent, spill.amount, spill.split],
            sorted(definition.labels.items()),
        ]
    )


def plus(one: Digest, other: Digest) -> Digest:
    """The digest of both together."""
    return Digest((one + other) & _MASK)


def minus(whole: Digest, part: Digest) -> Digest:
    """The digest of what is left when a part is taken out."""
    return Digest((whole - part) & _MASK)


def digest_hex(digest: Digest) -> str:
    """A digest as 32 hexadecimal digits, as it is shown and published."""
    return f"{digest:0{2 * DIGEST_BYTES}x}"


def _plain_weight(weight: int) -> int | list[int]:
    """Where nothing is turned down, in the unit that weights had before anything could be: versions
    that know of no turning come to the same digest then.
    """
    whole, rest = divmod(weight, TURNED_UP**3)
    return [weight] if rest else whole


def _plain_ports(ports: tuple[Port, ...]) -> list[list[str | int]]:
    return [
        [port.name, port.port, port.protocol, port.app_protocol] for port in ports_by_name(ports)
    ]


def _hash(fields: list[object]) -> Digest:
    raw = blake2b(msgpack.packb(fields), digest_size=DIGEST_BYTES).digest()
    return Digest(int.from_bytes(raw, "big"))
