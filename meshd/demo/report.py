"""The report of a run: what a machine, or a person in a hurry, wants to know.

For: the JSON object of `--json`. Not for: telling while it happens (`plain`, `view`). Invariant: it
can be made at any time, also of a run that was broken off.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from meshd.demo.children import Children
from meshd.demo.feed import Look
from meshd.demo.scene import Scene, Step
from meshd.demo.story import Story
from meshd.demo.tally import Tally

Json = dict[str, Any]


def report(scene: Scene, story: Story | None, *, seed: int, problem: str) -> Json:
    """The whole run. problem: why it ended early, empty if it didn't."""
    complete = len(scene.steps) == scene.steps_total
    return {
        "ok": complete and scene.ok and not problem,
        "problem": problem or None,
        "seed": seed,
        "seconds": round(scene.elapsed_s, 2),
        "clusters": _clusters(story.looks if story else {}),
        "digests_by_perspective": story.digests if story else {},
        "steps": [_step(step) for step in scene.steps],
    }


def last_words(children: Children) -> dict[str, list[str]]:
    """The ends of the logs of the processes that a failure may have come from."""
    ended = [child for child in children if child.is_meant_to_run and child.exit_status is not None]
    concerned = ended or [child for child in children if child.name.endswith("-meshd")]
    return {child.name: child.last_words() for child in concerned}


def _clusters(looks: Mapping[str, Look]) -> Json:
    return {
        name: {
            "vector": look.seqs,
            "vector_text": look.vector_text,
            "digest": look.digest,
            "peers": {peer.name: peer.phase for peer in look.peers.values()},
        }
        for name, look in looks.items()
    }


def _step(step: Step) -> Json:
    seconds = None if step.ended_s is None else round(step.ended_s - step.began_s, 2)
    converged_s = step.timings.get("converged")
    return {
        "number": step.number,
        "name": step.name,
        "title": step.title,
        "ok": step.ok and step.ended_s is not None,
        "seconds": seconds,
        "seconds_until_converged": None if converged_s is None else round(converged_s, 3),
        "timings_s": {what: round(seconds, 3) for what, seconds in step.timings.items()},
        "did": step.did,
        "requests": {label: _requests(tally) for label, tally in step.requests.items()},
        "meanwhile": _requests(step.meanwhile),
        "expectations": [
            {"what": finding.what, "ok": finding.ok, "detail": finding.detail}
            for finding in step.findings
        ],
    }


def _requests(tally: Tally) -> Json:
    """Who was asked what from where, and who answered."""
    routes: dict[str, dict[str, Json]] = {}
    for caller, service in tally.routes():
        route = (caller, service)
        who = tally.answered.get(route, Counter())
        routes.setdefault(caller, {})[service] = {
            "sent": tally.sent[route],
            "answered": {f"{cluster}/{name}": who[cluster, name] for cluster, name in sorted(who)},
            "no_backend": tally.without[route],
            "failed": tally.failed[route],
            "retried": tally.retried[route],
        }
    return {
        "sent": sum(tally.sent.values()),
        "failed": sum(tally.failed.values()),
        "retried": sum(tally.retried.values()),
        "no_backend": sum(tally.without.values()),
        "by_caller": routes,
        "problems": tally.problems[:5],
    }
