"""A real HTTP server on the parts of a real meshd, whose etcds are in memory.

For: tests of the HTTP edge. Not for: what the parts do. Time is real here, since sockets are.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson
from aiohttp import web

from meshd.edges.http.app import build_app, serve_app
from meshd.edges.http.limits import Limits
from meshd.model.command import Outcome
from meshd.runtime.node import Node
from meshd.settings import ApiSettings, HostPort
from tests.mesh import Mesh, Running, endpoint, service

YAML = "application/yaml"
ANY_PORT = HostPort("127.0.0.1", 0)
PROBLEM_FIELDS = {"type", "title", "status", "detail", "instance", "problems"}


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, read to its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def slug(self) -> str:
        """The type of the problem that this is; nothing else may be."""
        assert self.headers["Content-Type"] == "application/problem+json", self.body
        fields = self.json
        assert fields["status"] == self.status
        assert set(fields) == PROBLEM_FIELDS
        return str(fields["type"]).removeprefix("https://meshd.io/problems/")


@dataclass(slots=True)
class Frame:
    """One frame of an event stream, taken apart."""

    id: str | None = None
    event: str | None = None
    data: str | None = None
    retry: str | None = None
    comments: int = 0

    @property
    def json(self) -> Any:
        return orjson.loads(self.data or "null")


@dataclass(slots=True)
class Stream:
    """An open event stream, read frame by frame. first: its first frame. last_id: what a browser
    would bring back.
    """

    response: aiohttp.ClientResponse
    first: Frame = field(default_factory=Frame)
    last_id: str = ""
    heartbeats: int = 0

    async def frame(self) -> Frame | None:
        """Read the next frame; None at the end."""
        found = Frame()
        async for raw in self.response.content:
            line = raw.decode().rstrip("\n")
            if not line:
                if found.id is not None:
                    self.last_id = found.id
                return found
            name, _, value = line.partition(":")
            if name:
                setattr(found, name, value.removeprefix(" "))
            else:
                found.comments += 1
        return None

    async def event(self) -> Frame:
        """Read up to the next event."""
        while True:
            found = await self.frame()
            assert found is not None, "the stream ended"
            self.heartbeats += found.comments
            if found.event is not None:
                return found

    async def subjects(self, count: int) -> list[str]:
        """What the next events are about."""
        return [(await self.event()).json["subject"] for _ in range(count)]


@dataclass(slots=True)
class Served:
    """A meshd with its REST interface, and a client of it."""

    meshd: Running
    mesh: Mesh
    address: HostPort
    client: aiohttp.ClientSession
    app: web.Application

    @property
    def node(self) -> Node:
        return self.meshd.parts.node

    async def ask(self, method: str, path: str, body: object = None, **headers: str) -> Answer:
        """Send a request. body: JSON, or bytes as they are. Underscores in headers are dashes."""
        data = body if isinstance(body, bytes) or body is None else orjson.dumps(body)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if data is not None:
            named.setdefault("Content-Type", "application/json")
        async with self.client.request(method, path, data=data, headers=named) as response:
            return Answer(response.status, dict(response.headers), await response.read())

    async def get(self, path: str, **headers: str) -> Any:
        """Read what must be there."""
        answer = await self.ask("GET", path, **headers)
        assert answer.status == 200, answer.body
        return answer.json

    async def apply(self, text: str, query: str = "", **headers: str) -> Answer:
        """Apply YAML."""
        return await self.ask(
            "POST", "/v1/apply" + query, text.encode(), **({"Content_Type": YAML} | headers)
        )

    async def define(self, key: str = "shop/web", address: str = "10.0.0.1") -> Outcome:
        """Define a global service with one endpoint, past HTTP."""
        return await self.meshd.submit(service(key), endpoint(f"{key}/a", address))

    @asynccontextmanager
    async def stream(self, query: str = "", **headers: str) -> AsyncIterator[Stream]:
        """Open an event stream and read its first frame, which has only an id or is a notice."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        named["Accept"] = "text/event-stream"
        async with self.client.get(
            "/v1/events" + query, headers=named, timeout=aiohttp.ClientTimeout(total=None)
        ) as response:
            assert response.status == 200, await response.read()
            stream = Stream(response)
            first = await stream.frame()
            assert first is not None
            assert first.retry == "2000"
            assert first.data is None or (first.event or "").startswith("meshd.")
            stream.first = first
            yield stream


Serve = Callable[..., AbstractAsyncContextManager[Served]]


@asynccontextmanager
async def serve_cluster(
    name: str = "east",
    *,
    mesh: Mesh | None = None,
    limits: Limits | None = None,
    api: Mapping[str, object] | None = None,
    ssl: Any = True,
    headers: Mapping[str, str] | None = None,
) -> AsyncIterator[Served]:
    """Run a meshd and serve it on a free port of loopback."""
    mesh = mesh or Mesh((name,))
    settings = api_settings(**(api or {}))
    async with AsyncExitStack() as stack:
        meshd = await stack.enter_async_context(mesh.running(name))
        app = build_app(meshd.parts.node, settings, limits or Limits())
        address = await stack.enter_async_context(serve_app(app, settings))
        scheme = "http" if settings.tls.cert_file is None else "https"
        client = await stack.enter_async_context(
            aiohttp.ClientSession(
                f"{scheme}://{address}",
                connector=aiohttp.TCPConnector(ssl=ssl),
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=30),
            )
        )
        yield Served(meshd, mesh, address, client, app)


def api_settings(**changes: object) -> ApiSettings:
    """Settings of a server on any free port, which doesn't wait long when it stops."""
    return ApiSettings(**{"listen": ANY_PORT, "drain_timeout_s": 1.0, **changes})  # type: ignore[arg-type]
