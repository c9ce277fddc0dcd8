"""A program that asks a meshd more than it should, as rude clients do.

For: floods, in a process of its own so that who watches isn't slowed. Not for: traffic that is
recorded. Invariants: it ends when its standard input does, so also when who started it is killed;
what it does at once is bounded.

`python -m chaos.faults.flooder <kind> <host:port> <how many at once>`: for each line that it is
given it prints a line of JSON: how often it was answered what, `closed` and `failed` among it.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Final

import aiohttp

SERVICE: Final = "flood"
PATH: Final = f"/v1/services/chaos/{SERVICE}"
BODY_BYTES: Final = 100_000_000
CHUNK: Final = b"x" * 65_536
PAUSE_S: Final = 0.3
"""Between two requests of one client: it is rude, but a machine that several clusters share is to
do something else, too."""
NICE: Final = 10
"""Who floods would be on another machine than whom it floods."""
AGAIN_AFTER_S: Final = 0.5
HALF_HEAD: Final = "GET /v1/status HTTP/1.1\r\nHost: {}\r\nX-Slow: "
HALF_BODY: Final = (
    f"PUT {PATH} HTTP/1.1\r\nHost: {{}}\r\nContent-Type: application/json\r\n"
    "Content-Length: 1000\r\n\r\n{{"
)
ANSWER_BYTES: Final = 4096
TRICKLE_EVERY_S: Final = 1.0
KINDS: Final = ("writes", "bodies", "half-heads", "half-bodies")

Counts = Counter[str]


async def write(http: aiohttp.ClientSession, url: str, counts: Counts) -> None:
    """Write as often as can be."""
    number = 0
    while True:
        number += 1
        body = {"labels": {"n": str(number)}}
        await _count(http.put(url + PATH, json=body), counts)
        await asyncio.sleep(PAUSE_S)


async def _count(asked: object, counts: Counts) -> None:
    try:
        async with asked as response:  # type: ignore[attr-defined]
            counts[str(response.status)] += 1
    except (aiohttp.ClientError, OSError, TimeoutError):
        counts["failed"] += 1
        await asyncio.sleep(AGAIN_AFTER_S)


async def send_much(http: aiohttp.ClientSession, url: str, counts: Counts) -> None:
    """Send bodies larger than any command."""

    async def body() -> AsyncIterator[bytes]:
        for _ in range(BODY_BYTES // len(CHUNK)):
            yield CHUNK

    headers = {"Content-Type": "application/json"}
    while True:
        await _count(http.put(url + PATH, data=body(), headers=headers), counts)
        await asyncio.sleep(AGAIN_AFTER_S)


async def send_half(address: str, half: str, counts: Counts) -> None:
    """Begin requests, never finish one, and see how that ends."""
    host, _, port = address.rpartition(":")
    while True:
        try:
            reader, writer = await asyncio.open_connection(host, int(port))
        except OSError:
            counts["failed"] += 1
            await asyncio.sleep(AGAIN_AFTER_S)
            continue
        counts["open"] += 1
        try:
            writer.write(half.format(address).encode())
            counts[await _ended(reader, writer)] += 1
        except OSError:
            counts["closed"] += 1
        finally:
            counts["open"] -= 1
            writer.transport.abort()


async def _ended(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
    """The status that it was answered, or `closed`; a byte now and then keeps it alive."""
    while True:
        with suppress(TimeoutError):
            async with asyncio.timeout(TRICKLE_EVERY_S):
                answer = await reader.read(ANSWER_BYTES)
            return answer.split(b" ", 2)[1].decode() if b" " in answer else "closed"
        writer.write(b" ")


async def flood(kind: str, address: str, at_once: int, counts: Counts) -> None:
    """Do it until it is cancelled."""
    url = f"http://{address}"
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=60)
    async with (
        aiohttp.ClientSession(connector=connector, timeout=timeout) as http,
        asyncio.TaskGroup() as tasks,
    ):
        for _ in range(at_once):
            match kind:
                case "writes":
                    tasks.create_task(write(http, url, counts))
                case "bodies":
                    tasks.create_task(send_much(http, url, counts))
                case _:
                    half = HALF_BODY if kind == "half-bodies" else HALF_HEAD
                    tasks.create_task(send_half(address, half, counts))


async def main(kind: str, address: str, at_once: int) -> None:
    """Flood, and answer each line with the counts so far."""
    lines = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    counts: Counts = Counter()
    os.nice(NICE)
    async with asyncio.TaskGroup() as tasks:
        flooding = tasks.create_task(flood(kind, address, at_once, counts))
        while await lines.readline():
            sys.stdout.write(json.dumps(counts) + "\n")
            sys.stdout.flush()
        flooding.cancel()


if __name__ == "__main__":
    if len(sys.argv) != 4 or sys.argv[1] not in KINDS:  # noqa: PLR2004 its own name and three
        sys.exit(f"usage: python -m chaos.faults.flooder {'|'.join(KINDS)} HOST:PORT HOW_MANY")
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
