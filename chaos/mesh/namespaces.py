"""A mesh with each cluster in a network namespace of its own, and this process between them.

For: root, or whoever may make user namespaces (`enter`). Not for: machines that allow neither
(`loopback`). Invariants: nothing of the machine's own network is touched, since clusters meet in a
namespace that this process makes for itself; what clusters send to each other passes there, is lost
by nft and late by `late`, and nothing else is.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from chaos.mesh import late, places
from chaos.mesh.clusters import Layout, RunMesh, build, check, powers_of, together
from chaos.mesh.late import Late, LateWire
from chaos.mesh.places import Place
from chaos.mesh.servers import Listener, Watch
from chaos.mesh.shape import NotPossibleError, Plan, Power, Way
from chaos.mesh.shares import shared_out

PROGRAMS = {"ip": "iproute2", "ss": "iproute2", "nft": "nftables", "nsenter": "util-linux"}
"""And the Debian packages that have them."""
COMMAND_TIMEOUT_S = 30.0
API_PORT = 8001
API_PORTS = "8000-8999"
ETCD_PORT = 2379
BROKER_PORT = 1883
SERVED_PORTS = "10000"
"""Below it are ports that something listens on; clients get those from 32768 on."""
TABLE = 88
"""Of routes, for what is late."""
PREFERENCE = 100
"""Of the rule of the first pair; what comes from the wire is looked up before."""
PARTS = 10_000
"""In how many a share of loss is counted."""
OF_PACKETS = frozenset({Power.CUT, Power.CUT_ONE_WAY, Power.RESET, Power.LOSS})
OF_LATE = frozenset({Power.DELAY, Power.RATE})

Pair = tuple[str, str]


def enter() -> None:
    """Become able to run meshes in namespaces: to be called by a command before anything else. For
    root there is nothing to do. Others come into a user namespace without the machine's network,
    and stay there. Raises NotPossibleError if that can't be; then nothing has changed.
    """
    if os.geteuid() == 0:
        return
    with _daily():
        if lacking := _lacking():
            raise NotPossibleError("; ".join(lacking))
        places.become_root_of_our_own()
        # For meshes on loopback, should there be something else that keeps us from the rest.
        subprocess.run(("ip", "link", "set", "lo", "up"), check=True, timeout=COMMAND_TIMEOUT_S)


def missing() -> list[str]:
    """Return what keeps a mesh from being run in namespaces, each with what to do about it."""
    with _daily():
        found = _lacking()
    try:
        places.new().close()
    except NotPossibleError as error:
        found.append(str(error))
    return found


def _lacking() -> list[str]:
    return [
        f"there is no {program}: install {package}"
        for program, package in PROGRAMS.items()
        if shutil.which(program) is None
    ]


@contextmanager
def _daily() -> Iterator[None]:
    """Find programs that only root needs, though PATH may not lead to them."""
    was = os.environ.get("PATH", "")
    os.environ["PATH"] = f"{was}:/usr/sbin:/sbin"
    try:
        yield
    finally:
        os.environ["PATH"] = was


async def _run(*command: str, given: str = "") -> str:
    """Run a command; raises NotPossibleError with what it said if it fails."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(COMMAND_TIMEOUT_S):
        said, complained = await process.communicate(given.encode())
    if process.returncode != 0:
        raise NotPossibleError(f"{' '.join(command)}: {complained.decode(errors='replace')}")
    return said.decode(errors="replace")


@dataclass(frozen=True, slots=True)
class Site:
    """Where a cluster is."""

    name: str
    number: int
    place: Place

    @property
    def address(self) -> str:
        """Where its processes listen."""
        return f"10.88.{self.number}.1"

    @property
    def visitor(self) -> str:
        """Where its meshds are for who tests: they answer nobody who didn't ask for loopback."""
        return f"127.88.{self.number}.1"

    @property
    def device(self) -> str:
        """Our end of the line to it."""
        return f"to-{self.number}"

    @property
    def router(self) -> str:
        """Where it sends whatever isn't for itself."""
        return f"10.88.{self.number}.254"

    @property
    def net(self) -> str:
        """All its addresses."""
        return f"10.88.{self.number}.0/24"


@dataclass(slots=True)
class SiteNetwork:
    """What is between the clusters. wire: None where there are no TUN devices."""

    sites: Mapping[str, Site]
    wire: LateWire | None
    ways: dict[Pair, Way] = field(default_factory=dict)
    changing: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def shape(self, source: str, target: str, way: Way) -> None:
        """Let packets from source to target fare like that."""
        is_late = bool(_lateness(way))
        if is_late and self.wire is None:
            raise NotPossibleError(
                f"{', '.join(_lateness(way))}: there is no {late.DEVICE} that we may use"
            )
        async with self.changing:
            was = self.ways.get((source, target), Way())
            self.ways[source, target] = way
            if self.wire is not None:
                pair = (self.sites[source].number, self.sites[target].number)
                self.wire.late.ways[pair] = way
            await _run("nft", "-f", "-", given=self._lossy())
            if is_late != bool(_lateness(was)):
                await self._lead(source, target, "add" if is_late else "del")

    def _lossy(self) -> str:
        """All rules on what is lost, which replace those that were there, all at once."""
        rules = [
            f"ip saddr {self.sites[source].net} ip daddr {self.sites[target].net} "
            f'iifname != "{late.NAME}" {_share(way.lost_share)} counter drop'
            for (source, target), way in self.ways.items()
            if way.lost_share > 0
        ]
        fresh = _table("between", "filter", "forward", 0, *rules)
        return f"table ip between\ndelete table ip between\n{fresh}"

    async def _lead(self, source: str, target: str, verb: str) -> None:
        """Lead a pair's packets through the wire, or no longer."""
        one, other = self.sites[source], self.sites[target]
        chosen = ("from", one.net, "to", other.net, "lookup", str(TABLE))
        await _run("ip", "rule", verb, "pref", str(PREFERENCE), *chosen)

    async def reset(self, source: str, target: str) -> int:
        """Break the connections that source has opened to target; both sides are told."""
        within = self.sites[source].place.within
        chosen = f"dst {self.sites[target].net} and dport < :{SERVED_PORTS}"
        said = await _run(*within, "ss", "-H", "-t", "-n", "-K", "state", "established", chosen)
        return len(said.splitlines())


def _lateness(way: Way) -> list[str]:
    names = ("delay_s", "jitter_s", "doubled_share", "reordered_share", "rate_bytes_s")
    return [name for name in names if getattr(way, name)]


def _share(lost_share: float) -> str:
    if lost_share >= 1:
        return ""
    return f"numgen random mod {PARTS} < {max(1, round(lost_share * PARTS))}"


def powers(plan: Plan) -> frozenset[Power]:
    """Return what can be done to such a mesh on this machine."""
    return powers_of(plan) | OF_PACKETS | (OF_LATE if late.is_there() else frozenset())


@asynccontextmanager
async def running(plan: Plan, listener: Listener | None = None) -> AsyncIterator[RunMesh]:
    """Run a mesh as long as the context lasts. Meanwhile this thread, and what it starts, is in the
    namespace where the clusters meet: it reaches them, and nothing of the machine's network.
    """
    check(plan)
    async with AsyncExitStack() as stack:
        shares = stack.enter_context(shared_out(plan.names, is_fixed=plan.has_fixed_shares))
        network = await stack.enter_async_context(joined(plan))
        watch = await stack.enter_async_context(Watch(listener).running())
        layouts = [_layout(plan, site, shares[name]) for name, site in network.sites.items()]
        clients = {one.name: ",".join(client for client, _ in one.members) for one in layouts}
        clusters = {
            layout.name: build(
                plan,
                layout,
                {name: client for name, client in clients.items() if name != layout.name},
                watch,
            )
            for layout in layouts
        }
        mesh = RunMesh(
            driver="namespaces",
            powers=powers(plan),
            clusters=clusters,
            network=network,
            folder=plan.folder,
        )
        async with mesh.running(watch):
            yield mesh


def _layout(plan: Plan, site: Site, share: tuple[str, ...]) -> Layout:
    ports = range(API_PORT, API_PORT + (2 if plan.is_ha else 1))
    clients = [ETCD_PORT + 10 * number for number in range(plan.etcd_members)]
    address = site.address
    return Layout(
        name=site.name,
        number=site.number,
        # Beyond loopback a meshd asks for a token; `_lead_visitors` has it reached there anyway.
        apis=[(f"127.0.0.1:{port}", f"{site.visitor}:{port}") for port in ports],
        members=[(f"{address}:{port}", f"{address}:{port + 1}") for port in clients],
        broker=f"{address}:{BROKER_PORT}" if plan.has_brokers else "",
        within=site.place.within,
        share=share,
    )


@asynccontextmanager
async def joined(plan: Plan) -> AsyncIterator[SiteNetwork]:
    """Make all namespaces, join them, and be where they meet."""
    if found := missing():
        raise NotPossibleError("; ".join(found))
    async with AsyncExitStack() as stack:
        stack.enter_context(_daily())

        def place() -> Place:
            return stack.enter_context(closing(places.new()))

        meeting = place()
        sites = {name: Site(name, number, place()) for number, name in enumerate(plan.names, 1)}
        stack.enter_context(meeting.entered())
        _set("ipv4/ip_forward", "1")
        # What comes back from the wire comes from where its sender isn't.
        _set("ipv4/conf/all/rp_filter", "0")
        _set("ipv4/conf/default/rp_filter", "0")
        await _run("ip", "link", "set", "lo", "up")
        await together(_furnish(site) for site in sites.values())
        await _lead_visitors(sites.values())
        wire = None
        if late.is_there():
            wire = stack.enter_context(closing(LateWire(Late(_chance(plan)))))
            await _run("ip", "link", "set", late.NAME, "up")
            await _run("ip", "route", "add", "default", "dev", late.NAME, "table", str(TABLE))
            first = str(PREFERENCE - 1)
            await _run("ip", "rule", "add", "pref", first, "iif", late.NAME, "lookup", "main")
        yield SiteNetwork(sites, wire)


def _chance(plan: Plan) -> random.Random:
    return random.Random(" ".join(plan.names))  # noqa: S311 lateness is no secret


async def _furnish(site: Site) -> None:
    """Join a cluster's namespace to ours."""
    device, within = site.device, site.place.within
    end = ("peer", "name", "eth0", "netns", site.place.path)
    await _run("ip", "link", "add", device, "type", "veth", *end)
    await _run("ip", "address", "add", f"{site.router}/24", "dev", device)
    await _run("ip", "link", "set", device, "up")
    await _run(*within, "ip", "link", "set", "lo", "up")
    await _run(*within, "ip", "address", "add", f"{site.address}/24", "dev", "eth0")
    await _run(*within, "ip", "link", "set", "eth0", "up")
    await _run(*within, "ip", "route", "add", "default", "via", site.router)
    with site.place.entered():
        _set("ipv4/conf/eth0/route_localnet", "1")
    _set(f"ipv4/conf/{device}/route_localnet", "1")
    rule = f'iifname "eth0" tcp dport {API_PORTS} dnat to 127.0.0.1'
    await _run(*within, "nft", "-f", "-", given=_table("api", "nat", "prerouting", -100, rule))


async def _lead_visitors(sites: Iterable[Site]) -> None:
    """Lead who tests from a loopback address of each cluster to its meshds' own."""
    rules = [f"ip daddr {site.visitor} dnat to {site.address}" for site in sites]
    await _run("nft", "-f", "-", given=_table("there", "nat", "output", -100, *rules))
    rule = 'ip saddr 127.0.0.0/8 oifname != "lo" masquerade'
    await _run("nft", "-f", "-", given=_table("back", "nat", "postrouting", 100, rule))


def _table(name: str, kind: str, hook: str, priority: int, *rules: str) -> str:
    """Return a table of one chain, as nft reads it."""
    lines = (f"type {kind} hook {hook} priority {priority}; policy accept;", *rules)
    return "\n".join((f"table ip {name} {{", f"chain {hook} {{", *lines, "}", "}", ""))


def _set(name: str, value: str) -> None:
    """Set what the kernel keeps for the namespace that this thread is in."""
    Path("/proc/sys/net", name).write_text(value)
