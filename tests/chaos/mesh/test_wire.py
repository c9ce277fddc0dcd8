"""A wire holds, delays and throttles each direction by itself, and resets connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest

from chaos.wire import Flow, Wire

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]
HELD = Flow(is_held=True)


@dataclass
class Echo:
    """A server that answers what it hears. heard: how many bytes."""

    address: str
    heard: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1024):
            self.heard += len(data)
            writer.write(data)
        writer.close()


@pytest.fixture
async def echo(free_address: Callable[[], str]) -> AsyncIterator[Echo]:
    made = Echo(free_address())
    host, _, port = made.address.rpartition(":")
    server = await asyncio.start_server(made.serve, host, int(port))
    async with server:
        yield made


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as made:
        yield made


async def connected(wire: Wire) -> Stream:
    host, _, port = wire.listen.rpartition(":")
    return await asyncio.open_connection(host, int(port))


async def answer(stream: Stream, said: bytes) -> bytes:
    reader, writer = stream
    writer.write(said)
    return await reader.readexactly(len(said))


async def test_requests_or_answers_are_held_and_come_once_that_ends(
    echo: Echo, stack: AsyncExitStack, free_address: Callable[[], str]
) -> None:
    wire = await stack.enter_async_context(Wire(free_address(), echo.address).running())
    open_wire = await stack.enter_async_context(Wire(free_address(), echo.address).running())
    stream, other = await connected(wire), await connected(open_wire)
    assert await answer(stream, b"a") == b"a"
    wire.set_flows(forth=HELD)
    stream[1].write(b"b")
    assert await answer(other, b"x" * 9) == b"x" * 9
    assert (wire.bytes_forth, wire.bytes_back) == (1, 1)
    wire.set_flows(back=HELD)
    while wire.bytes_forth < 2:  # noqa: ASYNC110 a counter
        await asyncio.sleep(0)
    assert await answer(other, b"x" * 9) == b"x" * 9
    assert wire.bytes_back == 1
    wire.set_flows()
    assert await stream[0].readexactly(1) == b"b"
    for _, writer in (stream, other):
        writer.close()


async def test_what_is_delayed_comes_after_what_was_sent_later_and_in_its_order(
    echo: Echo, stack: AsyncExitStack, free_address: Callable[[], str]
) -> None:
    late = await stack.enter_async_context(Wire(free_address(), echo.address).running())
    soon = await stack.enter_async_context(Wire(free_address(), echo.address).running())
    first, second = await connected(late), await connected(soon)
    late.set_flows(forth=Flow(delay_s=0.1, jitter_s=0.1))
    for number in b"1234":
        first[1].write(bytes([number]))
        assert await answer(second, b"soon") == b"soon"
    assert await first[0].readexactly(4) == b"1234"
    late.set_flows(forth=Flow(delay_s=3600))
    first[1].write(b"never")
    assert await answer(second, b"soon") == b"soon"
    assert late.bytes_forth == 4
    for _, writer in (first, second):
        writer.close()


async def test_a_slow_wire_carries_all_in_small_portions(
    echo: Echo, stack: AsyncExitStack, free_address: Callable[[], str]
) -> None:
    wire = await stack.enter_async_context(Wire(free_address(), echo.address).running())
    soon = await stack.enter_async_context(Wire(free_address(), echo.address).running())
    wire.set_flows(forth=Flow(rate_bytes_s=20_000))
    slow, fast = await connected(wire), await connected(soon)
    slow[1].write(b"x" * 10_000)
    await slow[0].readexactly(1)
    # The rest is still on its way when others have had their answers.
    assert await answer(fast, b"y" * 10_000) == b"y" * 10_000
    assert wire.bytes_forth < 10_000
    await slow[0].readexactly(9_999)
    assert wire.bytes_forth == 10_000
    for _, writer in (slow, fast):
        writer.close()


async def test_a_reset_is_told_as_one_and_counted_and_ends_what_is_held(
    echo: Echo, stack: AsyncExitStack, free_address: Callable[[], str]
) -> None:
    wire = await stack.enter_async_context(Wire(free_address(), echo.address).running())
    streams = [await connected(wire) for _ in range(2)]
    for stream in streams:
        assert await answer(stream, b"a") == b"a"
    wire.set_flows(forth=HELD, back=HELD)
    assert wire.reset() == 2
    for reader, _ in streams:
        with pytest.raises(ConnectionResetError):
            await reader.read(1)
    again = await connected(wire)
    wire.set_flows()
    assert await answer(again, b"c") == b"c"
    assert wire.reset() == 1
