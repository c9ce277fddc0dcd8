"""What tables show of each kind of thing.

For: columns, once for all commands. Not for: printing (`output`). Invariant: pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from operator import itemgetter

from meshd.cli.output import Column
from meshd.client import (
    BackendItem,
    CloudEvent,
    ClusterItem,
    ExplainedEndpointItem,
    PortItem,
    ServiceItem,
    TableService,
)
from meshd.client.answers import OriginItem, StepItem
from meshd.client.policies import SideItem


def ports_text(ports: Sequence[PortItem]) -> str:
    """Ports like `http:80, dns:53/UDP`."""
    return ", ".join(
        (f"{port['name']}:" if port["name"] else "")
        + str(port["port"])
        + (f"/{port['protocol']}" if port["protocol"] != "TCP" else "")
        for port in ports
    )


def in_and_all(service: TableService) -> str:
    """How many backends take traffic, of how many."""
    backends = service["backends"]
    return f"{sum(backend['eligible'] for backend in backends)}/{len(backends)}"


def backend_state(backend: BackendItem) -> str:
    """In, or out and why."""
    return "in" if backend["eligible"] else f"out: {backend['reason']}"


def _shared(service: ServiceItem) -> str:
    shared = service.get("shared")
    return "as global" if shared is None else "yes" if shared else "no"


def _origin(backend: BackendItem) -> str:
    return origin_text(backend["origin"])


def _shares_text(shares: Mapping[str, int]) -> str:
    return ", ".join(f"{cluster} {percent_text(share)}" for cluster, share in shares.items())


def origin_text(origin: OriginItem | None) -> str:
    """The event that made something so: its place, time and actor."""
    if origin is None:
        return ""
    return f"{origin['cluster']}:{origin['seq']} {origin['time']} {origin['actor']}"


def _type_of(step: StepItem) -> str:
    kind = step["type"].removeprefix("io.meshd.")
    seq = step["snapshot_seq"]
    return kind if seq is None else f"{kind} (as of the snapshot at {seq})"


def _conditions(service: TableService) -> list[str]:
    return [f"{one['type']} ({one['cluster']})" for one in service["conditions"]]


def percent_text(ppm: int) -> str:
    """Parts per million as percent, to a tenth; '-' for nothing."""
    return f"{ppm / 10_000:.1f} %" if ppm else "-"


def made_text(endpoint: ExplainedEndpointItem) -> str:
    """The event that decided."""
    made = endpoint["made"][0]
    return f"{made['what']} {made['cluster']}:{made['seq']} {made['time']} {made['actor']}"


def _side_origin(side: SideItem) -> str:
    """The event of the rule that allows, or of the policies that isolate."""
    if side["rule"] is not None:
        return origin_text(side["rule"]["origin"])
    return ", ".join(origin_text(policy["origin"]) for policy in side["policies"])


def _range_conditions(cluster: ClusterItem) -> str:
    """How many of which type, of those that are told."""
    types = Counter(one["type"] for one in cluster["conditions"])
    left = cluster["conditions_count"] - sum(types.values())
    texts = [f"{number} {name}" for name, number in types.items()]
    return ", ".join([*texts, f"{left} more"] if left > 0 else texts)


def short_type(event: CloudEvent) -> str:
    """An event's type without what all of them start with."""
    return event["type"].removeprefix("io.meshd.")


def _range_text(checked: Mapping[str, object]) -> str:
    return f"{checked['first_seq']} to {checked['last_seq']}" if checked["records"] else "-"


SERVICES = (
    Column("NAMESPACE", itemgetter("namespace")),
    Column("NAME", itemgetter("name")),
    Column("PORTS", lambda item: ports_text(item["ports"])),
    Column("GLOBAL", itemgetter("global")),
    Column("SHARED", _shared),
    Column("AFFINITY", itemgetter("affinity")),
    Column("LABELS", itemgetter("labels")),
)
ENDPOINTS = (
    Column("SERVICE", lambda item: f"{item['namespace']}/{item['service']}"),
    Column("NAME", itemgetter("name")),
    Column("ADDRESS", itemgetter("address")),
    Column("PORTS", lambda item: ports_text(item["ports"])),
    Column("READY", itemgetter("ready")),
    Column("WEIGHT", itemgetter("weight")),
    Column("ZONE", itemgetter("zone")),
    Column("NODE", itemgetter("node")),
)
TABLES = (
    Column("NAMESPACE", itemgetter("namespace")),
    Column("NAME", itemgetter("name")),
    Column("PORTS", lambda item: ports_text(item["ports"])),
    Column("AFFINITY", itemgetter("affinity")),
    Column("CLUSTERS", itemgetter("clusters")),
    Column("BACKENDS", in_and_all),
    Column("CONDITIONS", _conditions),
)
BACKENDS = (
    Column("CLUSTER", itemgetter("cluster")),
    Column("NAME", itemgetter("name")),
    Column("ADDRESS", itemgetter("address")),
    Column("PORTS", lambda item: ports_text(item["ports"])),
    Column("PRIORITY", itemgetter("priority")),
    Column("WEIGHT", itemgetter("weight")),
    Column("STATE", backend_state),
    Column("SINCE (CLUSTER:SEQ, TIME, ACTOR)", _origin),
)
EXPLAINED_TIERS = (
    Column("TIER", itemgetter(0)),
    Column("SHARE", lambda row: percent_text(row[1]["share_ppm"])),
    Column("CLUSTERS", lambda row: row[1]["clusters"]),
    Column("IN", lambda row: f"{row[1]['eligible']}/{row[1]['backends']}"),
    Column("PLACE", lambda row: row[1]["order"]),
    Column("WHY", lambda row: row[1]["why"]),
)
EXPLAINED_ENDPOINTS = (
    Column("CLUSTER", itemgetter("cluster")),
    Column("NAME", itemgetter("name")),
    Column("TIER", itemgetter("tier")),
    Column("SHARE", lambda item: percent_text(item["share_ppm"])),
    Column("STATE", lambda item: item["reason"] or "in"),
    Column("WHY", itemgetter("why")),
    Column("MADE BY (CLUSTER:SEQ, TIME, ACTOR)", made_text),
)
SLOTS = (
    Column("CLUSTER", lambda row: row[0]["cluster"]),
    Column("NAME", lambda row: row[0]["name"]),
    Column("ADDRESS", lambda row: row[0]["address"]),
    Column("SLOTS", itemgetter(1)),
)
OPERATIONS = (
    Column("NAME", itemgetter("name")),
    Column("KIND", itemgetter("kind")),
    Column("SUBJECTS", itemgetter("subjects")),
    Column("TO", itemgetter("to")),
    Column("STAGE", lambda item: f"{item['stage']}/{len(item['stages'])}"),
    Column("TURNED UP (%)", lambda item: sorted(set(item["turned_percent"].values()))),
    Column("PROGRESS", itemgetter("progress")),
    Column("BY", itemgetter("by")),
    Column("NEXT AT", itemgetter("next_at")),
    Column("REASON", lambda item: item["reason"] or item["waits_for"]),
)
STAGES = (
    Column("STAGE", itemgetter("number")),
    Column("TURNED UP (%)", itemgetter("turned_percent")),
    Column("HELD (s)", lambda item: f"{item['hold_s']:g}"),
    Column("REACHED", itemgetter("reached")),
)
FORESEEN = (
    Column("STAGE", itemgetter("stage")),
    Column("TURNED UP (%)", itemgetter("turned_percent")),
    Column("SERVICE", itemgetter("service")),
    Column("TRAFFIC", lambda row: _shares_text(row["shares"])),
)
CLUSTERS = (
    Column("NAME", itemgetter("name")),
    Column("ID", itemgetter("id")),
    Column("SELF", itemgetter("self")),
    Column("PHASE", itemgetter("phase")),
    Column("REGION", itemgetter("region")),
    Column("ZONE", itemgetter("zone")),
    Column("STATE", itemgetter("state")),
    Column("WEIGHT", itemgetter("weight")),
    Column("TURNED UP (%)", itemgetter("turned_percent")),
    Column("ANNOUNCES", itemgetter("announces")),
    Column("SEQ", itemgetter("seq")),
    Column("SERVICES", itemgetter("services")),
    Column("ENDPOINTS", itemgetter("endpoints")),
    Column("NODES", itemgetter("nodes")),
    Column("CONDITIONS", _range_conditions),
)
NODES = (
    Column("NAME", itemgetter("name")),
    Column("ADDRESSES", itemgetter("addresses")),
    Column("POD CIDRS", itemgetter("pod_cidrs")),
    Column("TUNNEL", itemgetter("tunnel_endpoint")),
    Column("REGION", itemgetter("region")),
    Column("ZONE", itemgetter("zone")),
    Column("AUDIENCES", itemgetter("audiences")),
    Column("LABELS", itemgetter("labels")),
)
PROBES = (
    Column("NAMESPACE", itemgetter("namespace")),
    Column("SERVICE", itemgetter("service")),
    Column("NAME", itemgetter("name")),
    Column("ADDRESS", itemgetter("address")),
    Column("BY", itemgetter("type")),
    Column("RESULT", lambda item: f"held: {item['held']}" if item["held"] else item["result"]),
    Column("SINCE", itemgetter("since")),
    Column("FAILED", lambda item: f"{item['failed']} of {item['asked']}"),
    Column("LAST ERROR", lambda item: item["why"] or item["last_error"]),
)
REGISTRATIONS = (
    Column("NAMESPACE", itemgetter("namespace")),
    Column("SERVICE", itemgetter("service")),
    Column("NAME", itemgetter("name")),
    Column("TTL", lambda item: f"{item['ttl_s']} s"),
    Column("LEFT", lambda item: "" if item["left_s"] is None else f"{item['left_s']:.0f} s"),
    Column("HOLDER", itemgetter("holder")),
    Column("SINCE", itemgetter("since")),
)
IDENTITIES = (
    Column("NUMBER", itemgetter("number")),
    Column("LABELS", itemgetter("labels")),
    Column("AUDIENCES", itemgetter("audiences")),
    Column("SOURCE", itemgetter("source")),
)
POLICIES = (
    Column("NAMESPACE", itemgetter("namespace")),
    Column("NAME", itemgetter("name")),
    Column("ISOLATES", itemgetter("directions")),
    Column("RULES", lambda item: len(item["ingress"]) + len(item["egress"])),
    Column("AUDIENCES", itemgetter("audiences")),
    Column("CONDITIONS", lambda item: [one["type"] for one in item["conditions"]]),
    Column("SINCE (CLUSTER:SEQ, TIME, ACTOR)", lambda item: origin_text(item["origin"])),
)
POLICY_RULES = (
    Column("DIRECTION", itemgetter(0)),
    Column("RULE", itemgetter(1)),
    Column("PEERS", itemgetter(2)),
    Column("PORTS", itemgetter(3)),
    Column("HTTP", itemgetter(4)),
)
SIDES = (
    Column("DIRECTION", itemgetter("direction")),
    Column("CLUSTER", itemgetter("cluster")),
    Column("VERDICT", itemgetter("verdict")),
    Column("WHY", itemgetter("why")),
    Column("MADE BY (CLUSTER:SEQ, TIME, ACTOR)", _side_origin),
)
MATRIX = (
    Column("FROM", itemgetter(0)),
    Column("TO", itemgetter(1)),
    Column("PORTS", itemgetter(2)),
    Column("CONDITIONAL", itemgetter(3)),
)
RANGE_CONDITIONS = (
    Column("TYPE", itemgetter("type")),
    Column("CLUSTERS", itemgetter("clusters")),
    Column("RANGES", itemgetter("ranges")),
    Column("WHAT", itemgetter("message")),
)
PEERS = (
    Column("NAME", itemgetter("name")),
    Column("PHASE", itemgetter("phase")),
    Column("STANDING", itemgetter("standing")),
    Column("LINK", itemgetter("link")),
    Column("SEQ", itemgetter("seq")),
    Column("LAG", itemgetter("lag_events")),
    Column("HEARTBEAT AGE (s)", itemgetter("heartbeat_age_s")),
    Column("RECONNECTS", itemgetter("reconnects")),
    Column("SKIPPED", itemgetter("skipped")),
    Column("REASON", itemgetter("reason")),
)
EVENTS = (
    Column("CLUSTER", itemgetter("meshdcluster")),
    Column("SEQ", itemgetter("meshdseq")),
    Column("TIME", itemgetter("time")),
    Column("TYPE", short_type),
    Column("SUBJECT", itemgetter("subject")),
    Column("ACTOR", itemgetter("meshdactor")),
)
DIFF = (
    Column("SERVICE", itemgetter(0)),
    Column("BACKEND", itemgetter(1)),
    Column("CHANGE", itemgetter(2)),
    Column("WHAT", itemgetter(3)),
    Column("BY (CLUSTER:SEQ, TIME, ACTOR)", itemgetter(4)),
)
HISTORY = (
    Column("CLUSTER", lambda row: row[0]["cluster"]),
    Column("SEQ", lambda row: row[0]["seq"]),
    Column("TIME", lambda row: row[0]["time"]),
    Column("ACTOR", lambda row: row[0]["actor"]),
    Column("TYPE", lambda row: _type_of(row[0])),
    Column("SUBJECT", lambda row: row[0]["subject"]),
    Column("WHAT", itemgetter(1)),
)
SETTINGS = (
    Column("SETTING", itemgetter("setting")),
    Column("VALUE", itemgetter("value")),
    Column("FROM", itemgetter("from")),
)
CHECKED = (
    Column("NAME", itemgetter("name")),
    Column("LOG", itemgetter("log")),
    Column("SEQ", _range_text),
    Column("RECORDS", itemgetter("records")),
    Column("EVENTS", itemgetter("events")),
    Column("BYTES", itemgetter("bytes")),
    Column("FIRST", itemgetter("first_time")),
    Column("LAST", itemgetter("last_time")),
    Column("VERDICT", itemgetter("verdict")),
)
STATE = (
    Column("KIND", itemgetter(0)),
    Column("KEY", itemgetter(1)),
    Column("SEQ", lambda row: row[2].seq),
    Column("ACTOR", lambda row: row[2].actor),
)
