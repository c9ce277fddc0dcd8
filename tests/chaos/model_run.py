"""A run of a mesh that is nothing but a few dictionaries: its history is clean by construction.

For: doctoring. Not for: showing what meshd does. The model knows records as `protocols/` has them,
delivers every event after `LAG_MS`, and never fails except as a story tells it to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from chaos import reference
from chaos.history import (
    Attempt,
    Bounds,
    Change,
    Completed,
    Deed,
    Entry,
    FaultBit,
    FaultHealed,
    FaultInjected,
    Invoked,
    LossNamed,
    Outcome,
    PeerSeen,
    Process,
    RawKey,
    RawLog,
    Request,
    RunEnded,
    RunStarted,
    Sample,
    StatusRead,
    StreamMessage,
    TableRead,
)
from tests.chaos.model_logs import Event, Log, is_told, log_id, logs_of

NAMES = ("a", "b", "c")
MS = 1_000_000
TOOK_MS, LAG_MS, STEP_MS = 5, 20, 100
WEB = {"global": True, "ports": [{"port": 80, "name": "http"}]}
BOUNDS = Bounds(converge_s=5, notice_fork_s=2, settle_s=1)


@dataclass
class Cluster:
    """One cluster. read: the export logs of the others, as far as they were read here."""

    name: str
    local: Log
    export: Log
    revision: int = 10
    connection: int = 1
    is_up: bool = True
    starts: int = 0
    copies: dict[str, Log] = field(default_factory=dict)
    told: dict[tuple[str, str], int] = field(default_factory=dict)


class Model:
    """The mesh and what is recorded of it. now_ms: of the story."""

    def __init__(self) -> None:
        self.now_ms = 0
        self.ops = 0
        self.entries: list[Entry] = []
        self.phases: dict[str, str] = {}
        self.clusters = {name: Cluster(name, *logs_of(name, 1)) for name in NAMES}
        versions = {"meshd": "0", "etcd": "0"}
        self.note(
            RunStarted,
            seed=1,
            scenario="model",
            versions=versions,
            clusters=NAMES,
            bounds=BOUNDS,
        )
        for number, cluster in enumerate(self.clusters.values(), 1):
            self.start(cluster)
            info = {"name": cluster.name, "id": number}
            self.append(cluster, ["cluster.set", cluster.name, info, "meshd", ""])
            self.append(cluster, ["service.set", "shop/web", WEB, "ann", ""])

    # --- what is recorded -------------------------------------------------------------------------

    def note(self, kind: Callable[..., Entry], after_ms: int = 0, **fields: Any) -> None:
        self.entries.append(kind(at_ns=(self.now_ms + after_ms) * MS, **fields))

    def start(self, cluster: Cluster) -> None:
        cluster.is_up = True
        cluster.starts += 1
        cluster.connection += 1
        self.note(
            Process,
            process=cluster.name,
            cluster=cluster.name,
            pid=cluster.starts,
            change=Change.STARTED,
        )

    def append(self, cluster: Cluster, *events: Event) -> None:
        """Commit events, and have them read everywhere."""
        cluster.revision += 1
        cluster.local.append(events, cluster.revision)
        exported = [[*event[:4], ""] for event in events if is_told(event)]
        if exported:
            cluster.export.append(exported, cluster.revision)
        self.deliver()

    def deliver(self) -> None:
        """Whoever is up reads on, and its subscriber is told."""
        for reader in self.clusters.values():
            if reader.is_up:
                for origin in self.clusters.values():
                    self.tell(reader, origin)

    def tell(self, reader: Cluster, origin: Cluster) -> None:
        is_own = reader is origin
        log = origin.local if is_own else origin.export
        if not is_own:
            known = reader.copies.get(origin.name)
            if known is not None and known.log_id != log.log_id:
                self.message(reader, origin, log, 0, reset=True)
            reader.copies[origin.name] = replace(
                log, records=list(log.records), events=log.events[:]
            )
        key = origin.name, log.log_id
        for seq in range(reader.told.get(key, 0) + 1, log.seq + 1):
            self.message(reader, origin, log, seq)
        reader.told[key] = log.seq

    def message(
        self, reader: Cluster, origin: Cluster, log: Log, seq: int, *, reset: bool = False
    ) -> None:
        kind, subject = ("", "") if reset else log.events[seq - 1][:2]
        self.note(
            StreamMessage,
            after_ms=TOOK_MS if reader is origin else LAG_MS,
            subscriber=f"of {reader.name}",
            connection=reader.connection,
            cluster=reader.name,
            of=origin.name,
            log="local" if reader is origin else "export/mesh",
            log_id=log.log_id,
            seq=seq,
            type=kind,
            subject=subject,
            reset=reset,
        )

    def command(self, name: str, *, took_ms: int = TOOK_MS) -> None:
        """Set an endpoint, or now and then a service that is nobody else's business."""
        self.ops += 1
        cluster, op, key = self.clusters[name], self.ops, f"key-{self.ops}"
        said: dict[str, Any] = {
            "op": op,
            "cluster": name,
            "caller": f"caller of {name}",
            "key": key,
            "command": "set",
        }
        if not cluster.is_up:
            self.note(Invoked, **said)
            self.note(Completed, after_ms=took_ms, op=op, outcome=Outcome.UNKNOWN, error="cut")
            return
        address = {"address": f"10.0.0.{op % 250 + 1}", "weight": 100 + op % 7}
        event: Event = ["endpoint.set", f"shop/web/{name}{op % 3}", address, "ann", key]
        if op % 10 == 0:
            event = ["service.set", f"own/{op}", {"ports": [{"port": 80}]}, "ann", key]
        self.note(Invoked, **said)
        self.append(cluster, event)
        log = cluster.local
        where: dict[str, Any] = {"log_id": log.log_id, "first_seq": log.seq, "last_seq": log.seq}
        self.note(Completed, after_ms=took_ms, op=op, outcome=Outcome.OK, status=200, **where)

    def look(self) -> None:
        """Read tables, status and usage of all that are up."""
        for cluster in self.clusters.values():
            if cluster.is_up:
                self.read_table(cluster)
                self.read_status(cluster)
                self.use(cluster)

    def vector(self, cluster: Cluster, *, own: Log) -> str:
        logs = dict(cluster.copies) | {cluster.name: own}
        return ",".join(f"{name}:{log.log_id}:{log.seq}" for name, log in sorted(logs.items()))

    def read_table(self, cluster: Cluster, *, anew: bool = False) -> None:
        states: dict[str, reference.State] = {
            name: log.state for name, log in cluster.copies.items()
        }
        states[cluster.name] = cluster.local.state
        vector = self.vector(cluster, own=cluster.export)
        self.note(
            TableRead,
            after_ms=LAG_MS,
            reader="r",
            process=cluster.name,
            cluster=cluster.name,
            vector=vector,
            events_after=self.vector(cluster, own=cluster.local),
            digest=log_id(vector),
            stale=tuple(one.name for one in self.clusters.values() if not one.is_up),
            anew=anew,
            services=reference.table(cluster.name, states),
        )

    def read_status(self, cluster: Cluster) -> None:
        vector = self.vector(cluster, own=cluster.export)
        peers = tuple(
            PeerSeen(name, self.phases.get(name, self.phase(name)), log.seq, 0.1)
            for name, log in cluster.copies.items()
        )
        self.note(
            StatusRead,
            after_ms=LAG_MS,
            process=cluster.name,
            cluster=cluster.name,
            ready=True,
            vector=vector,
            digest=log_id(vector),
            peers=peers,
        )

    def phase(self, name: str) -> str:
        return "Ready" if self.clusters[name].is_up else "Stale"

    def use(self, cluster: Cluster) -> None:
        self.note(
            Sample,
            after_ms=LAG_MS,
            process=cluster.name,
            cluster=cluster.name,
            rss_bytes=100_000_000,
            fds=40,
            tasks=60,
            connections=8,
            connects=10 + self.now_ms // 10_000,
        )

    def dump(self) -> None:
        for cluster in self.clusters.values():
            self.note_log(cluster.name, "local", cluster.local.keys())
            self.note_log(cluster.name, "export/mesh", cluster.export.keys())
            for peer, log in cluster.copies.items():
                self.note_log(cluster.name, f"replica/{peer}", log.keys("cursor"))

    def note_log(self, cluster: str, log: str, keys: tuple[RawKey, ...]) -> None:
        self.note(RawLog, after_ms=LAG_MS, cluster=cluster, log=log, keys=keys)

    # --- what happens -----------------------------------------------------------------------------

    def work(self, rounds: int, *names: str) -> None:
        """Each of these clusters is given a command, one after the other; then all is read."""
        for number in range(rounds):
            for name in names or NAMES:
                self.now_ms += STEP_MS
                self.command(name)
            if number % 5 == 0:
                self.now_ms += STEP_MS
                self.look()

    def inject(self, fault: str, cluster: str, **fields: Any) -> int:
        number = self.now_ms
        self.note(FaultInjected, fault_id=number, fault=fault, clusters=(cluster,), **fields)
        self.note(FaultBit, fault_id=number, proof="seen")
        return number

    def heal(self, number: int, begun_ms: int = 0) -> None:
        self.note(FaultHealed, fault_id=number, begun_ns=begun_ms * MS)

    def kill(self, name: str) -> int:
        cluster = self.clusters[name]
        number = self.inject("kill", name)
        cluster.is_up = False
        killed: dict[str, Any] = {"process": name, "cluster": name, "pid": cluster.starts}
        self.note(Process, change=Change.KILLED, status=-9, **killed)
        return number

    def wipe(self, name: str) -> None:
        """Its etcd is wiped, and its meshd founds new logs."""
        cluster = self.clusters[name]
        fault = self.inject("wipe", name, loses=(name,))
        old = cluster.local
        lost: dict[str, Any] = {"log_id": old.log_id, "first_seq": 1, "last_seq": old.seq}
        cluster.local, cluster.export = logs_of(name, 2)
        self.now_ms += STEP_MS
        self.start(cluster)
        # It tells its own subscribers as well that this is another log.
        self.message(cluster, cluster, cluster.local, 0, reset=True)
        self.append(cluster, ["cluster.set", name, {"name": name, "id": 3}, "meshd", ""])
        self.append(cluster, ["service.set", "shop/web", WEB, "ann", ""])
        self.note(LossNamed, cluster=name, said_by="its status", **lost)
        self.heal(fault)

    def restore(self, name: str, backup: tuple[Log, Log]) -> None:
        """Its etcd is put back to a backup: the same log ids, and less in them."""
        cluster = self.clusters[name]
        fault = self.inject("restore", name, loses=(name,))
        old = cluster.local
        cluster.local, cluster.export = backup
        self.now_ms += STEP_MS
        self.start(cluster)
        for reader in self.clusters.values():
            log = cluster.local if reader is cluster else cluster.export
            reader.told[name, log.log_id] = log.seq
            self.message(reader, cluster, log, log.seq, reset=True)
        self.append(cluster, ["endpoint.set", "shop/web/new", {"address": "10.7.7.7"}, "ann", ""])
        lost: dict[str, Any] = {"first_seq": backup[0].seq, "last_seq": old.seq}
        self.note(LossNamed, cluster=name, log_id=old.log_id, said_by="a stream", **lost)
        self.heal(fault)

    def end(self) -> None:
        """All calms down, and everything is read a last time."""
        self.now_ms += STEP_MS
        self.look()
        self.now_ms += 1000 * round(BOUNDS.converge_s + BOUNDS.settle_s)
        self.look()
        self.read_table(self.clusters["a"], anew=True)
        for deed in Deed:
            self.note(Attempt, cluster="a", target="b", deed=deed, key="k", may=False, done=False)
        answered: dict[str, Any] = {"answered_by": "b", "backend": "b1", "took_ns": MS}
        self.note(Request, cluster="a", service="shop/web", **answered)
        self.dump()
        self.now_ms += STEP_MS
        self.note(RunEnded)
