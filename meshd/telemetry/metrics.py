"""Every metric of meshd, declared once (`protocols/metrics.md` lists them).

For: the names, units and meanings. Not for: computing values. Invariant: labels are bounded: a peer
is one that is followed, never one that a message names.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

REGISTRY = CollectorRegistry()

APPEND_EVENTS = Counter(
    "meshd_append_events", "Events committed to the local log", registry=REGISTRY
)
APPEND_RECORDS = Counter(
    "meshd_append_records", "Records (group commits) committed to the local log", registry=REGISTRY
)
APPEND_CONFLICTS = Counter(
    "meshd_append_conflicts", "Commits that lost the race for the head", registry=REGISTRY
)
REPLICA_RECORDS_READ = Counter(
    "meshd_replica_records_read", "Records of a peer that were folded", ["peer"], registry=REGISTRY
)
REPLICA_RECORDS_DUPLICATE = Counter(
    "meshd_replica_records_duplicate",
    "Records of a peer that came though they had been folded before",
    ["peer"],
    registry=REGISTRY,
)
REPLICA_LAG_EVENTS = Gauge(
    "meshd_replica_lag_events",
    "Events in the peer's log that are not folded here yet, as far as is known",
    ["peer"],
    registry=REGISTRY,
)
REPLICA_UNFRESH_SECONDS = Gauge(
    "meshd_replica_unfresh_seconds",
    "Seconds for which the peer has not been fresh; 0 while it is",
    ["peer"],
    registry=REGISTRY,
)
REPLICA_PHASE = Gauge(
    "meshd_replica_phase",
    "1 for the phase that the peer is in, 0 for the others",
    ["peer", "phase"],
    registry=REGISTRY,
)
REPLICA_COMMIT_TRANSACTIONS = Histogram(
    "meshd_replica_commit_transactions",
    "Transactions of peers' copies that were committed together",
    buckets=(1, 2, 5, 10, 20, 50, 100),
    registry=REGISTRY,
)
REPLICA_BACKLOG_BYTES = Gauge(
    "meshd_replica_backlog_bytes",
    "Bytes of the peer's records that are folded but not yet in the own etcd",
    ["peer"],
    registry=REGISTRY,
)
REPLICA_SKIPPED_RECORDS = Gauge(
    "meshd_replica_skipped_records",
    "Records of the peer's log that were passed over, as a person said",
    ["peer"],
    registry=REGISTRY,
)
SNAPSHOTS = Counter(
    "meshd_snapshots", "Snapshots written of a log in the own etcd", ["log"], registry=REGISTRY
)
GATE_READS = Counter(
    "meshd_gate_reads",
    "Range reads and transactions served to a reader",
    ["reader"],
    registry=REGISTRY,
)
GATE_REFUSED = Counter(
    "meshd_gate_refused",
    "Requests that the gate refused; reader is empty where nobody known asked",
    ["reader"],
    registry=REGISTRY,
)
GATE_CUT = Counter(
    "meshd_gate_cut", "Calls ended because their reader took nothing", ["reader"], registry=REGISTRY
)
GATE_WATCHES = Gauge(
    "meshd_gate_watches", "Watches that a reader has open", ["reader"], registry=REGISTRY
)
REGISTRATIONS = Gauge(
    "meshd_registrations", "Registrations of the cluster that are alive", registry=REGISTRY
)
REGISTRATION_RENEWALS = Counter(
    "meshd_registration_renewals", "Registrations renewed by this meshd", registry=REGISTRY
)
REGISTRATIONS_EXPIRED = Counter(
    "meshd_registrations_expired",
    "Endpoints removed by this meshd as leader since their registration ran out",
    registry=REGISTRY,
)
PROBES = Counter(
    "meshd_probes",
    "Probes of endpoints, by type (http, tcp, grpc) and outcome (good, bad)",
    ["type", "outcome"],
    registry=REGISTRY,
)
PROBED_ENDPOINTS = Gauge(
    "meshd_probed_endpoints",
    "Endpoints that this meshd probes, by what they come to; 0 while another one leads",
    ["result"],
    registry=REGISTRY,
)
PROBES_HELD = Gauge(
    "meshd_probes_held", "Endpoints that must not or can't be probed", registry=REGISTRY
)
TABLE_SERVICES = Gauge("meshd_table_services", "Global services in the table", registry=REGISTRY)
RANGE_CONDITIONS = Gauge(
    "meshd_range_conditions",
    "Pairs of address ranges, announced or of nodes, that collide in the mesh",
    registry=REGISTRY,
)
LOOP_LAG_SECONDS = Histogram(
    "meshd_loop_lag_seconds",
    "How late the event loop runs what is due",
    buckets=(0.001, 0.005, 0.02, 0.1, 0.5, 2.0),
    registry=REGISTRY,
)
HTTP_REQUESTS = Counter(
    "meshd_http_requests",
    "REST requests answered",
    ["method", "route", "status"],
    registry=REGISTRY,
)
STREAM_SUBSCRIBERS = Gauge(
    "meshd_stream_subscribers", "Subscribers of event streams", registry=REGISTRY
)
STREAM_FOLLOWERS = Gauge(
    "meshd_stream_followers",
    "Subscribers of events, by what they are: active, or lagging and reading the logs",
    ["state"],
    registry=REGISTRY,
)
STREAM_CUTS = Counter(
    "meshd_stream_cuts",
    "Streams that meshd ended, by reason: slow (took nothing), reset, error, bug",
    ["reason"],
    registry=REGISTRY,
)
MQTT_PHASE = Gauge(
    "meshd_mqtt_phase",
    "1 for the phase that publishing is in, 0 for the others; only where a broker is set",
    ["phase"],
    registry=REGISTRY,
)
MQTT_CONNECTIONS = Counter(
    "meshd_mqtt_connections",
    "Connections to the broker on which we could publish",
    registry=REGISTRY,
)
MQTT_EVENTS = Counter(
    "meshd_mqtt_events", "Events of the own log that the broker acknowledged", registry=REGISTRY
)
MQTT_BEHIND_EVENTS = Gauge(
    "meshd_mqtt_behind_events",
    "Events of the own log that the broker has not acknowledged yet; while this meshd publishes",
    registry=REGISTRY,
)
MQTT_TABLES = Counter(
    "meshd_mqtt_tables", "Services of the table that the broker acknowledged", registry=REGISTRY
)
MQTT_RESETS = Counter(
    "meshd_mqtt_resets", "Times that published events didn't follow those before", registry=REGISTRY
)
MQTT_REFUSED = Counter(
    "meshd_mqtt_refused", "Messages of tables and status that the broker refused", registry=REGISTRY
)


def forget_peer(peer: str, phases: Iterable[str]) -> None:
    """Drop what is labelled by a peer that was removed."""
    for metric in (
        REPLICA_RECORDS_READ,
        REPLICA_RECORDS_DUPLICATE,
        REPLICA_LAG_EVENTS,
        REPLICA_UNFRESH_SECONDS,
        REPLICA_BACKLOG_BYTES,
        REPLICA_SKIPPED_RECORDS,
    ):
        with suppress(KeyError):
            metric.remove(peer)
    for phase in phases:
        with suppress(KeyError):
            REPLICA_PHASE.remove(peer, phase)
    with suppress(KeyError):
        SNAPSHOTS.remove(f"replica/{peer}")
