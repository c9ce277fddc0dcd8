"""Whether what meshds say of each other is agreement, for the exit status of `meshd verify`.

For: judging one report after another, and comparing the reports of several meshds. Not for: asking
nor printing (`verifying`). Invariants: pure; what differs once differs; agreement must have been
seen, and being behind is none unless the limits allow it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from meshd.client import Agreement, StandpointItem


@dataclass(frozen=True, slots=True)
class Limits:
    """How far a cluster may be behind and still count as well. None: it may not be behind (with
    neither), or the other one alone says.
    """

    lag_events: int | None = None
    lag_s: float | None = None

    def allow(self, cluster: StandpointItem) -> bool:
        """Whether a cluster is behind by no more than this; what isn't known may be more."""
        if self.lag_events is None and self.lag_s is None:
            return not cluster["behind"]
        return all(
            _is_within(lag["events"], self.lag_events) and _is_within(lag["seconds"], self.lag_s)
            for lag in cluster["behind"]
        )

    @property
    def are_given(self) -> bool:
        """Whether being behind is allowed at all."""
        return self.lag_events is not None or self.lag_s is not None


def _is_within(lag: float | None, limit: float | None) -> bool:
    return limit is None or (lag is not None and lag <= limit)


@dataclass(frozen=True, slots=True)
class Match:
    """What several meshds derived for one perspective at one vector. said: who, and the digest."""

    perspective: str
    vector_text: str
    said: tuple[tuple[str, str], ...]

    @property
    def agrees(self) -> bool:
        """Whether all of them came to the same."""
        return len({digest for _, digest in self.said}) == 1


def matches(reports: Sequence[Agreement]) -> list[Match]:
    """What can be compared between reports: the same perspective at the same vector."""
    said: dict[tuple[str, str], dict[str, str]] = {}
    for report in reports:
        for one in report["clusters"]:
            at, digest = one["here_text"], one["digest_here"]
            if at is not None and digest is not None:
                said.setdefault((one["name"], at), {})[report["cluster"]] = digest
    return [
        Match(perspective, at, tuple(sorted(digests.items())))
        for (perspective, at), digests in sorted(said.items())
        if len(digests) > 1
    ]


@dataclass(slots=True)
class Judgement:
    """What is known of a mesh's agreement after some reports. waited_s: since the first of them.

    agreed: the clusters that agreed at least once. differs: those that didn't, and why. pairs:
    those that were asked and could be compared with each other.
    """

    limits: Limits
    agreed: set[str] = field(default_factory=set)
    differs: dict[str, str] = field(default_factory=dict)
    pairs: set[tuple[str, str]] = field(default_factory=set)
    missing: list[str] = field(default_factory=list)

    def take(self, reports: Sequence[Agreement], waited_s: float) -> list[Match]:
        """Take in what all asked meshds say now; returns what could be compared between them."""
        found = matches(reports)
        for match in found:
            names = [name for name, _ in match.said]
            if match.agrees:
                self.pairs.update(combinations(names, 2))
            else:
                text = ", ".join(f"{name} {digest[:12]}" for name, digest in match.said)
                self.differs[match.perspective] = f"at the same vector: {text}"
        for report in reports:
            for one in report["clusters"]:
                self._take_one(one, waited_s)
        self.missing = sorted(set(self._missing(reports)))
        return found

    def _take_one(self, one: StandpointItem, waited_s: float) -> None:
        compared = one["compared"]
        if one["verdict"] == "differs" or (compared is not None and not compared["agrees"]):
            self.differs[one["name"]] = one["reason"] or "it came to another digest a while ago"
        elif one["verdict"] == "agrees" or (
            compared is not None and compared["age_s"] <= waited_s and one["verdict"] != "unknown"
        ):
            self.agreed.add(one["name"])

    def _missing(self, reports: Sequence[Agreement]) -> Iterator[str]:
        """What keeps this from being agreement, but for differences."""
        asked = sorted(report["cluster"] for report in reports)
        for one, other in combinations(asked, 2):
            if (one, other) not in self.pairs and not self._is_near(reports, one, other):
                yield f"{one} and {other} were not at the same vector when they were asked"
        for report in reports:
            for cluster in report["clusters"]:
                if cluster["name"] not in asked or len(asked) == 1:
                    yield from self._missing_of(cluster)

    def _missing_of(self, one: StandpointItem) -> Iterator[str]:
        name, verdict = one["name"], one["verdict"]
        if verdict == "unknown":
            yield f"{name}: {one['reason']}"
        elif not self.limits.allow(one) and (self.limits.are_given or name not in self.agreed):
            yield f"{name} is behind: {lag_text(one)}"
        elif verdict == "ahead" and name not in self.agreed and not self.limits.are_given:
            yield f"{name} is ahead, so it could not be compared yet"

    def _is_near(self, reports: Sequence[Agreement], one: str, other: str) -> bool:
        """Whether two that were asked are apart by no more than the limits allow."""
        places = {report["cluster"]: report["clusters"][0] for report in reports}
        return self.limits.are_given and all(self.limits.allow(places[it]) for it in (one, other))

    @property
    def is_agreement(self) -> bool:
        """Whether all is well."""
        return not self.differs and not self.missing


def lag_text(one: StandpointItem) -> str:
    """Where a cluster is behind, and by how much."""
    return ", ".join(
        f"{lag['cluster']} by {_events(lag['events'])}{_age(lag['seconds'])}"
        for lag in one["behind"]
    )


def _events(events: int | None) -> str:
    if events is None:
        return "another log"
    return "1 event" if events == 1 else f"{events} events"


def _age(seconds: float | None) -> str:
    return "" if seconds is None else f" ({seconds:.1f} s)"
