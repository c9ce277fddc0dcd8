"""Requests to one meshd.

For: URL, credentials, deadlines, and turning whatever fails into a ClientError. Not for: which
requests there are (`client`). Invariant: nothing of aiohttp leaves this module and `stream`.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import aiohttp
import orjson
from yarl import URL

from meshd.client.errors import UNREACHABLE, ClientError, error_of
from meshd.client.sent_once import sent_once
from meshd.model.errors import Problem, RejectedError


@dataclass(frozen=True, slots=True)
class ClientTls:
    """Files for https. ca_file None: the system's authorities."""

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None


URL_DEFAULT = "http://127.0.0.1:7979"
"""Where a meshd on this host answers, unless it is told otherwise (`api.listen`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Which meshd, and how patient to be with it.

    actor: who writes are done in the name of; the server's own idea if empty. connect_timeout_s:
    for the connection. timeout_s: for a whole request. repeat_for_s: how long a write that may work
    later is repeated; 0: never. silence_s: how long a stream may be silent; the server says
    something every 15 s.
    """

    url: str
    token: str = ""
    tls: ClientTls = field(default_factory=ClientTls)
    actor: str = ""
    connect_timeout_s: float = 5.0
    timeout_s: float = 30.0
    repeat_for_s: float = 10.0
    silence_s: float = 40.0


class Http:
    """A session with one meshd. Enter it before use."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.base = _base(target.url)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        headers = {"Authorization": f"Bearer {self.target.token}"} if self.target.token else {}
        if self.target.actor:
            headers["Meshd-Actor"] = self.target.actor
        context = _ssl_context(self.target.tls) if self.base.startswith("https:") else True
        self._session = aiohttp.ClientSession(
            headers=headers,
            connector=aiohttp.TCPConnector(ssl=context),
            middlewares=(sent_once,),
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def json(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | list[tuple[str, str]] | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 0.0,
    ) -> dict[str, Any]:
        """Send a request; returns the answer's JSON object. Raises ClientError.

        timeout_s: how patient to be, if more than usual.
        """
        limits = aiohttp.ClientTimeout(
            total=max(timeout_s, self.target.timeout_s), sock_connect=self.target.connect_timeout_s
        )
        url = self.base + path
        async with self._send(method, url, limits, query, body, headers) as answer:
            raw = await answer.read()
            if not answer.ok:
                raise error_of(url, answer.status, raw, answer.headers)
            try:
                found = orjson.loads(raw)
            except orjson.JSONDecodeError:
                found = None
            if not isinstance(found, dict):
                raise error_of(url, answer.status, raw, {})
            return found

    @asynccontextmanager
    async def stream(
        self,
        path: str,
        query: list[tuple[str, str]],
        headers: Mapping[str, str],
        content_type: str = "text/event-stream",
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open a stream; yields its chunks. Reading raises ClientError when it breaks."""
        limits = aiohttp.ClientTimeout(
            total=None,
            sock_connect=self.target.connect_timeout_s,
            sock_read=self.target.silence_s,
        )
        url = self.base + path
        async with self._send("GET", url, limits, query, None, headers) as answer:
            if not answer.ok or answer.content_type != content_type:
                raise error_of(url, answer.status, await answer.read(), answer.headers)
            yield answer.content.iter_any()

    @asynccontextmanager
    async def _send(
        self,
        method: str,
        url: str,
        limits: aiohttp.ClientTimeout,
        query: Mapping[str, str] | list[tuple[str, str]] | None,
        body: bytes | None,
        headers: Mapping[str, str] | None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        if self._session is None:
            raise RuntimeError("enter the client before using it")
        asked = URL(url, encoded=True).extend_query(query or {})
        try:
            async with self._session.request(
                method, asked, data=body, headers=headers, timeout=limits, allow_redirects=False
            ) as answer:
                yield answer
        except aiohttp.ClientConnectorCertificateError as error:
            why = f"its certificate is not trusted: {error.certificate_error}"
            raise _unreachable(url, why) from None
        except aiohttp.ClientConnectorError as error:
            raise _unreachable(url, f"can't be reached: {_reason(error.os_error)}") from None
        except aiohttp.ConnectionTimeoutError:
            raise _unreachable(url, "can't be reached: it takes no connection in time") from None
        except TimeoutError:
            raise ClientError(url, UNREACHABLE, "did not answer in time") from None
        except (aiohttp.ClientError, OSError) as error:
            reason = str(error) or type(error).__name__
            raise ClientError(url, UNREACHABLE, f"the connection broke: {reason}") from None


def _unreachable(url: str, why: str) -> ClientError:
    return ClientError(url, UNREACHABLE, why, was_sent=False)


def _reason(error: OSError) -> str:
    """What the system says, without the address, which is in the URL already."""
    if isinstance(error, socket.gaierror) or not error.errno or error.errno < 0:
        return error.strerror or str(error)
    return os.strerror(error.errno)


def _base(url: str) -> str:
    try:
        parts = urlsplit(url)
        is_good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_good = False
    if not is_good or "@" in url or "?" in url or "#" in url:
        raise RejectedError(
            (Problem("url", f"{url!r} is not meshd's address", "write it like http://host:7979"),)
        )
    return url.rstrip("/")


def _ssl_context(tls: ClientTls) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=tls.ca_file)
        if tls.cert_file is not None:
            context.load_cert_chain(tls.cert_file, tls.key_file)
    except (OSError, ssl.SSLError) as error:
        what = f"can't use {tls.ca_file or ''} {tls.cert_file or ''}: {error}"
        raise RejectedError((Problem("tls", what, "name PEM files that fit together"),)) from None
    return context
