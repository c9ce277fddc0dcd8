"""Rows 19 and 20: what somebody else writes into an export log (records, and keys beside them).

For: poison of every kind, and what a peer that means harm says. Not for: unknown types that are to
be carried (`versions`). Invariants: the owner's meshds stand still meanwhile, or the next append
would put a sound record over the bad one; healed, the log is what it was before.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Final

from chaos.etcds import Etcd
from chaos.faults.fault import Fault, Says, Stage, Usual
from chaos.faults.ground import (
    EXPORT,
    SOON,
    etcd_of,
    first_of,
    freeze,
    kept,
    running,
    thaw,
    until,
)
from chaos.faults.records import (
    Event,
    Head,
    event,
    head_behind,
    head_bytes,
    record_after,
    record_key,
)
from chaos.mesh.shape import Cluster, Kind, Power, Server

STOPPED: Final = frozenset({"Quarantined", "Refused"})
"""Phases in which a log is not read on."""
REASON_CHARS_SHOWN: Final = 120
BUDGET_SERVICES: Final = 500
"""What a peer may have in a mesh where it is tried: more than any traffic of ours makes."""
FLOOD: Final = 4000
"""Services in one record, which holds 4096 events at most."""
VALUE_BYTES: Final = 1_400_000
"""etcd takes 1.5 MiB in a request."""
EVENT_BYTES: Final = 600_000
"""More than the 512 KiB of a record."""
DEPTH: Final = 5000
STRAYS: Final = ("zzz", "log/../x", "log/1", "log/abc", "heartbeat2", "snapshot/x")
"""Keys that a log has no place for, some of which sort among its records."""


@dataclass(slots=True)
class _Done:
    """What was put into one etcd. head: its key's bytes before."""

    head: bytes
    keys: list[str] = field(default_factory=list)


class _Written(Usual):
    """Something is written into the victims' export logs while their meshds are frozen."""

    number: ClassVar[int]
    name: ClassVar[str]
    summary: ClassVar[str]
    behaviour: ClassVar[str]
    needs: ClassVar[frozenset[Power]] = frozenset({Power.ETCD, Power.FREEZE})
    programs: ClassVar[tuple[str, ...]] = ("etcdctl",)
    hold_s: ClassVar[float] = 3.0
    settings: ClassVar[Mapping[str, object]] = {
        **SOON,
        "replication.budget.services_max": BUDGET_SERVICES,
    }

    because: ClassVar[str] = ""
    """What the reason has to say, where there may be another one."""

    def values(self, head: Head) -> Mapping[str, bytes]:
        """What is put behind a head: keys below the log's root, in this order."""
        raise NotImplementedError

    async def inject(self, stage: Stage) -> Says:
        """Freeze the meshds, then write."""
        return Says(poisons=tuple([await self._write(stage, one) for one in stage.clusters]))

    async def _write(self, stage: Stage, cluster: Cluster) -> str:
        etcd = etcd_of(cluster)
        await freeze(stage, cluster)
        raw = await _head_at_rest(etcd)
        head = json.loads(raw)
        done = stage.memory[f"written {cluster.name}"] = _Done(raw)
        for key, value in self.values(head).items():
            if key != "head":
                done.keys.append(f"{EXPORT}{key}")
            await etcd.put(f"{EXPORT}{key}", value)
        return f"{cluster.name}:{head['log_id']}:{head['seq'] + 1}"

    async def bit(self, stage: Stage) -> str:
        """For each victim, somebody has stopped reading its log."""
        told = []
        for victim in stage.clusters:
            readers = running(stage.others, Kind.MESHD)
            told.append(
                await first_of(_stopped(reader, victim.name, self.because) for reader in readers)
            )
        return "; ".join(told)

    async def heal(self, stage: Stage) -> None:
        """Take out what was put in, and let the meshds go on."""
        for cluster in stage.clusters:
            name = f"written {cluster.name}"
            done = kept(stage, name, _Done)
            if done is not None:
                etcd = etcd_of(cluster)
                # The head first: a reader that looks in between finds less than there was, not bad.
                await etcd.put(f"{EXPORT}head", done.head)
                for key in reversed(done.keys):
                    await etcd.ctl("del", key)
                del stage.memory[name]
            await thaw(stage, cluster)


async def _head_at_rest(etcd: Etcd) -> bytes:
    """The export log's head, once what the frozen meshds had sent off is done with."""
    before = b""
    while True:
        raw, _ = (await etcd.dump(f"{EXPORT}head"))[f"{EXPORT}head"]
        if raw == before:
            return raw
        before = raw


async def _stopped(reader: Server, peer: str, because: str) -> str:
    item = await until(
        reader,
        f"/v1/peers/{peer}",
        lambda it: it["phase"] in STOPPED and because in it["reason"],
    )
    reason = item["reason"][:REASON_CHARS_SHOWN]
    return f"{reader.name} calls {peer} {item['phase']} behind {item['seq']}: {reason}"


MakeRecord = Callable[[Head], bytes]


class _Record(_Written):
    """One bad record behind the head, and a head that names it."""

    make: ClassVar[MakeRecord]
    events: ClassVar[int] = 1

    def values(self, head: Head) -> Mapping[str, bytes]:
        """The record, then the head."""
        raw = type(self).make(head)
        told = head_bytes(head_behind(head, raw, self.events))
        return {record_key("", head["seq"] + self.events): raw, "head": told}


def _bad_record(
    number: int, name: str, summary: str, make: MakeRecord, behaviour: str
) -> type[_Record]:
    """The fault of one kind of bad record."""
    members = {
        "__doc__": f"{summary}.",
        "__module__": __name__,
        "number": number,
        "name": name,
        "summary": summary,
        "behaviour": behaviour,
        "make": staticmethod(make),
    }
    return type(name.title().replace("-", ""), (_Record,), members)


GOOD: Final[Event] = event("endpoint.set", "shop/web/bad", {"address": "10.9.9.9"})


def _with(type_: str, key: str, data: object) -> MakeRecord:
    return lambda head: record_after(head, event(type_, key, data))


def _flood(head: Head) -> bytes:
    said = (event("service.set", f"flood/s{number}", {"global": True}) for number in range(FLOOD))
    return record_after(head, *said)


POISONED: Final = (
    "that log stops before the bad record, with a reason; nothing is skipped, and all other logs"
    " go on"
)
MALICE: Final = (
    "what isn't the peer's to say is refused with a reason, and costs nobody else anything"
)
_ADDRESS: Final = "10.9.9.9"
KINDS: Final[Sequence[tuple[int, str, str, MakeRecord]]] = (
    (19, "poison-bytes", "a record that is no msgpack", lambda _: b"\xc1"),
    (19, "poison-json", "JSON with a key twice for a record", lambda _: b'{"a": 1, "a": 2}'),
    (19, "poison-deep", "arrays within arrays", lambda _: b"\x91" * DEPTH),
    (
        *(19, "poison-utf8", "text that is no UTF-8"),
        lambda head: record_after(head, GOOD).replace(b"shop/web", b"\xff\xfe\xfdp/web"),
    ),
    (
        *(19, "poison-hash", "a record that doesn't follow the one before"),
        lambda head: record_after({**head, "hash": "77" * 16}, GOOD),
    ),
    (
        *(19, "poison-future", "a record of a version that nobody here reads"),
        lambda head: record_after(head, GOOD, version=9),
    ),
    (
        *(19, "poison-large", "an event larger than a record may be"),
        _with("endpoint.set", "shop/web/bad", {"x": "y" * EVENT_BYTES}),
    ),
    (19, "poison-largest", "a value as large as etcd takes", lambda _: b"x" * VALUE_BYTES),
    (
        *(19, "poison-nan", "a number that is none, for an address"),
        _with("endpoint.set", "shop/web/bad", {"address": float("nan")}),
    ),
    (
        *(20, "malicious-weight", "a weight of 2^63"),
        _with("endpoint.set", "shop/web/bad", {"address": _ADDRESS, "weight": 2**63}),
    ),
    (
        *(20, "malicious-name", "a name that leads out of its place"),
        _with("endpoint.set", "shop/../x", {"address": _ADDRESS}),
    ),
    (
        *(20, "malicious-nul", "a name with a NUL"),
        _with("service.set", "shop/w\x00b", {"global": True}),
    ),
    (
        *(20, "malicious-owner", "what only another cluster may say of itself"),
        _with("cluster.set", "somebody-else", {"name": "somebody-else", "id": 1}),
    ),
    (
        *(20, "malicious-address", "the clouds' metadata service for an endpoint"),
        _with("endpoint.set", "shop/web/bad", {"address": "169.254.169.254"}),
    ),
)


RECORDS: Final[Mapping[str, MakeRecord]] = {name: make for _, name, _, make in KINDS}
"""All kinds of a bad record of one event, by the names of their faults."""


class MaliciousFlood(_Record):
    """More services than a peer is granted."""

    number: ClassVar[int] = 20
    name: ClassVar[str] = "malicious-flood"
    summary: ClassVar[str] = f"{FLOOD} services where {BUDGET_SERVICES} are granted"
    behaviour: ClassVar[str] = MALICE
    make: ClassVar[MakeRecord] = staticmethod(_flood)
    events: ClassVar[int] = FLOOD
    because: ClassVar[str] = "services"


class MaliciousKeys(_Written):
    """Keys that a log has no place for."""

    number: ClassVar[int] = 20
    name: ClassVar[str] = "malicious-keys"
    summary: ClassVar[str] = "keys in the export log that a log has no place for"
    behaviour: ClassVar[str] = MALICE

    def values(self, head: Head) -> Mapping[str, bytes]:  # noqa: ARG002 they fit behind any
        """Rubbish at each of them."""
        return dict.fromkeys(STRAYS, b"rubbish")


FAULTS: Final[tuple[type[Fault], ...]] = (
    *(_bad_record(*kind, POISONED if kind[0] == 19 else MALICE) for kind in KINDS),  # noqa: PLR2004
    MaliciousFlood,
    MaliciousKeys,
)
"""All of them."""
