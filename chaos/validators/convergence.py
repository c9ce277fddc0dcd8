"""I11: after the last fault everybody comes to the same, and to what the reference says.

For: the end of a run. Not for: what happens on the way. Invariant: a run that ended before its time
was up is not held against anybody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from chaos import reference
from chaos.evidence import LOCAL, NS_PER_S, Evidence, parse_vector
from chaos.history import FaultHealed, TableRead
from chaos.validators.tables import undistanced
from chaos.validators.verdict import Figure, Findings, Verdict

Heads = Mapping[str, tuple[str, int]]
States = Mapping[str, reference.State]


def i11_convergence(evidence: Evidence) -> Verdict:
    """After the last fault and the last command every table comes to the reference in time."""
    found = Findings("I11", "meshds' last tables")
    answered = (one.end_ns for one in evidence.operations if one.completed is not None)
    calm_ns = max(evidence.last_healed_ns, max(answered, default=0))
    unread = set(evidence.run.clusters)
    for (cluster, process), read in evidence.tables.items():
        tables = [one for one in read if one.at_ns > calm_ns and one.services is not None]
        dumped = _states_and_heads(cluster, tables[-1], calm_ns, evidence) if tables else None
        if dumped is None:
            what = "no table, or not all logs, were read after the run had calmed"
            found.miss(f"{process or cluster}: {what}")
        else:
            _converged(process or cluster, tables, calm_ns, dumped, evidence, found)
        unread.discard(cluster)
    for cluster in sorted(unread):
        found.miss(f"{cluster}: no table was read")
    return found.verdict()


def _converged(
    whose: str,
    tables: Sequence[TableRead],
    calm_ns: int,
    dumped: tuple[States, Heads],
    evidence: Evidence,
    found: Findings,
) -> None:
    """Hold the last table of one meshd against the logs, and the way there against the bound."""
    states, heads = dumped
    bound_s = evidence.bounds.converge_s
    wrong = _difference(tables[-1], states, heads, evidence)
    after_s = _after_s(tables[-1], calm_ns)
    if not wrong:
        found.look()
        _in_time(whose, [(_after_s(one, calm_ns), one) for one in tables], heads, bound_s, found)
    elif after_s < bound_s:
        found.miss(f"{whose}: {wrong}, but the run ended {after_s:.1f} s after it had calmed")
    else:
        found.look()
        healed = _last_healed(evidence)
        found.violate(f"{whose}, {after_s:.1f} s after: {wrong}", healed, tables[-1])


def _in_time(
    whose: str,
    tables: list[tuple[float, TableRead]],
    heads: Heads,
    bound_s: float,
    found: Findings,
) -> None:
    """A table that came to what it must be at last did so in time. tables: by s after the calm."""
    came = [(after_s, dict(parse_vector(one.vector)) == heads, one) for after_s, one in tables]
    first_s = next(after_s for after_s, is_there, _ in came if is_there)
    found.figures.append(Figure(f"{whose} converged within", first_s, "s", bound_s))
    for after_s, is_there, table in came:
        if after_s >= bound_s and not is_there:
            found.violate(f"{whose} stands at {table.vector} {after_s:.1f} s after", table)


def _after_s(table: TableRead, calm_ns: int) -> float:
    return (table.at_ns - calm_ns) / NS_PER_S


def _last_healed(evidence: Evidence) -> FaultHealed | None:
    healed = [fault.healed for fault in evidence.faults if fault.healed is not None]
    return max(healed, key=lambda one: one.at_ns, default=None)


def _states_and_heads(
    cluster: str, table: TableRead, calm_ns: int, evidence: Evidence
) -> tuple[States, Heads] | None:
    """What the clusters' logs come to as this table's cluster reads them, and where they end."""
    states: dict[str, reference.State] = {}
    heads: dict[str, tuple[str, int]] = {}
    vector = parse_vector(table.vector)
    for name in evidence.run.clusters:
        exports = [dump for dump in evidence.exports_of(name) if dump.entry.from_ns > calm_ns]
        log_id = vector.get(name, ("", 0))[0]
        chosen = [dump for dump in exports if dump.log_id == log_id] or exports
        if not chosen or chosen[-1].broken is not None:
            return None
        heads[name] = chosen[-1].log_id, chosen[-1].log.last_seq
        states[name] = chosen[-1].log.state
    local = evidence.last_dump(cluster, LOCAL)
    if local is None or local.entry.from_ns <= calm_ns or local.broken is not None:
        return None
    states[cluster] = local.log.state
    return states, heads


def _difference(
    table: TableRead,
    states: States,
    heads: Heads,
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
