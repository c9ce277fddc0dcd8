"""Packets between two namespaces are lost, late, doubled, overtaken, and connections reset; nobody
runs there but who sends them.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import random
import socket
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from chaos.mesh import late, namespaces
from chaos.mesh.late import OVERTAKEN_S, QUEUE_PACKETS, Late
from chaos.mesh.namespaces import SiteNetwork
from chaos.mesh.shape import CLOSED, OPEN, Plan, Way

NAMES = ("east", "west", "south")
PORT = 2379
COUNT = 100
LAST = COUNT
TRIES = 4 * COUNT


@pytest.fixture
async def network(tmp_path: Path) -> AsyncIterator[SiteNetwork]:
    if missing := namespaces.missing():
        pytest.skip("; ".join(missing))
    async with namespaces.joined(Plan(names=NAMES, folder=tmp_path)) as made:
        yield made


def udp(network: SiteNetwork, name: str) -> socket.socket:
    with network.sites[name].place.entered():
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    made.bind((network.sites[name].address, PORT))
    return made


async def heard(network: SiteNetwork, source: str, target: str, expected: int = 0) -> list[int]:
    """Send numbers, and return those that arrive: until there are as many as expected, and a last
    one has come too, which is sent again whenever nothing comes.
    """
    loop = asyncio.get_running_loop()
    mark = next(marks)
    where = (network.sites[target].address, PORT)
    with closing(udp(network, source)) as one, closing(udp(network, target)) as other:
        for number in range(COUNT):
            await loop.sock_sendto(one, bytes([mark, number]), where)
        await loop.sock_sendto(one, bytes([mark, LAST]), where)
        said: list[int] = []
        is_last_there = False
        for _ in range(TRIES):
            if is_last_there and len(said) >= expected:
                break
            try:
                async with asyncio.timeout(0.5):
                    of, number = await loop.sock_recv(other, 2)
            except TimeoutError:
                await loop.sock_sendto(one, bytes([mark, LAST]), where)
                continue
            # What was sent before may still be on its way.
            if of == mark and number == LAST:
                is_last_there = True
            elif of == mark:
                said.append(number)
        return said


marks = itertools.count()
ALL = list(range(COUNT))


async def test_what_is_sent_arrives_once_and_in_order(network: SiteNetwork) -> None:
    assert await heard(network, "east", "west") == ALL


async def test_a_share_is_lost_of_one_direction_and_of_one_pair(network: SiteNetwork) -> None:
    await network.shape("east", "west", Way(lost_share=0.5))
    said = await heard(network, "east", "west")
    assert COUNT // 10 < len(said) < COUNT * 9 // 10
    assert said == sorted(said)
    assert await heard(network, "west", "east") == ALL
    assert await heard(network, "east", "south") == ALL
    assert await heard(network, "south", "west") == ALL
    await network.shape("east", "west", OPEN)
    assert await heard(network, "east", "west") == ALL


@pytest.mark.skipif(not late.is_there(), reason="no TUN devices can be made here")
@pytest.mark.parametrize("delay_s", [0.0, 0.05])
async def test_packets_are_doubled_and_overtaken(network: SiteNetwork, delay_s: float) -> None:
    await network.shape("east", "west", Way(doubled_share=1.0, delay_s=delay_s))
    doubled = await heard(network, "east", "west", 2 * COUNT)
    assert sorted(doubled) == sorted(ALL * 2)
    await network.shape("east", "west", Way(reordered_share=0.3, delay_s=delay_s))
    mixed = await heard(network, "east", "west", COUNT)
    assert mixed != ALL
    assert sorted(mixed) == ALL


@pytest.mark.skipif(not late.is_there(), reason="no TUN devices can be made here")
async def test_what_is_delayed_comes_after_what_was_sent_later(network: SiteNetwork) -> None:
    loop = asyncio.get_running_loop()
    await network.shape("east", "south", Way(delay_s=1.0))
    await network.shape("west", "south", Way(delay_s=0.05))
    with (
        closing(udp(network, "east")) as east,
        closing(udp(network, "west")) as west,
        closing(udp(network, "south")) as south,
    ):
        where = (network.sites["south"].address, PORT)
        await loop.sock_sendto(east, b"late", where)
        await loop.sock_sendto(west, b"soon", where)
        assert [await loop.sock_recv(south, 9) for _ in range(2)] == [b"soon", b"late"]


async def test_a_connection_is_reset_and_counted(network: SiteNetwork) -> None:
    loop = asyncio.get_running_loop()
    where = (network.sites["west"].address, PORT)
    with network.sites["west"].place.entered():
        listening = socket.create_server(where)
    with network.sites["east"].place.entered():
        opened = socket.socket()
    listening.setblocking(False)
    opened.setblocking(False)
    with closing(listening), closing(opened):
        await loop.sock_connect(opened, where)
        accepted, _ = await loop.sock_accept(listening)
        with closing(accepted):
            assert await network.reset("west", "east") == 0
            assert await network.reset("east", "south") == 0
            assert await network.reset("east", "west") == 1
            assert await network.reset("east", "west") == 0
            with pytest.raises(OSError) as broken:
                await loop.sock_recv(accepted, 1)
            assert broken.value.errno == errno.ECONNRESET


async def test_who_tests_reaches_a_cluster_that_nobody_else_does(network: SiteNetwork) -> None:
    for other in ("west", "south"):
        await network.shape("east", other, CLOSED)
        await network.shape(other, "east", CLOSED)
    loop = asyncio.get_running_loop()
    with network.sites["east"].place.entered():
        listening = socket.create_server(("127.0.0.1", namespaces.API_PORT))
    listening.setblocking(False)
    with closing(listening), closing(socket.socket()) as visitor:
        visitor.setblocking(False)
        await loop.sock_connect(visitor, (network.sites["east"].visitor, namespaces.API_PORT))
        accepted, _ = await loop.sock_accept(listening)
        accepted.close()


def packet(size_bytes: int, source: int = 1, target: int = 2) -> bytes:
    addresses = bytes([10, 88, source, 1, 10, 88, target, 1])
    return (bytes(12) + addresses).ljust(size_bytes, b"x")


def test_a_slow_line_takes_its_bytes_one_after_the_other_and_no_more_than_wait() -> None:
    made = Late(random.Random(1), {(1, 2): Way(rate_bytes_s=15_000, delay_s=1.0)})
    due = [made.due(packet(1500), 100.0) for _ in range(3 * QUEUE_PACKETS)]
    arriving = [times[0] for times in due if times]
    assert arriving[:3] == pytest.approx([101.1, 101.2, 101.3])
    assert len(arriving) == QUEUE_PACKETS + 1
    assert made.due(packet(1500, target=3), 100.0) == [100.0]
    assert made.due(packet(1500), 110.0) == pytest.approx([111.1])


def test_who_is_overtaken_comes_late_and_who_is_no_packet_not_at_all() -> None:
    made = Late(random.Random(1), {(1, 2): Way(reordered_share=1.0, doubled_share=1.0)})
    assert made.due(packet(64), 1.0) == pytest.approx([1.0 + OVERTAKEN_S] * 2)
    assert made.due(b"short", 1.0) == []
