"""Subscribers of event streams, who follow whole logs from their beginning over all cuts.

For: histories with streams. Not for: MQTT (`mqtt`). Invariants: whoever was cut goes on behind the
last message that it had; one whose place is gone begins anew, and the record says so before the
first event that it is told then; nothing is filtered.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import Final

import orjson

from chaos import answers
from chaos.evidence import Vector, parse_vector
from chaos.history import LossNamed, StreamMessage
from chaos.mesh.shape import Meshd
from chaos.recorder import Recorder
from chaos.traffic.calls import Calls, UnansweredError
from chaos.traffic.counters import Counters
from chaos.traffic.frames import Frame, frames

PATH: Final = "/v1/events?from=beginning"
RESET: Final = "meshd.reset"
ERROR: Final = "meshd.error"
SUCCESS: Final = 200
GONE: Final = 410
RECONNECT_AFTER_S: Final = 0.5
"""Sooner than the 2 s that meshd asks for, so that a short run sees what is told after a cut."""
SEQ_MAX: Final = 2**63 - 1
LOST: Final = re.compile(r"seq (\d+) of (\S+) was lost in a restore; it ends at (\d+)")
RETAKEN: Final = re.compile(r"seq (\d+) of (\S+) was lost in a restore; another event is there")
REPLACED: Final = re.compile(r"log ([0-9a-f]{32}) of (\S+) was replaced by log [0-9a-f]{32}")


@dataclass(slots=True)
class Subscriber:
    """One of them. meshds: whom it goes to in turn, of one cluster. place: where it goes on;
    connection: its how-manieth.
    """

    name: str
    meshds: Sequence[Meshd]
    calls: Calls
    recorder: Recorder
    counters: Counters
    place: str = ""
    connection: int = 0
    _anew: set[str] | None = field(default=None)
    """Since its place was gone: whose logs it was told of again. None: it never was."""
    _left: str = ""
    """Where it stood in the own log when it began anew for another's sake, until it is as far
    again. Nobody else could ask what a restore took of that log meanwhile."""

    @property
    def cluster(self) -> str:
        """Whose meshds it follows."""
        return self.meshds[0].cluster

    async def run(self) -> None:
        """Follow for ever."""
        for meshd in cycle(self.meshds):
            try:
                await self._follow(meshd)
            except UnansweredError:
                self.counters.unanswered += 1
            await asyncio.sleep(RECONNECT_AFTER_S)

    async def _follow(self, meshd: Meshd) -> None:
        if self._left:
            await self._ask_what_is_lost(meshd)
        async with self.calls.stream(meshd, PATH, _headers(self.place)) as response:
            if response.status == GONE:
                self._begin_anew(meshd, (await response.read()).decode(errors="replace"))
            if response.status != SUCCESS:
                return
            self.connection += 1
            async for frame in frames(response.content.iter_any()):
                self._take(meshd, frame)

    async def _ask_what_is_lost(self, meshd: Meshd) -> None:
        """Of the own log alone, as whoever follows that one only."""
        path = f"{PATH}&cluster={self.cluster}"
        async with self.calls.stream(meshd, path, _headers(self._left)) as response:
            if response.status == GONE:
                problem = (await response.read()).decode(errors="replace")
                self._note_losses(meshd, problem, self._left)

    def _take(self, meshd: Meshd, frame: Frame) -> None:
        if frame.kind == RESET:
            self._begin_anew(meshd, frame.data)
        elif frame.data and frame.kind != ERROR:
            told = answers.stream_message(
                self.name,
                self.connection,
                meshd.cluster,
                self.recorder.now_ns(),
                orjson.loads(frame.data),
            )
            self._note_where_it_goes_on(told)
            self.recorder.note(told)
            self.counters.events += 1
        if frame.place:
            self.place = frame.place
            if self._left and self._seq_in(frame.place) >= self._seq_in(self._left):
                self._left = ""

    def _note_where_it_goes_on(self, told: StreamMessage) -> None:
        """Of each log, before the first of its events that comes after a place was gone."""
        if self._anew is not None and told.of not in self._anew:
            self._anew.add(told.of)
            self.recorder.note(reset_before(told))

    def _begin_anew(self, meshd: Meshd, problem: str) -> None:
        """The place is gone; the next connection begins at the beginning."""
        if not self._note_losses(meshd, problem, self.place):
            self._left = max(self._left, place_in(self.place, self.cluster), key=self._seq_in)
        self.counters.resets += 1
        self.place, self._anew = "", set()

    def _note_losses(self, meshd: Meshd, problem: str, place: str) -> bool:
        """Note what a problem says that is lost of the own log; returns whether it says so. place:
        what it was asked with.
        """
        losses = losses_named(self.cluster, problem)
        for first_seq, last_seq, log_id in losses:
            self.recorder.note(
                LossNamed(
                    at_ns=self.recorder.now_ns(),
                    cluster=self.cluster,
                    log_id=log_id or self._own_in(place)[0],
                    first_seq=first_seq,
                    last_seq=last_seq,
                    said_by=f"{meshd.name} to {self.name}",
                )
            )
        if losses:
            self._left = ""
        return bool(losses)

    def _own_in(self, place: str) -> tuple[str, int]:
        """The own log's id and seq in a place."""
        return _vector_in(place).get(self.cluster, ("", 0))

    def _seq_in(self, place: str) -> int:
        return self._own_in(place)[1]

    def was_told(self, vector: str) -> bool:
        """Whether it has all events up to there, as its place says."""
        have = _vector_in(self.place)
        return all(have.get(name) == at or not at[1] for name, at in parse_vector(vector).items())


def _vector_in(place: str) -> Vector:
    """What a place says of the logs, without the mark behind it."""
    return parse_vector(place.partition("~")[0])


def _headers(place: str) -> dict[str, str]:
    headers = {"Accept": "text/event-stream"}
    return headers | {"Last-Event-ID": place} if place else headers


def place_in(place: str, cluster: str) -> str:
    """Of a place that part which speaks of this cluster's own log, with its mark; '' if none does.
    cluster: whose stream it is, since the mark is of that log.
    """
    vector, tilde, mark = place.partition("~")
    parts = (part for part in vector.split(",") if part.startswith(f"{cluster}:"))
    return next((part + tilde + mark for part in parts), "")


def reset_before(told: StreamMessage) -> StreamMessage:
    """That a stream goes on just before an event."""
    return StreamMessage(
        at_ns=told.at_ns,
        subscriber=told.subscriber,
        connection=told.connection,
        cluster=told.cluster,
        of=told.of,
        log=told.log,
        log_id=told.log_id,
        seq=told.seq - 1,
        reset=True,
    )


def losses_named(cluster: str, problem: str) -> list[tuple[int, int, str]]:
    """What a problem names as lost of this cluster's own log: first and last seq, and the log's id
    if it says it. Of a log that was replaced that is all of it; of one that reaches as far again it
    is known only that what was told last is lost.
    """
    found = [
        (int(end) + 1, int(seq), "") for seq, of, end in LOST.findall(problem) if of == cluster
    ]
    found += [(int(seq), int(seq), "") for seq, of in RETAKEN.findall(problem) if of == cluster]
    found += [(1, SEQ_MAX, log_id) for log_id, of in REPLACED.findall(problem) if of == cluster]
    return list(dict.fromkeys(found))  # A problem says what is wrong more than once.
