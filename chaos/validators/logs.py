"""I3, I4, I6 and I7: logs and their copies, as they lie in the etcds.

For: what raw dumps alone can tell. Not for: what was asked for (`commands`) nor told (`streams`).
Invariant: what a fault declared to be broken, lost or written by somebody else is not held against
meshd.
"""

from __future__ import annotations

from itertools import pairwise

from chaos import raw
from chaos.evidence import NS_PER_S, REPLICA, Dump, Evidence, Vector, parse_vector
from chaos.history import StatusRead
from chaos.validators.verdict import Findings, Verdict

LEFT = {"Forked", "Connecting", "Syncing", "Refused", "Quarantined", "Stale", "Lost", "Paused"}
"""Phases of a peer that don't claim to be at its log's end."""


def name(dump: Dump) -> str:
    """A dump in words."""
    return f"{dump.entry.log} of {dump.entry.cluster}"


def i3_dense_order(evidence: Evidence) -> Verdict:
    """Every dump can be read to its head, record by record."""
    return _readable(evidence, "I3")


def _readable(evidence: Evidence, invariant: str) -> Verdict:
    found = Findings(invariant, "records in dumps of logs")
    poisons = evidence.poisons()
    for dump in evidence.dumps:
        found.look(len(dump.log.records))
        broken = dump.broken
        if broken is None:
            continue
        bad_seq = poisons.get((dump.entry.cluster, dump.log_id))
        if bad_seq is not None and dump.log.last_seq + 1 >= bad_seq:
            found.miss(f"{name(dump)} behind seq {bad_seq - 1}, where it was poisoned on purpose")
        elif broken.invariant == invariant:
            found.violate(f"{name(dump)}: {broken.reason}", dump.entry)
        else:
            found.miss(f"{name(dump)} behind seq {dump.log.last_seq}: {broken}")
    return found.verdict()


def i4_immutable(evidence: Evidence) -> Verdict:
    """From dump to dump no record is another, and none is gone that wasn't trimmed."""
    found = Findings("I4", "records in one dump and the next")
    poisons = evidence.poisons()
    for (cluster, log), dumps in evidence.dumps_of.items():
        bad_seq = min((seq for (name, _), seq in poisons.items() if name == cluster), default=None)
        for dump in dumps:
            _written_once(dump, bad_seq, found)
        for earlier, later in pairwise(dumps):
            span = earlier.entry.from_ns, later.entry.at_ns
            is_same = earlier.log_id == later.log_id and not log.startswith(REPLICA)
            if is_same and not evidence.lost_between(cluster, *span):
                _unchanged(earlier, later, evidence.poisoned_from(earlier), found)
    return found.verdict()


def _written_once(dump: Dump, bad_seq: int | None, found: Findings) -> None:
    for key in dump.entry.keys:
        if key.key.startswith("log/") and (bad_seq is None or int(key.key[4:]) < bad_seq):
            found.look()
            if key.version > 1:
                found.violate(f"{key.key} of {name(dump)} was written {key.version} x", dump.entry)


def _unchanged(earlier: Dump, later: Dump, bad_seq: float, found: Findings) -> None:
    """bad_seq: from there on the earlier one may have held what wasn't its owner's."""
    there = {key.key for key in later.entry.keys}
    for seq, record in earlier.log.records.items():
        if seq >= bad_seq:
            continue
        found.look()
        again = later.log.records.get(seq)
        if again is None:
            if seq > later.log.trim_seq and f"log/{seq:020}" not in there:
                found.violate(
                    f"the record that ends at {seq} of {name(later)} is gone, and the log is"
                    f" trimmed up to {later.log.trim_seq} only",
                    earlier.entry,
                    later.entry,
                )
        elif (again, later.log.revisions[seq]) != (record, earlier.log.revisions[seq]):
            found.violate(
                f"the record that ends at {seq} of {name(later)} is another than before",
                earlier.entry,
                later.entry,
            )


def i6_reliable(evidence: Evidence) -> Verdict:
    """Snapshots are what they replace, and replicas are what they copy."""
    found = Findings("I6", "records in replicas, and snapshots")
    for dump in evidence.dumps:
        if dump.broken is not None and dump.broken.invariant == "I6":
            found.violate(f"{name(dump)}: {dump.broken.reason}", dump.entry)
        if dump.entry.log.startswith(REPLICA):
            _copied(dump, evidence, found)
    for dumps in evidence.dumps_of.values():
        for earlier, later in pairwise(dumps):
            if earlier.log_id == later.log_id:
                _summed_up(earlier, later, found)
    return found.verdict()


def _copied(replica: Dump, evidence: Evidence, found: Findings) -> None:
    peer = replica.entry.log.removeprefix(REPLICA)
    original = next(
        (dump for dump in reversed(evidence.exports_of(peer)) if dump.log_id == replica.log_id),
        None,
    )
    if original is None:
        found.miss(f"{name(replica)}: the log that it is a copy of was not dumped")
        return
    if evidence.lost_between(peer, replica.entry.from_ns, evidence.end_ns):
        found.miss(f"{name(replica)}: {peer} lost history afterwards")
        return
    there = replica.log.records.keys() & original.log.records.keys()
    found.look(len(there))
    differing = [seq for seq in there if replica.log.records[seq] != original.log.records[seq]]
    if differing:
        found.violate(
            f"{name(replica)} differs from {peer}'s log in {len(differing)} records, the first of"
            f" which ends at {min(differing)}",
            replica.entry,
            original.entry,
        )


def _summed_up(earlier: Dump, later: Dump, found: Findings) -> None:
    """The later dump's snapshot against what the earlier one had as records."""
    seq, state = later.log.snapshot
    begun, base = earlier.log.snapshot
    if not begun < seq <= earlier.log.last_seq:
        return
    folded = {noun: dict(held) for noun, held in base.items()}
    for number, event in earlier.log.events:
        if begun < number <= seq:
            raw.fold(folded, event)
    found.look()
    if _without_empty(folded) != _without_empty(state):
        found.violate(
            f"the snapshot of {name(later)} at {seq} is not what the events up to there come to",
            earlier.entry,
            later.entry,
        )


def _without_empty(state: raw.State) -> raw.State:
    """A noun of which nothing is left is as one of which nothing ever was."""
    return {noun: held for noun, held in state.items() if held}


def i7_identity(evidence: Evidence) -> Verdict:
    """One log id is one chain; a log that was replaced is left by all its readers in time."""
    found = Findings("I7", "logs by their ids, and readers of logs that were replaced")
    for dump in evidence.dumps:
        found.look()
        if dump.broken is not None and dump.broken.invariant == "I7":
            found.violate(f"{name(dump)}: {dump.broken.reason}", dump.entry)
    by_id: dict[str, Dump] = {}
    for dump in evidence.dumps:
        if not dump.entry.log.startswith(REPLICA):
            before = by_id.setdefault(dump.log_id, dump)
            if before.place != dump.place:
                found.violate(
                    f"log id {dump.log_id} is of {name(before)} and of {name(dump)}",
                    before.entry,
                    dump.entry,
                )
    _forks_noticed(evidence, found)
    return found.verdict()


def _forks_noticed(evidence: Evidence, found: Findings) -> None:
    bound_ns = round(evidence.bounds.notice_fork_s * NS_PER_S)
    for fault in evidence.faults:
        for cluster in fault.injected.loses:
            after = [
                dump for dump in evidence.exports_of(cluster) if dump.entry.from_ns > fault.end_ns
            ]
            again = (
                other.start_ns
                for other in evidence.faults
                if cluster in other.injected.clusters and other.start_ns > fault.end_ns
            )
            until_ns = min(again, default=evidence.end_ns)
            if not after:
                found.miss(f"no export log of {cluster} was dumped after it lost history")
                continue
            for status in evidence.all(StatusRead):
                is_then = fault.end_ns + bound_ns < status.at_ns <= until_ns
                is_hit = evidence.is_hit(status.cluster, status.at_ns - bound_ns, status.at_ns)
                if is_then and not is_hit and status.cluster != cluster:
                    found.look()
                    _left(status, cluster, after, found)


def _left(status: StatusRead, cluster: str, after: list[Dump], found: Findings) -> None:
    """A reader that calls the peer Ready stands in a log that is there."""
    vector: Vector = parse_vector(status.vector)
    phases = {peer.name: peer.phase for peer in status.peers}
    if cluster not in vector or phases.get(cluster, "") in LEFT:
        return
    log_id, seq = vector[cluster]
    ends = {dump.log_id: dump.log.head["seq"] for dump in after}
    if log_id not in ends:
        what = f"still reads log {log_id} of {cluster}, which was replaced"
    elif seq > ends[log_id]:
        what = f"stands at {seq} of {cluster}, whose log ends at {ends[log_id]}"
    else:
        return
    found.violate(
        f"{status.process} {what}, and calls it {phases.get(cluster, 'nothing')}",
        after[-1].entry,
        status,
    )
