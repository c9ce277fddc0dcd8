"""Which of a service's endpoints each source gave.

For: finding what one manifest owns without looking through all of its service. Not for: the
endpoints themselves (`state`, `draft`). Invariant: it follows from the endpoints alone, whatever
order they came and went in; a source that gives nothing has no entry.
"""

from __future__ import annotations

Sources = dict[str, set[str]]
"""The names of a service's endpoints, by their source."""


def move(sources: Sources, name: str, before: str | None, after: str | None) -> None:
    """Note that an endpoint's source is now another; None is where it isn't there."""
    if before == after:
        return
    if before is not None:
        left = sources[before]
        left.discard(name)
        if not left:
            del sources[before]
    if after is not None:
        sources.setdefault(after, set()).add(name)
