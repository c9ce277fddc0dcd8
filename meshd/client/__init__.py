"""A client of meshd's REST interface, for the command line, the demo and the chaos suite.

For: typed answers, one error, deadlines, streams that resume. Not for: the server's side
(`edges.http`). Invariant: no call waits for ever; a write is repeated only with its own
Idempotency-Key.
"""

from meshd.client.answers import (
    ApplyResult,
    CloudEvent,
    ClusterItem,
    EndpointItem,
    EventPage,
    FieldChangeItem,
    HistoryPage,
    IdentityItem,
    NodeItem,
    PeerItem,
    PortItem,
    ServiceItem,
    Status,
    TableDiff,
    WriteResult,
)
from meshd.client.client import Client, wait_converged
from meshd.client.errors import ClientError
from meshd.client.http import ClientTls, Target
from meshd.client.ownership import Ownership
from meshd.client.reports import (
    Agreement,
    Plan,
    PlannedBackendItem,
    ServiceEffectItem,
    StandpointItem,
)
from meshd.client.sse import Notice, StreamEvent
from meshd.client.stream import EventChoice, Following
from meshd.client.tables import (
    BackendItem,
    Explained,
    ExplainedEndpointItem,
    Slots,
    Table,
    TableService,
)
from meshd.client.waiting import is_converged, wait_until

__all__ = [
    "Agreement",
    "ApplyResult",
    "BackendItem",
    "Client",
    "ClientError",
    "ClientTls",
    "CloudEvent",
    "ClusterItem",
    "EndpointItem",
    "EventChoice",
    "EventPage",
    "Explained",
    "ExplainedEndpointItem",
    "FieldChangeItem",
    "Following",
    "HistoryPage",
    "IdentityItem",
    "NodeItem",
    "Notice",
    "Ownership",
    "PeerItem",
    "Plan",
    "PlannedBackendItem",
    "PortItem",
    "ServiceEffectItem",
    "ServiceItem",
    "Slots",
    "StandpointItem",
    "Status",
    "StreamEvent",
    "Table",
    "TableDiff",
    "TableService",
    "Target",
    "WriteResult",
    "is_converged",
    "wait_converged",
    "wait_until",
]
