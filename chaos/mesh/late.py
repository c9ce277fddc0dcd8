"""Packets that come late, twice, in another order or slowly, since this kernel has no netem.

For: namespaces, which lead what they shape through a TUN device. Not for: what is lost, which nft
sees to. Invariant: a packet that is read is written again, as often and as late as its way says,
unless too many wait.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import random
import struct
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from chaos.mesh.shape import OPEN, Way

DEVICE = Path("/dev/net/tun")
NAME = "late"
_TUNSETIFF = 0x400454CA
_IFF_TUN_WITHOUT_HEADER = 0x0001 | 0x1000
PACKET_BYTES_MAX = 65_536
AT_ONCE_MAX = 64
"""Packets read before others have their turn."""
WAITING_MAX = 20_000
"""Packets: 30 MB of full ones. More are lost, as in any queue that is full."""
QUEUE_S = 0.4
"""So much waits for a slow line, and what comes beyond it is lost, as tc's tbf has it."""
QUEUE_PACKETS = 10
"""And so many full packets, however slow it is."""
MTU_BYTES = 1500
OVERTAKEN_S = 0.02
"""How much later than others one comes that is reordered: a few packets overtake it."""

Pair = tuple[int, int]
"""Numbers of the clusters that a packet comes from and goes to: the third parts of addresses."""
_SOURCE_AT, _TARGET_AT = 14, 18
_HEADER_BYTES = 20


def is_there() -> bool:
    """Whether there are TUN devices on this machine that we may make."""
    return os.access(DEVICE, os.R_OK | os.W_OK)


@dataclass(slots=True)
class Late:
    """Says for each packet when it is due. free_s: until when a slow line is taken, by pair."""

    chance: random.Random
    ways: dict[Pair, Way] = field(default_factory=dict)
    free_s: dict[Pair, float] = field(default_factory=dict)

    def due(self, packet: bytes, now_s: float) -> list[float]:
        """Return when it arrives: once, twice, or never."""
        if len(packet) < _HEADER_BYTES:
            return []
        pair = (packet[_SOURCE_AT], packet[_TARGET_AT])
        way = self.ways.get(pair, OPEN)
        at_s = self._through(pair, way, len(packet), now_s)
        if at_s is None:
            return []
        jitter_s = self.chance.uniform(-way.jitter_s, way.jitter_s)
        at_s += max(0.0, way.delay_s + jitter_s)
        if self.chance.random() < way.reordered_share:
            at_s += OVERTAKEN_S
        return [at_s] * (2 if self.chance.random() < way.doubled_share else 1)

    def _through(self, pair: Pair, way: Way, size_bytes: int, now_s: float) -> float | None:
        """When a line of that rate has taken it; None if its queue is full."""
        if not way.rate_bytes_s:
            return now_s
        begins_s = max(now_s, self.free_s.get(pair, 0.0))
        waiting_bytes = (begins_s - now_s) * way.rate_bytes_s
        if waiting_bytes > max(QUEUE_S * way.rate_bytes_s, QUEUE_PACKETS * MTU_BYTES):
            return None
        self.free_s[pair] = begins_s + size_bytes / way.rate_bytes_s
        return self.free_s[pair]


class LateWire:
    """A TUN device of the network namespace that it is opened in, and what carries its packets.
    carried: packets that were written.
    """

    def __init__(self, late: Late) -> None:
        self.late = late
        self.carried = 0
        self._waiting = 0
        self._loop = asyncio.get_running_loop()
        self._device = os.open(DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.ioctl(
            self._device,
            _TUNSETIFF,
            struct.pack("16sH22x", NAME.encode(), _IFF_TUN_WITHOUT_HEADER),
        )
        self._is_open = True
        self._loop.add_reader(self._device, self._read)

    def close(self) -> None:
        """Carry nothing any more; the device is gone."""
        self._is_open = False
        self._loop.remove_reader(self._device)
        os.close(self._device)

    def _read(self) -> None:
        with suppress(BlockingIOError):
            for _ in range(AT_ONCE_MAX):
                self._carry(os.read(self._device, PACKET_BYTES_MAX))

    def _carry(self, packet: bytes) -> None:
        for due_s in self.late.due(packet, self._loop.time()):
            if self._waiting < WAITING_MAX:
                self._waiting += 1
                self._loop.call_at(due_s, self._write, packet)

    def _write(self, packet: bytes) -> None:
        self._waiting -= 1
        if self._is_open:
            # A device that takes no more loses it, as a line would.
            with suppress(OSError):
                os.write(self._device, packet)
                self.carried += 1
