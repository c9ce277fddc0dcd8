"""All invariants at once, and what a run must have had to prove anything.

For: `validate` and reports. Not for: any single one. Invariant: a run that proves nothing is never
said to hold, whatever its validators found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from chaos.evidence import NS_PER_S, Evidence
from chaos.history import Completed, Invoked, RawLog, Stalled, StreamMessage, TableRead
from chaos.validators.commands import i1_durable, i2_at_most_once, i9_no_stale_write
from chaos.validators.convergence import i11_convergence
from chaos.validators.isolation import i10_contained, i12_isolation
from chaos.validators.limits import i14_bounded, i16_read_only, i17_confidential
from chaos.validators.logs import i3_dense_order, i4_immutable, i6_reliable, i7_identity
from chaos.validators.streams import i5_exactly_once, i13_streams
from chaos.validators.tables import i8_ownership, i15_honest, i18_incremental
from chaos.validators.verdict import Status, Verdict

VALIDATORS: Final[Mapping[str, Callable[[Evidence], Verdict]]] = {
    "I1": i1_durable,
    "I2": i2_at_most_once,
    "I3": i3_dense_order,
    "I4": i4_immutable,
    "I5": i5_exactly_once,
    "I6": i6_reliable,
    "I7": i7_identity,
    "I8": i8_ownership,
    "I9": i9_no_stale_write,
    "I10": i10_contained,
    "I11": i11_convergence,
    "I12": i12_isolation,
    "I13": i13_streams,
    "I14": i14_bounded,
    "I15": i15_honest,
    "I16": i16_read_only,
    "I17": i17_confidential,
    "I18": i18_incremental,
}


STALLED_SHARE_MAX: Final = 0.05
"""Of a run's time."""


@dataclass(frozen=True, slots=True)
class Sometimes:
    """Something that a run must have had. lines: of the history, where it isn't as it should be."""

    what: str
    happened: bool
    detail: str
    lines: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a history comes to. needed: invariants that must have been judged."""

    verdicts: tuple[Verdict, ...]
    sometimes: tuple[Sometimes, ...]
    needed: frozenset[str] = frozenset()

    @property
    def violated(self) -> tuple[Verdict, ...]:
        """The invariants that don't hold."""
        return tuple(one for one in self.verdicts if one.status is Status.VIOLATED)

    @property
    def absent(self) -> tuple[str, ...]:
        """Why it proves nothing; empty if it does."""
        missing = [f"{one.what}: {one.detail}" for one in self.sometimes if not one.happened]
        missing += [
            f"{one.invariant} was to be judged, and nothing of it was recorded"
            for one in self.verdicts
            if one.invariant in self.needed and one.status is Status.NOT_JUDGED
        ]
        return tuple(missing)

    @property
    def holds(self) -> bool:
        """Whether it proves that what was judged holds."""
        return not self.violated and not self.absent


def judge(evidence: Evidence, needed: Iterable[str] = ()) -> Judgement:
    """Ask all validators."""
    verdicts = tuple(validator(evidence) for validator in VALIDATORS.values())
    return Judgement(verdicts, tuple(sometimes(evidence)), frozenset(needed))


def sometimes(evidence: Evidence) -> list[Sometimes]:
    """What must have happened at least once, or a run proves nothing."""
    done = len(evidence.acknowledged)
    streams = len(evidence.all(StreamMessage))
    tables = len(evidence.all(TableRead))
    dumps = len(evidence.dumps)
    return [
        _came_to_its_end(evidence),
        _is_sound(evidence),
        _kept_pace(evidence),
        Sometimes("a command succeeded", done > 0, f"{done} of {len(evidence.operations)}"),
        _bit(evidence),
        Sometimes("a stream was read", streams > 0, f"{streams} messages"),
        Sometimes("a table was read", tables > 0, f"{tables} tables"),
        Sometimes(
            "a log was read by etcdctl", dumps > 0, f"{dumps} of {len(evidence.all(RawLog))} dumps"
        ),
    ]


def _came_to_its_end(evidence: Evidence) -> Sometimes:
    what = "the run came to its end"
    if evidence.ended is None:
        return Sometimes(what, happened=False, detail="it was cut off: it has no last entry")
    error = evidence.ended.error
    return Sometimes(what, not error, error or "it did", (evidence.ended.line,) if error else ())


def _kept_pace(evidence: Evidence) -> Sometimes:
    """Who records may stand still for a moment, in which what takes long isn't judged. Who does it
    all the time has seen too little.
    """
    took_ns = max(1, evidence.end_ns - evidence.run.at_ns)
    stalled_ns = evidence.stalled.within_ns(evidence.run.at_ns, evidence.end_ns)
    stalls = evidence.all(Stalled)
    detail = f"{len(stalls)} times not, for {stalled_ns / NS_PER_S:.1f} s together"
    return Sometimes(
        "whoever recorded kept pace",
        stalled_ns <= STALLED_SHARE_MAX * took_ns,
        detail,
        tuple(one.line for one in stalls),
    )


def _is_sound(evidence: Evidence) -> Sometimes:
    """Numbers are used once, and answers have questions."""
    what = "its record is sound"
    asked: set[int] = set()
    for invoked in evidence.all(Invoked):
        if invoked.op in asked:
            return Sometimes(what, False, f"operation {invoked.op} is there twice", (invoked.line,))
        asked.add(invoked.op)
    answered: set[int] = set()
    for done in evidence.all(Completed):
        if done.op in answered or done.op not in asked:
            problem = f"operation {done.op} was answered twice, or never asked"
            return Sometimes(what, False, problem, (done.line,))
        answered.add(done.op)
    return Sometimes(what, happened=True, detail=f"{len(asked)} operations")


def _bit(evidence: Evidence) -> Sometimes:
    """Every fault had an effect; a run without faults is a quiet one, and says so itself."""
    toothless = [fault for fault in evidence.faults if fault.bit is None]
    names = ", ".join(sorted({fault.injected.fault for fault in toothless}))
    total = len(evidence.faults)
    detail = f"{total - len(toothless)} of {total} did{f'; not: {names}' if names else ''}"
    is_so = total > 0 and not toothless
    return Sometimes(
        "every fault bit", is_so, detail, tuple(fault.injected.line for fault in toothless)
    )
