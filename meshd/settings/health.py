"""Health: the settings of registrations and probes.

For: the values, their defaults and their limits, each with its reason. Not for: what a service says
of its probe (`model.probe`). Invariant: as for all settings (`subjects`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, StrictBool, StrictInt


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthSettings:
    """Knowing whether this cluster's endpoints are well."""

    registrations_max: Annotated[StrictInt, Field(ge=1, le=200_000)] = 20_000
    """Endpoints registered with a time to live, of the whole cluster. Each is a lease in its etcd,
    which lets a thousand of them run out in a second, and some renewals in each of its times."""
    probes_at_once_max: Annotated[StrictInt, Field(ge=1, le=1000)] = 64
    """Probes under way: as many sockets; one that isn't answered is held for its time-out."""
    probed_max: Annotated[StrictInt, Field(ge=1, le=100_000)] = 10_000
    """Endpoints that the leader probes. Every ten seconds each, that is a thousand probes a second,
    which is all of a processor; the others are left as their source says, and named."""
    probe_local: StrictBool = False
    """Also probe loopback, link-local and the like, for a mesh on one machine. Whoever may write
    endpoints can then have meshd call on what listens for its own host only."""
