"""What a mesh under test is to faults, traffic and scenarios, whoever runs it.

For: everything that has to do with a running mesh. Not for: running one (`namespaces`, `loopback`,
`attached`). Invariants: a driver says in `powers` what can be done to its mesh, and nothing else is
asked of it; whatever was done is undone when the mesh is left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from chaos.brokers import Broker
from chaos.etcds import Etcd


class Power(StrEnum):
    """What can be done to a mesh. A fault says which it needs; a driver, which it has."""

    KILL = "kill"
    """Processes are killed and started again."""
    FREEZE = "freeze"
    """They are stopped and go on."""
    RESTART = "restart"
    """A meshd is started with other settings or another environment."""
    ETCD = "etcd"
    """An etcd is written to by etcdctl, compacted, wiped, backed up, restored, started anew."""
    CUT = "cut"
    """What two clusters send to each other is lost, silently."""
    CUT_ONE_WAY = "cut-one-way"
    """The same of one direction."""
    RESET = "reset"
    """Open connections between two clusters break, as each side is told."""
    LOSS = "loss"
    """Some of the packets are lost."""
    DELAY = "delay"
    """Packets come late, in another order, twice."""
    RATE = "rate"
    """So many bytes a second and no more."""
    CLOCK = "clock"
    """What a meshd takes for the time of day jumps or drifts."""
    LIMITS = "limits"
    """Descriptors, memory and disk are short."""
    BROKER = "broker"
    """There is an MQTT broker."""
    HA = "ha"
    """Each cluster has two meshds."""
    MEMBERS = "members"
    """Each etcd has three members."""
    MEMORY = "memory"
    """The kernel ends who needs more memory than it may have."""
    BESIDE = "beside"
    """What a fault listens on beside a mesh's servers, its meshds can reach."""


class NotPossibleError(RuntimeError):
    """A mesh can't be run in this way here, or this can't be done to it. The message says what is
    missing, and what to do.
    """


class Kind(StrEnum):
    """What a process is."""

    MESHD = "meshd"
    ETCD = "etcd"
    BROKER = "broker"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What mesh is wanted. names: of the clusters, numbered from 1. settings: of every meshd, as
    `--set` takes them, without name, id, etcd, peers and listen addresses. has_fixed_shares: no
    cluster has more of the processors than any other, even where they are idle.
    """

    names: tuple[str, ...]
    is_ha: bool = False
    etcd_members: int = 1
    has_brokers: bool = False
    settings: tuple[str, ...] = ()
    etcd_flags: tuple[str, ...] = ()
    has_fixed_shares: bool = False
    folder: Path = field(default=Path())


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How what one cluster sends to another fares. The default: it arrives. rate_bytes_s: 0 means
    that there is no limit.
    """

    lost_share: float = 0.0
    delay_s: float = 0.0
    jitter_s: float = 0.0
    doubled_share: float = 0.0
    reordered_share: float = 0.0
    rate_bytes_s: int = 0


OPEN = Way()
CLOSED = Way(lost_share=1.0)


class Server(Protocol):
    """One process. name: as `east/meshd-1`. address: `host:port` where who tests reaches it; of a
    meshd its REST API.
    """

    name: str
    cluster: str
    kind: Kind
    address: str

    @property
    def pid(self) -> int | None:
        """None while it doesn't run."""

    async def start(self) -> None:
        """Start it if it doesn't run, and wait until it answers."""

    async def kill(self) -> None:
        """End it as a power cut does, frozen or not; returns when it is gone."""

    async def stop(self) -> None:
        """Ask it to end, and wait until it did."""

    async def freeze(self) -> None:
        """Let it do nothing (SIGSTOP)."""

    async def thaw(self) -> None:
        """Let it go on."""


class Meshd(Server, Protocol):
    """One meshd."""

    async def start_with(
        self, settings: Sequence[str] = (), environment: Mapping[str, str] | None = None
    ) -> None:
        """Start it with more settings or another environment; `start` is without them again."""


class Cluster(Protocol):
    """One cluster. What it has is read, and set by its driver alone."""

    @property
    def name(self) -> str:
        """Its name in the mesh."""

    @property
    def number(self) -> int:
        """Its numeric id."""

    @property
    def meshds(self) -> Sequence[Meshd]:
        """One, or two of them."""

    @property
    def share(self) -> Sequence[str]:
        """What runs a command on its share of the processors, as its own processes are run; empty
        where shares aren't ours to give.
        """

    @property
    def etcd(self) -> Etcd | None:
        """None where it isn't ours to touch."""

    @property
    def broker(self) -> Broker | None:
        """None where there is none, or where it isn't ours to touch."""

    @property
    def servers(self) -> Sequence[Server]:
        """All its processes: meshds, members of the etcd, the broker."""


class Network(Protocol):
    """What lies between clusters. All of it is of one direction: what `source` sends to `target`,
    where `source` reads the etcd of `target` as well as the other way round.
    """

    async def shape(self, source: str, target: str, way: Way) -> None:
        """Let it fare like that from now on, open connections and new ones alike."""

    async def reset(self, source: str, target: str) -> int:
        """Break the connections that `source` has opened to `target`; returns how many."""


class Mesh(Protocol):
    """A mesh under test, which runs."""

    @property
    def driver(self) -> str:
        """By what it is run."""

    @property
    def powers(self) -> frozenset[Power]:
        """What can be done to it."""

    @property
    def clusters(self) -> Mapping[str, Cluster]:
        """By name."""

    @property
    def network(self) -> Network:
        """What lies between them."""

    @property
    def folder(self) -> Path:
        """Where it leaves its files."""
