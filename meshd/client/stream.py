"""Following events over as many connections as it takes.

For: resuming where the last event left off. Not for: parsing (`sse`). Invariant: every connection
but the first asks for what comes after the last event that was handed out.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Literal

from tenacity import AsyncRetrying, retry_if_exception, stop_after_delay, wait_random_exponential

from meshd.client.errors import ClientError, error_of
from meshd.client.http import Http
from meshd.client.sse import Notice, SseParser, StreamEvent

EVENTS_PATH = "/v1/events"
RESET_STATUS, FAILED_STATUS = 410, 503
BACKOFF_MAX_S = 5.0
PAUSE_S = 1.0
"""Between a cut and the next connection, unless the server says otherwise (`retry:`)."""


Start = Literal["now", "beginning", "snapshot"]
"""What comes next; everything that there still is; or what exists, and then what comes next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventChoice:
    """Which events; of each kind that is empty, all.

    types: with or without `io.meshd.`. services: as `namespace/name`, with their endpoints. labels:
    as `name=value` or `name`, all of them; removals say none and are told.
    """

    types: Sequence[str] = ()
    namespaces: Sequence[str] = ()
    services: Sequence[str] = ()
    labels: Sequence[str] = ()

    def query(self) -> list[tuple[str, str]]:
        """As parameters of a query."""
        return [
            *(("type", kind) for kind in self.types),
            *(("namespace", namespace) for namespace in self.namespaces),
            *(("service", service) for service in self.services),
            *(("label", label) for label in self.labels),
        ]


ALL_EVENTS = EventChoice()


@dataclass(frozen=True, slots=True, kw_only=True)
class Following:
    """What to follow.

    after: a vector to go on from; else since: a time (RFC 3339, or milliseconds since 1970), from
    which on; else start. clusters: whose events; none: all. choice: which of them.
    has_resets: what is to come where the place is gone: a reset and a snapshot among the events
    (`StreamEvent.notice`), rather than an error. patience_s: how long a broken connection may take
    to come back.
    """

    after: str = ""
    since: str = ""
    start: Start = "now"
    clusters: Sequence[str] = ()
    choice: EventChoice = field(default=ALL_EVENTS)
    has_resets: bool = False
    patience_s: float = 60.0

    def query(self, *, is_first: bool) -> list[tuple[str, str]]:
        """As parameters of a query. is_first: nothing was told yet."""
        found = [("cluster", cluster) for cluster in self.clusters] + self.choice.query()
        if is_first:
            found.append(("since", self.since) if self.since else ("from", self.start))
        if self.has_resets:
            found.append(("reset", "snapshot"))
        return found


async def follow(http: Http, following: Following) -> AsyncGenerator[StreamEvent, None]:
    """Yield events for ever, and the notices of snapshots and resets that were asked for.

    Raises ClientError if the first connection can't be had, if the server refuses or says that the
    place is gone (410: read the tables, then start anew), or if patience ends. Close it with
    `contextlib.aclosing`.
    """
    retrying = AsyncRetrying(
        retry=retry_if_exception(is_passing),
        wait=wait_random_exponential(multiplier=0.1, max=BACKOFF_MAX_S),
        stop=stop_after_delay(following.patience_s),
        reraise=True,
    )
    parser = SseParser(following.after)
    stack, chunks = await _open(http, following, parser.last_id)
    while True:
        try:
            async with stack:
                async for event in _events(chunks, parser, http.base, following):
                    yield event
        except ClientError as error:
            if not error.is_passing:
                raise
        pause_s = PAUSE_S if parser.retry_ms is None else parser.retry_ms / 1000
        # A part of it at random, so that a server's clients don't come back all at once.
        await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 it is no secret
        parser = parser.resumed()
        stack, chunks = await retrying(_open, http, following, parser.last_id)


def is_passing(error: BaseException) -> bool:
    """Whether the same may work later."""
    return isinstance(error, ClientError) and error.is_passing


async def _open(
    http: Http, following: Following, last_id: str
) -> tuple[AsyncExitStack, AsyncIterator[bytes]]:
    headers = {"Accept": "text/event-stream"}
    if last_id:
        headers["Last-Event-ID"] = last_id
    query = following.query(is_first=not last_id)
    async with AsyncExitStack() as stack:
        chunks = await stack.enter_async_context(http.stream(EVENTS_PATH, query, headers))
        return stack.pop_all(), chunks


async def _events(
    chunks: AsyncIterator[bytes], parser: SseParser, url: str, following: Following
) -> AsyncIterator[StreamEvent]:
    async for chunk in chunks:
        try:
            events = parser.feed(chunk)
        except ValueError as error:
            raise ClientError(url + EVENTS_PATH, 200, f"sends {error}") from None
        for event in events:
            is_end = event.notice is Notice.RESET and not following.has_resets
            if is_end or event.notice is Notice.FAILED:
                raise _told(url + EVENTS_PATH, event)
            yield event


def _told(url: str, event: StreamEvent) -> ClientError:
    """A problem that the server found when the stream was open already."""
    status = RESET_STATUS if event.notice is Notice.RESET else FAILED_STATUS
    return error_of(url, status, event.data.encode(), {})
