"""Rows 31 to 33: meshds that start while others can't be reached, found, or are listed no more.

For: starts. Not for: links that break later (`network`). Invariants: meshds run as they are
configured afterwards, and all links are open.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

import yaml

from chaos.faults.fault import Blast, Fault, Says, Stage, Usual
from chaos.faults.ground import ask, first_of, running, until
from chaos.mesh.shape import CLOSED, OPEN, Cluster, Kind, Meshd, Network, Power, Server, Way

PEERS: Final = "peers="
NOWHERE: Final = "invalid"
"""A top-level domain in which there is no name (RFC 6761)."""

Listed = Mapping[str, Any]


async def _shape(network: Network, stage: Stage, cluster: Cluster, way: Way) -> None:
    """Both directions between a cluster and all others."""
    for other in stage.mesh.clusters:
        if other != cluster.name:
            await network.shape(cluster.name, other, way)
            await network.shape(other, cluster.name, way)


class BootAlone(Usual):
    """The victims' meshds start while no peer can be reached."""

    number: ClassVar[int] = 31
    name: ClassVar[str] = "boot-alone"
    summary: ClassVar[str] = "meshds start while all peers are out of reach"
    behaviour: ClassVar[str] = "they are ready with their own and what they knew last of the others"
    needs: ClassVar[frozenset[Power]] = frozenset({Power.CUT, Power.KILL})
    blast: ClassVar[Blast] = Blast.PAIR
    hold_s: ClassVar[float] = 3.0

    async def inject(self, stage: Stage) -> Says:
        """Cut them off, kill them, start them; that waits until they are ready."""
        for cluster in stage.clusters:
            await _shape(stage.mesh.network, stage, cluster, CLOSED)
            for meshd in cluster.meshds:
                await meshd.kill()
            for meshd in cluster.meshds:
                await meshd.start()
        return Says()

    async def bit(self, stage: Stage) -> str:
        """They are ready, and no link is up."""
        told = []
        for meshd in running(stage.clusters, Kind.MESHD):
            listed = await until(
                meshd,
                "/v1/peers",
                lambda it: it["items"] and all(one["link"] == "down" for one in it["items"]),
            )
            ready = await until(meshd, "/readyz", lambda it: it["ready"])
            services = (await ask(meshd, "/v1/tables")).data["services"]
            phases = ", ".join(f"{one['name']} {one['phase']}" for one in listed["items"])
            told.append(
                f"{meshd.name} is ready ({ready['ready']}) with {len(services)} services; {phases}"
            )
        return "; ".join(told)

    async def heal(self, stage: Stage) -> None:
        """Mend the links, and see to it that they run."""
        for cluster in stage.clusters:
            await _shape(stage.mesh.network, stage, cluster, OPEN)
            for meshd in cluster.meshds:
                await meshd.start()


def listed_peers(meshd: Server) -> Sequence[Listed]:
    """The peers that a meshd was started with, as its own command says; raises RuntimeError."""
    arguments = Path(f"/proc/{meshd.pid}/cmdline").read_bytes().decode().split("\0")
    given = [one.removeprefix(PEERS) for one in arguments if one.startswith(PEERS)]
    if not given:
        raise RuntimeError(f"{meshd.name} wasn't started with `--set {PEERS}…`")
    found: Sequence[Listed] = yaml.safe_load(given[-1])
    return found


Change = Callable[[Sequence[Listed]], Sequence[Listed]]


async def restart_with_peers(meshd: Meshd, change: Change) -> Sequence[Listed]:
    """Start a meshd with its peers changed; returns them as they were."""
    before = listed_peers(meshd)
    await meshd.stop()
    await meshd.start_with((f"{PEERS}{json.dumps(change(before))}",))
    return before


async def as_configured(stage: Stage, what: str) -> None:
    """Run the victims' meshds again as they are configured, if `what` was done to them."""
    for cluster in stage.clusters:
        name = f"{what} {cluster.name}"
        if name in stage.memory:
            for meshd in cluster.meshds:
                await meshd.stop()
                await meshd.start()
            del stage.memory[name]


class PeerRemoved(Usual):
    """The victims list a peer no more that they can't reach."""

    number: ClassVar[int] = 32
    name: ClassVar[str] = "peer-removed"
    summary: ClassVar[str] = "a peer that is out of reach is listed no more"
    behaviour: ClassVar[str] = "its services are withdrawn, and those of no other"
    needs: ClassVar[frozenset[Power]] = frozenset({Power.CUT, Power.KILL, Power.RESTART})
    hold_s: ClassVar[float] = 3.0

    async def inject(self, stage: Stage) -> Says:
        """Cut the victim from one peer, and start it without that."""
        said = []
        for cluster in stage.clusters:
            peers = sorted({str(one["name"]) for one in listed_peers(cluster.meshds[0])})
            removed = stage.chance.choice(peers)
            stage.memory[f"removed {cluster.name}"] = removed
            await stage.mesh.network.shape(cluster.name, removed, CLOSED)
            for meshd in cluster.meshds:
                await restart_with_peers(meshd, _without(removed))
            said.append(f"{cluster.name} lists {removed} no more")
        return Says(detail="; ".join(said))

    async def bit(self, stage: Stage) -> str:
        """It isn't in the victims' tables any more, and all others are."""
        told = []
        for cluster in stage.clusters:
            removed = str(stage.memory[f"removed {cluster.name}"])
            for meshd in running([cluster], Kind.MESHD):
                await until(meshd, "/v1/tables", lambda it, gone=removed: not _has(it, gone))  # type: ignore[misc]
                left = (await ask(meshd, "/v1/peers")).data["items"]
                names = ", ".join(one["name"] for one in left) or "nobody"
                told.append(f"{meshd.name} lists {names}, and serves nothing of {removed}")
        return "; ".join(told)

    async def heal(self, stage: Stage) -> None:
        """List it again, and mend the link."""
        for cluster in stage.clusters:
            removed = stage.memory.get(f"removed {cluster.name}")
            if removed is not None:
                await stage.mesh.network.shape(cluster.name, str(removed), OPEN)
        await as_configured(stage, "removed")


def _without(name: str) -> Change:
    return lambda peers: [one for one in peers if one["name"] != name]


def _has(table: Any, cluster: str) -> bool:
    return any(
        backend["cluster"] == cluster
        for service in table["services"]
        for backend in service["backends"]
    )


class NamesUnknown(Usual):
    """The victims know their peers by names that nobody knows."""

    number: ClassVar[int] = 33
    name: ClassVar[str] = "names-unknown"
    summary: ClassVar[str] = "peers are listed by names that can't be resolved"
    behaviour: ClassVar[str] = "they are tried again with growing pauses, and nothing waits for it"
    needs: ClassVar[frozenset[Power]] = frozenset({Power.KILL, Power.RESTART})
    hold_s: ClassVar[float] = 5.0

    async def inject(self, stage: Stage) -> Says:
        """Start them with names for addresses."""
        for cluster in stage.clusters:
            stage.memory[f"named {cluster.name}"] = True
            for meshd in cluster.meshds:
                await restart_with_peers(meshd, _by_unknown_names)
        return Says()

    async def bit(self, stage: Stage) -> str:
        """No link is up, with a reason, and the meshd is ready and quick nevertheless."""
        told = []
        for cluster in stage.clusters:
            meshds = running([cluster], Kind.MESHD)
            told.append(await first_of(_unresolved(meshd) for meshd in meshds))
        return "; ".join(told)

    async def heal(self, stage: Stage) -> None:
        """Start them as they are configured."""
        await as_configured(stage, "named")


def _by_unknown_names(peers: Sequence[Listed]) -> Sequence[Listed]:
    return [
        {
            **one,
            "endpoints": [
                f"{one['name']}.{NOWHERE}:{str(address).rpartition(':')[2]}"
                for address in one["endpoints"]
            ],
        }
        for one in peers
    ]


async def _unresolved(meshd: Server) -> str:
    listed = await until(
        meshd,
        "/v1/peers",
        lambda it: (
            it["items"] and all(one["link"] == "down" and one["reason"] for one in it["items"])
        ),
    )
    await until(meshd, "/readyz", lambda it: it["ready"])
    first = listed["items"][0]
    return f"{meshd.name} is ready, and says of {first['name']}: {first['reason']}"


FAULTS: Final[tuple[type[Fault], ...]] = (BootAlone, PeerRemoved, NamesUnknown)
