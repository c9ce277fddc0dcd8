"""A mesh on loopback addresses, with a TCP wire between each cluster and each other's etcd.

For: machines where one may do nothing but start processes. Not for: single packets, which TCP
hides: nothing is doubled nor reordered here, and a share of loss can't be had (`namespaces`).
Invariant: what clusters send to each other passes a wire, and what who tests sends does not.
"""

from __future__ import annotations

import os
import random
import socket
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from chaos.mesh.clusters import Layout, RunMesh, build, check, powers_of
from chaos.mesh.servers import Listener, Watch
from chaos.mesh.shape import OPEN, NotPossibleError, Plan, Power, Way
from chaos.mesh.shares import shared_out
from chaos.wire import FREE, Flow, Wire

PORTS = range(24_000, 32_000)
"""Below those that the kernel gives to clients."""
OF_WIRES = frozenset({Power.CUT, Power.CUT_ONE_WAY, Power.RESET, Power.DELAY, Power.RATE})

Pair = tuple[str, str]


@dataclass(slots=True)
class WireNetwork:
    """All wires. by_pair: of the cluster that reads and the one that is read, one to a member."""

    by_pair: Mapping[Pair, Sequence[Wire]]
    ways: dict[Pair, Way] = field(default_factory=dict)

    async def shape(self, source: str, target: str, way: Way) -> None:
        """Let what source sends to target fare like that: requests on its own wires, and answers
        on those of the target.
        """
        _flow(way)
        self.ways[source, target] = way
        self._set(source, target)
        self._set(target, source)

    def _set(self, reader: str, read: str) -> None:
        forth = _flow(self.ways.get((reader, read), OPEN))
        back = _flow(self.ways.get((read, reader), OPEN))
        for wire in self.by_pair[reader, read]:
            wire.set_flows(forth=forth, back=back)

    async def reset(self, source: str, target: str) -> int:
        """Break the connections that source has opened to target."""
        return sum(wire.reset() for wire in self.by_pair[source, target])


def _flow(way: Way) -> Flow:
    """What a client of TCP sees of it."""
    if way == OPEN:
        return FREE
    if 0 < way.lost_share < 1:
        raise NotPossibleError(
            f"lost_share={way.lost_share}: on loopback all or nothing is lost; run the mesh in "
            "network namespaces"
        )
    return Flow(
        is_held=way.lost_share >= 1,
        delay_s=way.delay_s,
        jitter_s=way.jitter_s,
        rate_bytes_s=way.rate_bytes_s,
    )


@dataclass(slots=True)
class Addresses:
    """Free ones of 127.0.0.0/8, of which each process has its own."""

    given: set[str] = field(default_factory=set)

    def of(self, number: int) -> str:
        """Return another one of a cluster."""
        pid = os.getpid()
        host = f"127.{1 + (pid >> 8) % 254}.{pid & 255}.{number}"
        for port in PORTS:
            address = f"{host}:{port}"
            if address not in self.given and _is_free(host, port):
                self.given.add(address)
                return address
        raise NotPossibleError(f"no port of {host} from {PORTS.start} to {PORTS.stop} is free")


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def powers(plan: Plan) -> frozenset[Power]:
    """Return what can be done to such a mesh on this machine."""
    return powers_of(plan) | OF_WIRES | {Power.BESIDE}


@asynccontextmanager
async def running(plan: Plan, listener: Listener | None = None) -> AsyncIterator[RunMesh]:
    """Run a mesh as long as the context lasts."""
    check(plan)
    addresses = Addresses()
    async with AsyncExitStack() as stack:
        shares = stack.enter_context(shared_out(plan.names, is_fixed=plan.has_fixed_shares))
        watch = await stack.enter_async_context(Watch(listener).running())
        layouts = [
            _layout(plan, name, number, addresses, shares[name])
            for number, name in enumerate(plan.names, 1)
        ]
        network = WireNetwork(dict(_wires(layouts, addresses)))
        for wires in network.by_pair.values():
            for wire in wires:
                await stack.enter_async_context(wire.running())
        clusters = {
            layout.name: build(plan, layout, _seen_by(layout.name, network.by_pair), watch)
            for layout in layouts
        }
        mesh = RunMesh(
            driver="loopback",
            powers=powers(plan),
            clusters=clusters,
            network=network,
            folder=plan.folder,
        )
        async with mesh.running(watch):
            yield mesh


def _layout(
    plan: Plan, name: str, number: int, addresses: Addresses, share: tuple[str, ...]
) -> Layout:
    apis = [addresses.of(number) for _ in range(2 if plan.is_ha else 1)]
    return Layout(
        name=name,
        number=number,
        apis=[(api, api) for api in apis],
        members=[(addresses.of(number), addresses.of(number)) for _ in range(plan.etcd_members)],
        broker=addresses.of(number) if plan.has_brokers else "",
        share=share,
    )


def _wires(layouts: Sequence[Layout], addresses: Addresses) -> Iterable[tuple[Pair, list[Wire]]]:
    for reader in layouts:
        for read in layouts:
            if reader is not read:
                yield (
                    (reader.name, read.name),
                    [
                        Wire(addresses.of(reader.number), client, _chance(reader, read))
                        for client, _ in read.members
                    ],
                )


def _chance(reader: Layout, read: Layout) -> random.Random:
    return random.Random(f"{reader.name} {read.name}")  # noqa: S311 lateness is no secret


def _seen_by(reader: str, by_pair: Mapping[Pair, Sequence[Wire]]) -> dict[str, str]:
    return {
        read: ",".join(wire.listen for wire in wires)
        for (one, read), wires in by_pair.items()
        if one == reader
    }
