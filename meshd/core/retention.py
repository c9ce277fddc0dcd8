"""When a log is summed up in a snapshot, and up to where it is then cut.

For: both decisions, for the local log, export logs and replicas alike. Not for: doing either
(`runtime.shortening`). Invariants: a log is never cut beyond the snapshot before the newest, so
that who reads either finds all records behind it; nor beyond what a known peer still needs, unless
a hard cap says so.

Rules:
- A snapshot is due when as many events have come as `snapshot_every_events` or as half of what the
  last snapshot keeps, whichever is more: summing up then costs a bounded share of what was written.
- Records may go when any limit of `keep` is passed: so many events, so many bytes, such an age.
- What a peer still needs is what it says that it has read; one that was never heard needs all. The
  limits of `cap` are for the case that a peer stays away for good.
- A log is cut only at marks, where it once had a snapshot; a log of which snapshots are kept, only
  where it still has one, so that all that is retained can be told from a state that is there.
- Kept are the snapshot that the retained records begin with, the newest and the one before it. Of
  those between, while there are too many, that one goes whose neighbours lie closest together, the
  oldest of equals: so the distances stay alike, and none is more than about twice the mean.
"""

from __future__ import annotations

from dataclasses import dataclass

from meshd.model.ids import Seq
from meshd.model.snapshot import Manifest, Mark

SNAPSHOTS_READ = 2
"""The newest, and the one before it, which may be being read."""


@dataclass(frozen=True, slots=True)
class Keep:
    """How much of a log stays: up to so many events, bytes, and seconds."""

    events: int
    size_bytes: int
    age_s: float


@dataclass(frozen=True, slots=True)
class RetentionRules:
    """keep: what stays while every peer keeps up. cap: what stays whatever a peer needs.
    snapshots_kept: so many, with the newest; 2 are what readers of a log need that has no past.
    """

    snapshot_every_events: int
    keep: Keep
    cap: Keep
    snapshots_kept: int = SNAPSHOTS_READ


def is_snapshot_due(manifest: Manifest | None, head_seq: int, rules: RetentionRules) -> bool:
    """Whether the log has grown enough since its last snapshot."""
    if manifest is None:
        return head_seq >= rules.snapshot_every_events
    grown = head_seq - manifest.head.seq
    return grown >= max(rules.snapshot_every_events, manifest.items // 2)


def kept_snapshots(before: Manifest | None, head_seq: int, limit: int) -> tuple[Seq, ...]:
    """Which snapshots stay beside one that is made now at `head_seq`, ascending.

    before: the manifest of the one before it. limit: how many may be there, the new one included.
    """
    if before is None or limit <= SNAPSHOTS_READ:
        return ()
    kept = [seq for seq in (*before.kept, before.head.seq) if seq < head_seq]
    is_cut = before.trim.seq > 0
    while len(kept) >= limit:
        # Who reads the past begins with the first of them, or with a log that was never cut.
        places = kept if is_cut else [Seq(0), *kept]
        spans = [after - first for first, after in zip(places, places[2:], strict=False)]
        del kept[spans.index(min(spans)) + is_cut]
    return tuple(kept)


def trim_point(
    manifest: Manifest, end: Mark, rules: RetentionRules, now_ms: int, needed_seq: Seq | None
) -> Mark | None:
    """Up to where the log may be cut now; None if it may not.

    end: the log's end. needed_seq: what the slowest known peer has read; None if no peer reads it.
    """
    best: Mark | None = None
    for mark in manifest.marks:
        if mark.seq <= manifest.trim.seq or mark.seq > manifest.previous_seq:
            continue
        if rules.snapshots_kept > SNAPSHOTS_READ and mark.seq not in manifest.kept:
            continue
        is_unneeded = needed_seq is None or mark.seq <= needed_seq
        if _is_beyond(rules.cap, mark, end, now_ms) or (
            is_unneeded and _is_beyond(rules.keep, mark, end, now_ms)
        ):
            best = mark
    return best


def _is_beyond(keep: Keep, mark: Mark, end: Mark, now_ms: int) -> bool:
    return (
        end.seq - mark.seq >= keep.events
        or end.log_bytes - mark.log_bytes >= keep.size_bytes
        or now_ms - mark.time_ms >= keep.age_s * 1000
    )
