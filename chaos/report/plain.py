"""A judgement as text and as JSON.

For: `python -m chaos validate`. Not for: pages. Invariant: what isn't judged is never told as if it
held.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from chaos.evidence import NS_PER_S, Evidence
from chaos.validators.judging import Judgement
from chaos.validators.sentences import SENTENCES
from chaos.validators.verdict import Status, Verdict

SIGNS = {Status.HOLDS: "+", Status.VIOLATED: "!", Status.NOT_JUDGED: "?"}


def duration_s(evidence: Evidence) -> float:
    """How long the run took."""
    return (evidence.end_ns - evidence.run.at_ns) / NS_PER_S


def conclusion(judgement: Judgement) -> str:
    """All of it in one line."""
    total = len(judgement.verdicts)
    judged = sum(one.status is not Status.NOT_JUDGED for one in judgement.verdicts)
    if judgement.violated:
        names = ", ".join(one.invariant for one in judgement.violated)
        return f"Violated: {names}; {judged} of {total} invariants were judged."
    if judgement.absent:
        return f"It proves nothing: {'; '.join(judgement.absent)}."
    return f"It holds; {judged} of {total} invariants were judged."


def judgement_lines(judgement: Judgement, evidence: Evidence, cut: str) -> Iterator[str]:
    """A judgement for a terminal."""
    run = evidence.run
    yield (
        f"{run.scenario}, seed {run.seed}: clusters {', '.join(run.clusters)};"
        f" {duration_s(evidence):.1f} s, {len(evidence.entries)} entries"
    )
    if cut:
        yield f"  {cut}"
    for verdict in judgement.verdicts:
        name, _ = SENTENCES[verdict.invariant]
        sign, status = SIGNS[verdict.status], verdict.status
        looked_at = f"{verdict.looked_at} {verdict.things}" if verdict.looked_at else ""
        yield f"{sign} {verdict.invariant:<4} {name:<19} {status:<10}  {looked_at}".rstrip()
        for violation in verdict.violations:
            lines = ", ".join(map(str, violation.lines))
            yield f"       {violation.reason} [line {lines}]"
        if verdict.count > len(verdict.violations):
            yield f"       and {verdict.count - len(verdict.violations)} more"
        for missing in verdict.missing:
            yield f"       not judged: {missing}"
    for one in judgement.sometimes:
        yield f"{'+' if one.happened else '!'} {one.what}: {one.detail}"
    yield conclusion(judgement)


def judgement_data(judgement: Judgement, evidence: Evidence, cut: str) -> dict[str, Any]:
    """A judgement for programs."""
    run = evidence.run
    return {
        "holds": judgement.holds,
        "conclusion": conclusion(judgement),
        "scenario": run.scenario,
        "seed": run.seed,
        "clusters": list(run.clusters),
        "versions": dict(run.versions),
        "bounds": asdict(run.bounds),
        "duration_s": duration_s(evidence),
        "entries": len(evidence.entries),
        "cut": cut,
        "invariants": [_verdict_data(one) for one in judgement.verdicts],
        "sometimes": [asdict(one) for one in judgement.sometimes],
        "absent": list(judgement.absent),
    }


def _verdict_data(verdict: Verdict) -> dict[str, Any]:
    name, sentence = SENTENCES[verdict.invariant]
    return {
        "invariant": verdict.invariant,
        "name": name,
        "sentence": sentence,
        "status": verdict.status,
        "looked_at": verdict.looked_at,
        "things": verdict.things,
        "violation_count": verdict.count,
        "violations": [{"reason": one.reason, "lines": one.lines} for one in verdict.violations],
        "missing": list(verdict.missing),
        "figures": [asdict(one) for one in verdict.figures],
    }
