"""Registrations through a client, and keeping one while something runs.

For: registering an endpoint with a time to live at whichever meshd of a cluster answers. Not for:
what it is kept for (`cli.registering`). Invariants: what was refused for good is not tried again;
everything else is, until it is ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict, cast
from urllib.parse import urlencode

import orjson

from meshd.client.answers import WriteResult
from meshd.client.calls import Calls, path_of
from meshd.client.errors import ClientError

if TYPE_CHECKING:
    from meshd.client.client import Client

CONFLICT = 409
NOT_FOUND = 404
PARTS_OF_TTL = 3
"""So many renewals in each time to live: two may be lost."""
AGAIN_S = 0.5
"""How soon the next meshd is tried, or the same one again."""


class RegistrationItem(TypedDict):
    """A registration that is alive. left_s: None in a long list."""

    namespace: str
    service: str
    name: str
    ttl_s: int
    left_s: float | None
    holder: str
    actor: str
    since: str


class Renewed(TypedDict):
    """What became of renewing. gone: register these anew."""

    renewed: int
    gone: list[str]


class ProbeItem(TypedDict):
    """An endpoint and its probes. None: only the meshd that probes knows."""

    namespace: str
    service: str
    name: str
    address: str
    type: str
    result: str
    port: int | None
    since: str | None
    asked: int | None
    failed: int | None
    good_in_a_row: int | None
    bad_in_a_row: int | None
    last_error: str | None
    held: str | None
    why: str


class Probes(TypedDict):
    """All of them. prober: the asked meshd is the one that probes. left_out: beyond its limit."""

    prober: bool
    left_out: int
    items: list[ProbeItem]


class Registrations(Calls):
    """What a client can do with registrations, and see of probes."""

    async def probes(self, namespace: str = "", service: str = "") -> Probes:
        """The endpoints of services with a probe, and what their probes come to."""
        found = await self._get("/v1/probes", namespace=namespace, service=service)
        return cast("Probes", found)

    async def registrations(self, namespace: str = "", service: str = "") -> list[RegistrationItem]:
        """The cluster's registrations that are alive."""
        found = await self._items("/v1/registrations", namespace=namespace, service=service)
        return cast("list[RegistrationItem]", found)

    async def register(
        self, namespace: str, service: str, name: str, value: Mapping[str, object]
    ) -> WriteResult:
        """Register an endpoint: {endpoint, ttl_s, holder}."""
        path = path_of("registrations", namespace, service, name)
        return cast("WriteResult", await self._write("PUT", path, orjson.dumps(value), ""))

    async def renew(self, names: Sequence[str], *, holder: str | None = None) -> Renewed:
        """Renew several, each like `shop/web/a`."""
        body = orjson.dumps({"names": list(names), "holder": holder})
        return cast("Renewed", await self._write("POST", "/v1/registrations/renew", body, ""))

    async def deregister(
        self, namespace: str, service: str, name: str, *, holder: str = ""
    ) -> WriteResult:
        """Remove a registration with its endpoint."""
        path = path_of("registrations", namespace, service, name)
        query = f"?{urlencode({'holder': holder})}" if holder else ""
        return cast("WriteResult", await self._write("DELETE", path + query, None, ""))


@dataclass(frozen=True, slots=True)
class Kept:
    """What is to be kept registered."""

    namespace: str
    service: str
    name: str
    endpoint: Mapping[str, object]
    ttl_s: int
    holder: str

    @property
    def text(self) -> str:
        """Its name in one."""
        return f"{self.namespace}/{self.service}/{self.name}"


class Keeper:
    """Keeps one endpoint registered. say: told what changes, in a sentence."""

    def __init__(self, clients: Sequence[Client], kept: Kept, say: Callable[[str], None]) -> None:
        """clients: entered; one for each meshd of the cluster that may be asked."""
        self._clients = list(clients)
        self._kept = kept
        self._say = say
        self._is_registered = False
        self._said = ""

    async def run(self) -> None:
        """Register and renew until cancelled. Raises ClientError for what is refused for good."""
        while True:
            try:
                await self._turn()
            except ClientError as error:
                if not (error.is_passing or error.status == CONFLICT):
                    raise
                self._tell(str(error))
                # Another meshd of the cluster may answer.
                self._clients.append(self._clients.pop(0))
                await asyncio.sleep(min(AGAIN_S, self._kept.ttl_s / PARTS_OF_TTL))
            else:
                await asyncio.sleep(self._kept.ttl_s / PARTS_OF_TTL)

    async def _turn(self) -> None:
        kept, client = self._kept, self._clients[0]
        if self._is_registered:
            done = await client.renew([kept.text], holder=kept.holder)
            if not done["gone"]:
                return
            self._is_registered = False
        value = {"endpoint": kept.endpoint, "ttl_s": kept.ttl_s, "holder": kept.holder}
        await client.register(kept.namespace, kept.service, kept.name, value)
        self._is_registered = True
        self._tell(f"{kept.text} is registered at {client.url} for {kept.ttl_s} s at a time")

    def _tell(self, what: str) -> None:
        if what != self._said:
            self._say(what)
        self._said = what

    async def end(self) -> None:
        """Deregister, at the first that answers; what can't be undone runs out by itself."""
        kept = self._kept
        for client in self._clients:
            try:
                await client.deregister(kept.namespace, kept.service, kept.name, holder=kept.holder)
            except ClientError as error:
                if error.status == NOT_FOUND:
                    return
                self._tell(f"{kept.text} is left to run out: {error}")
            else:
                return
