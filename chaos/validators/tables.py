"""I8, I11, I15 and I18: tables, held against logs and against each other.

For: what was read of tables and status. Not for: what others' faults do to them (`isolation`).
Invariant: what they are held against is the reference, which shares no code with meshd.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from chaos import reference
from chaos.evidence import LOCAL, NS_PER_S, REPLICA, Dump, Evidence, parse_vector
from chaos.history import FaultHealed, Row, StatusRead, TableRead
from chaos.validators.verdict import Figure, Findings, Verdict

Services = Mapping[str, tuple[Row, ...]]
READY = "Ready"


def undistanced(services: Services) -> dict[str, list[Row]]:
    """A table without measured distance, which is in no log: the last digit of a priority says it
    in steps of one, below the places' steps of three.
    """
    return {
        key: sorted(row._replace(priority=row.priority - row.priority % 10 % 3) for row in rows)
        for key, rows in services.items()
    }


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
            _learn(dump, known.setdefault(dump.entry.cluster, _Known()), found)
    for name, held in known.items():
        held.is_whole &= not evidence.lost_between(name, evidence.run.at_ns, evidence.end_ns)
    stranger = _Known(last_dump_ns=evidence.end_ns)
    for table in evidence.all(TableRead):
        for service, rows in (table.services or {}).items():
            for row in rows:
                _is_theirs(table, service, row, known.get(row.cluster, stranger), found)
    return found.verdict()


def _learn(dump: Dump, held: _Known, found: Findings) -> None:
    cluster = dump.entry.cluster
    held.is_whole &= not dump.log.trim_seq
    held.last_dump_ns = dump.entry.at_ns
    for key, data in dump.log.snapshot[1].get("endpoint", {}).items():
        held.endpoints.add((key, data.get("address", "")))
    for _, (kind, key, data, *_) in dump.log.events:
        if kind == "endpoint.set":
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


def i11_convergence(evidence: Evidence) -> Verdict:
    """After the last fault and the last command every table comes to the reference in time."""
    found = Findings("I11", "clusters' last tables")
    bound_s = evidence.bounds.converge_s
    calm_ns = max(
        evidence.last_healed_ns,
        max((one.end_ns for one in evidence.operations if one.completed), default=0),
    )
    for cluster in evidence.run.clusters:
        tables = [
            table
            for table in evidence.tables.get(cluster, ())
            if table.at_ns > calm_ns and table.services is not None
        ]
        dumped = _states_and_heads(cluster, calm_ns, evidence)
        if not tables or dumped is None:
            found.miss(f"{cluster}: no table, or not all logs, were read after the run had calmed")
            continue
        states, heads = dumped
        wrong = _difference(tables[-1], states, heads, evidence)
        after_s = _after_s(tables[-1], calm_ns)
        healed = _last_healed(evidence)
        if not wrong:
            found.look()
            after = [(_after_s(one, calm_ns), one) for one in tables]
            _in_time(cluster, after, heads, bound_s, found)
        elif after_s < bound_s:
            found.miss(f"{cluster}: {wrong}, but the run ended {after_s:.1f} s after it had calmed")
        else:
            found.look()
            found.violate(f"{cluster}, {after_s:.1f} s after: {wrong}", healed, tables[-1])
    return found.verdict()


def _in_time(
    cluster: str,
    tables: list[tuple[float, TableRead]],
    heads: Mapping[str, tuple[str, int]],
    bound_s: float,
    found: Findings,
) -> None:
    """A table that came to what it must be at last did so in time. tables: by s after the calm."""
    came = [(after_s, dict(parse_vector(one.vector)) == heads, one) for after_s, one in tables]
    first_s = next(after_s for after_s, is_there, _ in came if is_there)
    found.figures.append(Figure(f"{cluster} converged within", first_s, "s", bound_s))
    for after_s, is_there, table in came:
        if after_s >= bound_s and not is_there:
            found.violate(f"{cluster} stands at {table.vector} {after_s:.1f} s after", table)


def _after_s(table: TableRead, calm_ns: int) -> float:
    return (table.at_ns - calm_ns) / NS_PER_S


def _last_healed(evidence: Evidence) -> FaultHealed | None:
    healed = [fault.healed for fault in evidence.faults if fault.healed is not None]
    return max(healed, key=lambda one: one.at_ns, default=None)


def _states_and_heads(
    cluster: str, calm_ns: int, evidence: Evidence
) -> tuple[dict[str, reference.State], dict[str, tuple[str, int]]] | None:
    """What the clusters' logs come to as this one reads them, and where they end."""
    states: dict[str, reference.State] = {}
    heads: dict[str, tuple[str, int]] = {}
    read = [parse_vector(table.vector) for table in evidence.tables.get(cluster, ())[-1:]]
    for name in evidence.run.clusters:
        log_id = read[0].get(name, ("", 0))[0] if read else ""
        exports = [dump for dump in evidence.exports_of(name) if dump.entry.at_ns > calm_ns]
        chosen = [dump for dump in exports if dump.log_id == log_id] or exports
        local = evidence.last_dump(name, LOCAL)
        if not chosen or chosen[-1].broken is not None:
            return None
        heads[name] = chosen[-1].log_id, chosen[-1].log.last_seq
        states[name] = chosen[-1].log.state
        if name == cluster:
            if local is None or local.entry.at_ns <= calm_ns or local.broken is not None:
                return None
            states[name] = local.log.state
    return states, heads


def _difference(
    table: TableRead,
    states: Mapping[str, reference.State],
    heads: Mapping[str, tuple[str, int]],
    evidence: Evidence,
) -> str:
    """In what a table is not as it must be; empty if it is."""
    vector = dict(parse_vector(table.vector))
    for name in evidence.run.clusters:
        if vector.get(name) != heads[name]:
            return f"stands at {vector.get(name)} of {name}, whose log ends at {heads[name]}"
    expected = undistanced(reference.table(table.cluster, states))
    served = undistanced(table.services or {})
    for key in sorted(expected.keys() | served.keys()):
        should, does = expected.get(key), served.get(key)
        if should is None or does is None:
            return f"{key} is {'served' if should is None else 'missing'}"
        for row in sorted(set(should) ^ set(does)):
            return f"{key}: {'not there' if row in should else 'wrong'}: {tuple(row)}"
    return ""


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
            _vanished(before, after, found)
    _digests(evidence, found)
    return found.verdict()


def _vanished(before: TableRead, after: TableRead, found: Findings) -> None:
    """A cluster's backends are gone though its log, or the own one, says nothing new."""
    was, now = parse_vector(before.vector), parse_vector(after.vector)
    own_was, own_now = parse_vector(before.events_after), parse_vector(after.events_after)
    if own_was.get(before.cluster) != own_now.get(after.cluster):
        return
    for cluster in was:
        is_explained = cluster in now and now[cluster] != was[cluster]
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
            if known.digest != entry.digest:
                found.violate(
                    f"at {entry.vector} {entry.cluster} has the digest {known.digest} and then"
                    f" {entry.digest}",
                    known,
                    entry,
                )


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
        if one.services is not None and table.services is not None and not one.stale:
            was, anew = undistanced(one.services), undistanced(table.services)
            differing = sorted(
                key for key in was.keys() | anew.keys() if was.get(key) != anew.get(key)
            )
            if differing:
                found.violate(f"{table.cluster}: {', '.join(differing)} differ", one, table)
    return found.verdict()
