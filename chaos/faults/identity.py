"""Rows 10 and 11: clusters that claim another's name or id, and addresses that lead elsewhere.

For: who is behind an address. Not for: what it says then (`poison`). Invariants: who claims what
isn't theirs is listed by a fault and taken off again; meshds run as they are configured afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, ClassVar, Final

from chaos.faults.beside import LAST_IDS, fresh_folder, outsider
from chaos.faults.boot import Listed, as_configured, listed_peers, restart_with_peers
from chaos.faults.fault import Fault, Says, Stage, Usual
from chaos.faults.ground import SOON, ask, kept, running
from chaos.faults.saying import DONE, taken_off
from chaos.faults.signs import peer_is, when
from chaos.mesh.shape import Cluster, Kind, Power, Server

KEPT_OUT: Final = frozenset({"Refused", "Quarantined"})
NEWCOMER: Final = "newcomer"
PATH: Final = f"/v1/peers/{NEWCOMER}"


class _Newcomer(Usual):
    """The victims list a peer that claims to be another one."""

    number: ClassVar[int] = 10
    behaviour: ClassVar[str] = "the newcomer is kept out, loudly, and tables that exist go on"
    needs: ClassVar[frozenset[Power]] = frozenset({Power.BESIDE})
    programs: ClassVar[tuple[str, ...]] = ("etcd", "etcdctl")
    hold_s: ClassVar[float] = 5.0
    settings: ClassVar[Mapping[str, object]] = SOON

    def claim(self, other: Cluster) -> tuple[str, int]:
        """The name and id that it gives itself, when there is already this cluster."""
        raise NotImplementedError

    async def inject(self, stage: Stage) -> Says:
        """Run it, and list it."""
        other = stage.chance.choice(list(stage.others))
        name, number = self.claim(other)
        stack = stage.memory["newcomer"] = AsyncExitStack()
        folder = await fresh_folder(stage.mesh.folder, NEWCOMER)
        seen_by = stage.clusters[0].meshds[0]
        made = await stack.enter_async_context(outsider(folder, seen_by, name, number))
        endpoints = {"endpoints": made.etcd.endpoints.split(",")}
        for cluster in stage.clusters:
            await when(_listed, cluster, endpoints)
        return Says(detail=f"{NEWCOMER} calls itself {name} with id {number}, as {other.name} does")

    async def bit(self, stage: Stage) -> str:
        """It is kept out by every victim, with a reason."""
        meshds = running(stage.clusters, Kind.MESHD)
        return "; ".join([await peer_is(meshd, NEWCOMER, KEPT_OUT) for meshd in meshds])

    async def heal(self, stage: Stage) -> None:
        """Take it off the lists, and end it."""
        stack = kept(stage, "newcomer", AsyncExitStack)
        if stack is not None:
            for cluster in stage.clusters:
                await taken_off(cluster, PATH)
            await stack.aclose()
            del stage.memory["newcomer"]


async def _listed(cluster: Cluster, peer: Mapping[str, object]) -> bool:
    answer = await ask(running([cluster], Kind.MESHD)[0], PATH, "PUT", peer)
    if answer.status not in DONE | {503, 504}:
        raise RuntimeError(f"{cluster.name} doesn't list {NEWCOMER}: {answer.data}")
    return answer.status in DONE


class IdTaken(_Newcomer):
    """It has another's id."""

    name: ClassVar[str] = "id-taken"
    summary: ClassVar[str] = "a newcomer has the id of a cluster that there is"

    def claim(self, other: Cluster) -> tuple[str, int]:
        """The name is its own."""
        return NEWCOMER, other.number


class NameTaken(_Newcomer):
    """It has another's name."""

    name: ClassVar[str] = "name-taken"
    summary: ClassVar[str] = "a newcomer calls itself as a cluster that there is"

    def claim(self, other: Cluster) -> tuple[str, int]:
        """The id is its own."""
        return other.name, LAST_IDS[0]


class AddressesSwapped(Usual):
    """The victims look for one peer where another one is, and the other way round."""

    number: ClassVar[int] = 11
    name: ClassVar[str] = "addresses-swapped"
    summary: ClassVar[str] = "the addresses of two peers are exchanged"
    behaviour: ClassVar[str] = "both are refused, and what was known of them last stays"
    needs: ClassVar[frozenset[Power]] = frozenset({Power.KILL, Power.RESTART})
    hold_s: ClassVar[float] = 5.0
    settings: ClassVar[Mapping[str, object]] = SOON

    async def inject(self, stage: Stage) -> Says:
        """Start them with the addresses of two peers exchanged."""
        said = []
        for cluster in stage.clusters:
            names = sorted(str(one["name"]) for one in listed_peers(cluster.meshds[0]))
            if len(names) < 2:  # noqa: PLR2004 to exchange something
                raise RuntimeError(f"{cluster.name} has {len(names)} peers: it takes two")
            pair = stage.chance.sample(names, 2)
            stage.memory[f"swapped {cluster.name}"] = pair
            for meshd in cluster.meshds:
                await restart_with_peers(meshd, lambda peers, two=pair: _swapped(peers, *two))  # type: ignore[misc]
            said.append(f"{cluster.name} looks for {pair[0]} and {pair[1]} at each other's place")
        return Says(detail="; ".join(said))

    async def bit(self, stage: Stage) -> str:
        """Both are refused, and are in the tables nevertheless."""
        told = []
        for cluster in stage.clusters:
            pair: Sequence[str] = kept(stage, f"swapped {cluster.name}", list) or ()
            for meshd in running([cluster], Kind.MESHD):
                told += [await peer_is(meshd, peer, KEPT_OUT) for peer in pair]
                told.append(f"{await _backends_of(meshd, pair)} backends of theirs are served on")
        return "; ".join(told)

    async def heal(self, stage: Stage) -> None:
        """Start them as they are configured."""
        await as_configured(stage, "swapped")


def _swapped(peers: Sequence[Listed], one: str, other: str) -> Sequence[Listed]:
    at = {str(peer["name"]): peer["endpoints"] for peer in peers}
    at[one], at[other] = at[other], at[one]
    return [{**peer, "endpoints": at[str(peer["name"])]} for peer in peers]


async def _backends_of(meshd: Server, peers: Sequence[str]) -> int:
    table: Any = (await ask(meshd, "/v1/tables")).data
    served = [one for service in table["services"] for one in service["backends"]]
    return sum(backend["cluster"] in peers for backend in served)


FAULTS: Final[tuple[type[Fault], ...]] = (IdTaken, NameTaken, AddressesSwapped)
