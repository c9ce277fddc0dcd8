"""How long logs are kept: the settings of retention.

For: the values, their defaults and their limits, each with its reason. Not for: what they lead to
(`core.retention`). Invariant: as for all settings (`subjects`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, StrictInt

from meshd.model.snapshot import SNAPSHOTS_KEPT_MAX, SNAPSHOTS_KEPT_MIN
from meshd.settings.kinds import OptionalPath, Seconds

MIB = 1024 * 1024
GIB = 1024 * MIB

Events = Annotated[StrictInt, Field(ge=1, le=1_000_000_000)]
Bytes = Annotated[StrictInt, Field(ge=MIB, le=1024 * GIB)]
Age = Annotated[Seconds, Field(ge=60, le=3650 * 86_400)]


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionSettings:
    """How long a log may grow before it is summed up in a snapshot, and cut behind one."""

    check_every_s: Annotated[Seconds, Field(ge=0.1, le=86_400)] = 30.0
    """How often the leader looks at each log; looking costs one small read."""
    snapshot_every_events: Events = 20_000
    """A start then folds at most so many events beside the snapshot: well below a second."""
    keep_events: Events = 200_000
    """Records beyond the last so many events are cut off: what as-of and late readers can reach."""
    keep_bytes: Bytes = 256 * MIB
    """The same in bytes: an eighth of etcd's default quota."""
    keep_age_s: Age = 7 * 86_400.0
    """The same in time: a week, so that Monday can look at Friday's trouble."""
    cap_events: Events = 2_000_000
    """Records that a known peer hasn't read are kept beyond that, up to so many events; then it has
    to take the snapshot."""
    cap_bytes: Bytes = GIB
    """The same in bytes: half of etcd's default quota. A full etcd would stop this cluster's
    writes for the sake of a peer that is away."""
    cap_age_s: Age = 30 * 86_400.0
    """The same in time."""
    snapshots_kept: Annotated[StrictInt, Field(ge=SNAPSHOTS_KEPT_MIN, le=SNAPSHOTS_KEPT_MAX)] = 8
    """Snapshots of the local log and of each replica that stay, spread over what is retained: with
    8 an earlier state is at most about 60,000 events from one, and of a state of 20 MB they take
    an eighth of etcd's default quota at most, mostly far less, since they are compressed."""
    replica_grace_s: Annotated[Seconds, Field(ge=0, le=30 * 86_400)] = 3600.0
    """How long the copy of a peer that nobody lists any more is kept, from when the leader first
    saw that: an hour, in which a removal by mistake costs no new copy."""
    archive_dir: OptionalPath = None
    """Where the local log's records are kept as files before they are cut off, for `meshd log`.
    Nowhere unless set; beside the configuration file unless absolute."""
