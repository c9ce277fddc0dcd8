"""I8, I15 and I18: tables, held against logs and against each other.

For: what was read of tables and status. Not for: what others' faults do to them (`isolation`),
nor what they must be in the end (`convergence`). Invariant: one meshd's tables are compared with
each other, never with those of another that may be behind.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from chaos.evidence import REPLICA, Dump, Evidence, parse_vector
from chaos.history import Row, StatusRead, TableRead
from chaos.validators.verdict import Findings, Verdict

Services = Mapping[str, tuple[Row, ...]]
READY = "Ready"
DEMOTED = 1000
"""From this priority on a backend is behind all others, as its cluster is out of sight."""


def undistanced(services: Services) -> dict[str, list[Row]]:
    """A table without measured distance, which is in no log: the last digit of a priority says it
    in steps of one, below the places' steps of three.
    """
    return {
        key: sorted(row._replace(priority=row.priority - row.priority % 10 % 3) for row in rows)
        for key, rows in services.items()
    }


def out_of_sight(table: TableRead) -> set[str]:
    """Clusters that it says are. Who has just come back into sight is no longer listed, while its
    backends may still be demoted until the next look; who was just lost, the other way round.
    """
    rows = (row for rows in (table.services or {}).values() for row in rows)
    return {*table.stale, *(row.cluster for row in rows if row.priority >= DEMOTED)}


@dataclass(slots=True)
class _Known:
    """What a cluster's logs have or had. endpoints: keys with addresses. is_whole: no dump of them
    was trimmed, so there is nothing else that they ever had until the last one.
    """

    endpoints: set[tuple[str, str]] = field(default_factory=set)
    is_whole: bool = True
    last_dump_ns: int = -1


def i8_ownership(evidence: Evidence) -> Verdict:
    """Every backend is an endpoint that its own cluster's log has or had."""
    found = Findings("I8", "backends in tables, and events in logs")
    known = {name: _Known() for name in evidence.run.clusters}
    for dump in evidence.dumps:
        if not dump.entry.log.startswith(REPLICA):
            held = known.setdefault(dump.entry.cluster, _Known())
            _learn(dump, held, evidence.poisoned_from(dump), found)
    for name, held in known.items():
        held.is_whole &= not evidence.lost_between(name, evidence.run.at_ns, evidence.end_ns)
    stranger = _Known(last_dump_ns=evidence.end_ns)
    for table in evidence.all(TableRead):
        for service, rows in (table.services or {}).items():
            for row in rows:
                _is_theirs(table, service, row, known.get(row.cluster, stranger), found)
    return found.verdict()


def _learn(dump: Dump, held: _Known, poisoned_from: float, found: Findings) -> None:
    """Take in what a log says, up to where somebody else wrote into it on purpose."""
    cluster = dump.entry.cluster
    held.is_whole &= not dump.log.trim_seq
    held.last_dump_ns = dump.entry.from_ns
    for key, data in dump.log.snapshot[1].get("endpoint", {}).items():
        held.endpoints.add((key, data.get("address", "")))
    for seq, (kind, key, data, *_) in dump.log.events:
        if seq >= poisoned_from:
            found.miss(f"what the log of {cluster} says behind where it was poisoned on purpose")
        elif kind == "endpoint.set":
            held.endpoints.add((key, data.get("address", "")))
        elif kind == "cluster.set":
            found.look()
            if key != cluster:
                found.violate(f"the log of {cluster} speaks for {key}", dump.entry)


def _is_theirs(table: TableRead, service: str, row: Row, held: _Known, found: Findings) -> None:
    if (f"{service}/{row.name}", row.address) in held.endpoints:
        found.look()
    elif table.at_ns > held.last_dump_ns:
        found.miss(f"backends of {row.cluster} that were read after its last dump")
    elif held.is_whole:
        found.look()
        found.violate(
            f"{table.cluster} has {service}/{row.name} at {row.address} of {row.cluster}, whose log"
            " never had it",
            table,
        )
    else:
        found.miss(f"backends of {row.cluster} that are in no dump: its log was trimmed or lost")


def i15_honest(evidence: Evidence) -> Verdict:
    """Ready means near; nothing vanishes without an event; equal vectors have equal digests."""
    found = Findings("I15", "peers called Ready, tables after tables, and digests")
    for status in evidence.all(StatusRead):
        for peer in status.peers:
            if status.ready and peer.phase == READY:
                found.look()
                if peer.lag_s > evidence.bounds.ready_lag_s:
                    what = f"calls {peer.name} Ready and is {peer.lag_s:.1f} s behind it"
                    found.violate(f"{status.process} {what}", status)
    for tables in evidence.tables.values():
        for before, after in pairwise(one for one in tables if one.services is not None):
            found.look()
            _vanished(before, after, evidence, found)
    _digests(evidence, found)
    return found.verdict()


def _vanished(before: TableRead, after: TableRead, evidence: Evidence, found: Findings) -> None:
    """A cluster's backends are gone though its log, or the own one, says nothing new. One whose
    etcd was put back meanwhile may have come to the same seq by other events.
    """
    was, now = parse_vector(before.vector), parse_vector(after.vector)
    own_was, own_now = parse_vector(before.events_after), parse_vector(after.events_after)
    span = before.at_ns, after.at_ns
    is_lost = evidence.lost_between(before.cluster, *span)
    if is_lost or own_was.get(before.cluster) != own_now.get(after.cluster):
        return
    for cluster in was:
        is_new = cluster in now and now[cluster] != was[cluster]
        is_explained = is_new or evidence.lost_between(cluster, *span)
        gone = _keys_of(cluster, before) - _keys_of(cluster, after)
        if gone and not is_explained:
            what = f"lost {len(gone)} backends of {cluster}, of whose log nothing new was read"
            found.violate(f"the table of {after.cluster} {what}", before, after)


def _keys_of(cluster: str, table: TableRead) -> set[tuple[str, str]]:
    services = (table.services or {}).items()
    return {(key, row.name) for key, rows in services for row in rows if row.cluster == cluster}


def _digests(evidence: Evidence, found: Findings) -> None:
    by_vector: dict[tuple[str, str], TableRead | StatusRead] = {}
    entries: list[TableRead | StatusRead] = [*evidence.all(TableRead), *evidence.all(StatusRead)]
    for entry in sorted(entries, key=_by_line):
        if entry.digest:
            found.look()
            known = by_vector.setdefault((entry.cluster, entry.vector), entry)
            if _is_put_back(known, entry, evidence):
                by_vector[entry.cluster, entry.vector] = entry
            elif known.digest != entry.digest:
                found.violate(
                    f"at {entry.vector} {entry.cluster} has the digest {known.digest} and then"
                    f" {entry.digest}",
                    known,
                    entry,
                )


def _is_put_back(
    known: TableRead | StatusRead, entry: TableRead | StatusRead, evidence: Evidence
) -> bool:
    """Whether the same seqs may be other events: an etcd of theirs was put back between the two."""
    span = known.at_ns, entry.at_ns
    return any(evidence.lost_between(cluster, *span) for cluster in parse_vector(entry.vector))


def _by_line(entry: TableRead | StatusRead) -> int:
    return entry.line


def i18_incremental(evidence: Evidence) -> Verdict:
    """A table that was kept up to date equals the one that meshd derived anew at the same place."""
    found = Findings("I18", "tables derived anew")
    kept: dict[tuple[str, str], TableRead] = {}
    for table in evidence.all(TableRead):
        if table.events_after and not table.anew:
            kept[table.cluster, table.events_after] = table
    for table in evidence.all(TableRead):
        one = kept.get((table.cluster, table.events_after)) if table.anew else None
        if one is None:
            continue
        found.look()
        if one.digest != table.digest:
            found.violate(f"{table.cluster}: the digests differ", one, table)
        if one.services is not None and table.services is not None and not out_of_sight(one):
            was, anew = undistanced(one.services), undistanced(table.services)
            differing = sorted(
                key for key in was.keys() | anew.keys() if was.get(key) != anew.get(key)
            )
            if differing:
                found.violate(f"{table.cluster}: {', '.join(differing)} differ", one, table)
    return found.verdict()
