"""I10 and I12: no cluster's trouble becomes another's.

For: what happens to clusters while others are disturbed. Not for: the disturbed ones themselves.
Invariant: a cluster is held to this only while no fault is its own, nor has just been.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from itertools import pairwise

from chaos.evidence import LOCAL, NS_PER_S, SHARED, Evidence, Fault, Operation, parse_vector
from chaos.history import Entry, Outcome, Row, StatusRead, StreamMessage, TableRead
from chaos.validators.tables import out_of_sight, undistanced
from chaos.validators.verdict import Figure, Findings, Verdict

SAMPLES_MIN = 20
"""Fewer say nothing of a p99, not even that it is bad."""
SLOWEST_SHOWN = 3
REFUSALS = frozenset({400, 404, 409, 410, 412, 413, 422})
"""Answers that say no for good reason: the cluster works."""
QUARANTINED = "Quarantined"
READY = "Ready"


def p99(values: list[float]) -> float:
    """The value that 99 of 100 don't exceed."""
    return sorted(values)[math.ceil(0.99 * len(values)) - 1]


def i12_isolation(evidence: Evidence) -> Verdict:
    """Of clusters without a fault of their own: success, latency, lag, and tables that stay."""
    found = Findings("I12", "commands, events and tables of clusters while others had faults")
    for cluster, windows in sorted(_appends(evidence, found).items()):
        if _may_be_compared({cluster}, evidence):
            _compare(f"append in {cluster}", *windows, evidence, found)
    for reader, windows in sorted(_by_reader(lags(evidence)).items()):
        if _may_be_compared({reader}, evidence):
            _compare(f"lag of what {reader} reads", *windows, evidence, found)
    for (cluster, _), tables in evidence.tables.items():
        for before, after in pairwise(one for one in tables if one.services is not None):
            if not evidence.is_hit(cluster, before.at_ns, after.at_ns):
                _unexplained(before, after, evidence, found)
    return found.verdict()


def _by_reader(by_pair: Mapping[tuple[str, str], Windows]) -> dict[str, Windows]:
    """What each cluster is told of all others. Of a pair there are a hundred samples or so, and
    their p99 is the slowest one, which says more of the machine.
    """
    found: dict[str, Windows] = defaultdict(lambda: ([], []))
    for (_, reader), (quiet, disturbed) in by_pair.items():
        found[reader][0].extend(quiet)
        found[reader][1].extend(disturbed)
    return found


Measured = tuple[float, Entry | None]
"""How long it took, and which entry shows it."""
Windows = tuple[list[Measured], list[Measured]]
"""What was measured while all was quiet, and while others were disturbed."""


def _appends(evidence: Evidence, found: Findings) -> dict[str, Windows]:
    """By cluster how long commands took; on the way, whether they succeeded."""
    took: dict[str, Windows] = defaultdict(lambda: ([], []))
    for operation in evidence.operations:
        where = _window(operation, evidence)
        if where is None:
            continue
        _succeeds(operation, where, evidence, found)
        asked_ns = operation.invoked.at_ns
        if operation.outcome is Outcome.OK and _is_measured(asked_ns, operation.end_ns, evidence):
            took[operation.invoked.cluster][where].append((operation.took_s, operation.completed))
    return took


def _window(operation: Operation, evidence: Evidence) -> int | None:
    """0: it was all quiet; 1: others had a fault; None: its cluster had one of its own, or the run
    had just begun.
    """
    start = operation.invoked.at_ns
    end = evidence.end_ns if operation.completed is None else operation.end_ns
    if evidence.is_hit(operation.invoked.cluster, start, end):
        return None
    return _when(start, end, evidence)


def _is_measured(start_ns: int, end_ns: int, evidence: Evidence) -> bool:
    """Whether it can be said how long something took: who recorded looked all the while."""
    return not evidence.stalled.touches(start_ns, end_ns)


def _when(start_ns: int, end_ns: int, evidence: Evidence) -> int | None:
    if evidence.disturbed.touches(start_ns, end_ns):
        return 1
    return 0 if start_ns >= evidence.calm_from_ns else None


def _succeeds(operation: Operation, where: int, evidence: Evidence, found: Findings) -> None:
    if not where:
        return
    answer = operation.completed
    if answer is None and (evidence.ended is None or evidence.ended.error):
        found.miss("commands that were under way when the run failed")
        return
    if answer is not None and _may_be_our_own_doing(operation, evidence):
        found.miss("commands while whoever recorded did nothing for half of the time they took")
        return
    found.look()
    is_served = operation.outcome is Outcome.OK or (
        answer is not None and answer.status in REFUSALS
    )
    if not is_served:
        told = "no answer" if answer is None else answer.error or f"status {answer.status}"
        found.violate(
            f"{operation.invoked.command} in {operation.invoked.cluster} came to"
            f" {operation.outcome} ({told}) while only others had a fault",
            operation.invoked,
            answer,
        )


def _may_be_our_own_doing(operation: Operation, evidence: Evidence) -> bool:
    """Whether no answer came for as long as this because nobody looked for it."""
    stalled_ns = evidence.stalled.within_ns(operation.invoked.at_ns, operation.end_ns)
    is_answered = operation.completed is not None and operation.completed.status > 0
    return not is_answered and stalled_ns / NS_PER_S >= operation.took_s / 2 > 0


def _may_be_compared(clusters: set[str], evidence: Evidence) -> bool:
    """Whether there was a fault that wasn't theirs."""
    return any(clusters.isdisjoint(fault.injected.clusters) for fault in evidence.faults)


def _compare(
    what: str,
    quiet: list[Measured],
    disturbed: list[Measured],
    evidence: Evidence,
    found: Findings,
) -> None:
    for kind, window in (("quiet", quiet), ("disturbed", disturbed)):
        values = sorted(value for value, _ in window)
        if values:
            found.figures.append(Figure(f"p50 of {what}, {kind}", values[len(values) // 2], "s"))
    if min(len(quiet), len(disturbed)) < SAMPLES_MIN:
        found.miss(
            f"p99 of {what}: {len(quiet)} quiet and {len(disturbed)} disturbed samples, and"
            f" {SAMPLES_MIN} of each are needed"
        )
        return
    bounds = evidence.bounds
    usual, then = (p99([value for value, _ in window]) for window in (quiet, disturbed))
    bound = max(bounds.latency_factor * usual, usual + bounds.latency_slack_s)
    found.look(len(disturbed))
    found.figures.append(Figure(f"p99 of {what}, quiet", usual, "s"))
    found.figures.append(Figure(f"p99 of {what}, disturbed", then, "s", bound))
    if then > bound:
        slowest = sorted(disturbed, key=lambda one: one[0], reverse=True)[:SLOWEST_SHOWN]
        found.violate(
            f"p99 of {what} rose from {usual * 1000:.0f} ms to {then * 1000:.0f} ms, and"
            f" {bound * 1000:.0f} ms are allowed",
            *(fault.injected for fault in evidence.faults),
            *(entry for _, entry in slowest),
        )


def lags(evidence: Evidence) -> dict[tuple[str, str], Windows]:
    """By origin and reader how long events took from their acknowledgement until a subscriber
    there was told: (quiet, disturbed).
    """
    found: dict[tuple[str, str], Windows] = defaultdict(lambda: ([], []))
    for lag_s, message in lag_samples(evidence):
        pair, end = (message.of, message.cluster), message.at_ns
        start = end - round(lag_s * NS_PER_S)
        where = _when(start, end, evidence) if _is_measured(start, end, evidence) else None
        if where is not None and not any(evidence.is_hit(one, start, end) for one in pair):
            found[pair][where].append((lag_s, message))
    return found


def lag_samples(evidence: Evidence) -> list[tuple[float, StreamMessage]]:
    """The lag in s, and who was told, of every event whose way is known: local and export records
    of one transaction have one revision.
    """
    acknowledged: dict[tuple[str, int], int] = {}
    for operation in evidence.acknowledged:
        done = operation.completed
        if done is not None and done.last_seq and not done.repeated:
            acknowledged[done.log_id, done.last_seq] = done.at_ns
    exported: dict[tuple[str, int], int] = {}
    for cluster in evidence.run.clusters:
        exported |= _exported(cluster, evidence, acknowledged)
    told: set[tuple[str, str, int]] = set()
    found = []
    for message in evidence.all(StreamMessage):
        since_ns = exported.get((message.log_id, message.seq))
        key = message.cluster, message.log_id, message.seq
        is_first = not message.reset and message.of != message.cluster and key not in told
        if since_ns is not None and is_first:
            told.add(key)
            lag_s = max(0, message.at_ns - since_ns) / NS_PER_S
            found.append((lag_s, message))
    return found


def _exported(
    cluster: str, evidence: Evidence, acknowledged: Mapping[tuple[str, int], int]
) -> dict[tuple[str, int], int]:
    """By export log id and seq: when the command was acknowledged that it came of."""
    by_revision: dict[int, int] = {}
    for dump in evidence.dumps_of.get((cluster, LOCAL), ()):
        for seq, revision in dump.log.revisions.items():
            at_ns = acknowledged.get((dump.log_id, seq))
            if at_ns is not None:
                by_revision[revision] = at_ns
    return {
        (dump.log_id, seq): by_revision[revision]
        for dump in evidence.dumps_of.get((cluster, SHARED), ())
        for seq, revision in dump.log.revisions.items()
        if revision in by_revision
    }


def _unexplained(before: TableRead, after: TableRead, evidence: Evidence, found: Findings) -> None:
    """With the same vectors only backends of clusters that have faults may look different."""
    if (before.vector, before.events_after) != (after.vector, after.events_after):
        return
    excused = out_of_sight(before) | out_of_sight(after)
    span = before.at_ns, after.at_ns
    excused |= {name for name in evidence.run.clusters if evidence.is_hit(name, *span)}
    if excused:
        found.look()
    was, now = (_rows_but(excused, one) for one in (before, after))
    if was != now:
        found.violate(
            f"the table of {after.cluster} changed, and no event says so: {_changes(was, now)}",
            before,
            after,
        )


def _rows_but(excused: set[str], table: TableRead) -> set[tuple[str, Row]]:
    services = undistanced(table.services or {}).items()
    return {(key, row) for key, rows in services for row in rows if row.cluster not in excused}


def _changes(was: set[tuple[str, Row]], now: set[tuple[str, Row]]) -> str:
    key, row = min(was ^ now)
    return f"{key}: {row.cluster}/{row.name} {'went' if (key, row) in was else 'came'}"


def i10_contained(evidence: Evidence) -> Verdict:
    """Nobody reads on into a poisoned log, and nobody else is quarantined for it."""
    found = Findings("I10", "vectors and phases while a log was poisoned")
    faults = [fault for fault in evidence.faults if fault.injected.poisons]
    for fault in faults:
        for text in fault.injected.poisons:
            for cluster, (log_id, bad_seq) in parse_vector(text).items():
                _stops(fault, cluster, log_id, bad_seq, evidence, found)
        _nobody_else(fault, evidence, found)
    return found.verdict()


def _stops(
    fault: Fault, cluster: str, log_id: str, bad_seq: int, evidence: Evidence, found: Findings
) -> None:
    last: dict[str, StatusRead] = {}
    entries: list[StatusRead | TableRead] = [*evidence.all(StatusRead), *evidence.all(TableRead)]
    for entry in entries:
        if not fault.start_ns <= entry.at_ns <= fault.whole_until_ns or entry.cluster == cluster:
            continue
        found.look()
        at = parse_vector(entry.vector).get(cluster)
        if at is not None and at[0] == log_id and at[1] >= bad_seq:
            what = (
                f"{entry.cluster} stands at {at[1]} of {cluster}, whose log is bad from {bad_seq}"
            )
            found.violate(what, fault.injected, entry)
        if isinstance(entry, StatusRead):
            last[entry.process] = entry
    settle_ns = round(evidence.bounds.settle_s * NS_PER_S)
    for status in last.values():
        phases = {peer.name: peer.phase for peer in status.peers}
        if status.at_ns > fault.start_ns + settle_ns and phases.get(cluster) == READY:
            found.violate(f"{status.process} calls {cluster} Ready", fault.injected, status)


def _nobody_else(fault: Fault, evidence: Evidence, found: Findings) -> None:
    poisoned = {text.partition(":")[0] for text in fault.injected.poisons}
    for status in evidence.all(StatusRead):
        if fault.start_ns <= status.at_ns <= fault.end_ns:
            for peer in status.peers:
                is_hit = evidence.is_hit(peer.name, fault.start_ns, status.at_ns)
                if peer.phase == QUARANTINED and peer.name not in poisoned and not is_hit:
                    what = f"{status.process} quarantines {peer.name} as well"
                    found.violate(what, fault.injected, status)
