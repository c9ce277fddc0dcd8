"""Following a stream over as many connections as it takes.

For: resuming where the last event left off. Not for: parsing (`sse`). Invariant: every connection
but the first asks for what comes after the last event that was handed out.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import TypeVar

from tenacity import AsyncRetrying, retry_if_exception, stop_after_delay, wait_random_exponential

from meshd.client.errors import ClientError, error_of
from meshd.client.http import Http
from meshd.client.sse import EVENT_BYTES_MAX, Notice, SseParser, StreamEvent

M = TypeVar("M")

RESET_STATUS, FAILED_STATUS = 410, 503
BACKOFF_MAX_S = 5.0
PAUSE_S = 1.0
"""Between a cut and the next connection, unless the server says otherwise (`retry:`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Which stream, and how it is followed. after: a place to go on from. first: parameters of the
    query while there is no such place; query: those of every connection. endings: notices with
    which it ends. event_bytes_max: how large a message may be. patience_s: how long a broken
    connection may take to come back.
    """

    path: str
    after: str = ""
    first: Sequence[tuple[str, str]] = ()
    query: Sequence[tuple[str, str]] = ()
    endings: frozenset[Notice] = frozenset({Notice.FAILED})
    event_bytes_max: int = EVENT_BYTES_MAX
    patience_s: float = 60.0


async def follow(http: Http, route: Route) -> AsyncGenerator[StreamEvent, None]:
    """Yield messages for ever, but for the endings.

    Raises ClientError if the first connection can't be had, if the server refuses or says that the
    place is gone (410: begin anew), or if patience ends. Close it with `contextlib.aclosing`.
    """
    retrying = AsyncRetrying(
        retry=retry_if_exception(is_passing),
        wait=wait_random_exponential(multiplier=0.1, max=BACKOFF_MAX_S),
        stop=stop_after_delay(route.patience_s),
        reraise=True,
    )
    parser = SseParser(route.after, route.event_bytes_max)
    stack, chunks = await _open(http, route, parser.last_id)
    while True:
        try:
            async with stack:
                async for event in _events(chunks, parser, route, http.base):
                    yield event
        except ClientError as error:
            if not error.is_passing:
                raise
        pause_s = PAUSE_S if parser.retry_ms is None else parser.retry_ms / 1000
        # A part of it at random, so that a server's clients don't come back all at once.
        await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 it is no secret
        parser = parser.resumed()
        stack, chunks = await retrying(_open, http, route, parser.last_id)


async def follow_read(
    http: Http, route: Route, read: Callable[[StreamEvent], M | None]
) -> AsyncGenerator[M, None]:
    """Yield what the messages say, for ever. Raises as `follow` does.

    read: what one says; None for one that is passed over; ValueError, KeyError or TypeError for
    one that isn't as it should be.
    """
    async with aclosing(follow(http, route)) as events:
        async for event in events:
            try:
                message = read(event)
            except (ValueError, KeyError, TypeError) as error:
                what = f"sends a message that can't be read: {event.type}: {error!r}"
                raise ClientError(http.base + route.path, 200, what) from None
            if message is not None:
                yield message


def is_passing(error: BaseException) -> bool:
    """Whether the same may work later."""
    return isinstance(error, ClientError) and error.is_passing


async def _open(
    http: Http, route: Route, last_id: str
) -> tuple[AsyncExitStack, AsyncIterator[bytes]]:
    query = list(route.query)
    headers = {"Accept": "text/event-stream"}
    if last_id:
        headers["Last-Event-ID"] = last_id
    else:
        query += route.first
    async with AsyncExitStack() as stack:
        chunks = await stack.enter_async_context(http.stream(route.path, query, headers))
        return stack.pop_all(), chunks


async def _events(
    chunks: AsyncIterator[bytes], parser: SseParser, route: Route, base: str
) -> AsyncIterator[StreamEvent]:
    url = base + route.path
    async for chunk in chunks:
        try:
            events = parser.feed(chunk)
        except ValueError as error:
            raise ClientError(url, 200, f"sends {error}") from None
        for event in events:
            if event.notice in route.endings:
                raise _told(url, event)
            yield event


def _told(url: str, event: StreamEvent) -> ClientError:
    """A problem that the server found when the stream was open already."""
    status = RESET_STATUS if event.notice is Notice.RESET else FAILED_STATUS
    return error_of(url, status, event.data.encode(), {})
