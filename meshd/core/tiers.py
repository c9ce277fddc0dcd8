"""Which backends come first.

For: the tier of a cluster's backends. Not for: shares within a tier (weights). Invariant: a tier
follows from the relation between two clusters alone, never from who is there at the moment, so one
endpoint that comes or goes never changes another backend's tier.

Tiers may therefore have gaps (`affinity: local` without a local backend starts at 1). A protocol
that wants them dense, as xDS does, closes the gaps in its edge.
"""

from __future__ import annotations

from typing import Final, assert_never

from meshd.model.ids import CLUSTER_ID_MAX
from meshd.model.service import Affinity

DEMOTION: Final = 1000
"""How far a demoted backend moves back: behind the last tier that a fresh one can have, keeping
the order among the demoted. It is a constant rather than 'last used tier plus one' so that a
backend's priority never depends on which other backends there are, and so that a reader sees at
once which part of the number is the demotion."""

TIERS_MAX: Final = CLUSTER_ID_MAX + 1
"""Every cluster a tier of its own, the perspective's own zone one more."""


def tier(affinity: Affinity, *, own: bool) -> int:
    """The tier of the perspective's own backends, or of everybody else's."""
    match affinity:
        case Affinity.NONE:
            return 0
        case Affinity.LOCAL:
            return 0 if own else 1
        case Affinity.REMOTE:
            return 1 if own else 0
        case _:
            assert_never(affinity)
