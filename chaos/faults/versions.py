"""Row 27: meshds of the next version beside and behind those of this one.

For: upgrades and downgrades. Not for: records that nobody is to read on (`poison`). Invariants: the
next version is this tree with the changes below, each of which must apply; afterwards all run this
version again, on what the next one wrote.

There is one version of meshd so far. The next one is made up of what a next one may do by
`protocols/records.md` without being a new record version: an event has a field more at its end, and
its data a field that nobody here knows.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Final

from chaos.etcds import Etcd
from chaos.faults.consumers import PATH, unsay
from chaos.faults.fault import Fault, Says, Stage, Usual
from chaos.faults.ground import (
    ASK_EVERY_S,
    EXPORT,
    LOCAL,
    ask,
    etcd_of,
    first_of,
    freeze,
    kept,
    running,
    thaw,
    until,
)
from chaos.faults.records import Event, head_behind, head_bytes, record_after, record_key
from chaos.mesh.shape import Cluster, Kind, Meshd, Power, Server
from chaos.raw import EVENT_FIELDS, read_log

NEXT: Final = "next"
"""What the next version calls itself."""
NS_PER_MS: Final = 1_000_000
NEW_FIELD: Final = "a_field_of_the_next_version"
SERVICE: Final = "upgraded"
CHANGES: Final = (
    ("__init__.py", '__version__ = "', f'__version__ = "{NEXT}-'),
    (
        "model/codec.py",
        "return [event.type, event.key, event.data, event.actor, event.cause]",
        (
            f"data = event.data and {{**event.data, {NEW_FIELD!r}: 1}}\n"
            f"    return [event.type, event.key, data, event.actor, event.cause, {NEXT!r}]"
        ),
    ),
)
"""File, text, and what stands there instead."""
UNKNOWN: Final[Event] = ["moon.set", "phase", {"full": True}, NEXT, "", "a new field"]
"""A type that nobody here knows, with a field more at its end."""


def make_next(folder: Path) -> Path:
    """Put the next version below a folder, and return what PYTHONPATH has to be for it."""
    spec = find_spec("meshd")
    if spec is None or spec.origin is None:
        raise RuntimeError("meshd isn't there to be copied")
    root = folder / "next-version"
    if not root.exists():
        copy = root / "meshd"
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(Path(spec.origin).parent, copy, ignore=ignored)
        for name, text, instead in CHANGES:
            before = (copy / name).read_text()
            if before.count(text) != 1:
                raise RuntimeError(f"{name} of meshd has no single {text!r}: adapt CHANGES")
            (copy / name).write_text(before.replace(text, instead))
    return root


class RollingUpgrade(Usual):
    """The victims' meshds become the next version one by one, and then this one again."""

    number: ClassVar[int] = 27
    name: ClassVar[str] = "rolling-upgrade"
    summary: ClassVar[str] = "a cluster's meshds are upgraded one by one, and downgraded again"
    behaviour: ClassVar[str] = (
        "older ones carry what they don't know byte for byte, newer ones read older, and nothing is"
        " done twice"
    )
    needs: ClassVar[frozenset[Power]] = frozenset({Power.ETCD, Power.KILL, Power.RESTART})
    programs: ClassVar[tuple[str, ...]] = ("etcdctl",)
    hold_s: ClassVar[float] = 5.0

    def upgraded(self, cluster: Cluster) -> Sequence[Meshd]:
        """Which of a cluster's meshds."""
        return cluster.meshds

    async def inject(self, stage: Stage) -> Says:
        """Restart them one after another."""
        path = await asyncio.to_thread(make_next, stage.mesh.folder)
        # The folder that the process is started in holds this version, and would come first.
        environment = {"PYTHONPATH": str(path), "PYTHONSAFEPATH": "1"}
        for cluster in stage.clusters:
            stage.memory[f"upgraded {cluster.name}"] = True
            for meshd in self.upgraded(cluster):
                await meshd.stop()
                await meshd.start_with((), environment)
        return Says()

    async def bit(self, stage: Stage) -> str:
        """What it wrote has what this version doesn't know, and others read on behind it."""
        told = []
        for cluster in stage.clusters:
            meshd = self.upgraded(cluster)[0]
            status = await until(meshd, "/v1/status", lambda it: it["version"].startswith(NEXT))
            seq = await _written_anew(etcd_of(cluster), meshd)
            readers = running(stage.others, Kind.MESHD)
            reader = await first_of(_read_on(one, cluster.name, seq) for one in readers)
            told.append(
                f"{meshd.name} is {status['version']} and wrote seq {seq} with fields that"
                f" {reader.name} doesn't know, which read on behind it"
            )
        return "; ".join(told)

    async def heal(self, stage: Stage) -> None:
        """This version again, on what the next one wrote."""
        for cluster in stage.clusters:
            name = f"upgraded {cluster.name}"
            if name in stage.memory:
                for meshd in self.upgraded(cluster):
                    await meshd.stop()
                    await meshd.start()
                await unsay(cluster, SERVICE)
                del stage.memory[name]


class MixedPair(RollingUpgrade):
    """One of the two meshds of a cluster is the next version, and the other is this one."""

    name: ClassVar[str] = "mixed-pair"
    summary: ClassVar[str] = "one of a cluster's two meshds is of the next version"
    needs: ClassVar[frozenset[Power]] = RollingUpgrade.needs | {Power.HA}

    def upgraded(self, cluster: Cluster) -> Sequence[Meshd]:
        """The first one."""
        return cluster.meshds[:1]


async def _written_anew(etcd: Etcd, meshd: Server) -> int:
    """Have it write; returns the seq in its export log of an event with more fields."""
    number = 0
    while True:
        number += 1
        body = {"global": True, "labels": {"n": str(number)}}
        await ask(meshd, PATH.format(SERVICE), "PUT", body)
        for seq, event in reversed(read_log(await etcd.dump(), EXPORT).events):
            if len(event) > EVENT_FIELDS and event[2] and NEW_FIELD in event[2]:
                return int(seq)
        await asyncio.sleep(ASK_EVERY_S)


async def _read_on(reader: Server, peer: str, seq: int) -> Server:
    """A meshd that is Ready behind a seq."""

    def is_behind(item: Any) -> bool:
        return bool(item["phase"] == "Ready" and item["seq"] >= seq)

    await until(reader, f"/v1/peers/{peer}", is_behind)
    return reader


class UnknownEvent(Usual):
    """A record with an event of a type that nobody here knows is in the victims' logs."""

    number: ClassVar[int] = 19
    name: ClassVar[str] = "unknown-event"
    summary: ClassVar[str] = "an event of a type that nobody knows is appended, as a newer one may"
    behaviour: ClassVar[str] = "it is counted and carried byte for byte, and all read on behind it"
    needs: ClassVar[frozenset[Power]] = frozenset({Power.ETCD, Power.FREEZE})
    programs: ClassVar[tuple[str, ...]] = ("etcdctl",)
    hold_s: ClassVar[float] = 1.0

    async def inject(self, stage: Stage) -> Says:
        """Append it to local and export log while the meshds stand still, and let them go on."""
        for cluster in stage.clusters:
            await freeze(stage, cluster)
            stage.memory[f"told {cluster.name}"] = await append_unknown(etcd_of(cluster))
            await thaw(stage, cluster)
        return Says()

    async def bit(self, stage: Stage) -> str:
        """Another cluster's etcd has it, byte for byte."""
        told = []
        for cluster in stage.clusters:
            found = kept(stage, f"told {cluster.name}", tuple)
            if found is None:
                raise RuntimeError(f"nothing is told in {cluster.name}: inject comes first")
            seq, raw = found
            readers = running(stage.others, Kind.MESHD)
            reader = await first_of(_read_on(one, cluster.name, seq) for one in readers)
            theirs = etcd_of(stage.mesh.clusters[reader.cluster])
            while raw not in await _replica(theirs, cluster.name):  # noqa: ASYNC110 nobody tells
                await asyncio.sleep(ASK_EVERY_S)
            told.append(f"{reader.name} keeps seq {seq} of {cluster.name} as it was written")
        return "; ".join(told)

    async def heal(self, stage: Stage) -> None:
        """What was said stays; the meshds go on."""
        for cluster in stage.clusters:
            await thaw(stage, cluster)
            stage.memory.pop(f"told {cluster.name}", None)


async def _replica(etcd: Etcd, peer: str) -> list[bytes]:
    return [value for value, _ in (await etcd.dump(f"/meshd/v1/replica/{peer}/")).values()]


async def append_unknown(etcd: Etcd) -> tuple[int, bytes]:
    """Append one record to local and export log, as a meshd of the next version might; nobody else
    appends meanwhile. Returns its seq in the export log, and its bytes there.
    """
    local = json.loads((await etcd.dump(f"{LOCAL}head"))[f"{LOCAL}head"][0])
    export = local["exports"]["mesh"]
    now_ms = time.time_ns() // NS_PER_MS
    own = record_after(local, UNKNOWN, time_ms=now_ms)
    raw = record_after(export, UNKNOWN, time_ms=now_ms)
    heads = local["exports"] | {"mesh": head_behind(export, raw)}
    await etcd.put(record_key(EXPORT, export["seq"] + 1), raw)
    await etcd.put(record_key(LOCAL, local["seq"] + 1), own)
    await etcd.put(f"{EXPORT}head", head_bytes(heads["mesh"]))
    await etcd.put(f"{LOCAL}head", head_bytes(head_behind(local, own) | {"exports": heads}))
    return export["seq"] + 1, raw


FAULTS: Final[tuple[type[Fault], ...]] = (RollingUpgrade, MixedPair, UnknownEvent)
