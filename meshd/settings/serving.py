"""The settings of what others connect to: TLS on it, and the gate for peers.

For: declaring them, as `subjects` does the others. Not for: REST's own settings, nor rules between
values (`rules`). Invariant: unless something is set here, nothing is opened.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from pydantic import Field

from meshd.model.keyspace import DEFAULT_AUDIENCE
from meshd.settings.kinds import Audience, OptionalListen, OptionalPath, User


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerTls:
    """TLS on what we serve."""

    cert_file: OptionalPath = None
    """PEM of the server's certificate chain; together with `key_file`. None: no TLS."""
    key_file: OptionalPath = None
    """PEM of the certificate's key."""
    client_ca_file: OptionalPath = None
    """PEM of who signs clients' certificates. Set: a client without one is turned away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateReader:
    """One peer that may read through the gate."""

    name: User
    """What its `username` says there, or the name (CN) of its client certificate."""
    audience: Audience = DEFAULT_AUDIENCE
    """The export log that it reads; it can read no other."""
    password_file: OptionalPath = None
    """Its password, on the file's first line. None: it is known by its certificate's name. Another
    password, or no file any more, ends what it reads within seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateSettings:
    """A read-only door for peers in front of this cluster's etcd."""

    listen: OptionalListen = None
    """What peers have as `endpoints`, instead of the etcd. None: there is no gate."""
    tls: ServerTls = field(default_factory=ServerTls)
    """Off unless `cert_file` is set; needed beyond loopback, since passwords are sent."""
    readers: Annotated[tuple[GateReader, ...], Field(max_length=512)] = ()
    """Who may read: as many as a mesh has clusters."""
