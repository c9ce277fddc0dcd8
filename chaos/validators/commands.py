"""I1, I2 and I9: what became of commands.

For: holding operations against the local logs. Not for: logs by themselves (`logs`). Invariant: an
operation is judged only by a dump that was made after it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from chaos.evidence import LOCAL, Dump, Evidence, Operation
from chaos.history import LossNamed, Outcome
from chaos.validators.verdict import Findings, Verdict


def i1_durable(evidence: Evidence) -> Verdict:
    """What was acknowledged is in the last dump of its local log, where the answer said."""
    found = Findings("I1", "acknowledged commands")
    for operation in evidence.acknowledged:
        done = operation.completed
        if done is None or not done.last_seq:
            continue
        dump = evidence.last_dump(operation.invoked.cluster, LOCAL)
        if dump is None or dump.entry.from_ns < done.at_ns:
            found.miss(f"no later dump of the local log of {operation.invoked.cluster}")
        elif dump.broken is not None:
            found.miss(f"the local log of {operation.invoked.cluster} can't be read to its end")
        else:
            found.look()
            reason = _gone(operation, dump)
            loss = _named_lost(evidence, operation, dump) if reason else None
            if reason and loss is None:
                found.violate(reason, operation.invoked, done, dump.entry)
            elif loss is not None and loss.first_seq > done.first_seq:
                found.miss(
                    f"commands of {operation.invoked.cluster} whose places others had taken when"
                    " somebody asked what is lost"
                )
    return found.verdict()


def _gone(operation: Operation, dump: Dump) -> str:
    """Why an acknowledged command is not where its answer said; empty if it is."""
    asked, done = operation.invoked, operation.completed
    assert done is not None  # noqa: S101 the caller looked
    where = f"seq {done.first_seq} to {done.last_seq} of {asked.cluster}"
    if dump.log_id != done.log_id:
        return f"{where} was acknowledged in log {done.log_id}, and the log is {dump.log_id} now"
    if done.last_seq > dump.log.last_seq:
        return f"{where} was acknowledged and the log ends at {dump.log.last_seq}"
    if done.last_seq <= dump.log.trim_seq:
        return ""
    causes = {event[4] for event in map(dump.log.event, _seqs(operation)) if event is not None}
    if causes != {asked.key}:
        return f"{where} was acknowledged for {asked.key!r} and was made for {sorted(causes)}"
    made = dump.log.made.get(asked.key, set())
    if asked.key and (done.first_seq, done.last_seq) not in made:
        return f"{where} was acknowledged for {asked.key!r}, which made {sorted(made)}"
    return ""


def _seqs(operation: Operation) -> range:
    done = operation.completed
    return range(done.first_seq, done.last_seq + 1) if done is not None else range(0)


def _named_lost(evidence: Evidence, operation: Operation, dump: Dump) -> LossNamed | None:
    """Where the mesh said that an operation's events are lost, if a fault could lose them; else
    where it said so of those behind them in the same log, as others have taken their places.
    """
    asked, done = operation.invoked, operation.completed
    if done is None or not evidence.lost_between(asked.cluster, done.at_ns, evidence.end_ns):
        return None
    behind = None
    for named in evidence.all(LossNamed):
        is_it = (named.cluster, named.log_id) == (asked.cluster, done.log_id)
        is_in_time = named.at_ns > done.at_ns and done.last_seq <= named.last_seq
        if is_it and is_in_time and named.first_seq <= done.first_seq:
            return named
        if is_it and is_in_time and dump.log_id == done.log_id:
            behind = named
    return behind


def i2_at_most_once(evidence: Evidence) -> Verdict:
    """Each key made events at most once; one that failed for certain made none."""
    found = Findings("I2", "idempotency keys and acknowledged ranges")
    by_key: dict[tuple[str, str], list[Operation]] = defaultdict(list)
    for operation in evidence.operations:
        if operation.invoked.key:
            by_key[operation.invoked.cluster, operation.invoked.key].append(operation)
    for (cluster, key), operations in by_key.items():
        dump = evidence.last_dump(cluster, LOCAL)
        if dump is None:
            found.miss(f"no dump of the local log of {cluster}")
            continue
        found.look()
        made = sorted(dump.log.made.get(key, ()))
        asked = [operation.invoked for operation in operations]
        answers = [operation.completed for operation in operations]
        if len(made) > 1:
            found.violate(
                f"{key!r} made events {len(made)} times in {cluster}: at {_in_words(made)}",
                *(*asked, *answers, dump.entry),
            )
        has_failed = all(operation.outcome is Outcome.FAIL for operation in operations)
        is_in_it = has_failed and max(one.end_ns for one in operations) <= dump.entry.at_ns
        if made and is_in_it:
            found.violate(
                f"{key!r} was refused and made events all the same, at {_in_words(made)}",
                *(*asked, *answers, dump.entry),
            )
    _ranges_given_twice(evidence, found)
    return found.verdict()


def _in_words(made: list[tuple[int, int]]) -> str:
    return ", ".join(f"{first} to {last}" if last > first else f"{first}" for first, last in made)


def _ranges_given_twice(evidence: Evidence, found: Findings) -> None:
    """No two commands were told that the same events are theirs, unless they have one key."""
    by_log: dict[tuple[str, str], list[Operation]] = defaultdict(list)
    for operation in evidence.acknowledged:
        if operation.completed is not None and operation.completed.last_seq:
            log = operation.invoked.cluster, operation.completed.log_id
            by_log[log].append(operation)
    for operations in by_log.values():
        before = None
        for operation in sorted(operations, key=lambda one: _seqs(one).start):
            found.look()
            is_same = before is not None and _is_excused(before, operation, evidence)
            if before is not None and not is_same and _seqs(operation).start < _seqs(before).stop:
                found.violate(
                    f"two commands were told that seq {_seqs(operation).start} is theirs",
                    *(before.invoked, before.completed, operation.invoked, operation.completed),
                )
            if before is None or _seqs(operation).stop > _seqs(before).stop:
                before = operation


def _is_excused(one: Operation, other: Operation, evidence: Evidence) -> bool:
    """Whether one tried again what the other did, or the log lost what lay between them."""
    is_retry = bool(one.invoked.key) and one.invoked.key == other.invoked.key
    start_ns, end_ns = sorted((one.invoked.at_ns, other.invoked.at_ns))
    return is_retry or evidence.lost_between(one.invoked.cluster, start_ns, end_ns)


def i9_no_stale_write(evidence: Evidence) -> Verdict:
    """Who was sent after another's answer comes behind it in the log; times never go back there."""
    found = Findings("I9", "commands after commands, and records after records")
    for operations in _appends_by_log(evidence):
        for operation, before in _with_what_was_done_before(operations):
            found.look()
            if before is None or _is_excused(before, operation, evidence):
                continue
            if _seqs(operation).start < _seqs(before).stop:
                found.violate(
                    f"seq {_seqs(operation).start} was given to a command that was sent after"
                    f" {_seqs(before).stop - 1} had been acknowledged",
                    *(before.invoked, before.completed, operation.invoked, operation.completed),
                )
    for dumps in evidence.dumps_of.values():
        dump = dumps[-1]
        found.look(len(dump.log.times))
        for earlier, later in zip(dump.log.times, dump.log.times[1:], strict=False):
            if later < earlier:
                found.violate(
                    f"time goes back by {earlier - later} ms in {_name(dump)}", dump.entry
                )
    found.miss("what only a leader does: a history doesn't say who led")
    return found.verdict()


def _name(dump: Dump) -> str:
    return f"{dump.entry.log} of {dump.entry.cluster}"


def _appends_by_log(evidence: Evidence) -> list[list[Operation]]:
    by_log: dict[tuple[str, str], list[Operation]] = defaultdict(list)
    for one in evidence.acknowledged:
        done = one.completed
        if done is not None and done.last_seq and not done.repeated:
            by_log[one.invoked.cluster, done.log_id].append(one)
    return list(by_log.values())


def _with_what_was_done_before(
    operations: list[Operation],
) -> Iterator[tuple[Operation, Operation | None]]:
    """Each operation with the one of the highest seq that was acknowledged when it was sent."""
    ended = sorted(operations, key=lambda one: one.end_ns)
    index, highest = 0, None
    for operation in operations:
        while index < len(ended) and ended[index].end_ns < operation.invoked.at_ns:
            if highest is None or _seqs(ended[index]).stop > _seqs(highest).stop:
                highest = ended[index]
            index += 1
        yield operation, highest
