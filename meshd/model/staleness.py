"""What is to happen to the backends of a cluster that is out of sight.

For: the policy, as the settings, a listed peer and a service each may say it. Not for: applying it
(`core.liveness`). Invariant: who says nothing leaves it to the next: a service to the peer, a peer
to the settings.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from meshd.model.forms import Seconds


class StalenessPolicy(StrEnum):
    """What happens to the backends of a cluster that is out of sight."""

    KEEP = "keep"
    DEMOTE = "demote"
    WITHDRAW = "withdraw"


@dataclass(frozen=True, slots=True, kw_only=True)
class Staleness:
    """Where somebody's staleness differs from the more general one; None: as there.

    stale_after_s: when backends are demoted. withdraw_after_s: when they are withdrawn, with that
    policy.
    """

    policy: StalenessPolicy | None = None
    stale_after_s: Seconds | None = None
    withdraw_after_s: Seconds | None = None


AS_THE_PEER = Staleness()
"""A service that says nothing of it."""
