"""I14, I16 and I17: what is used, and what is not let.

For: samples, attempts, and what export logs hold. Not for: what meshd does inside. Invariant: that
nothing was tried is no proof that nothing could be done.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from chaos.evidence import NS_PER_S, Evidence
from chaos.history import Attempt, Deed, Sample
from chaos.validators.verdict import Figure, Findings, Verdict

IN_WORDS: Mapping[str, str] = {
    "rss_bytes": "bytes of memory",
    "fds": "descriptors",
    "tasks": "tasks",
    "connections": "connections",
}
WITHIN_NS = 60 * NS_PER_S
LOCAL_ONLY = ("peer.", "skip.", "operation.")
TOLD_TO_NOBODY: Mapping[str, tuple[str, ...]] = {
    "cluster.set": ("audiences",),
    "node.set": ("audiences",),
    "identity.set": ("audiences",),
    "policy.set": ("audiences",),
    "service.set": ("probe",),
}
"""Fields that no export log has, by type."""


def i14_bounded(evidence: Evidence) -> Verdict:
    """No sample of a meshd is above a bound, nor does it connect more often than allowed."""
    found = Findings("I14", "samples of processes")
    bounds = evidence.bounds
    caps = {
        "rss_bytes": bounds.rss_bytes,
        "fds": bounds.fds,
        "tasks": bounds.tasks,
        "connections": bounds.connections,
    }
    most: dict[str, int] = {}
    for sample in evidence.all(Sample):
        for what, cap in caps.items():
            value = getattr(sample, what)
            if value < 0:
                continue
            found.look()
            most[what] = max(value, most.get(what, value))
            if value > cap:
                found.violate(
                    f"{sample.process} has {value} {IN_WORDS[what]}, and {cap} is the most", sample
                )
    _connects(evidence, found)
    found.figures += [
        Figure(
            f"most {IN_WORDS[what].removeprefix('bytes of ')}",
            value,
            "bytes" if what == "rss_bytes" else "",
            caps[what],
        )
        for what, value in most.items()
    ]
    for what in caps.keys() - most.keys():
        found.miss(f"{IN_WORDS[what]}: no sample says it")
    found.miss("queues: what is in them isn't seen from outside")
    return found.verdict()


def _connects(evidence: Evidence, found: Findings) -> None:
    lives: dict[tuple[str, int], list[Sample]] = defaultdict(list)
    for sample in evidence.all(Sample):
        if sample.connects >= 0:
            lives[evidence.life_of(sample)].append(sample)
    for samples in lives.values():
        oldest = 0
        for sample in samples:
            while sample.at_ns - samples[oldest].at_ns > WITHIN_NS:
                oldest += 1
            found.look()
            number = sample.connects - samples[oldest].connects
            if number > evidence.bounds.connects_per_min:
                what = f"{sample.process} tried to connect {number} times within a minute"
                found.violate(what, samples[oldest], sample)


def i16_read_only(evidence: Evidence) -> Verdict:
    """No attempt to write into a peer's etcd with this cluster's rights was let."""
    found = Findings("I16", "attempts to write into a peer's etcd")
    for attempt in evidence.all(Attempt):
        if attempt.deed is Deed.WRITE and attempt.cluster != attempt.target:
            found.look()
            if attempt.done and not attempt.may:
                what = f"{attempt.cluster} wrote {attempt.key} in the etcd of {attempt.target}"
                found.violate(what, attempt)
    found.miss("whether meshd itself tried: only its rights are seen from outside")
    return found.verdict()


def i17_confidential(evidence: Evidence) -> Verdict:
    """No export log holds what isn't exported, and nobody could read more than their own."""
    found = Findings("I17", "events in export logs, and attempts to read")
    for attempt in evidence.all(Attempt):
        if attempt.deed is Deed.READ and not attempt.may:
            found.look()
            if attempt.done:
                what = f"{attempt.cluster} read {attempt.key} in the etcd of {attempt.target}"
                found.violate(what, attempt)
    for cluster in evidence.run.clusters:
        for dump in evidence.exports_of(cluster):
            for seq, event in dump.log.events:
                found.look()
                reason = _not_to_be_told(event)
                if reason:
                    what = f"{dump.entry.log} of {cluster} tells {reason} at seq {seq}"
                    found.violate(what, dump.entry)
    if not any(attempt.deed is Deed.READ for attempt in evidence.all(Attempt)):
        found.miss("what could be read with another's rights: nobody tried")
    return found.verdict()


def _not_to_be_told(event: list[Any]) -> str:
    """What of an event must not be in an export log; empty if it may all be."""
    kind, key, data, _, cause = event[:5]
    if kind.startswith(LOCAL_ONLY):
        return f"{kind} of {key}"
    if cause:
        return f"the idempotency key {cause!r}"
    if not isinstance(data, dict):
        return ""
    if kind == "service.set" and (not data.get("global") or data.get("shared") is False):
        return f"{key}, which is not shared"
    if kind == "service.set" and "audiences" in data.get("export", {}):
        return f"the audiences of {key}"
    told = [field for field in TOLD_TO_NOBODY.get(kind, ()) if field in data]
    return f"{told[0]} of {key}" if told else ""
