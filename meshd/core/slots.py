"""A table of slots for consistent hashing: Maglev, as one view of a global service.

For: data planes that pick a backend by a hash of the connection. Not for: sharing traffic itself;
the slots follow the shares of tiers and the weights within them. Invariants: the slots are a
function of the backends' names and shares alone, so any two clusters and any two runs make the
same; when one backend goes, nearly all slots of the others stay (`tests/core/test_slots.py` holds
the bound).

Source: Eisenbud et al., Maglev (NSDI 2016), section 3.4; weights as Envoy has them: a backend takes
its turn once it has fallen a whole turn behind the heaviest one.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from heapq import heapify, heapreplace
from typing import TYPE_CHECKING, Final

from meshd.model.errors import Problem, RejectedError

if TYPE_CHECKING:
    # The command line asks only for the sizes, and shouldn't wait for all of the model.
    from meshd.model.table import Backend, GlobalService

SLOTS_SIZES: Final = (251, 509, 1021, 2039, 4093, 8191, 16381, 32749, 65521)
"""Primes just below powers of two, so that every step reaches every slot. A hundred slots for each
backend keep shares within about a percent."""
SLOTS_DEFAULT: Final = 1021

_FINE: Final = 1 << 20
"""Shares of a tier are divided further in integers, so that every machine divides alike."""
_FREE: Final = -1


def check_size(size: int) -> int:
    """The size, if it is one of SLOTS_SIZES; raises RejectedError."""
    if size not in SLOTS_SIZES:
        sizes = ", ".join(map(str, SLOTS_SIZES))
        raise RejectedError((Problem("size", f"{size} is no size of a table", f"use {sizes}"),))
    return size


def slots_of(service: GlobalService, size: int) -> tuple[tuple[Backend, ...], tuple[int, ...]]:
    """The backends that have slots, sorted by cluster and name, and for each slot which of them.

    No slots if nothing takes traffic. Raises RejectedError for a size that isn't one.
    """
    check_size(size)
    tiers = {tier.priority: tier for tier in service.tiers}
    shares = {}
    for backend in service.eligible:
        tier = tiers[backend.priority]
        share = tier.share_ppm * backend.weight * _FINE // tier.weight
        if share:
            shares[backend.cluster, backend.name] = backend, share
    chosen = [shares[name] for name in sorted(shares)]
    backends = tuple(backend for backend, _ in chosen)
    return backends, tuple(_fill(backends, [share for _, share in chosen], size))


def _fill(backends: Sequence[Backend], shares: Sequence[int], size: int) -> Sequence[int]:
    """Let each backend in turn take the first free slot of its own permutation."""
    if not backends:
        return ()
    walks = [_permutation(backend, size) for backend in backends]
    slots = [_FREE] * size
    heaviest = max(shares)
    # Whose turn is next: the heaviest takes one in every round, the others when they have fallen a
    # whole turn behind it. Rounds in which a light one has no turn cost nothing.
    turns = [(_round(1, share, heaviest), number, 1) for number, share in enumerate(shares)]
    heapify(turns)
    for _ in range(size):
        _, number, turn = turns[0]
        at, step = walks[number]
        while slots[at] != _FREE:
            at = (at + step) % size
        slots[at] = number
        walks[number] = (at + step) % size, step
        heapreplace(turns, (_round(turn + 1, shares[number], heaviest), number, turn + 1))
    return slots


def _round(turn: int, share: int, heaviest: int) -> int:
    """In which round a backend has so many turns behind it."""
    return -(-turn * heaviest // share)


def _permutation(backend: Backend, size: int) -> tuple[int, int]:
    """Where a backend begins, and by which step it goes on: every slot once, as `size` is prime."""
    name = f"{backend.cluster}/{backend.name}".encode()
    raw = blake2b(name, digest_size=16).digest()
    offset, skip = int.from_bytes(raw[:8], "big"), int.from_bytes(raw[8:], "big")
    return offset % size, skip % (size - 1) + 1
