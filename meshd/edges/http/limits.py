"""What one client may cost.

For: every bound of the HTTP edge, with its reason, and where the app keeps what handlers need. Not
for: what a person sets (`settings.ApiSettings`). Invariant: no request waits, reads or writes
without one of these.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from aiohttp import web

from meshd.runtime.node import Node

KIB = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """All times in seconds."""

    subscribers_max: int = 1000
    """Streams at a time; each costs a socket and a buffer."""
    per_client_max: int = 100
    """Of those, to one address: a program that forgets to close its streams takes no other's."""
    feed_bytes: int = 16 * 1024 * KIB
    """Encoded events that are kept for subscribers who are a little behind."""
    heartbeat_every_s: float = 15.0
    """A comment in every stream, so that proxies keep it and a cut is noticed by both sides."""
    head_timeout_s: float = 30.0
    """From a connection's beginning to its first request's head: who sends none, or a byte now and
    then, holds a descriptor for nothing."""
    idle_timeout_s: float = 75.0
    """Between an answer and the next request's head. Longer than a minute, at which many are asked
    again: whose connection is closed just then would have to ask twice."""
    body_timeout_s: float = 30.0
    """A body of 8 MiB at 300 KiB/s; who sends slower occupies us for nothing."""
    read_deadline_s: float = 30.0
    """Reads come from memory; the longest is one of history from an etcd that is slow."""
    write_deadline_s: float = 330.0
    """A little beyond the longest `writer.submit_timeout_s`, which answers before this does."""
    send_timeout_s: float = 30.0
    """How long a client may stand still while something is sent to it."""
    send_bytes_per_s_min: int = 64 * KIB
    """What a large answer adds to that, so that slow links can have large tables."""


HEADER_BYTES_MAX: Final = 64 * KIB
"""One header or request line: a stream's id holds a position of each of 511 clusters."""
HEADERS_MAX: Final = 128

NODE: Final = web.AppKey("NODE", Node)
LIMITS: Final = web.AppKey("LIMITS", Limits)
