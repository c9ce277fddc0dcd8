"""Rows 13 to 16: links between clusters that are cut, in one direction too, slow, or flap.

For: what happens to what is sent. Not for: addresses that lead elsewhere (`identity`). Invariant:
healed, everything that a victim sends arrives, and everything that is sent to it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from chaos.faults.fault import Blast, Fault, Says, Stage, Usual
from chaos.faults.going_on import GoingOn
from chaos.faults.ground import ASK_EVERY_S, EXPORT, SOON, etcd_of, first_of, kept, running, until
from chaos.faults.saying import say, unsay
from chaos.faults.signs import parted
from chaos.mesh.shape import CLOSED, OPEN, Cluster, Kind, Power, Server, Way

SLOW: Final = Way(rate_bytes_s=32 * 1024)
"""256 kbit a second: a bad line, that heartbeats of some hundred bytes a second still fit into."""
MUCH: Final = 1500
MUCH_BYTES: Final = 200
"""In each of so many events: together some 400 KB, which take 13 s on a slow link."""
LARGE: Final = "large"
FLAP_S: Final = 1.0
"""Down for so long, and up for so long."""
FLAPS: Final = 3
"""So often before it counts as flapping."""


def _links(stage: Stage) -> Iterator[tuple[str, str]]:
    """Each victim and each other cluster, other victims among them."""
    for victim in stage.victims:
        for other in stage.mesh.clusters:
            if other != victim:
                yield victim, other


async def _both_ways(stage: Stage, way: Way) -> None:
    for victim, other in _links(stage):
        await stage.mesh.network.shape(victim, other, way)
        await stage.mesh.network.shape(other, victim, way)


async def _reset(stage: Stage) -> int:
    """Break what is open on the victims' links; returns how many connections that were."""
    broken = 0
    for victim, other in _links(stage):
        broken += await stage.mesh.network.reset(victim, other)
        broken += await stage.mesh.network.reset(other, victim)
    return broken


def _since_now(stage: Stage) -> Says:
    """Note when nothing arrived any more."""
    stage.memory["since"] = asyncio.get_running_loop().time()
    return Says()


class _Link(Usual):
    """Something is done to all links of the victims."""

    blast: ClassVar[Blast] = Blast.PAIR
    hold_s: ClassVar[float] = 6.0
    settings: ClassVar[Mapping[str, object]] = SOON

    async def bit(self, stage: Stage) -> str:
        """Each victim and somebody else have lost sight of each other."""
        since_s = kept(stage, "since", float)
        if since_s is None:
            raise RuntimeError("no link is cut: inject comes first")
        return "; ".join([await parted(cluster, stage, since_s) for cluster in stage.clusters])

    async def heal(self, stage: Stage) -> None:
        """Mend them."""
        stage.memory.pop("since", None)
        await _both_ways(stage, OPEN)


class LinkCut(_Link):
    """Nothing arrives any more, and no connection breaks."""

    number: ClassVar[int] = 13
    name: ClassVar[str] = "link-cut"
    summary: ClassVar[str] = "nothing arrives on a cluster's links; connections stay half open"
    behaviour: ClassVar[str] = "that is noticed within a bound, and what was missed is read later"
    needs: ClassVar[frozenset[Power]] = frozenset({Power.CUT})

    async def inject(self, stage: Stage) -> Says:
        """Lose everything, in both directions."""
        await _both_ways(stage, CLOSED)
        return _since_now(stage)


class LinkOneWay(_Link):
    """What the victims send is lost; what is sent to them arrives."""

    number: ClassVar[int] = 14
    name: ClassVar[str] = "link-one-way"
    summary: ClassVar[str] = "what a cluster sends is lost; what is sent to it arrives"
    behaviour: ClassVar[str] = "who misses something goes stale there, and no table flaps"
    needs: ClassVar[frozenset[Power]] = frozenset({Power.CUT_ONE_WAY})

    async def inject(self, stage: Stage) -> Says:
        """Lose what they send."""
        for victim, other in _links(stage):
            await stage.mesh.network.shape(victim, other, CLOSED)
        return _since_now(stage)


class LinkDeaf(LinkOneWay):
    """What is sent to the victims is lost; what they send arrives."""

    name: ClassVar[str] = "link-deaf"
    summary: ClassVar[str] = "what is sent to a cluster is lost; what it sends arrives"

    async def inject(self, stage: Stage) -> Says:
        """Lose what is sent to them."""
        for victim, other in _links(stage):
            await stage.mesh.network.shape(other, victim, CLOSED)
        return _since_now(stage)


class LinkSlow(_Link):
    """The victims say much while nobody hears them, and then their links are slow."""

    number: ClassVar[int] = 15
    name: ClassVar[str] = "link-slow"
    summary: ClassVar[str] = "a cluster's links are slow, and there is much to read of it"
    behaviour: ClassVar[str] = (
        "reading makes progress and doesn't begin anew; others aren't held up"
    )
    needs: ClassVar[frozenset[Power]] = frozenset({Power.CUT, Power.RATE, Power.ETCD})
    hold_s: ClassVar[float] = 15.0

    async def inject(self, stage: Stage) -> Says:
        """Cut them, say much, and let little of it through."""
        await _both_ways(stage, CLOSED)
        for cluster in stage.clusters:
            stage.memory[f"said {cluster.name}"] = True
            await say(cluster, LARGE, MUCH, MUCH_BYTES)
        await _both_ways(stage, SLOW)
        return Says(detail=f"{MUCH} events at {SLOW.rate_bytes_s} bytes a second")

    async def bit(self, stage: Stage) -> str:
        """Somebody is behind of each victim, and comes nearer. All are looked at together: by the
        time that one is proved there may be nothing left to read of the next.
        """
        async with asyncio.TaskGroup() as tasks:
            looks = [tasks.create_task(_is_neared(stage, one)) for one in stage.clusters]
        return "; ".join(look.result() for look in looks)

    async def heal(self, stage: Stage) -> None:
        """Mend the links, and take back what was said."""
        await _both_ways(stage, OPEN)
        for cluster in stage.clusters:
            if f"said {cluster.name}" in stage.memory:
                await unsay(cluster, LARGE, MUCH)
                del stage.memory[f"said {cluster.name}"]


async def _is_neared(stage: Stage, peer: Cluster) -> str:
    readers = running(stage.others, Kind.MESHD)
    return await first_of(_comes_nearer(one, peer) for one in readers)


async def _comes_nearer(reader: Server, peer: Cluster) -> str:
    """A reader learns how far the log goes with what it reads, so that is asked where it lies."""
    head_seq = await _exported_seq(peer)
    path = f"/v1/peers/{peer.name}"
    first = await until(reader, path, lambda it: it["seq"] < head_seq)

    def is_further(item: Any) -> bool:
        return bool(item["seq"] > first["seq"])

    then = await until(reader, path, is_further)
    return f"{reader.name} is at {first['seq']}, then at {then['seq']} of {head_seq} of {peer.name}"


async def _exported_seq(cluster: Cluster) -> int:
    head = f"{EXPORT}head"
    raw, _ = (await etcd_of(cluster).dump(head))[head]
    return int(json.loads(raw)["seq"])


@dataclass(slots=True)
class _Flapping:
    """How often it was down, what broke, and who goes on doing it. reconnects: before."""

    reconnects: Mapping[tuple[str, str], int]
    downs: int = 0
    broken: int = 0
    going: GoingOn = field(default_factory=GoingOn)


class LinkFlap(_Link):
    """Links go down and up again, and connections break each time."""

    number: ClassVar[int] = 16
    name: ClassVar[str] = "link-flap"
    summary: ClassVar[str] = "a cluster's links go down and up every second"
    behaviour: ClassVar[str] = "they are tried again with growing pauses, and no table changes"
    needs: ClassVar[frozenset[Power]] = frozenset({Power.CUT, Power.RESET})
    hold_s: ClassVar[float] = 20.0

    async def inject(self, stage: Stage) -> Says:
        """Begin with it."""
        flapping = stage.memory["flapping"] = _Flapping(await _reconnects(stage))
        flapping.going.begin(self._flap(stage, flapping), "flap")
        return Says()

    async def _flap(self, stage: Stage, flapping: _Flapping) -> None:
        while True:
            await _both_ways(stage, CLOSED)
            flapping.broken += await _reset(stage)
            flapping.downs += 1
            await asyncio.sleep(FLAP_S)
            await _both_ways(stage, OPEN)
            await asyncio.sleep(FLAP_S)

    async def bit(self, stage: Stage) -> str:
        """They went down several times, connections broke, and were opened anew."""
        flapping = kept(stage, "flapping", _Flapping)
        if flapping is None:
            raise RuntimeError("no link flaps: inject comes first")
        while True:
            flapping.going.look()
            now = await _reconnects(stage)
            anew = sum(n - flapping.reconnects.get(one, 0) for one, n in now.items())
            if flapping.downs >= FLAPS and flapping.broken > 0 and anew > 0:
                return (
                    f"down {flapping.downs} times, {flapping.broken} connections broken, {anew}"
                    " times connected anew"
                )
            await asyncio.sleep(ASK_EVERY_S)

    async def heal(self, stage: Stage) -> None:
        """Stop flapping, and leave them up."""
        flapping = kept(stage, "flapping", _Flapping)
        if flapping is not None:
            await flapping.going.stop()
            del stage.memory["flapping"]
        await _both_ways(stage, OPEN)


async def _reconnects(stage: Stage) -> Mapping[tuple[str, str], int]:
    """How often each meshd has connected anew to each peer beyond a victim's link."""
    found = {}
    for meshd in running([*stage.clusters, *stage.others], Kind.MESHD):
        listed = await until(meshd, "/v1/peers", lambda it: it["items"] is not None)
        for item in listed["items"]:
            if {meshd.cluster, item["name"]} & set(stage.victims):
                found[meshd.name, item["name"]] = int(item["reconnects"])
    return found


FAULTS: Final[tuple[type[Fault], ...]] = (LinkCut, LinkOneWay, LinkDeaf, LinkSlow, LinkFlap)
