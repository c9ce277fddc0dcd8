"""What a fault is.

For: the catalogue and those who inject it. Not for: any fault itself. Invariants: a fault that was
injected is healed, also when the run is interrupted; one whose proof is missing proves nothing, and
is never counted as one that was survived.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import ClassVar, Protocol

from chaos.history import Attempt
from chaos.mesh.shape import Cluster, Mesh, Power


class Blast(StrEnum):
    """Whom a fault is done to."""

    ONE = "one"
    """A cluster, or several, each by itself."""
    PAIR = "pair"
    """What lies between clusters: the victims and all others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Says:
    """What the record of a fault holds beside its name, as of `history.FaultInjected`. attempts:
    what was tried meanwhile with whose rights, without times yet.
    """

    loses: tuple[str, ...] = ()
    poisons: tuple[str, ...] = ()
    detail: str = ""
    attempts: tuple[Attempt, ...] = ()


@dataclass(slots=True, kw_only=True)
class Stage:
    """Where a fault happens. victims: the clusters that it is done to. chance: of the run's seed.
    elsewhere: clusters that something else is done to meanwhile. memory: what the fault keeps
    between injecting and healing.
    """

    mesh: Mesh
    victims: Sequence[str]
    chance: random.Random
    elsewhere: frozenset[str] = frozenset()
    memory: dict[str, object] = field(default_factory=dict)

    @property
    def clusters(self) -> Sequence[Cluster]:
        """The victims."""
        return [self.mesh.clusters[name] for name in self.victims]

    @property
    def others(self) -> Sequence[Cluster]:
        """Those that it isn't done to: the sound ones among them, who can be asked, if there are
        any.
        """
        others = {name: it for name, it in self.mesh.clusters.items() if name not in self.victims}
        sound = [one for name, one in others.items() if name not in self.elsewhere]
        return sound or list(others.values())


class Usual:
    """What most faults have in common; each says what it has otherwise."""

    needs: ClassVar[frozenset[Power]] = frozenset()
    programs: ClassVar[tuple[str, ...]] = ()
    blast: ClassVar[Blast] = Blast.ONE
    settings: ClassVar[Mapping[str, object]] = MappingProxyType({})
    judges: ClassVar[tuple[str, ...]] = ()


class Fault(Protocol):
    """One row of the catalogue. number: its row; a row may have several faults. name: for people
    and commands, as `kill-meshd`. summary: one line. behaviour: what is right, in one sentence.
    hold_s: how long it lasts at least, to have an effect.
    """

    number: ClassVar[int]
    name: ClassVar[str]
    summary: ClassVar[str]
    behaviour: ClassVar[str]
    needs: ClassVar[frozenset[Power]]
    programs: ClassVar[tuple[str, ...]]
    """Which have to be on PATH."""
    blast: ClassVar[Blast]
    hold_s: ClassVar[float]
    settings: ClassVar[Mapping[str, object]]
    """Of every meshd, where the fault needs them to show in time."""
    judges: ClassVar[tuple[str, ...]]
    """Invariants that a run of this fault must have judged, or it proves nothing."""

    async def inject(self, stage: Stage) -> Says:
        """Break it."""

    async def bit(self, stage: Stage) -> str:
        """Wait until its effect is seen from outside, while it lasts; returns the proof. The caller
        limits the time.
        """

    async def heal(self, stage: Stage) -> None:
        """Undo it, as far as it was done. It may be called after an `inject` that failed."""
