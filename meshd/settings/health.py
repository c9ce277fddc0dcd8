"""Health: the settings of registrations and probes.

For: the values, their defaults and their limits, each with its reason. Not for: what a service says
of its probe (`model.probe`). Invariant: as for all settings (`subjects`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, StrictInt


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthSettings:
    """Knowing whether this cluster's endpoints are well."""

    registrations_max: Annotated[StrictInt, Field(ge=1, le=200_000)] = 20_000
    """Endpoints registered with a time to live, of the whole cluster. Each is a lease in its etcd,
    which lets a thousand of them run out in a second, and some renewals in each of its times."""
