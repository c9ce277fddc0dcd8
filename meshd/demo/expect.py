"""What must be so after a step, judged from the counts.

For: turning a tally into findings. Not for: sending (`traffic`) nor the shop (`catalog`).
Invariant: pure; a finding names the numbers that decided it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence

from meshd.demo.catalog import Trouble, expected_shares, services_for, without_any
from meshd.demo.scene import Finding
from meshd.demo.tally import Tally

SIGMAS = 4.5
"""How far a share may be off: one run in 150,000 fails by chance, and the dice have a seed."""


def shares(tally: Tally, callers: Sequence[str], trouble: Trouble) -> Iterator[Finding]:
    """Every service was answered by the right clusters, in the right shares."""
    for caller in callers:
        wrong = list(_wrong_shares(tally, caller, trouble))
        answered = sum(
            number
            for service in services_for(caller)
            for number in tally.by_cluster(caller, service).values()
        )
        detail = "; ".join(wrong) or f"{answered} answers, each service by the clusters it should"
        yield Finding(f"{caller}'s requests go where they should", not wrong, detail)


def _wrong_shares(tally: Tally, caller: str, trouble: Trouble) -> Iterator[str]:
    for service in services_for(caller):
        expected = expected_shares(caller, service, trouble)
        found = tally.by_cluster(caller, service)
        total = sum(found.values())
        if expected and not total:
            yield f"{service}: nobody answered"
        for cluster in expected.keys() | found.keys():
            share = expected.get(cluster, 0.0)
            allowed = SIGMAS * math.sqrt(total * share * (1 - share))
            if abs(found[cluster] - total * share) > allowed:
                yield (
                    f"{service}: {cluster} answered {found[cluster]} of {total},"
                    f" expected {share:.0%}"
                )


def no_failures(tally: Tally, callers: Sequence[str], trouble: Trouble, what: str) -> Finding:
    """No request failed, and only services without any backend were found to have none."""
    failed = sum(tally.failed.values())
    allowed = {(caller, name) for caller in callers for name in without_any(caller, trouble)}
    wrongly = sum(number for route, number in tally.without.items() if route not in allowed)
    sent, retried = sum(tally.sent.values()), sum(tally.retried.values())
    detail = f"{sent} sent, {failed} failed, {retried} tried another backend first"
    if wrongly:
        detail += f", {wrongly} found no backend where there is one"
    if tally.problems:
        detail += f"; {tally.problems[0]}"
    return Finding(f"no {what} fails", bool(sent) and not failed and not wrongly, detail)


def reported_as_none(tally: Tally, caller: str, service: str) -> Finding:
    """A service without any backend is known to have none: nothing is sent, nothing fails."""
    route = (caller, service)
    sent, without = tally.sent[route], tally.without[route]
    detail = f"{without} of {sent} requests were told so, {tally.failed[route]} failed"
    return Finding(f"{service} is reported as having no backend", 0 < sent == without, detail)


def only_from(tally: Tally, route: tuple[str, str], cluster: str) -> Finding:
    """One cluster answered all requests of a route."""
    found = tally.by_cluster(*route)
    detail = in_words(found) or "nobody answered"
    what = f"{route[1]} asked from {route[0]} is answered by {cluster}"
    return Finding(what, set(found) == {cluster}, detail)


def never_from(tally: Tally, route: tuple[str, str], cluster: str) -> Finding:
    """One cluster answered none of the requests of a route, and others did."""
    found = tally.by_cluster(*route)
    detail = in_words(found) or "nobody answered"
    what = f"{route[1]} asked from {route[0]} is not answered by {cluster}"
    return Finding(what, bool(found) and cluster not in found, detail)


def in_words(found: Counter[str]) -> str:
    """Counts by cluster, the largest first."""
    return ", ".join(f"{cluster} {number}" for cluster, number in found.most_common())
