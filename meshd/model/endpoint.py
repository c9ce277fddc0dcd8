"""What a cluster says of one address that serves a service.

For: the value of `endpoint.set`. Not for: what becomes of it in a table (`table`). Invariant: an
endpoint belongs to one service of one cluster; where it can be reached from is its ports' and its
address's own business.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from pydantic import StrictBool, StringConstraints

from meshd.model.forms import (
    TURNED_UP,
    WEIGHT_DEFAULT,
    Address,
    Labels,
    NodeName,
    PlaceName,
    SourceName,
    TurnedPercent,
    Weight,
)
from meshd.model.probe import MARK_PATTERN, ProbeResult
from meshd.model.service import Ports


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One address that serves a service.

    ports: where it listens, joined to the service's by name and protocol; empty means those of its
    own cluster's definition. ready, serving, terminating: EndpointSlice's conditions; serving None
    means 'as ready'. region, zone: empty means its cluster's. weight: its share of its tier's
    traffic relative to the others'; 0 takes none. turned_percent: how far operations have turned it
    up. source: the manifest that owns it, so that applying that manifest again can remove it.
    probed: what the cluster's probes find, and probed_by: which probe of its service; both are for
    meshd to say.
    """

    address: Address
    ports: Ports = ()
    ready: StrictBool = True
    serving: StrictBool | None = None
    terminating: StrictBool = False
    region: PlaceName = ""
    zone: PlaceName = ""
    node: NodeName = ""
    weight: Weight = WEIGHT_DEFAULT
    turned_percent: TurnedPercent = TURNED_UP
    labels: Labels = field(default_factory=dict)
    source: SourceName = ""
    probed: ProbeResult = ProbeResult.UNKNOWN
    probed_by: Annotated[str, StringConstraints(pattern=MARK_PATTERN)] = ""
