"""Registrations: endpoints that are there only as long as somebody goes on saying so.

For: the value of a registration's key, what is sent to make one, and their limits. Not for: the
lease behind the key (`runtime.registrations`) nor the endpoint's own value (`endpoint`). Invariant:
the time to live is whole seconds that etcd keeps as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import orjson
from pydantic import Field, StrictInt, StringConstraints

from meshd.model.control import control_object, is_count
from meshd.model.endpoint import Endpoint
from meshd.model.errors import CorruptError, shown

REGISTRATION_SOURCE = "meshd.io/registration"
"""The source of every registered endpoint, and of no other."""
TTL_S_MIN = 2
"""etcd makes shorter leases longer: one and a half times the time that an election takes it."""
TTL_S_MAX = 86_400
"""What should outlast a day of silence is no registration but an endpoint."""
TTL_S_DEFAULT = 30
"""A renewal each ten seconds, and two of them may be lost."""
RENEWALS_MAX = 1000
"""Renewed by one request: etcd takes them in a tenth of a second."""
HOLDER_PATTERN = r"^[!-~]{0,128}$"


@dataclass(frozen=True, slots=True, kw_only=True)
class Registering:
    """What is sent to register an endpoint.

    ttl_s: how long it stays without being renewed. holder: who registers it; another one is refused
    while it lives.
    """

    endpoint: Endpoint
    ttl_s: Annotated[StrictInt, Field(ge=TTL_S_MIN, le=TTL_S_MAX)] = TTL_S_DEFAULT
    holder: Annotated[str, StringConstraints(pattern=HOLDER_PATTERN)] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewing:
    """What is sent to renew several. names: like `shop/web/a`. holder: only those of this one."""

    names: Annotated[tuple[str, ...], Field(max_length=RENEWALS_MAX)]
    holder: Annotated[str, StringConstraints(pattern=HOLDER_PATTERN)] | None = None


@dataclass(frozen=True, slots=True)
class Registration:
    """What a registration's key holds. since_ms: wall clock, when this holder registered it."""

    ttl_s: int
    holder: str
    actor: str
    since_ms: int

    def encode(self) -> bytes:
        """As JSON, for a person with etcdctl."""
        return orjson.dumps(
            {
                "ttl_s": self.ttl_s,
                "holder": self.holder,
                "actor": self.actor,
                "since_ms": self.since_ms,
            }
        )

    @staticmethod
    def decode(raw: bytes, where: str) -> Registration:
        """Read a registration; raises CorruptError."""
        fields = control_object(raw, where)
        ttl_s, since_ms = fields.get("ttl_s"), fields.get("since_ms")
        holder, actor = fields.get("holder"), fields.get("actor")
        if not is_count(ttl_s) or not is_count(since_ms):
            raise CorruptError(where, f"{shown(ttl_s)} or {shown(since_ms)} is not a time")
        if not isinstance(holder, str) or not isinstance(actor, str):
            raise CorruptError(where, f"{shown(holder)} or {shown(actor)} is not a text")
        return Registration(ttl_s, holder, actor, since_ms)
