"""The clusters of a mesh: which processes each has, with what settings, and all of them up.

For: drivers that run a mesh themselves. Not for: where addresses lie and what is between clusters,
which the drivers know. Invariant: a mesh is handed out when every meshd is ready and has every peer
in sight, and not before.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import aiohttp

from chaos.brokers import Broker
from chaos.etcds import Etcd, Member
from chaos.mesh import clocks, limits
from chaos.mesh.servers import (
    BrokerServer,
    MemberServer,
    MeshdServer,
    Watch,
    Watched,
    dying_with_us,
)
from chaos.mesh.shape import Network, NotPossibleError, Plan, Power

IN_SIGHT_TIMEOUT_S = 120.0
"""Until all have read each other's logs, which are empty: seconds, and as long as `START_TIMEOUT_S`
of a meshd on a busy machine.
"""
POLL_S = 0.1
LOOK_TIMEOUT_S = 5.0
CLUSTERS_MAX = 250
"""Each has a number of its own in the third part of an address."""
OF_ALL = frozenset({Power.KILL, Power.FREEZE, Power.RESTART, Power.ETCD})
"""What can be done to processes, wherever they run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where a cluster's processes listen. apis: of each meshd, where it listens and where who tests
    reaches it. members: of each member of the etcd, for clients and for the others. broker: '' for
    none. within: the command that runs something where they are. share: the one that runs it on
    this cluster's share of the processors.
    """

    name: str
    number: int
    apis: Sequence[tuple[str, str]]
    members: Sequence[tuple[str, str]]
    broker: str = ""
    within: tuple[str, ...] = ()
    share: tuple[str, ...] = ()

    @property
    def run_by(self) -> tuple[str, ...]:
        """The command that runs each of its processes."""
        return (*self.within, *self.share, *dying_with_us())


@dataclass(slots=True, kw_only=True)
class RunCluster:
    """One cluster that a driver runs."""

    name: str
    number: int
    share: Sequence[str]
    meshds: Sequence[MeshdServer]
    etcd: Etcd
    broker: Broker | None
    members: Sequence[MemberServer]
    brokers: Sequence[BrokerServer]

    @property
    def servers(self) -> Sequence[Watched]:
        """All its processes: meshds, members of the etcd, the broker."""
        return (*self.meshds, *self.members, *self.brokers)


def powers_of(plan: Plan) -> frozenset[Power]:
    """Return what can be done to such a mesh on this machine, whatever is between its clusters."""
    wanted = {
        Power.HA: plan.is_ha,
        Power.MEMBERS: plan.etcd_members > 1,
        Power.BROKER: plan.has_brokers,
        Power.CLOCK: clocks.library() is not None,
        Power.LIMITS: shutil.which("prlimit") is not None,
        Power.MEMORY: limits.has_memory_groups(),
    }
    return OF_ALL | {power for power, is_there in wanted.items() if is_there}


def check(plan: Plan) -> None:
    """Raise NotPossibleError for a plan that nobody can run."""
    if not 1 <= len(plan.names) <= CLUSTERS_MAX or len(set(plan.names)) != len(plan.names):
        raise NotPossibleError(
            f"names={plan.names}: give 1 to {CLUSTERS_MAX} clusters, each with a name of its own"
        )
    if plan.etcd_members < 1:
        raise NotPossibleError(f"etcd_members={plan.etcd_members}: an etcd has one member at least")
    wanted = ("etcd", "etcdctl", *(("mosquitto",) if plan.has_brokers else ()))
    if missing := [program for program in wanted if shutil.which(program) is None]:
        raise NotPossibleError(f"there is no {', '.join(missing)}: run `make etcd mosquitto`")
    for name in plan.names:
        if (plan.folder / name).exists():
            raise NotPossibleError(
                f"{plan.folder / name} is there from an earlier mesh: name another folder"
            )


def build(plan: Plan, layout: Layout, peers: Mapping[str, str], watch: Watch) -> RunCluster:
    """Return a cluster of which nothing runs yet. peers: the endpoints of each other's etcd, as
    this one reaches them.
    """
    # A working directory may lie on another view of the disks than what it leads to.
    folder = plan.folder.absolute() / layout.name
    folder.mkdir(parents=True)
    members = [
        Member(f"etcd-{number}", client, peer, folder, within=layout.run_by)
        for number, (client, peer) in enumerate(layout.members, 1)
    ]
    etcd = Etcd(members, plan.etcd_flags)
    broker = Broker(layout.broker, folder, within=layout.run_by) if layout.broker else None
    shared = (
        f"cluster.name={layout.name}",
        f"cluster.id={layout.number}",
        f"etcd.endpoints={etcd.endpoints}",
        f"peers=[{','.join(_peer(name, endpoints) for name, endpoints in peers.items())}]",
        *((f"mqtt.broker={layout.broker}",) if broker else ()),
        *plan.settings,
    )
    return RunCluster(
        name=layout.name,
        number=layout.number,
        share=layout.share,
        meshds=[
            MeshdServer(
                **_who(layout, f"meshd-{number}", reached),
                watch=watch,
                settings=(*shared, f"api.listen={listen}"),
                folder=folder,
                within=layout.run_by,
            )
            for number, (listen, reached) in enumerate(layout.apis, 1)
        ],
        etcd=etcd,
        broker=broker,
        members=[
            MemberServer(**_who(layout, one.name, one.client), watch=watch, etcd=etcd, member=one)
            for one in members
        ],
        brokers=[
            BrokerServer(**_who(layout, "broker", one.address), watch=watch, broker=one)
            for one in (broker,)
            if one is not None
        ],
    )


class _Who(TypedDict):
    name: str
    cluster: str
    address: str


def _who(layout: Layout, name: str, address: str) -> _Who:
    return _Who(name=f"{layout.name}/{name}", cluster=layout.name, address=address)


def _peer(name: str, endpoints: str) -> str:
    quoted = ", ".join(f"'{one}'" for one in endpoints.split(","))
    return f"{{name: {name}, endpoints: [{quoted}]}}"


@dataclass(slots=True, kw_only=True)
class RunMesh:
    """A mesh that a driver runs. note: why it is run by this driver and not by one that can more;
    '' if there is none.
    """

    driver: str
    powers: frozenset[Power]
    clusters: Mapping[str, RunCluster]
    network: Network
    folder: Path
    note: str = ""

    @property
    def servers(self) -> Sequence[Watched]:
        """All processes of all clusters."""
        return [server for cluster in self.clusters.values() for server in cluster.servers]

    @asynccontextmanager
    async def running(self, watch: Watch) -> AsyncIterator[RunMesh]:
        """Run all processes as long as the context lasts; of their end then nobody is told."""
        try:
            await self.start()
            yield self
        finally:
            watch.end()
            await self.end()

    async def start(self) -> None:
        """Start all processes, and wait until every meshd sees every other cluster."""
        clusters = self.clusters.values()
        await together(cluster.etcd.start() for cluster in clusters)
        await together(one.start() for cluster in clusters for one in cluster.brokers)
        await together(one.start() for cluster in clusters for one in cluster.meshds)
        await together(self._until_all_in_sight(one) for c in clusters for one in c.meshds)

    async def _until_all_in_sight(self, meshd: MeshdServer) -> None:
        async with aiohttp.ClientSession() as http:
            missing = "anybody"
            try:
                async with asyncio.timeout(IN_SIGHT_TIMEOUT_S):
                    while missing:
                        missing = await self._not_in_sight(http, meshd)
                        await asyncio.sleep(POLL_S if missing else 0)
            except TimeoutError:
                raise RuntimeError(
                    f"{meshd.name} didn't see {missing} within {IN_SIGHT_TIMEOUT_S:g} s: "
                    f"see {meshd.log}"
                ) from None

    async def _not_in_sight(self, http: aiohttp.ClientSession, meshd: MeshdServer) -> str:
        others = {name for name in self.clusters if name != meshd.cluster}
        timeout = aiohttp.ClientTimeout(total=LOOK_TIMEOUT_S)
        try:
            async with http.get(f"http://{meshd.address}/v1/status", timeout=timeout) as response:
                peers = (await response.json())["peers"]
        except (aiohttp.ClientError, TimeoutError, ValueError, LookupError):
            return "anybody"
        seen = {peer["name"] for peer in peers if peer["phase"] == "Ready"}
        return ", ".join(sorted(others - seen))

    async def end(self) -> None:
        """Kill whatever runs."""
        await together(server.kill() for server in self.servers)


async def together(deeds: Iterable[Coroutine[None, None, None]]) -> None:
    """Do all at once; raises the first error by itself, as one deed alone would."""
    try:
        async with asyncio.TaskGroup() as tasks:
            for deed in deeds:
                tasks.create_task(deed)
    except ExceptionGroup as group:
        raise group.exceptions[0] from None
