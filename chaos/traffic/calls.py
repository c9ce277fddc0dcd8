"""Questions to meshds over HTTP, each with a limit of its own.

For: all traffic. Not for: what is made of the answers. Invariants: no question waits for longer
than its limit, whatever the meshd does; one that was never sent is told apart from one that wasn't
answered.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import orjson

from chaos.mesh.shape import Server
from meshd.client.sent_once import sent_once

ANSWER_TIMEOUT_S: Final = 5.0
"""A healthy meshd answers within 0.1 s, on a loaded machine within 1; who takes longer is frozen or
cut off, and a client of it would have given up as well."""
CONNECT_TIMEOUT_S: Final = 3.0
"""Of streams, whose answer has no end."""
SILENCE_TIMEOUT_S: Final = 25.0
"""A stream shows life every 15 s."""


class UnansweredError(Exception):
    """No answer came. was_sent: whether the question may have arrived."""

    def __init__(self, why: str, *, was_sent: bool) -> None:
        super().__init__(why)
        self.was_sent = was_sent


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer. data: its JSON, an empty object if it is none."""

    status: int
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Calls:
    """Asks any meshd."""

    http: aiohttp.ClientSession

    @staticmethod
    @asynccontextmanager
    async def opened() -> AsyncIterator[Calls]:
        """Ask until the end of the block.

        Each question has a connection of its own, and no write is sent again by aiohttp itself:
        nobody could say whether the first one had arrived.
        """
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        timeout = aiohttp.ClientTimeout(total=ANSWER_TIMEOUT_S)
        async with aiohttp.ClientSession(
            connector=connector, timeout=timeout, middlewares=(sent_once,)
        ) as http:
            yield Calls(http)

    async def ask(
        self,
        server: Server,
        path: str,
        method: str = "GET",
        body: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Ask one thing; raises UnansweredError."""
        url = f"http://{server.address}{path}"
        try:
            async with self.http.request(method, url, json=body, headers=headers) as response:
                return Answer(response.status, _object(await response.read()))
        except aiohttp.ClientConnectorError as error:
            raise UnansweredError(_in_words(error), was_sent=False) from None
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise UnansweredError(_in_words(error), was_sent=True) from None

    @asynccontextmanager
    async def stream(
        self, server: Server, path: str, headers: Mapping[str, str]
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Open a stream; raises UnansweredError, also when it is cut later on."""
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=SILENCE_TIMEOUT_S
        )
        url = f"http://{server.address}{path}"
        try:
            async with self.http.get(url, headers=headers, timeout=timeout) as response:
                yield response
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise UnansweredError(_in_words(error), was_sent=True) from None


def _in_words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".rstrip(": ")


def _object(raw: bytes) -> Mapping[str, Any]:
    try:
        data = orjson.loads(raw)
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}
