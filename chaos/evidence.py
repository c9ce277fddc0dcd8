"""A history, put in order for those who judge it.

For: what follows from entries alone: operations with their answers, faults with their times, dumps
as logs. Not for: judging (`validators`). Invariant: everything is worked out once, when it is first
asked for; nothing here decides whether something is right.
"""

from __future__ import annotations

import base64
import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar, cast

from chaos import raw
from chaos.history import (
    Bounds,
    Completed,
    Entry,
    FaultBit,
    FaultHealed,
    FaultInjected,
    Invoked,
    Outcome,
    Process,
    RawLog,
    RunEnded,
    RunStarted,
    Sample,
    Stalled,
    StatusRead,
    StreamMessage,
    TableRead,
)

NS_PER_S = 1_000_000_000
SHARED = "export/mesh"
LOCAL = "local"
REPLICA = "replica/"

_Kind = TypeVar("_Kind", bound=Entry)
Vector = Mapping[str, tuple[str, int]]
"""By cluster: log id and seq."""


def parse_vector(text: str) -> Vector:
    """Read `cluster:log id:seq,…`; raises ValueError if it is anything else."""
    found = {}
    for part in text.split(",") if text else ():
        cluster, log_id, seq = part.split(":")
        found[cluster] = log_id, int(seq)
    return found


@dataclass(frozen=True, slots=True)
class Operation:
    """A command, and what is known of it. completed: None if the run ended before it did."""

    invoked: Invoked
    completed: Completed | None

    @property
    def outcome(self) -> Outcome:
        """Nothing known is unknown."""
        return Outcome.UNKNOWN if self.completed is None else self.completed.outcome

    @property
    def end_ns(self) -> int:
        """When it was over; only of one that was answered."""
        assert self.completed is not None  # noqa: S101 the caller looked
        return self.completed.at_ns

    @property
    def took_s(self) -> float:
        """How long it took; only of one that was answered."""
        return (self.end_ns - self.invoked.at_ns) / NS_PER_S


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault, from beginning to end. end_ns: of the run, if it was never healed."""

    injected: FaultInjected
    bit: FaultBit | None
    healed: FaultHealed | None
    end_ns: int

    @property
    def start_ns(self) -> int:
        """When it began."""
        return self.injected.at_ns

    @property
    def whole_until_ns(self) -> int:
        """Until when all of it was broken; from then on some of it may have been healed."""
        return (self.healed.begun_ns if self.healed is not None else 0) or self.end_ns


@dataclass(frozen=True, slots=True)
class Dump:
    """A log as it was read out of an etcd. broken: what kept it from being read to its end."""

    entry: RawLog
    log: raw.Log
    broken: raw.BrokenError | None

    @property
    def log_id(self) -> str:
        """Which log."""
        return str(self.log.head["log_id"])

    @property
    def place(self) -> tuple[str, str]:
        """Whose it is, and which."""
        return self.entry.cluster, self.entry.log


class Spans:
    """Stretches of time, to be asked whether a moment is in one of them."""

    def __init__(self, spans: Iterable[tuple[int, int]]) -> None:
        self.merged: list[tuple[int, int]] = []
        for start, end in sorted(spans):
            if self.merged and start <= self.merged[-1][1]:
                self.merged[-1] = self.merged[-1][0], max(end, self.merged[-1][1])
            else:
                self.merged.append((start, end))
        self._starts = [start for start, _ in self.merged]

    def __contains__(self, at_ns: int) -> bool:
        index = bisect_right(self._starts, at_ns) - 1
        return index >= 0 and at_ns <= self.merged[index][1]

    def touches(self, start_ns: int, end_ns: int) -> bool:
        """Whether any of that time is in one of them."""
        index = bisect_right(self._starts, end_ns) - 1
        return index >= 0 and start_ns <= self.merged[index][1]

    def within_ns(self, start_ns: int, end_ns: int) -> int:
        """How much of that time is in them."""
        cut = ((max(start, start_ns), min(end, end_ns)) for start, end in self.merged)
        return sum(max(0, end - start) for start, end in cut)


class Evidence:
    """A history. run: its header."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = entries
        self.run = cast(RunStarted, entries[0])
        self._by_kind: dict[type[Entry], list[Entry]] = defaultdict(list)
        for entry in entries:
            self._by_kind[type(entry)].append(entry)

    def all(self, kind: type[_Kind]) -> list[_Kind]:
        """The entries of a kind, in order."""
        return cast(list[_Kind], self._by_kind.get(kind, []))

    @property
    def bounds(self) -> Bounds:
        """What the run is held to."""
        return self.run.bounds

    @property
    def end_ns(self) -> int:
        """When the last entry was written."""
        return self.entries[-1].at_ns

    @cached_property
    def ended(self) -> RunEnded | None:
        """How the run came to its end; None if it was cut off."""
        return next(iter(self.all(RunEnded)), None)

    # --- what was asked, and what was done --------------------------------------------------------

    @cached_property
    def operations(self) -> list[Operation]:
        """All commands in the order in which they were sent."""
        answers = {answer.op: answer for answer in self.all(Completed)}
        return [Operation(asked, answers.get(asked.op)) for asked in self.all(Invoked)]

    @cached_property
    def acknowledged(self) -> list[Operation]:
        """Those that were answered with ok."""
        return [one for one in self.operations if one.outcome is Outcome.OK]

    @cached_property
    def faults(self) -> list[Fault]:
        """All faults in the order in which they began."""
        bits: dict[int, FaultBit] = {}
        for bit in self.all(FaultBit):
            bits.setdefault(bit.fault_id, bit)
        healed = {one.fault_id: one for one in self.all(FaultHealed)}
        found = []
        for injected in self.all(FaultInjected):
            end = healed.get(injected.fault_id)
            end_ns = self.end_ns if end is None else end.at_ns
            found.append(Fault(injected, bits.get(injected.fault_id), end, end_ns))
        return found

    @cached_property
    def last_healed_ns(self) -> int:
        """When the last fault was over; of a run without one, its beginning."""
        return max((fault.end_ns for fault in self.faults), default=self.run.at_ns)

    @cached_property
    def disturbed(self) -> Spans:
        """When there was a fault anywhere, or just had been."""
        return Spans(map(self._span, self.faults))

    @cached_property
    def stalled(self) -> Spans:
        """When whoever recorded did nothing, and can't say how long anything took."""
        return Spans((stall.from_ns, stall.at_ns) for stall in self.all(Stalled))

    @cached_property
    def calm_from_ns(self) -> int:
        """From when on a run can be quiet: as it begins, everybody defines and reads everything."""
        begun_ns = min((one.invoked.at_ns for one in self.operations), default=self.run.at_ns)
        return begun_ns + round(self.bounds.settle_s * NS_PER_S)

    @cached_property
    def disturbed_in(self) -> Mapping[str, Spans]:
        """By cluster: when there was a fault of its own, or just had been."""
        spans: dict[str, list[tuple[int, int]]] = {name: [] for name in self.run.clusters}
        for fault in self.faults:
            for cluster in fault.injected.clusters:
                spans.setdefault(cluster, []).append(self._span(fault))
        return {name: Spans(found) for name, found in spans.items()}

    def _span(self, fault: Fault) -> tuple[int, int]:
        return fault.start_ns, fault.end_ns + round(self.bounds.settle_s * NS_PER_S)

    def is_hit(self, cluster: str, start_ns: int, end_ns: int) -> bool:
        """Whether a cluster had a fault of its own in some of that time."""
        spans = self.disturbed_in.get(cluster)
        return spans is not None and spans.touches(start_ns, end_ns)

    def poisons(self) -> dict[tuple[str, str], int]:
        """By cluster and log id: from which seq on somebody else wrote into it."""
        found: dict[tuple[str, str], int] = {}
        for fault in self.faults:
            for text in fault.injected.poisons:
                for cluster, (log_id, seq) in parse_vector(text).items():
                    key = cluster, log_id
                    found[key] = min(seq, found.get(key, seq))
        return found

    def poisoned_from(self, dump: Dump) -> float:
        """From which seq on a dump may hold what somebody else wrote, as it was made during a fault
        that poisons its log.
        """
        bad_seq = math.inf
        for fault in self.faults:
            if fault.start_ns > dump.entry.at_ns or fault.end_ns < dump.entry.from_ns:
                continue
            for text in fault.injected.poisons:
                log_id, seq = parse_vector(text).get(dump.entry.cluster, ("", 0))
                if log_id == dump.log_id:
                    bad_seq = min(bad_seq, seq)
        return bad_seq

    # --- logs -------------------------------------------------------------------------------------

    @cached_property
    def dumps(self) -> list[Dump]:
        """All dumps that have a head, in order."""
        return [dump for dump in map(_dump, self.all(RawLog)) if dump is not None]

    @cached_property
    def dumps_of(self) -> Mapping[tuple[str, str], list[Dump]]:
        """By cluster and log."""
        found: dict[tuple[str, str], list[Dump]] = defaultdict(list)
        for dump in self.dumps:
            found[dump.place].append(dump)
        return dict(found)

    def last_dump(self, cluster: str, log: str) -> Dump | None:
        """The newest one of a log."""
        found = self.dumps_of.get((cluster, log))
        return found[-1] if found else None

    def exports_of(self, cluster: str) -> list[Dump]:
        """All dumps of its export logs, in order."""
        return [
            dump
            for dump in self.dumps
            if dump.entry.cluster == cluster and dump.entry.log.startswith("export/")
        ]

    @cached_property
    def newest_by_id(self) -> Mapping[str, Dump]:
        """Of each log id the dump of the log itself that was made last."""
        own = (dump for dump in self.dumps if not dump.entry.log.startswith(REPLICA))
        return {dump.log_id: dump for dump in own}

    def lost_between(self, cluster: str, start_ns: int, end_ns: int) -> bool:
        """Whether its etcd was made to forget history in that time."""
        return any(
            cluster in fault.injected.loses
            and fault.start_ns <= end_ns
            and fault.end_ns >= start_ns
            for fault in self.faults
        )

    # --- what was read ----------------------------------------------------------------------------

    @cached_property
    def streams(self) -> Mapping[str, list[StreamMessage]]:
        """By subscriber."""
        found: dict[str, list[StreamMessage]] = defaultdict(list)
        for message in self.all(StreamMessage):
            found[message.subscriber].append(message)
        return found

    @cached_property
    def tables(self) -> Mapping[tuple[str, str], list[TableRead]]:
        """By cluster and process, those that were kept up to date."""
        found: dict[tuple[str, str], list[TableRead]] = defaultdict(list)
        for table in self.all(TableRead):
            if not table.anew:
                found[table.cluster, table.process].append(table)
        return found

    @cached_property
    def lives(self) -> Mapping[str, list[int]]:
        """By process: when it was started."""
        found: dict[str, list[int]] = defaultdict(list)
        for process in self.all(Process):
            if process.change == "started":
                found[process.process].append(process.at_ns)
        return found

    def life_of(self, entry: StatusRead | Sample) -> tuple[str, int]:
        """Which process it is of, and which of its lives."""
        return entry.process, bisect_right(self.lives.get(entry.process, ()), entry.at_ns)


def _dump(entry: RawLog) -> Dump | None:
    """Read a dump; None if there is no such log yet."""
    keys = {key.key: (base64.b64decode(key.value), key.revision) for key in entry.keys}
    head_key = "cursor" if entry.log.startswith(REPLICA) else "head"
    if head_key not in keys:
        return None
    if head_key == "head":
        return Dump(entry, *raw.read_as_far_as_it_holds(keys, ""))
    try:
        cursor = raw.parse_head(head_key, keys[head_key][0])
    except raw.BrokenError as error:
        return Dump(entry, raw.Log({"log_id": "", "seq": 0, "hash": ""}), error)
    root = "b/" if cursor.get("place") else ""
    return Dump(entry, *raw.read_as_far_as_it_holds(keys, root, cursor))
