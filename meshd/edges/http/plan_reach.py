"""What a plan would change about who may talk to whom.

For: a part of the answer of `/v1/plan`. Not for: the tables' part (`plan`), nor the policies in
force (`reaching`). Invariant: works on copies; what it looks at and what it tells is bounded, and
it says where it stopped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Final

from meshd.core.excerpt import excerpt, excerpts
from meshd.core.policies import Policies
from meshd.core.reach import ReachChange, reach_changes
from meshd.core.selections import IdentityKey
from meshd.core.state import ClusterState
from meshd.core.what_if import changes_reach, reach_beside
from meshd.edges.http.reaching import IDENTITIES_SHOWN_MAX, PAIRS_MAX, ports_fields
from meshd.edges.http.wire import Json
from meshd.model.event import Event
from meshd.model.ids import ClusterName

CHANGES_SHOWN_MAX: Final = 1000
"""More than anybody reads; the others are counted."""

States = Mapping[ClusterName, ClusterState]


async def reach_effect(
    served: States, own: ClusterName, decided: ClusterState, events: Sequence[Event], time_ms: int
) -> Json:
    """What would change. decided: the own state that the events were decided on."""
    if not changes_reach(events):
        return {"changes": [], "count": 0, "complete": True}
    states = excerpts(served, ()) | {own: excerpt(decided, ())}
    return await asyncio.to_thread(_effect, states, own, events, time_ms)


def _effect(states: States, own: ClusterName, events: Sequence[Event], time_ms: int) -> Json:
    beside = reach_beside(states, own, events, time_ms)
    pairs = reach_changes(beside.before, beside.after, beside.affected)
    changes = [one for one in islice(pairs, PAIRS_MAX) if one is not None]
    return {
        "changes": [
            _change(one, beside.before, beside.after) for one in changes[:CHANGES_SHOWN_MAX]
        ],
        "count": len(changes),
        "complete": next(pairs, pairs) is pairs,
    }


def _change(change: ReachChange, before: Policies, after: Policies) -> Json:
    return {
        "from": _identities(change.sources, before, after),
        "to": _identities(change.destinations, before, after),
        "old": ports_fields(change.old),
        "new": ports_fields(change.new),
    }


def _identities(identities: Sequence[IdentityKey], before: Policies, after: Policies) -> Json:
    first = identities[0]
    labels = after.identities().get(first) or before.identities()[first]
    return {
        "cluster": first[0],
        "numbers": [number for _, number in identities[:IDENTITIES_SHOWN_MAX]],
        "count": len(identities),
        "labels": dict(labels),
    }
