"""A client of meshd's REST interface, for the command line, the demo and the chaos suite.

For: typed answers, one error, deadlines, streams that resume. Not for: the server's side
(`edges.http`). Invariant: no call waits for ever; a write is repeated only with its own
Idempotency-Key.
"""

from meshd.client.answers import (
    ApplyResult,
    BackendItem,
    CloudEvent,
    ClusterItem,
    EndpointItem,
    EventPage,
    Explained,
    ExplainedEndpointItem,
    PeerItem,
    PortItem,
    ServiceItem,
    Slots,
    Status,
    Table,
    TableService,
    WriteResult,
)
from meshd.client.client import Client, wait_converged
from meshd.client.errors import ClientError
from meshd.client.http import ClientTls, Target
from meshd.client.reports import (
    Agreement,
    BackendDiffItem,
    FieldItem,
    Plan,
    ServiceDiffItem,
    StandpointItem,
)
from meshd.client.sse import StreamEvent
from meshd.client.waiting import is_converged, wait_until

__all__ = [
    "Agreement",
    "ApplyResult",
    "BackendDiffItem",
    "BackendItem",
    "Client",
    "ClientError",
    "ClientTls",
    "CloudEvent",
    "ClusterItem",
    "EndpointItem",
    "EventPage",
    "Explained",
    "ExplainedEndpointItem",
    "FieldItem",
    "PeerItem",
    "Plan",
    "PortItem",
    "ServiceDiffItem",
    "ServiceItem",
    "Slots",
    "StandpointItem",
    "Status",
    "StreamEvent",
    "Table",
    "TableService",
    "Target",
    "WriteResult",
    "is_converged",
    "wait_converged",
    "wait_until",
]
