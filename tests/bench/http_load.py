"""Requests over HTTP from a process of its own, as cheap as Python allows.

For: `GET` of one path by so many connections, each of which asks again when it is answered. Not
for: HTTP in general: answers have a Content-Length or no body. Invariant: what this process itself
takes is told beside, since it may be what ends first.

`python -m tests.bench.http_load` is asked `{address, path, connections, seconds, headers}`.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final, cast

from tests.bench.children import answer_all

HEAD_END: Final = b"\r\n\r\n"
LENGTH: Final = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)
WAIT_S: Final = 60.0
"""For the last answers: as long as any of meshd's takes at most."""


@dataclass(slots=True)
class Found:
    """What came of it."""

    taken_s: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    bytes: int = 0


class Connection(asyncio.Protocol):
    """One of them."""

    def __init__(self, request: bytes, until_s: float, found: Found) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._request, self._until_s, self._found = request, until_s, found
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._missing = 0
        self._asked_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._ask()

    def _ask(self) -> None:
        assert self._transport is not None
        self._asked_s = time.perf_counter()
        if self._asked_s >= self._until_s:
            self._transport.close()
            return
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._found.bytes += len(data)
        if self._missing:
            self._missing -= len(data)
        else:
            self._buffer += data
            end = self._buffer.find(HEAD_END)
            if end < 0:
                return
            head = self._buffer[: end + len(HEAD_END)]
            length = LENGTH.search(head)
            status = head[9:12]
            has_body = length is not None and status != b"304"
            body = int(length[1]) if length is not None and has_body else 0
            self._missing = len(head) + body - len(self._buffer)
            self._found.statuses[status.decode()] += 1
            self._buffer = b""
        if not self._missing:
            self._found.taken_s.append(time.perf_counter() - self._asked_s)
            self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            if exc is None and not self._missing:
                self.ended.set_result(None)
            else:
                self.ended.set_exception(exc or ConnectionResetError("closed amid an answer"))


async def load(asked: dict[str, Any]) -> dict[str, Any]:
    """Ask for so long; returns requests, took_s, cpu_s, p50_us, p99_us, bytes, and statuses."""
    address = asked["address"]
    host, _, port = address.rpartition(":")
    lines = [f"GET {asked['path']} HTTP/1.1", f"Host: {address}"]
    lines += [f"{name}: {value}" for name, value in asked["headers"].items()]
    request = "\r\n".join([*lines, "", ""]).encode()
    found, loop = Found(), asyncio.get_running_loop()
    began_s, cpu_s = time.perf_counter(), time.process_time()
    until_s = began_s + asked["seconds"]
    connections = []
    for _ in range(asked["connections"]):
        _, connection = await loop.create_connection(
            lambda: Connection(request, until_s, found), host, int(port)
        )
        connections.append(connection)
    async with asyncio.timeout(asked["seconds"] + WAIT_S):
        for connection in connections:
            await connection.ended
    took_s = time.perf_counter() - began_s
    found.taken_s.sort()
    requests = len(found.taken_s)
    return {
        "requests": requests,
        "took_s": took_s,
        "cpu_s": time.process_time() - cpu_s,
        "p50_us": found.taken_s[requests // 2] * 1e6,
        "p99_us": found.taken_s[requests * 99 // 100] * 1e6,
        "bytes": found.bytes,
        "statuses": found.statuses,
    }


if __name__ == "__main__":
    asyncio.run(answer_all(load))
