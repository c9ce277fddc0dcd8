"""Copies of states that one may keep, fold into, or read in another thread.

For: deriving something aside from what is served, which changes with every record. Not for: what
is done with a copy (`what_if`, `agreement`). Invariants: a copy shares no container with the state
that it was made of, and is never more than what was asked for; making one takes no step that waits,
so that it is the state of one moment.

It costs one reference for each endpoint that is copied; the values are shared, since they never
change.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import fields

from meshd.core.state import ClusterState
from meshd.model.ids import ClusterName, ServiceKey

_LEFT_OUT = frozenset({"causes", "unknown", "carried"})
"""What no table depends on: it may be large, and it is about the log rather than the mesh."""


def excerpt(
    state: ClusterState,
    keys: Collection[ServiceKey] | None = None,
    *,
    with_causes: bool = False,
) -> ClusterState:
    """A copy of a state, or of it only these services with their endpoints. with_causes: also of
    the idempotency keys, for deciding whether something was done before.
    """
    copy = ClusterState()
    for field in fields(ClusterState):
        if field.name in _LEFT_OUT or not field.compare:
            # Fields that aren't compared are made of the others, when they are asked for.
            continue
        value = getattr(state, field.name)
        setattr(copy, field.name, dict(value) if isinstance(value, dict) else value)
    if keys is not None:
        copy.services = {key: state.services[key] for key in keys if key in state.services}
        copy.endpoints = {key: state.endpoints[key] for key in keys if key in state.endpoints}
    if with_causes:
        copy.causes = dict(state.causes)
    copy.endpoints = {key: dict(endpoints) for key, endpoints in copy.endpoints.items()}
    return copy


def excerpts(
    states: Mapping[ClusterName, ClusterState], keys: Collection[ServiceKey] | None = None
) -> dict[ClusterName, ClusterState]:
    """The same of all states."""
    return {name: excerpt(state, keys) for name, state in states.items()}
