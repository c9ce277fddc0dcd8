"""Operations: what turns traffic away from something, or back to it, in stages over a time.

For: the value of `operation.set`, and the names of what can be turned. Not for: which stage comes
next and when (`core.operations`), nor what a turn does to a table (`core.terms`, `core.backend`).
Invariant: an operation says all that its next stage needs, so whoever leads can go on with it; it
never leaves its cluster: others see only how far things are turned.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, Field, Strict, StrictBool, StringConstraints

from meshd.model.errors import Problem, RejectedError, shown
from meshd.model.event import ACTOR_CHARS_MAX
from meshd.model.forms import PRINTABLE_PATTERN, Percent, TimeMs, TurnedPercent
from meshd.model.ids import (
    CLUSTER_NAME_PATTERN,
    EndpointKey,
    ServiceKey,
    is_dns_label,
)
from meshd.model.node import parse_node_name

STAGES_MAX = 100
"""One for each percent."""
SUBJECTS_MAX = 500
"""Each is an event in the record of every stage, which holds some thousands."""
HOLD_S_MAX = 7 * 86_400
REASON_CHARS_MAX = 1024
FLOOR_PERCENT_DEFAULT = 25
"""Of what is healthy now, what must be left: those who stay then take four times their load at
worst, which is past what most are built for."""
SIGNAL_AGE_S_DEFAULT = 60.0


class SubjectKind(StrEnum):
    """What can be turned: the cluster itself, one of its services or endpoints, or all endpoints
    that it has on a node.
    """

    CLUSTER = "cluster"
    SERVICE = "service"
    ENDPOINT = "endpoint"
    NODE = "node"


@dataclass(frozen=True, slots=True)
class Subject:
    """What is turned. key: '' for the cluster."""

    kind: SubjectKind
    key: str = ""

    def __str__(self) -> str:
        return f"{self.kind}/{self.key}" if self.key else self.kind

    @staticmethod
    def parse(text: str) -> Subject:
        """Read `cluster`, `service/NS/NAME`, `endpoint/NS/SERVICE/NAME` or `node/NAME`; raises
        RejectedError.
        """
        kind, _, key = text.partition("/")
        match kind:
            case SubjectKind.CLUSTER if not key:
                pass
            case SubjectKind.SERVICE:
                ServiceKey.parse(key)
            case SubjectKind.ENDPOINT:
                EndpointKey.parse(key)
            case SubjectKind.NODE:
                parse_node_name(key)
            case _:
                remedy = "write cluster, service/NS/NAME, endpoint/NS/SERVICE/NAME or node/NAME"
                what = f"{shown(text)} is nothing that can be turned"
                raise RejectedError((Problem("subjects", what, remedy),))
        return Subject(SubjectKind(kind), key)


class OperationKind(StrEnum):
    """drain: turn down. undrain: turn up again. migration: turn services down here, while another
    cluster that has them takes over.
    """

    DRAIN = "drain"
    UNDRAIN = "undrain"
    MIGRATION = "migration"


class Progress(StrEnum):
    """How an operation stands. failed ones are paused or rolled back, and say why."""

    RUNNING = "running"
    PAUSED = "paused"
    DONE = "done"
    ROLLED_BACK = "rolled-back"


class OnTrouble(StrEnum):
    """What an operation does by itself when a condition of it doesn't hold."""

    PAUSE = "pause"
    ROLL_BACK = "rollback"


HoldSeconds = Annotated[float, Strict(), Field(ge=0, le=HOLD_S_MAX)]
ErrorPercent = Annotated[float, Strict(), Field(ge=0, le=100)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """How far the subjects are turned up, and how long that is held before the next stage."""

    turned_percent: TurnedPercent
    hold_s: HoldSeconds = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What must hold while an operation runs; None: not looked at.

    healthy_percent_min: of the endpoints of the destination, of each service, in this cluster's
    table. lag_events_max: how far behind the destination's log may be read. error_percent_max: of
    what somebody outside measured and told (`signal`), which must be no older than
    signal_age_s_max.
    """

    healthy_percent_min: Percent | None = None
    lag_events_max: Annotated[int, Strict(), Field(ge=0)] | None = None
    error_percent_max: ErrorPercent | None = None
    signal_age_s_max: Annotated[float, Strict(), Field(ge=1, le=3600)] = SIGNAL_AGE_S_DEFAULT


def _real_subjects(subjects: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(subjects)) != len(subjects):
        raise ValueError("names something twice")
    for subject in subjects:
        try:
            Subject.parse(subject)
        except RejectedError as error:
            raise ValueError(error.problems[0].what) from None
    return subjects


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation, whole.

    subjects: what is turned, as `Subject` writes it. stages: in order. stage: how many of them were
    reached. before: how far each subject was turned up when it began. to: the cluster that takes
    over; '' for whoever can. floor_percent: of the healthy endpoints of a service, how much must be
    left to take the load. is_forced (`force`): begun although that, or something else that was
    looked at, spoke against it. since_ms: when the stage was reached, or the progress changed.
    reason: why it is paused or rolled back; '' where nobody had to say. by: who began it.
    """

    kind: OperationKind
    subjects: Annotated[
        tuple[Annotated[str, StringConstraints(max_length=512)], ...],
        Field(min_length=1, max_length=SUBJECTS_MAX),
        AfterValidator(_real_subjects),
    ]
    stages: Annotated[tuple[Stage, ...], Field(min_length=1, max_length=STAGES_MAX)]
    to: Annotated[str, StringConstraints(pattern=rf"^$|{CLUSTER_NAME_PATTERN}")] = ""
    floor_percent: Percent = FLOOR_PERCENT_DEFAULT
    conditions: Conditions = field(default_factory=Conditions)
    on_trouble: OnTrouble = OnTrouble.PAUSE
    is_forced: Annotated[StrictBool, Field(alias="force")] = False
    stage: Annotated[int, Strict(), Field(ge=0, le=STAGES_MAX)] = 0
    before: Mapping[str, TurnedPercent] = field(default_factory=dict)
    progress: Progress = Progress.RUNNING
    reason: Annotated[
        str, StringConstraints(max_length=REASON_CHARS_MAX, pattern=PRINTABLE_PATTERN)
    ] = ""
    started_ms: TimeMs = 0
    since_ms: TimeMs = 0
    by: Annotated[str, StringConstraints(max_length=ACTOR_CHARS_MAX, pattern=PRINTABLE_PATTERN)] = (
        ""
    )

    @property
    def is_under_way(self) -> bool:
        """Whether it may still turn something by itself, or when it is resumed."""
        return self.progress in {Progress.RUNNING, Progress.PAUSED}

    @property
    def next_stage(self) -> Stage | None:
        """The stage that comes next; None when all were reached."""
        return self.stages[self.stage] if self.stage < len(self.stages) else None

    def turned_now(self, subject: str) -> int:
        """How far it has a subject turned up."""
        if self.progress is Progress.ROLLED_BACK or not self.stage:
            return self.before.get(subject, 100)
        return self.stages[self.stage - 1].turned_percent


def parse_operation_name(text: str) -> str:
    """Read an operation's name; raises RejectedError if it isn't a DNS label."""
    if not is_dns_label(text):
        remedy = "use a DNS label: a-z, 0-9, '-' inside, at most 63 characters"
        what = f"{shown(text)} is not an operation's name"
        raise RejectedError((Problem("operation", what, remedy),))
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanStep:
    """One step of a migration: how much was moved once it is reached, and how long that is held."""

    moved_percent: Annotated[int, Strict(), Field(alias="percent", ge=1, le=100)]
    hold_s: HoldSeconds = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationPlan:
    """A migration as a person writes it. from_cluster (`from`): whose meshd does it. services:
    `namespace/name`. on_trouble: back, unless something else is said.
    """

    from_cluster: Annotated[
        str, StringConstraints(pattern=CLUSTER_NAME_PATTERN), Field(alias="from")
    ]
    to: Annotated[str, StringConstraints(pattern=CLUSTER_NAME_PATTERN)]
    services: Annotated[
        tuple[Annotated[str, StringConstraints(max_length=256)], ...],
        Field(min_length=1, max_length=SUBJECTS_MAX),
    ]
    steps: Annotated[tuple[PlanStep, ...], Field(min_length=1, max_length=STAGES_MAX)]
    conditions: Conditions = field(default_factory=Conditions)
    on_trouble: OnTrouble = OnTrouble.ROLL_BACK
    floor_percent: Percent = FLOOR_PERCENT_DEFAULT
    is_forced: Annotated[StrictBool, Field(alias="force")] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainPlan:
    """A drain or an undrain as a person asks for it: even steps from where the subjects are.

    to_percent: how far they are turned in the end; None: a drain to 0, an undrain to 100. over_s:
    the time that it takes. steps: into how many it is cut.
    """

    kind: OperationKind
    subjects: Annotated[
        tuple[Annotated[str, StringConstraints(max_length=512)], ...],
        Field(min_length=1, max_length=SUBJECTS_MAX),
        AfterValidator(_real_subjects),
    ]
    to_percent: TurnedPercent | None = None
    over_s: HoldSeconds = 0.0
    steps: Annotated[int, Strict(), Field(ge=1, le=STAGES_MAX)] = 1
    floor_percent: Percent = FLOOR_PERCENT_DEFAULT
    on_trouble: OnTrouble = OnTrouble.PAUSE
    is_forced: Annotated[StrictBool, Field(alias="force")] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What somebody outside tells of an operation: how many percent of requests fail."""

    error_percent: ErrorPercent
