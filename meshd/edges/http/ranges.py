"""Where clusters' addresses collide, made when somebody asks and kept until it may have changed.

For: one place that computes it for all paths. Not for: what collides (`core.overlaps`). Invariant:
what is answered is of the states as they were during the request; an event that says nothing of
addresses costs nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from itertools import chain
from typing import Final

from aiohttp import web

from meshd.core.overlaps import Claim, Overlaps, claims_of, overlaps, ranges_in
from meshd.core.state import ClusterState
from meshd.model.ids import ClusterName, Seq
from meshd.runtime.projector import Projector

Mark = tuple[int, Seq]
"""What a cluster's ranges follow from: one reading of its log, up to the last seq that says
something of them."""

ClaimsOf = Mapping[ClusterName, list[Claim]]
Said = tuple[tuple[str, str], ...]


class Ranges:
    """The ranges of all clusters that are known to one projector, and what collides."""

    def __init__(self, projector: Projector) -> None:
        self._projector = projector
        self._marks: dict[ClusterName, Mark] = {}
        self._claims: ClaimsOf = {}
        self._found = Overlaps()
        self._one_at_a_time = asyncio.Lock()

    async def found(self) -> Overlaps:
        """What collides now. A thread compares the ranges: ten thousands take a while."""
        async with self._one_at_a_time:
            states, begun = self._projector.states, self._projector.generations
            marks = {name: (begun[name], state.ranges_seq) for name, state in states.items()}
            if marks != self._marks:
                kept = {
                    name: self._claims[name]
                    for name, mark in marks.items()
                    if self._marks.get(name) == mark
                }
                new = {name: ranges_in(states[name]) for name in marks if name not in kept}
                claims, self._found = await asyncio.to_thread(_compared, kept, new)
                self._claims, self._marks = claims, marks
            return self._found


async def found_in(states: Mapping[ClusterName, ClusterState]) -> Overlaps:
    """What collided at an earlier moment, whose states don't change any more."""
    said = {name: ranges_in(state) for name, state in states.items()}
    _, found = await asyncio.to_thread(_compared, {}, said)
    return found


def _compared(kept: ClaimsOf, new: Mapping[ClusterName, Said]) -> tuple[ClaimsOf, Overlaps]:
    claims = {**kept, **{name: claims_of(name, said) for name, said in new.items()}}
    return claims, overlaps(chain.from_iterable(claims.values()))


RANGES: Final = web.AppKey("RANGES", Ranges)
