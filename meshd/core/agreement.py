"""Who agrees with this cluster, who is behind whom, and by how much.

For: comparing what every cluster last said of itself with what is known here. Not for: hearing it
(`runtime.follower`), nor deriving the digests (`derive`). Invariants: pure; two digests are
compared only at the same places of the same logs; what isn't known is said to be unknown, and never
counts as agreement.

A cluster's word is its heartbeat: how far it has read each log, and the digest of what it offers.
The digest that it should have come to is derived here from the logs that it reads, so it can be
compared while both are at the same places. In a mesh that is written to without a pause they never
are at any one moment; so what was said and what was derived is remembered for a while (`Memory`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from meshd.model.errors import RejectedError
from meshd.model.ids import ClusterName, LogId, Position, Seq, Vector, format_vector, parse_vector
from meshd.model.peer import Phase

MEMORY_MAX = 64
"""Vectors that are remembered of each cluster, said and derived: a minute of heartbeats, 30 KB in a
mesh of eight."""


_NOT_READ = frozenset({Phase.PAUSED, Phase.QUARANTINED, Phase.REFUSED, Phase.FORKED})


class Verdict(StrEnum):
    """What comparing comes to. BEHIND: also if it is ahead in some other log."""

    AGREES = "agrees"
    DIFFERS = "differs"
    BEHIND = "behind"
    AHEAD = "ahead"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Word:
    """What a cluster last said. vector: None if it can't be read. age_s: since it was heard; None
    if what was heard may be old. doubt: why it may not hold any more; '' if it does.
    """

    cluster: ClusterName
    vector: Vector | None
    digest: str
    age_s: float | None
    doubt: str


@dataclass(frozen=True, slots=True)
class Here:
    """What is known here. places: how far each log is folded, export logs for the own cluster.
    heads: how far each log goes, as far as anybody said. now_ms: the time.
    """

    own: ClusterName
    vector: Vector
    digest: str
    places: Mapping[LogId, Seq]
    heads: Mapping[LogId, Seq]
    now_ms: int


@dataclass(frozen=True, slots=True)
class Lag:
    """How far a cluster is behind in one cluster's log. events: None if it reads another log than
    is known here. seconds: the age of the oldest event that it lacks; None if that isn't known.
    """

    cluster: ClusterName
    events: int | None
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two digests at one vector."""

    vector_text: str
    agrees: bool


@dataclass(frozen=True, slots=True)
class Standpoint:
    """One cluster beside the others. digest_here: what is derived here for it, at here_text; None
    if it wasn't. lags: where it is behind.
    """

    cluster: ClusterName
    vector: Vector | None
    digest: str | None
    here_text: str | None
    digest_here: str | None
    age_s: float | None
    verdict: Verdict
    reason: str
    lags: tuple[Lag, ...]


Times = Mapping[tuple[LogId, Seq], int]
"""When the record with an event was made, in ms, where that is known here."""


@dataclass(slots=True)
class Memory:
    """What one cluster said, and what was derived for it here, by vector; the oldest goes first."""

    said: dict[str, str] = field(default_factory=dict)
    derived: dict[str, str] = field(default_factory=dict)

    def hear(self, vector_text: str, digest: str) -> Comparison | None:
        """Remember what it said; compared, if it was derived here before."""
        _put(self.said, vector_text, digest)
        return self._compare(vector_text)

    def derive(self, vector_text: str, digest: str) -> Comparison | None:
        """Remember what was derived here; compared, if it said so before."""
        _put(self.derived, vector_text, digest)
        return self._compare(vector_text)

    def _compare(self, vector_text: str) -> Comparison | None:
        said, derived = self.said.get(vector_text), self.derived.get(vector_text)
        if said is None or derived is None:
            return None
        return Comparison(vector_text, said == derived)


def _put(memory: dict[str, str], vector_text: str, digest: str) -> None:
    memory.pop(vector_text, None)
    memory[vector_text] = digest
    if len(memory) > MEMORY_MAX:
        del memory[next(iter(memory))]


def vector_in(text: str) -> Vector | None:
    """The vector that a heartbeat says; None if it can't be read."""
    try:
        return parse_vector(text)
    except RejectedError:
        return None


def doubt_about(age_s: float | None, silent_after_s: float, phase: Phase, reason: str) -> str:
    """Why what a peer last said may not hold any more; '' if there is no reason to think so.

    phase, reason: of following it. One that isn't read on isn't heard either.
    """
    if phase in _NOT_READ:
        return f"it is {phase} here: {reason}"
    if age_s is None:
        return "its heartbeat was not seen to advance yet"
    if age_s >= silent_after_s:
        return f"its heartbeat has not advanced for {age_s:.0f} s"
    return ""


def heads_of(places: Mapping[LogId, Seq], *more: Iterable[Position]) -> dict[LogId, Seq]:
    """How far each log goes: the furthest that anybody has told."""
    heads = dict(places)
    for positions in more:
        for position in positions:
            heads[position.log_id] = max(position.seq, heads.get(position.log_id, Seq(0)))
    return heads


def here_as_read_by(word: Word, here: Here) -> Vector | None:
    """Where this cluster stands in the logs that another one reads; None if it can't be said, since
    it reads others than are known here.
    """
    if word.vector is None or _foreign(word.vector, here):
        return None
    return {
        name: Position(name, position.log_id, here.places[position.log_id])
        for name, position in word.vector.items()
    }


def lacking(word: Word, here: Here) -> list[Position]:
    """The oldest event of each log that a cluster lacks and this one has."""
    return [
        Position(name, position.log_id, Seq(position.seq + 1))
        for name, position in (word.vector or {}).items()
        if name != word.cluster and position.seq < here.places.get(position.log_id, Seq(0))
    ]


def own_standpoint(here: Here) -> Standpoint:
    """This cluster beside the others: it agrees with itself, unless it is behind."""
    text = format_vector(here.vector)
    word = Word(here.own, here.vector, here.digest, 0.0, "")
    lags = _lags(word, here, {})
    return Standpoint(
        cluster=here.own,
        vector=here.vector,
        digest=here.digest,
        here_text=text,
        digest_here=here.digest,
        age_s=0.0,
        verdict=Verdict.BEHIND if lags else Verdict.AGREES,
        reason="",
        lags=lags,
    )


def unheard(cluster: ClusterName, reason: str) -> Standpoint:
    """A cluster that said nothing."""
    return Standpoint(cluster, None, None, None, None, None, Verdict.UNKNOWN, reason, ())


def standpoint(
    word: Word, here: Here, derived: str | None, times: Times, skipped: Sequence[str] = ()
) -> Standpoint:
    """Another cluster beside the others. derived: the digest that it should have come to where this
    one stands; None if that wasn't derived. skipped: what is passed over here.
    """
    at = here_as_read_by(word, here)
    verdict, reason = _verdict(word, here, at, derived, skipped)
    return Standpoint(
        cluster=word.cluster,
        vector=word.vector,
        digest=word.digest,
        here_text=None if at is None or derived is None else format_vector(at),
        digest_here=None if at is None else derived,
        age_s=word.age_s,
        verdict=verdict,
        reason=reason,
        lags=_lags(word, here, times),
    )


def _verdict(
    word: Word, here: Here, at: Vector | None, derived: str | None, skipped: Sequence[str]
) -> tuple[Verdict, str]:
    if word.vector is None:
        return Verdict.UNKNOWN, "its heartbeat's vector can't be read"
    if at is None:
        names = ", ".join(_foreign(word.vector, here))
        reason = f"it reads a log of {names} that isn't known here: another history or audience"
        return Verdict.UNKNOWN, reason
    if at == word.vector and derived is not None and derived != word.digest:
        return Verdict.DIFFERS, _cause(skipped)
    if word.doubt:
        return Verdict.UNKNOWN, word.doubt
    if at == word.vector:
        if derived is None:
            return Verdict.UNKNOWN, "its table was not derived here in time; ask again"
        return Verdict.AGREES, ""
    if any(word.vector[name].seq < at[name].seq for name in at):
        return Verdict.BEHIND, ""
    return Verdict.AHEAD, ""


def _cause(skipped: Sequence[str]) -> str:
    """What may make digests differ at the same vector."""
    passed = f"; this cluster passed over {', '.join(skipped)}" if skipped else ""
    return (
        "it came to another digest at the same vector: one of the two passed over a record that the"
        f" other didn't (`meshd peer show`), or derives otherwise (`meshd status`){passed}"
    )


def _foreign(vector: Vector, here: Here) -> list[ClusterName]:
    """Of whom a cluster reads a log that isn't known here."""
    return sorted(name for name, position in vector.items() if position.log_id not in here.places)


def _lags(word: Word, here: Here, times: Times) -> tuple[Lag, ...]:
    found = (
        _lag(position, here, times)
        for name, position in sorted((word.vector or {}).items())
        if name != word.cluster
    )
    return tuple(lag for lag in found if lag is not None)


def _lag(position: Position, here: Here, times: Times) -> Lag | None:
    head = here.heads.get(position.log_id) if position.log_id in here.places else None
    if head is None:
        return Lag(position.cluster, None, None)
    if position.seq >= head:
        return None
    made_ms = times.get((position.log_id, Seq(position.seq + 1)))
    # Its time is another host's.
    seconds = None if made_ms is None else max(0, here.now_ms - made_ms) / 1000
    return Lag(position.cluster, head - position.seq, seconds)
