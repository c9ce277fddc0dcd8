"""Who answered: counts of one step, and the latest answers for the live view.

For: counting. Not for: judging (`expect`). Invariant: every request is counted once.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from meshd.demo.caller import Answer, Kind

RECENT = 16
"""Answers that a bar of the live view shows."""

Route = tuple[str, str]
"""Caller's cluster and service."""


@dataclass(slots=True)
class Tally:
    """The requests of one step."""

    sent: Counter[Route] = field(default_factory=Counter)
    answered: dict[Route, Counter[tuple[str, str]]] = field(default_factory=dict)
    without: Counter[Route] = field(default_factory=Counter)
    failed: Counter[Route] = field(default_factory=Counter)
    retried: Counter[Route] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def count(self, caller: str, answer: Answer) -> None:
        """Take one request in."""
        route = (caller, answer.service)
        self.sent[route] += 1
        self.retried[route] += bool(answer.retries and answer.kind is Kind.ANSWERED)
        match answer.kind:
            case Kind.ANSWERED:
                who = self.answered.setdefault(route, Counter())
                who[answer.cluster, answer.endpoint] += 1
            case Kind.NO_BACKEND:
                self.without[route] += 1
            case Kind.FAILED:
                self.failed[route] += 1
                self.problems.append(f"{caller} → {answer.service}: {answer.problem}")

    def by_cluster(self, caller: str, service: str) -> Counter[str]:
        """How many requests each cluster answered."""
        found: Counter[str] = Counter()
        for (cluster, _), number in self.answered.get((caller, service), Counter()).items():
            found[cluster] += number
        return found

    def routes(self) -> Iterator[Route]:
        """Who asked for what."""
        yield from sorted(self.sent)


class Recent:
    """The latest answers of every route."""

    def __init__(self) -> None:
        self._answers: dict[Route, deque[Answer]] = {}
        self.total: Counter[Kind] = Counter()

    def add(self, caller: str, answer: Answer) -> None:
        """Take one request in; the oldest of its route falls out."""
        route = (caller, answer.service)
        self._answers.setdefault(route, deque(maxlen=RECENT)).append(answer)
        self.total[answer.kind] += 1

    def shares(self, caller: str, service: str) -> Counter[str]:
        """The latest answers by cluster; what wasn't answered under the name of its kind."""
        return Counter(
            answer.cluster if answer.kind is Kind.ANSWERED else str(answer.kind)
            for answer in self._answers.get((caller, service), ())
        )
