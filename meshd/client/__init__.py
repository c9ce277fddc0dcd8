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
    TableDiff,
    WriteResult,
)
from meshd.client.client import Client, wait_converged
from meshd.client.errors import ClientError
from meshd.client.event_stream import EventChoice, Following
from meshd.client.http import URL_DEFAULT, ClientTls, Target
from meshd.client.mirror import OutOfStepError, TableMirror
from meshd.client.ownership import Ownership
from meshd.client.reports import (
    Agreement,
    Plan,
    PlannedBackendItem,
    ServiceEffectItem,
    StandpointItem,
)
from meshd.client.sse import Notice, StreamEvent
from meshd.client.statuses import MqttItem, Status
from meshd.client.table_stream import (
    FollowedTables,
    ServiceChanged,
    ServiceRemoved,
    ServiceTold,
    SnapshotBegun,
    SnapshotEnded,
    TableMessage,
    TablesReset,
)
from meshd.client.tables import (
    BackendItem,
    Explained,
    ExplainedEndpointItem,
    Slots,
    Table,
    TableService,
)
from meshd.client.waiting import is_converged, wait_until
from meshd.client.watching import (
    ConditionMessage,
    MeshSeen,
    OwnCondition,
    PeerGone,
    PeerSeen,
    StatusSeen,
)

__all__ = [
    "URL_DEFAULT",
    "Agreement",
    "ApplyResult",
    "BackendItem",
    "Client",
    "ClientError",
    "ClientTls",
    "CloudEvent",
    "ClusterItem",
    "ConditionMessage",
    "EndpointItem",
    "EventChoice",
    "EventPage",
    "Explained",
    "ExplainedEndpointItem",
    "FieldChangeItem",
    "FollowedTables",
    "Following",
    "HistoryPage",
    "IdentityItem",
    "MeshSeen",
    "MqttItem",
    "NodeItem",
    "Notice",
    "OutOfStepError",
    "OwnCondition",
    "Ownership",
    "PeerGone",
    "PeerItem",
    "PeerSeen",
    "Plan",
    "PlannedBackendItem",
    "PortItem",
    "ServiceChanged",
    "ServiceEffectItem",
    "ServiceItem",
    "ServiceRemoved",
    "ServiceTold",
    "Slots",
    "SnapshotBegun",
    "SnapshotEnded",
    "StandpointItem",
    "Status",
    "StatusSeen",
    "StreamEvent",
    "Table",
    "TableDiff",
    "TableMessage",
    "TableMirror",
    "TableService",
    "TablesReset",
    "Target",
    "WriteResult",
    "is_converged",
    "wait_converged",
    "wait_until",
]
