"""Rows 6 and 7: etcds that are full, and logs whose history or records are gone.

For: what an etcd keeps. Not for: another past than it had (`replaced`), nor what somebody writes
into it (`poison`). Invariants: members run with the flags that they were started with before; what
a fault filled an etcd with is taken out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar, Final

from chaos.etcds import Etcd
from chaos.faults.fault import Fault, Says, Stage, Usual
from chaos.faults.ground import (
    EXPORT,
    etcd_of,
    first_of,
    kept,
    running,
    until,
)
from chaos.faults.processes import IMPATIENT
from chaos.faults.saying import say, unsay
from chaos.faults.signs import run_again, when, write_refused
from chaos.mesh.shape import Cluster, Kind, Power
from chaos.raw import read_log

MIB: Final = 1024 * 1024
QUOTA_MIN_BYTES: Final = 16 * MIB
ROOM_BYTES: Final = 8 * MIB
"""What an etcd is left to fill: little, so that it is full soon."""
FILLING: Final = "/chaos-filling/"
FILLING_BYTES: Final = 1_000_000
"""etcd takes 1.5 MiB in a request."""
DISARMS_MAX: Final = 10
QUOTA_FLAG: Final = "--quota-backend-bytes"
MISSED: Final = 50
"""Events in each of the records that a reader misses."""
RECORDS: Final = 3
MORE: Final = "more"
MORE_EVENTS: Final = 500
SHORT: Final[Mapping[str, object]] = {
    "retention.check_every_s": 0.2,
    "retention.snapshot_every_events": 20,
    "retention.keep_events": 40,
    "retention.cap_events": 60,
}
"""With these a log is cut behind its reader's back within a hundred events."""


class EtcdNoSpace(Usual):
    """The victims' etcds are full up to their quota."""

    number: ClassVar[int] = 6
    name: ClassVar[str] = "etcd-no-space"
    summary: ClassVar[str] = "a cluster's etcd has no space left"
    behaviour: ClassVar[str] = (
        "writes are refused with the reason, all else works on, and no restart is needed"
    )
    needs: ClassVar[frozenset[Power]] = frozenset({Power.ETCD})
    programs: ClassVar[tuple[str, ...]] = ("etcdctl",)
    hold_s: ClassVar[float] = 5.0
    settings: ClassVar[Mapping[str, object]] = IMPATIENT

    async def inject(self, stage: Stage) -> Says:
        """Start it with a quota a little above what it holds, and fill it."""
        for cluster in stage.clusters:
            etcd = etcd_of(cluster)
            stage.memory[f"flags {cluster.name}"] = tuple(etcd.flags)
            quota_bytes = max(QUOTA_MIN_BYTES, await _size_bytes(etcd) + ROOM_BYTES)
            etcd.flags = (*etcd.flags, QUOTA_FLAG, str(quota_bytes))
            await etcd.stop()
            await etcd.start()
            await _fill(etcd, quota_bytes)
        return Says()

    async def bit(self, stage: Stage) -> str:
        """Etcd raised its alarm, and a write is refused for that reason."""
        told = []
        for cluster in stage.clusters:
            await when(_is_alarmed, etcd_of(cluster))
            told.append(f"the etcd of {cluster.name} has alarm NOSPACE")
            meshds = running([cluster], Kind.MESHD)
            told.append(await first_of(write_refused(meshd, "space") for meshd in meshds))
        return "; ".join(told)

    async def heal(self, stage: Stage) -> None:
        """Do what etcd's documentation says, and start it as it was before."""
        for cluster in stage.clusters:
            flags = kept(stage, f"flags {cluster.name}", tuple)
            if flags is not None:
                etcd = etcd_of(cluster)
                await etcd.start()
                await _make_room(etcd)
                etcd.flags = flags
                await etcd.stop()
                await etcd.start()
                del stage.memory[f"flags {cluster.name}"]
        await run_again(stage.clusters, Kind.MESHD)


async def _is_alarmed(etcd: Etcd) -> bool:
    return b"NOSPACE" in await etcd.ctl("alarm", "list")


async def _size_bytes(etcd: Etcd) -> int:
    """The largest of its members' databases."""
    said = json.loads(await etcd.ctl("endpoint", "status", "-w", "json"))
    return max(int(one["Status"]["dbSize"]) for one in said)


async def _fill(etcd: Etcd, quota_bytes: int) -> None:
    for number in range(2 * quota_bytes // FILLING_BYTES):
        try:
            await etcd.put(f"{FILLING}{number}", b"x" * FILLING_BYTES)
        except RuntimeError:
            return
    raise RuntimeError(f"an etcd took twice its quota of {quota_bytes} bytes: is {QUOTA_FLAG} set?")


async def _make_room(etcd: Etcd) -> None:
    """Delete, compact, defragment each member, disarm; and have that on each member's disk."""
    await etcd.ctl("del", "--prefix", FILLING)
    await etcd.compact()
    for member in etcd.members:
        await etcd.ctl("defrag", endpoints=member.client)
    await _disarm(etcd)
    # A member keeps that an alarm is off, but how far it has come only with the next key: killed
    # before that it does again, without an alarm, what was refused for it, and holds other data
    # than the others from then on (etcd's issues 14382 and 21636).
    for member in etcd.members:
        await etcd.ctl("get", FILLING, endpoints=member.client)
        await etcd.ctl("defrag", endpoints=member.client)


async def _disarm(etcd: Etcd) -> None:
    """Until a key is taken: etcd 3.4 raises the alarm anew for what was refused and is done just
    behind its end.
    """
    for _ in range(DISARMS_MAX - 1):
        await etcd.ctl("alarm", "disarm")
        with suppress(RuntimeError):
            await etcd.put(FILLING, b"-")
            return
    await etcd.ctl("alarm", "disarm")
    await etcd.put(FILLING, b"-")


@dataclass(frozen=True, slots=True)
class _Cursor:
    """How far a victim had read a peer. revision: of the first record behind it."""

    reader: str
    peer: Cluster
    seq: int
    revision: int = 0


class HistoryCompacted(Usual):
    """The victims are away while their peers say much, and the peers' etcds forget history."""

    number: ClassVar[int] = 7
    name: ClassVar[str] = "history-compacted"
    summary: ClassVar[str] = "what a reader that is away hasn't read is compacted"
    behaviour: ClassVar[str] = "it reads the records instead, and comes to the same state"
    needs: ClassVar[frozenset[Power]] = frozenset({Power.ETCD, Power.KILL})
    programs: ClassVar[tuple[str, ...]] = ("etcdctl",)
    hold_s: ClassVar[float] = 1.0
    what: ClassVar[str] = "missed"

    async def inject(self, stage: Stage) -> Says:
        """End the readers, say much, and compact."""
        cursors: list[_Cursor] = []
        stage.memory["cursors"] = cursors
        for cluster in stage.clusters:
            cursors += await _cursors(cluster, stage)
            for meshd in cluster.meshds:
                await meshd.kill()
        # In several records: etcd keeps the last revision, and so the last of them.
        for peer in stage.others:
            for number in range(RECORDS):
                await say(peer, f"{self.what}{number}", MISSED)
        await self._forget(stage)
        return Says()

    async def _forget(self, stage: Stage) -> None:
        for peer in stage.others:
            await etcd_of(peer).compact()

    async def bit(self, stage: Stage) -> str:
        """Etcd refuses the revision at which each reader would go on."""
        told = []
        for cursor in kept(stage, "cursors", list) or ():
            etcd = etcd_of(cursor.peer)
            revision = await _revision_behind(etcd, cursor.seq)
            await when(_has_forgotten, etcd, revision)
            told.append(
                f"{cursor.reader} is at {cursor.seq} of {cursor.peer.name}, whose etcd has"
                f" forgotten revision {revision}"
            )
        return _proof(told)

    async def heal(self, stage: Stage) -> None:
        """Start the readers, and take back what was said."""
        if "cursors" in stage.memory:
            for peer in stage.others:
                for number in range(RECORDS):
                    await unsay(peer, f"{self.what}{number}", MISSED)
            del stage.memory["cursors"]
        await run_again(stage.clusters, Kind.MESHD)


def _proof(told: Sequence[str]) -> str:
    if not told:
        raise RuntimeError("nobody had read anything: the mesh needs another cluster")
    return "; ".join(told)


async def _cursors(cluster: Cluster, stage: Stage) -> Sequence[_Cursor]:
    """How far a victim has read each cluster that isn't one."""
    found = []
    peers = {peer.name: peer for peer in stage.others}
    for meshd in running([cluster], Kind.MESHD)[:1]:
        for name, peer in peers.items():
            item = await until(meshd, f"/v1/peers/{name}", lambda it: it["seq"] is not None)
            found.append(_Cursor(meshd.name, peer, item["seq"]))
    return found


async def _records(etcd: Etcd) -> Mapping[int, int]:
    """Revisions of the export log's records, by last seq."""
    keys = await etcd.dump(f"{EXPORT}log/")
    return {int(key.rpartition("/")[2]): revision for key, (_, revision) in keys.items()}


async def _revision_behind(etcd: Etcd, seq: int) -> int:
    """Of the first record behind a seq."""
    return min(revision for last, revision in (await _records(etcd)).items() if last > seq)


async def _has_forgotten(etcd: Etcd, revision: int) -> bool:
    """Whether an etcd that answers has no keys any more as of a revision."""
    await etcd.ctl("get", f"{EXPORT}head")
    try:
        await etcd.ctl("get", f"{EXPORT}head", "--rev", str(revision))
    except RuntimeError:
        return True
    return False


class RecordsCut(HistoryCompacted):
    """The same, and the peers cut their logs behind a snapshot."""

    name: ClassVar[str] = "records-cut"
    summary: ClassVar[str] = "what a reader that is away hasn't read is cut behind a snapshot"
    behaviour: ClassVar[str] = "it reads the snapshot instead, and comes to the same state"
    settings: ClassVar[Mapping[str, object]] = SHORT
    what: ClassVar[str] = "cut"

    async def _forget(self, stage: Stage) -> None:
        """Their leaders do so by themselves."""

    async def bit(self, stage: Stage) -> str:
        """The records that each reader would go on with are gone."""
        told = []
        for cursor in kept(stage, "cursors", list) or ():
            number = 0
            while not (first := await _first_behind(cursor)):
                # A log that held much is summed up, and cut, when it has grown by half of that.
                number += 1
                await say(cursor.peer, MORE, MORE_EVENTS, length=1 + number % RECORDS)
            told.append(
                f"{cursor.reader} is at {cursor.seq} of {cursor.peer.name}, whose first record"
                f" begins at {first}"
            )
        return _proof(told)

    async def heal(self, stage: Stage) -> None:
        """Take back what was said to have them cut, and the rest."""
        for cursor in kept(stage, "cursors", list) or ():
            await unsay(cursor.peer, MORE, MORE_EVENTS)
        await super().heal(stage)


async def _first_behind(cursor: _Cursor) -> int:
    """The first seq of a log, if that lies behind what a cursor would read next; else 0."""
    first = read_log(await etcd_of(cursor.peer).dump(), EXPORT).first_seq
    return first if first > cursor.seq + 1 else 0


FAULTS: Final[tuple[type[Fault], ...]] = (EtcdNoSpace, HistoryCompacted, RecordsCut)
