"""I5 and I13: what was applied, and what subscribers were told of it.

For: streams and vectors. Not for: tables (`tables`). Invariant: a subscriber follows whole logs:
one that asks for some types only is not to be recorded as a stream.
"""

from __future__ import annotations

from collections.abc import Iterable

from chaos.evidence import Dump, Evidence, parse_vector
from chaos.history import StatusRead, StreamMessage
from chaos.validators.verdict import Findings, Verdict


def i5_exactly_once(evidence: Evidence) -> Verdict:
    """Within one connection seqs rise by exactly 1; a running meshd's vector never goes back."""
    found = Findings("I5", "messages of one connection, and vectors of one process")
    for messages in evidence.streams.values():
        at: dict[tuple[int, str, str], StreamMessage] = {}
        for message in messages:
            key = message.connection, message.of, message.log_id
            before = at.get(key)
            if before is not None and not message.reset:
                found.look()
                if message.seq != before.seq + 1:
                    found.violate(_step(before, message), before, message)
            at[key] = message
    _vectors_rise(evidence, found)
    found.miss("effects inside meshd: a history holds what it told")
    return found.verdict()


def _step(before: StreamMessage, message: StreamMessage) -> str:
    who = f"{message.subscriber} at {message.cluster}"
    return f"{who} was told seq {message.seq} of {message.of} after {before.seq}"


def _vectors_rise(evidence: Evidence, found: Findings) -> None:
    at: dict[tuple[str, int, str, str], tuple[int, StatusRead]] = {}
    for status in evidence.all(StatusRead):
        for cluster, (log_id, seq) in parse_vector(status.vector).items():
            key = (*evidence.life_of(status), cluster, log_id)
            before, entry = at.get(key, (seq, status))
            found.look()
            if seq < before and not evidence.lost_between(cluster, entry.at_ns, status.at_ns):
                found.violate(
                    f"{status.process} went back from {before} to {seq} of {cluster}", entry, status
                )
            at[key] = seq, status


def i13_streams(evidence: Evidence) -> Verdict:
    """Over all its connections a subscriber was told every event once, and the right one."""
    found = Findings("I13", "messages of streams")
    for subscriber, messages in evidence.streams.items():
        by_log: dict[str, list[StreamMessage]] = {}
        for message in messages:
            by_log.setdefault(message.of, []).append(message)
        for of, told in by_log.items():
            _continuous(told, found)
            _as_logged(told, evidence, found)
            _of_one_past(told, evidence, found)
            _to_the_end(subscriber, of, told[-1], evidence, found)
    return found.verdict()


def _continuous(told: Iterable[StreamMessage], found: Findings) -> None:
    before: StreamMessage | None = None
    for message in told:
        found.look()
        if before is not None and not message.reset:
            where = f"{message.subscriber} at {message.cluster}, {message.log} of {message.of}"
            if message.log_id != before.log_id:
                what = f"another log, {message.log_id}, without a reset"
                found.violate(f"{where}: {what}", before, message)
            elif message.seq > before.seq + 1:
                what = f"{before.seq + 1} to {message.seq - 1} were never told, without a reset"
                found.violate(f"{where}: {what}", before, message)
            elif message.seq <= before.seq:
                what = f"{message.seq} was told after {before.seq}"
                found.violate(f"{where}: {what}", before, message)
        before = message


def _as_logged(told: Iterable[StreamMessage], evidence: Evidence, found: Findings) -> None:
    for message in told:
        dump = evidence.newest_by_id.get(message.log_id)
        if message.reset or dump is None or _is_elsewhere(message, dump, evidence):
            continue
        event = dump.log.event(message.seq)
        if event is None:
            if message.seq > dump.log.last_seq and dump.entry.from_ns > message.at_ns:
                found.violate(
                    f"{message.subscriber} was told seq {message.seq} of {message.of}, and the log"
                    f" ends at {dump.log.last_seq}",
                    message,
                    dump.entry,
                )
        elif (message.type, message.subject) != (event[0], event[1]):
            found.violate(
                f"{message.subscriber} was told {message.type} of {message.subject} as seq"
                f" {message.seq} of {message.of}; it is {event[0]} of {event[1]}",
                message,
                dump.entry,
            )


def _of_one_past(told: Iterable[StreamMessage], evidence: Evidence, found: Findings) -> None:
    """Who was told what a log lost under its id goes on in it behind a reset alone, once the fault
    is over: there may be other events before its place, which it was never told.
    """
    ends = [fault.end_ns for fault in evidence.faults]
    since_reset: list[StreamMessage] = []
    for message in told:
        before = since_reset[-1] if since_reset else message
        if message.reset or message.log_id != before.log_id:
            since_reset = []
        elif any(
            before.at_ns <= end_ns < message.at_ns
            and evidence.lost_between(message.of, end_ns, end_ns)
            for end_ns in ends
        ):
            lost = _first_that_is_another(since_reset, evidence)
            if lost is not None:
                found.violate(
                    f"{message.subscriber} went on with seq {message.seq} of {message.of} without a"
                    f" reset, though it was told {lost.seq} of a past that was lost",
                    lost,
                    message,
                )
                since_reset = []
        if not message.reset:
            since_reset.append(message)


def _first_that_is_another(
    told: Iterable[StreamMessage], evidence: Evidence
) -> StreamMessage | None:
    """The first message that isn't what its log has in its place now."""
    for message in told:
        dump = evidence.newest_by_id.get(message.log_id)
        event = dump.log.event(message.seq) if dump is not None else None
        if event is not None and (message.type, message.subject) != (event[0], event[1]):
            return message
    return None


def _is_elsewhere(message: StreamMessage, dump: Dump, evidence: Evidence) -> bool:
    """Whether the dump says nothing of what was told then."""
    is_broken = dump.broken is not None and message.seq > dump.log.last_seq
    start_ns = min(message.at_ns, dump.entry.from_ns)
    end_ns = max(message.at_ns, dump.entry.at_ns)
    return is_broken or evidence.lost_between(message.of, start_ns, end_ns)


def _to_the_end(
    subscriber: str, of: str, last: StreamMessage, evidence: Evidence, found: Findings
) -> None:
    """Where a stream stops short of the log, nothing is known of the rest."""
    dump = evidence.newest_by_id.get(last.log_id)
    if dump is None:
        found.miss(f"{subscriber}: log {last.log_id} of {of} was not dumped")
    elif last.seq < dump.log.last_seq:
        found.miss(f"{subscriber}: {of} behind seq {last.seq} of {dump.log.last_seq}")
